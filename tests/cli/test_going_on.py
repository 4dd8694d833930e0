"""Jobs on disk: begun, stopped, resumed, made longer, changed."""

import importlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from longtake.cli import main
from longtake.cli.extend import earlier, longer
from longtake.errors import JobError, RunError
from longtake.events import Planned
from longtake.job import Anchor, Job, Lora, PromptSpan, SectionChange, WeightSpan
from longtake.video import read_metadata

BEGIN = ["generate", "a.png", "It moves.", "--frames", "100", "--steps", "2", "--zoom", "1", "--job", "job"]


def said(capsys, words, code=0):
    assert main(words) == code
    return capsys.readouterr()


def sections(folder="job"):
    return {
        int(file.stem): file.stat().st_mtime_ns for file in Path(folder, "sections").glob("*.safetensors")
    }


def test_a_job_is_begun_stopped_and_resumed(pipeline, place, capsys, monkeypatch):
    pipeline.numbers = 2
    words = [*BEGIN, "--seed", "4", "--crf", "20", "--zoom", "2"]
    assert "The power is out." in said(capsys, words, 2).err
    assert sorted(sections()) == [1, 2] and not Path("job/video.mp4").exists()
    text = said(capsys, ["info", "job"]).out
    assert "sections done    1 2" in text and "sections missing 0" in text and "It moves." in text

    assert "job holds a job already; go on with it by: longtake resume job" in said(capsys, words, 2).err
    Path("a.png").unlink()
    monkeypatch.chdir("job")
    pipeline.numbers, before = None, sections(".")
    resumed = said(capsys, ["resume", "."])
    lines = [line.split(" in ")[0] for line in resumed.err.splitlines()]
    assert lines == [
        "100 frames (3.33 s at 30 fps)",
        "section 1/3 kept",
        "section 2/3 kept",
        "section 3/3 done",
    ]
    assert "video.mp4: 100 frames, 64 x 48 (enlarged 2 times, to 128 x 96)" in resumed.out
    assert pipeline.inputs.pictures[0].size == (64, 64) and len(pipeline.inputs.pictures) == 1
    assert {number: sections(".")[number] for number in before} == before
    meta = read_metadata("video.mp4")
    assert (meta.width, meta.frames, meta.job) == (128, 100, pipeline.job)
    assert (pipeline.job.seed, pipeline.job.width) == (4, 64)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RunError("The memory is full.")])
def test_what_stops_says_how_to_go_on(pipeline, place, capsys, error):
    folder = place / "a job"

    def stopped(folder, numbers):
        yield Planned(3, 100, 2)
        raise error

    pipeline.job_events = stopped
    words = ["generate", "a.png", "It moves.", "--frames", "100", "--job", "a job"]
    code = 130 if isinstance(error, KeyboardInterrupt) else 1
    assert f"go on by: longtake resume '{folder}'\n" in said(capsys, words, code).err
    events = [json.loads(line) for line in said(capsys, ["resume", "a job", "--json"], code).out.splitlines()]
    assert [event["event"] for event in events[-2:]] == ["stopped", "error"]
    assert events[-2]["folder"] == str(folder)


def test_a_refusal_says_nothing_of_going_on(pipeline, capsys):
    said(capsys, BEGIN)
    assert "go on by" not in said(capsys, ["extend", "job", "--frames", "1"], 2).err


def test_a_part_may_be_elsewhere_by_now(pipeline, capsys):
    said(capsys, BEGIN)
    said(capsys, ["resume", "job", "--part", "vae=embedded"])
    assert pipeline.parts == {"vae": "embedded"}


def test_a_video_elsewhere_is_named_again_to_go_on(pipeline, place, capsys):
    said(capsys, [*BEGIN, "-o", "out.mp4"])
    assert Path("out.mp4").exists() and not Path("job/video.mp4").exists()
    # The folder may be a stranger's, and out.mp4 somebody else's by now.
    before = Path("out.mp4").stat().st_mtime_ns
    told = said(capsys, ["resume", "job"]).err
    assert "out.mp4, which lies outside of its folder and is left alone" in told and told.startswith("note: ")
    assert Path("job/video.mp4").exists() and Path("out.mp4").stat().st_mtime_ns == before
    said(capsys, ["resume", "job", "-o", "other.mp4"])
    assert Path("other.mp4").exists()


