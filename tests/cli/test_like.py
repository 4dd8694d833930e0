"""`--like`, `--preset`, `--save-preset` and `show`: settings that come from files, and what the command changes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longtake.cli import main, parser
from longtake.cli.like import filled
from longtake.job import Anchor, Clip, Job, Lora, PromptSpan
from longtake.video import export_to_video, read_metadata

FIRST = Anchor(0, "a.png")
JOB = Job(
    "It moves.",
    anchors=(FIRST, Anchor("end", "a.png")),
    prompts=(PromptSpan("it jumps", 1.0, 3.0, seed=5),),
    frames=130,
    fps=24,
    width=64,
    height=48,
    steps=7,
    seed=3,
    dtype="float32",
    cfg_scale=2.0,
    negative_prompt="blur",
)


def carried(name="v.mp4", job=JOB, zoom=2):
    frames = np.zeros((2, job.height, job.width, 3), np.uint8)
    export_to_video(frames, name, 24, job=job, zoom=zoom)
    return name


@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.mov", "v.gif", "frames/"])
def test_a_video_is_made_again_from_what_it_carries(pipeline, name, capsys):
    assert main(["generate", "--like", carried(name), "-o", "again.mp4"]) == 0
    assert pipeline.job == JOB
    assert {each.size for each in pipeline.inputs.pictures.values()} == {(64, 64)}
    again = read_metadata("again.mp4")
    assert again.job == JOB and (again.width, again.height) == (128, 96)  # the zoom is the video's
    assert main(["show", name]) == 0
    told = capsys.readouterr().out
    for line in (
        "It moves.",
        "1 to 3 s       it jumps (seed 5)",
        "the end        picture a.png",
        "seed           3",
    ):
        assert line in told
    assert f"longtake generate --like {name}" in told
    assert main(["show", name, "--json"]) == 0
    assert Job.from_json(capsys.readouterr().out) == JOB


def test_what_the_command_gives_goes_first(pipeline):
    carried()
    Image.new("RGB", (32, 32)).save("b.png")
    options = "--seed 8 --frames 73 --size 32x32 --steps 3 --no-reference --last-image b.png --zoom 1"
    words = options.split()
    assert main(["generate", "--like", "v.mp4", *words, "It rests."]) == 0
    told = pipeline.job
    assert (told.prompt, told.seed, told.frames, told.fps, told.width, told.height, told.steps) == (
        "It rests.", 8, 73, 24, 32, 32, 3,
    )  # fmt: skip
    assert told.anchors == (FIRST, Anchor("end", "b.png")) and told.prompts == JOB.prompts
    assert Path("v-2.mp4").exists()  # named after it, and not in its place
    assert main(["generate", "--like", "v.mp4", "b.png", "It rests.", "--seconds", "4"]) == 0
    assert pipeline.job.anchors == (Anchor(0, "b.png"), Anchor("end", "a.png")) and pipeline.job.frames == 96


def test_another_model_has_its_own_defaults(pipeline, monkeypatch):
    monkeypatch.setattr(
        "longtake.weights.folder.describe_part", lambda name, place: {"class": "Net", "bytes": 1}
    )
    carried(
        job=Job("x", anchors=(FIRST,), model="embedded", parts={"vae": "model"}, width=64, height=48, steps=9)
    )
    assert main(["generate", "--like", "v.mp4", "--model", "framepack-f1"]) == 0
    assert pipeline.job.sampling == "vanilla"  # the model's
    assert (pipeline.job.steps, pipeline.job.parts) == (9, {})  # what was asked; what was the other model's


def test_a_job_in_a_folder_or_a_file_will_do(pipeline):
    assert main(["generate", "a.png", "It moves.", "--seed", "4", "--job", "job", "--frames", "20"]) == 0
    first = pipeline.job
    Path("a.png").unlink()  # the folder keeps it
    assert main(["generate", "--like", "job", "-o", "a.mp4"]) == 0
    assert pipeline.job.seed == 4 and pipeline.job.anchors[0].image.endswith("first.png")
    Path("there").mkdir()
    Image.new("RGB", (64, 64)).save("there/a.png")
    Path("there/job.json.json").write_text(first.to_json())
    assert main(["generate", "--like", "there/job.json.json", "-o", "a.mp4"]) == 0
    assert pipeline.job.anchors == (Anchor(0, "there/a.png"),)  # beside what it came with


def test_presets(pipeline, capsys):
    Path("fast.json").write_text(
        '{"steps": 4, "seconds": 2, "loras": ["w.safetensors"], "size": "32x48", "crf": 30}'
    )
    Path("w.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    words = ["generate", "a.png", "It moves.", "-o", "out.mp4"]
    assert main([*words, "--preset", "fast.json", "--steps", "5"]) == 0
    told = pipeline.job
    assert (told.steps, told.frames, told.width, told.height) == (5, 60, 32, 48)
    assert told.loras == (Lora("w.safetensors"),)
    Path("slow.json").write_text(
        '{"steps": 50, "fps": 24, "prompts": [{"from": 1, "to": null, "text": "it jumps"}]}'
    )
    assert main([*words, "--preset", "fast.json", "--preset", "slow.json"]) == 0  # the last goes first
    assert (pipeline.job.steps, pipeline.job.frames) == (50, 48)
    assert pipeline.job.prompts == (PromptSpan("it jumps", 1),)
    # What is saved is what was given, and nothing else, so that it switches nothing on by itself.
    assert main(["generate", "--preset", "fast.json", "--cfg", "2", "--save-preset", "both.json"]) == 0
    assert "--preset both.json" in capsys.readouterr().out
    saved = json.loads(Path("both.json").read_text())
    assert saved == {
        "steps": 4, "seconds": 2, "size": "32x48", "crf": 30, "cfg_scale": 2.0,
        "loras": [{"path": "w.safetensors", "weights": [1.0]}],
    }  # fmt: skip
    assert main([*words, "--preset", "both.json"]) == 0
    assert (pipeline.job.steps, pipeline.job.cfg_scale, pipeline.job.frames) == (4, 2.0, 60)


def test_a_preset_in_toml(pipeline):
    pytest.importorskip("tomllib" if __import__("sys").version_info >= (3, 11) else "tomli")
    Path("p.toml").write_text('steps = 4\n[[keyframes]]\nat = "end"\nimage = "a.png"\n')
    assert main(["generate", "a.png", "It moves.", "--preset", "p.toml"]) == 0
    assert pipeline.job.steps == 4 and pipeline.job.anchors == (FIRST, Anchor("end", "a.png"))


REFUSED = {
    ("--preset", "typo.json"): "the key 'step', which is no setting; did you mean 'steps'?",
    ("--preset", "machine.json"): "what belongs to this machine is given in the command",
    ("--preset", "both.json"): "frames and seconds; a length is one of them",
    ("--preset", "list.json"): "should be an object of JSON",
    ("--preset", "none.json"): "none.json cannot be read: No such file",
    ("--preset", "wrong.json"): "steps must be a whole number; 'many' was given",
    ("--preset", "size.json"): "a size looks like 640x480",
    ("--preset", "bad.toml"): "bad.toml is no TOML",
    ("--save-preset", "p.yaml"): "a file that ends in .json; p.yaml",
    ("--save-preset", "none/p.json"): "none/p.json cannot be written",
    ("--like", "plain.mp4"): "plain.mp4 carries no job",
    ("--like", "web.mp4"): "an address out of a file is not fetched: get the picture, and give it as PICTURE",
    ("--like", "none.mp4"): "There is no file none.mp4",
    ("--like", "notes.txt"): "notes.txt is none of them",
    ("--like", "list.json"): "This is not a job",
}


@pytest.fixture
def files(place):
    for name, text in {
        "typo.json": '{"step": 4}',
        "machine.json": '{"vram": 4}',
        "both.json": '{"frames": 4, "seconds": 4}',
        "list.json": "[]",
        "wrong.json": '{"steps": "many"}',
        "size.json": '{"size": "large"}',
        "bad.toml": "steps =",
        "notes.txt": "",
    }.items():
        Path(name).write_text(text)
    carried("web.mp4", Job("x", anchors=(Anchor(0, "https://example.org/a.png"),), width=64, height=48))
    export_to_video([Image.new("RGB", (16, 16))], "plain.mp4")


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_files_that_hold_no_settings_are_one_sentence(files, capsys, words):
    more = [] if words[0] == "--like" else ["a.png", "It moves."]
    assert main(["generate", *more, *words]) == 2
    said = capsys.readouterr().err
    assert REFUSED[words] in said and said.count("\n") == 1


def test_one_word_is_the_prompt(place, capsys):
    assert main(["generate", "a.png"]) == 2
    assert "a.png is a picture; what happens is missing" in capsys.readouterr().err
    assert main(["generate", "a.png", "It", "moves."]) == 2
    assert "put the prompt in quotes" in capsys.readouterr().err


def test_words_may_stand_between_options(pipeline):
    assert main(["generate", "--frames", "3", "a.png", "--steps", "2", "It moves.", "-o", "a.mp4"]) == 0
    assert (pipeline.job.prompt, pipeline.job.picture, pipeline.job.steps) == ("It moves.", "a.png", 2)


def test_a_stranger_s_words_do_not_move_the_cursor(place, capsys):
    carried(job=Job("a\x1b[2J\nb", width=64, height=48))
    assert main(["show", "v.mp4"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_video_made_again_has_the_same_frames(tmp_path, monkeypatch, request):
    networks = request.getfixturevalue("networks")  # tiny ones, through the real pipeline
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("longtake.cli.make.load", lambda job, machine, progress: networks)
    monkeypatch.setattr("longtake.cli.make._checked_model", lambda job, kept, progress: "a model")
    Image.new("RGB", (40, 40), "red").save("a.png")
    words = ["--frames", "19", "--window", "2", "--steps", "2", "--seed", "5", "--zoom", "1"]
    assert main(["generate", "a.png", "a star", *words, "-o", "a/", "--job", "job"]) == 0
    assert main(["generate", "--like", "a/", "-o", "b/"]) == 0
    assert main(["generate", "--like", "job", "-o", "c/", "--zoom", "1"]) == 0
    assert main(["generate", "--like", "a/00003.png", "-o", "d/", "--seed", "6", "--zoom", "1"]) == 0
    pictures = [[np.asarray(Image.open(file)) for file in sorted(Path(name).iterdir())] for name in "abcd"]
    assert len(pictures[0]) == 19
    assert np.array_equal(pictures[0], pictures[1]) and np.array_equal(pictures[0], pictures[2])
    assert not np.array_equal(pictures[0], pictures[3])


def test_what_a_video_begins_with_is_one_thing(place):
    carried("clip.mp4", Job("x", clip=Clip("c.mp4"), width=64, height=48, sampling="vanilla"))
    carried("first.mp4", Job("x", anchors=(FIRST,), width=64, height=48))
    for like, picture, clip, told in (
        ("clip.mp4", None, None, (None, Clip("c.mp4"), ())),
        ("clip.mp4", "b.png", None, ("b.png", None, ())),
        ("first.mp4", None, None, (None, None, (FIRST,))),
        ("first.mp4", None, Clip("d.mp4"), (None, Clip("d.mp4"), ())),
    ):
        args = parser().parse_args(["generate", "--like", like])
        args.picture, args.prompt, args.clip = picture, None, clip
        assert filled(args)
        assert (args.picture, args.clip, tuple(args.anchors or ())) == told
        assert args.zoom == (None if like == "clip.mp4" else 2)  # a joined video has its clip's size
