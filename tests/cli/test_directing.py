"""What stands in time, on the command line: prompts, key frames, timelines in files; and how a plan tells of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from longtake.cli import main
from longtake.cli.directing import keyframe
from longtake.cli.generate import add_arguments, named
from longtake.cli.options import job_of
from longtake.job import Anchor, Job, Lora, PromptSpan, WeightSpan


def job(*words: str) -> Job:
    """The job that these words of `longtake generate` ask for."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_intermixed_args(words)
    args.picture, args.prompt = named(args.words)
    return job_of(args)


def test_times_in_the_prompt_and_pictures_at_seconds() -> None:
    found = job(
        "a.png", "A penguin [0s-2s: walks] [2s: jumps]", "--keyframe", "2.5s=b.png:0.5", "--keyframe", "end=c.png",
        "--keyframe", "0:04=http://x:80/d.png", "--blend", "2",
    )  # fmt: skip
    assert found == Job(
        "A penguin",
        prompts=(PromptSpan("walks", 0, 2), PromptSpan("jumps", 2)),
        anchors=(
            Anchor(0, "a.png"), Anchor(2.5, "b.png", 0.5), Anchor("end", "c.png"), Anchor(4, "http://x:80/d.png")
        ),
        blend=2,
    )  # fmt: skip


def test_percent_and_frames_follow_the_length() -> None:
    spans = job("a.png", "[50%:] jumps", "--seconds", "8", "--fps", "10").prompts
    assert spans == (PromptSpan("jumps", 4.0),)
    assert job("a.png", "[11:] jumps", "--seconds", "8", "--fps", "10").prompts == (PromptSpan("jumps", 1.0),)


def test_a_timeline_names_files_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "story"
    folder.mkdir()
    for name in ("b.png", "walk.mp4", "l.safetensors"):
        (folder / name).touch()
    values = {
        "prompts": {"0": "walks", "60": "jumps"},
        "keyframes": [
            {"at": 2, "image": "b.png"},
            {"at": 3, "image": "walk.mp4@0.5s"},
            {"at": 4, "image": "far.png"},
        ],
        "loras": [{"path": "l.safetensors", "weights": [{"from": 1, "weight": 0.5}]}],
    }
    (folder / "story.json").write_text("\ufeff" + json.dumps(values), encoding="utf-8")
    found = job("a.png", "A penguin", "--timeline", str(folder / "story.json"))
    assert [anchor.image for anchor in found.anchors] == [
        "a.png", str(folder / "b.png"), str(folder / "walk.mp4@0.5s"), "far.png"
    ]  # fmt: skip
    assert found.loras == (Lora(str(folder / "l.safetensors"), (WeightSpan(0.5, 1),)),)
    assert found.prompts == (PromptSpan("walks", 0, 2), PromptSpan("jumps", 2))
    (folder / "story.txt").write_text("A penguin\n[0s-2s: walks]", encoding="utf-8")
    assert job("a.png", "", "--timeline", str(folder / "story.txt")).prompt == "A penguin"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--keyframe", "b.png"], "a key frame looks like 2.5=picture.png"),
        (["--keyframe", "x=b.png"], "'x' is no time in a video"),
        (["--keyframe", "50%=b.png"], "stands at seconds or at end; '50%'"),
        (["--keyframe", "2=b.png:3"], "strength of the picture at 2.0 must be at most 2; 3.0"),
        (["--keyframe", "2=b.png", "--keyframe", "2=c.png"], "name a time twice"),
        (["--keyframe", "2=b.png", "--keyframe", "2.05=c.png"], "is too near to the one before it"),
        (["--keyframe", "2=b.png", "--sampling", "vanilla"], "--unforeseen restart"),
        (["--keyframe", "9=b.png"], "stands at the end of this video"),
        (["[1s-3s: walks] [2s-4s: jumps]"], "is not over when the one from 2.0 s begins"),
        (["[9s: jumps]"], "from 9.0 s to the end; this video has 4.83333 s"),
        (["[0s:120%] jumps"], "it ends at 100%"),
        (["[2s-2.01s: jumps]"], "is said in no section"),
        (["--timeline", "none.json"], "The timeline none.json cannot be read: No such file"),
        (["--loop", "--sampling", "vanilla"], "A loop needs a sampling that sees the end"),
        (["--blend", "2"], "needs prompts in time to blend"),
    ],
)
def test_hostile_timelines_are_refused_in_one_sentence(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompted = words[0].startswith("[")
    assert main(["generate", "no-such-picture.png", *([] if prompted else ["A penguin"]), *words]) != 0
    out, err = capsys.readouterr()
    assert says in err and len(err.strip().splitlines()) == 1 and out == ""


def test_a_thousand_prompts_are_refused_or_planned_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(f"[{second}s: number {second}]" for second in range(1000))
    assert main(["plan", text, "--seconds", "1000"]) == 0
    out, _ = capsys.readouterr()
    assert out.count("number 999") == 2 and "… 998 more …" in out
    assert main(["plan", text, "--seconds", "10"]) != 0
    assert "this video has 10 s" in capsys.readouterr().err


def test_a_keyframe_is_a_file_of_its_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b:1").touch()
    assert keyframe("2=b:1") == Anchor(2.0, "b:1") and keyframe("2=c:1") == Anchor(2.0, "c", 1.0)


def test_a_plan_says_where_each_time_has_come_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"loras": [{"path": "l", "weights": [{"from": 1, "to": 3, "weight": 0.5}]}]}
    (tmp_path / "t.json").write_text(json.dumps(values), encoding="utf-8")
    words = ["plan", "A penguin [2s: jumps]", "--keyframe", "2=b.png", "--timeline", str(tmp_path / "t.json")]
    assert main(words) == 0
    out = capsys.readouterr().out
    _, moved, said, *_, sections = out.split("\n\n")
    assert "picture b.png          2.000 s   2.033 s  +1 frame" in moved
    assert "prompt 'jumps' begins  2.000 s   2.033 s  +1 frame" in moved
    assert "LoRA l at 0.5 begins   1.000 s   0.967 s  -1 frame" in moved
    lines = said.splitlines()
    assert lines[0].split() == ["section", "seconds", "says", "pictures"]
    assert " ".join(lines[1].split()) == "0 0.03-0.97 A penguin; 0 l the picture, b.png"
    assert len(lines) == len(sections.splitlines())
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["times"][0] == {"what": "picture b.png", "asked": 2.0, "came": 61 / 30}
    assert [section["told"]["loras"] for section in found["sections"]][-1] == [0.0]


def test_a_plan_may_be_of_a_clip_or_from_text(capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["--clip", "--sampling", "vanilla"], "latent frames 0-19 are the end of the clip"),
        (["--clip"], "latent frame 0 is the picture, 37-55 are the beginning of the clip"),
        (["--from-text"], "latent frame 0 is made from the prompt"),
        (["--loop"], "145 frames"),
    ):
        assert main(["plan", "--seconds", "4.83", *words]) == 0
        assert says in capsys.readouterr().out