def test_resuming_for_machines(pipeline, capsys):
    said(capsys, BEGIN)
    events = [json.loads(line) for line in said(capsys, ["resume", "job", "--json"]).out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds == ["loading", "loaded", "planned", *["section_done"] * 3, "frames_ready", "done"]
    assert [event["kept"] for event in events if event["event"] == "section_done"] == [True] * 3
    assert events[-1]["folder"] == os.path.realpath("job")
    assert events[-1]["file"] == os.path.realpath("job/video.mp4")


def test_a_job_is_extended(pipeline, capsys):
    said(capsys, [*BEGIN, "--sampling", "vanilla"])
    before = sections()
    assert "frames, 64 x 48" in said(capsys, ["extend", "job", "--seconds", "1.5"]).out
    assert pipeline.job.frames == 145 and sorted(sections()) == [0, 1, 2, 3]
    assert {number: sections()[number] for number in before} == before
    assert "at least one frame; -3 were" in said(capsys, ["extend", "job", "--frames", "-3"], 2).err
    assert read_metadata("job/video.mp4").frames == 145


def test_a_planned_job_is_extended_where_no_end_moves():
    job = Job("It moves.", sampling="planned", frames=8 * 36 + 1)
    assert longer(job, 5).frames == job.frames + 5
    for changed in (replace(job, frames=9 * 36), replace(job, anchors=(Anchor("end", "last.png"),))):
        with pytest.raises(JobError, match="every 4 sections have an end that is made first"):
            longer(changed, 5)
    with pytest.raises(
        JobError, match="cannot move afterwards; extend is for jobs with --sampling vanilla, anchored"
    ):
        longer(replace(job, sampling="endpoint"), 5)


def test_an_inverted_job_is_not_extended(pipeline, capsys):
    said(capsys, BEGIN)
    assert "cannot move afterwards" in said(capsys, ["extend", "job", "--seconds", "1"], 2).err
    assert len(sections()) == 3 and json.loads(Path("job/job.json").read_text())["job"]["frames"] == 100


def test_a_section_is_made_again(pipeline, capsys):
    said(capsys, [*BEGIN, "--seed", "3"])
    before = sections()
    told = said(capsys, ["redo", "job", "--section", "1", "--seed", "7", "--prompt", "It jumps."])
    assert "sections to make again: 0, 1; kept: 1\n" in told.err
    assert pipeline.job.changes == (SectionChange(1, 7, "It jumps."),)
    assert [sections()[number] == before[number] for number in range(3)] == [False, False, True]
    for words, sentence in (
        (["--section", "1", "--seed", "7"], "made with this seed and prompt already"),
        (["--seed", "7"], "name it by --section N or --seconds A-B"),
        ([], "Name what is made again"),
        (["--section", "3-1", "--seed", "1"], "sections look like 3 or 2,5-7"),
        (["--seconds", "4", "--seed", "1"], "has 3.33333 s; it was asked to be made again from 4 s on"),
        (["--section", "3", "--seed", "1"], "no section 3; this video has the sections 0 to 2"),
        (["--section", "1", "--seed", "-1"], "must be at least 0; -1"),
    ):
        assert sentence in said(capsys, ["redo", "job", *words], 2).err
    assert len(sections()) == 3
    # What is not given stays; the job's own values take a change back.
    said(capsys, ["redo", "job", "--section", "1", "--seed", "3"])
    assert pipeline.job.changes == (SectionChange(1, None, "It jumps."),)
    said(capsys, ["redo", "job", "--section", "1", "--prompt", "It moves."])
    assert pipeline.job.changes == ()


def test_a_piece_of_another_length_is_refused(pipeline, capsys):
    from hashlib import sha256

    said(capsys, BEGIN)
    pieces = {read_metadata(file).frames: file for file in Path("job/pieces").iterdir()}
    assert sorted(pieces) == [27, 36, 37] and read_metadata("job/video.mp4").frames == 100
    own, other = pieces[36], pieces[27].read_bytes()
    stranger = own.with_name(f"{own.name[:32]}-{sha256(other).hexdigest()[:32]}.mp4")
    stranger.write_bytes(other)
    own.unlink()
    assert "has 27 frames, and section 1 has 36; take it away" in said(capsys, ["resume", "job"], 1).err
    stranger.write_bytes(b"damaged")
    said(capsys, ["resume", "job"])
    assert read_metadata("job/video.mp4").frames == 100 and not stranger.exists()


def test_another_take_is_made_listed_chosen_and_undone(pipeline, capsys):
    said(capsys, [*BEGIN, "--seed", "3"])
    first = sections()
    said(capsys, ["redo", "job", "--seconds", "1.3-2.4"])
    assert pipeline.job.changes == (SectionChange(1, 4),), "a seed that it never had"
    listed = said(capsys, ["takes", "job"]).out.splitlines()
    assert listed[2].split()[:3] == ["2", "in", "use"] and len(listed) == 6, "two of 0 and 1, one of 2"
    told = json.loads(said(capsys, ["takes", "job", "--section", "1", "--json"]).out)["takes"]["1"]
    assert [(take["used"], take["seed"], take["prompt"]) for take in told] == [
        (False, 3, "It moves."),
        (True, 4, "It moves."),
    ]
    pipeline.numbers = 1  # nothing needs to be made
    said(capsys, ["undo", "job"])
    assert pipeline.job.changes == () and sections() == first
    said(capsys, ["takes", "job", "--section", "1", "--use", "2"])
    assert pipeline.job.changes == (SectionChange(1, 4),)
    said(capsys, ["takes", "job", "--section", "1", "--use", told[0]["take"]])
    assert pipeline.job.changes == () and sections() == first
    for words, sentence in (
        (["takes", "job", "--use", "2"], "name it by --section N"),
        (["takes", "job", "--section", "3"], "no section 3"),
        (
            ["takes", "job", "--section", "1", "--use", "3"],
            "Section 1 has the takes 1 to 2; '3' was asked for",
        ),
        (["takes", "job", "--keep-takes", "1"], "A list makes nothing"),
        (["takes", "job", "--sheet", "takes.png"], "no latent-to-RGB projection for this model's 4 channels"),
        (["redo", "job", "--section", "1", "--keep-takes", "-1"], "lies between 0 and 10000; '-1' was given"),
    ):
        assert sentence in said(capsys, words, 2).err
    for _ in range(2):
        said(capsys, ["undo", "job"])
    assert "There is nothing to undo" in said(capsys, ["undo", "job"], 2).err


def test_takes_are_limited(pipeline, capsys):
    said(capsys, BEGIN)
    for seed in range(1, 4):
        said(capsys, ["redo", "job", "--section", "0", "--seed", str(seed), "--keep-takes", "2"])
    told = json.loads(said(capsys, ["takes", "job", "--section", "0", "--json"]).out)["takes"]["0"]
    assert [take["seed"] for take in told] == [1, 2, 3] and told[2]["used"], "the oldest one went"
    said(capsys, ["redo", "job", "--section", "0", "--seed", "4", "--keep-takes", "0"])
    assert not list(Path("job/takes").iterdir())


def test_a_picture_is_replaced_and_comes_back(pipeline, place, capsys):
    said(capsys, BEGIN)
    before, first = sections(), Path("job/first.png").read_bytes()
    Image.new("RGB", (64, 64), "blue").save("b.png")
    assert (
        "sections to make again: 0, 1, 2; kept: 0\n"
        in said(capsys, ["redo", "job", "--picture", "b.png"]).err
    )
    assert pipeline.job.picture == "b.png" and pipeline.inputs.pictures[0].getpixel((0, 0)) == (0, 0, 255)
    # As if the process had been killed before the file was replaced.
    Path("job/first.png").write_bytes(first)
    said(capsys, ["resume", "job"])
    assert pipeline.inputs.pictures[0].getpixel((0, 0)) == (0, 0, 255)
    said(capsys, ["redo", "job", "--last-image", "a.png", "--keyframe", "2=b.png:0.5"])
    assert pipeline.inputs.pictures[2.0].getpixel((0, 0)) == (0, 0, 255)
    assert [(anchor.at, anchor.strength) for anchor in pipeline.job.anchors] == [
        (0, 1),
        (2.0, 0.5),
        ("end", 1),
    ]
    twice = ["redo", "job", "--picture", "b.png", "--keyframe", "0=a.png"]
    assert "the command names a time twice" in said(capsys, twice, 2).err
    assert "end" in pipeline.inputs.pictures and pipeline.job.last_picture == "a.png"
    said(capsys, ["undo", "job"])
    assert list(pipeline.inputs.pictures) == [0] and sorted(
        file.name for file in Path("job").glob("*.png")
    ) == ["first.png"]
    said(capsys, ["undo", "job"])
    assert Path("job/first.png").read_bytes() == first and sections() == before


def test_a_video_from_text_gets_a_picture_and_loses_it(pipeline, place, capsys, monkeypatch):
    loading = importlib.import_module("longtake.pipeline.loading")
    load = loading.load_networks

    def load_networks(*words, **options):
        networks = load(*words, **options)
        networks.settings["from_text"] = True
        return networks

    monkeypatch.setattr(loading, "load_networks", load_networks)
    said(capsys, ["generate", *BEGIN[2:]])
    assert pipeline.job.from_text and not pipeline.inputs.pictures and not Path("job/first.png").exists()
    before = sections()
    assert sorted(before) == [0, 1, 2, 3]
    said(capsys, ["resume", "job"])
    assert pipeline.job.from_text and sections() == before
    said(capsys, ["redo", "job", "--picture", "a.png"])
    assert not pipeline.job.from_text and list(pipeline.inputs.pictures) == [0]
    assert sorted(sections()) == [0, 1, 2]
    said(capsys, ["undo", "job"])
    assert pipeline.job.from_text and not pipeline.inputs.pictures and sections() == before


def test_a_video_gets_another_length(pipeline, capsys):
    said(capsys, [*BEGIN, "--sampling", "vanilla"])
    before = sections()
    said(capsys, ["redo", "job", "--length", "1.5"])
    assert pipeline.job.frames == 45 and sorted(sections()) == [0, 1]
    said(capsys, ["redo", "job", "--frames", "100"])
    assert sections() == before


def test_an_inverted_job_is_extended_at_its_beginning(pipeline, capsys):
    said(capsys, [*BEGIN[:3], *BEGIN[5:], "--frames", "181"])
    before = sections()
    told = said(capsys, ["extend", "job", "--seconds", "2", "--before"]).err
    assert "72 frames (2.4 s) are put before what is there" in told and "to make again: 2, 3; kept: 3" in told
    assert (pipeline.job.frames, pipeline.job.origin) == (253, 2)
    assert [sections()[number + 2] == before[number] for number in (2, 3, 4)] == [True] * 3
    pipeline.numbers = 3
    said(capsys, ["undo", "job"])
    assert sections() == before
    assert "with --before, at its beginning" in said(capsys, ["extend", "job", "--frames", "9"], 2).err


def test_where_a_beginning_cannot_move():
    job = Job("It moves.", frames=3 * 36 + 1)
    for changed, sentence in (
        (job, "nothing of it would stay; begin a new one of 145 frames"),
        (replace(job, sampling="vanilla"), "nothing that is made can come before"),
        (replace(job, sampling="planned"), "nothing that is made can come before"),
        (replace(job, anchors=(Anchor(1.5, "b.png"),)), "A job with pictures in between"),
        (replace(job, from_text=True), "A job with a first frame from its prompt"),
        (replace(job, frames=181, prompts=(PromptSpan("x", 0.5, 1.3),)), "said of less than half a section"),
    ):
        with pytest.raises(JobError, match=sentence):
            earlier(changed, 20)


def test_what_is_said_of_seconds_and_sections_moves_with_them():
    spans = (PromptSpan("it jumps", 2.0, 3.0), PromptSpan("it sits", 0.0, 1.0))
    loras = (Lora("a", (1.0, 0.5)), Lora("b", (WeightSpan(1.0, 1.0),)))
    job = Job("x", frames=181, fps=36, prompts=spans, loras=loras, changes=(SectionChange(3, 7),))
    moved = earlier(job, 72)
    assert [(span.start, span.end) for span in moved.prompts] == [(4.0, 5.0), (0.0, 3.0)]
    assert moved.loras[0].weights == (1.0, 1.0, 1.0, 0.5) and moved.loras[1].weights[0].start == 3.0
    assert moved.changes == (SectionChange(5, 7),)


def test_a_job_of_another_model_or_a_newer_version_is_refused(pipeline, place, capsys):
    said(capsys, BEGIN)
    file = Path("job/job.json")
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "model": "another"}))
    assert "begun with another model than embedded is now" in said(capsys, ["resume", "job"], 2).err
    file.write_text(json.dumps({**values, "longtake": "9.0", "format": 99}))
    for words in (["resume", "job"], ["extend", "job", "--seconds", "1"], ["info", "job"]):
        assert "begun by longtake 9.0, which is newer" in said(capsys, words, 2).err
    file.write_text("{")
    assert "job.json is damaged" in said(capsys, ["resume", "job"], 2).err
