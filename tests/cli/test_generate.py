"""`generate`: what the pipeline is asked for, and what comes of its events."""

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from grey import events_of
from longtake.cli import main
from longtake.cli.options import lora
from longtake.cli.outputs import free_names
from longtake.errors import JobError, LongtakeWarning, ModelError, RunError
from longtake.events import FramesReady, Stepped
from longtake.job import Anchor, Job, Lora
from longtake.video import read_metadata, read_video

FIRST = Anchor(0, "a.png")


def test_generate_writes_what_the_pipeline_makes(pipeline, place, capsys):
    words = ["generate", "a.png", "It moves.", "--seconds", "1.5", "--sheet", "sheet.png", "-o", "out.mp4"]
    assert main([*words, "--seed", "3", "--dtype", "bfloat16", "--device", "cuda:1"]) == 0
    said = capsys.readouterr()
    assert "out.mp4: 45 frames, 64 x 48 (enlarged 6 times, to 384 x 288), 1.5 s at 30 fps" in said.out
    for words in ("load ", "sampling ", "decoding ", "writing ", "peak memory: "):
        assert words in said.out
    lines = said.err.splitlines()
    assert lines[:2] == ["45 frames (1.5 s at 30 fps) in 2 sections of 3 steps", "note: a notice."]
    assert [line.split(" done")[0] for line in lines[2:]] == ["section 1/2", "section 2/2"]

    assert (pipeline.dtype, pipeline.device) == ("bfloat16", "cuda:1")
    expected = Job("It moves.", anchors=(FIRST,), frames=45, width=64, height=48, seed=3, dtype="bfloat16")
    assert pipeline.job == expected
    assert pipeline.inputs.pictures[0].size == (64, 64) and len(pipeline.inputs.pictures) == 1
    assert read_metadata("out.mp4").job == expected
    frames, fps = read_video("out.mp4")
    assert frames.shape == (45, 288, 384, 3) and fps == 30
    with Image.open("sheet.png") as sheet:
        assert sheet.size == (6 * 66 + 2, 4 * 50 + 2)


def test_generate_takes_every_option(pipeline):
    options = """--frames 50 --fps 24 --size 32x64 --last-image a.png --negative blur --steps 7 --solver unipc
        --shift 2.5 --guidance 6 --cfg 3 --cfg-rescale 0.5 --window 5 --reference --crf 30 --zoom 1 --model model
        -o out.mp4"""
    assert main(["generate", "a.png", "It moves.", *options.split()]) == 0
    assert pipeline.job == Job(
        "It moves.",
        negative_prompt="blur",
        anchors=(FIRST, Anchor("end", "a.png")),
        model="model",
        frames=50,
        fps=24,
        width=32,
        height=64,
        window=5,
        steps=7,
        solver="unipc",
        guidance=6.0,
        cfg_scale=3.0,
        cfg_rescale=0.5,
        shift=2.5,
        dtype="float32",
        reference=True,
    )
    meta = read_metadata("out.mp4")
    assert (meta.width, meta.height, meta.fps, meta.frames) == (32, 64, 24, 50)


def test_another_rate_is_another_tempo_and_that_is_said(pipeline, capsys):
    assert main(["generate", "a.png", "It moves.", "--seconds", "2", "--fps", "24", "-o", "out.mp4"]) == 0
    said = capsys.readouterr()
    assert (
        "note: This model makes 30 frames a second, and they are played at 24: everything moves at 0.8"
        in said.err
    )
    assert "48 frames (2 s at 24 fps) in 2 sections" in said.err and "48 frames, 64 x 48" in said.out
    pipeline.settings["fps"] = 24
    assert main(["generate", "a.png", "It moves.", "--seconds", "2", "--fps", "24", "-o", "out.mp4"]) == 0
    assert "This model makes" not in capsys.readouterr().err


def test_generate_takes_loras(pipeline):
    for name in ("walk.safetensors", "odd:0.5"):  # a file wins against the reading as a weight
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes((2).to_bytes(8, "little") + b"{}")
    Path("odd:0.5").rename("odd:0.5.safetensors")
    words = [
        "--lora",
        "walk.safetensors",
        "--lora",
        "./walk.safetensors:-1,0.5",
        "--lora",
        "odd:0.5.safetensors",
    ]
    assert main(["generate", "a.png", "It moves.", *words]) == 0
    assert pipeline.job.loras == (
        Lora("walk.safetensors"),
        Lora("./walk.safetensors", (-1.0, 0.5)),
        Lora("odd:0.5.safetensors"),
    )


@pytest.mark.parametrize("keeping", [[], ["--job", "job"]])
def test_a_lora_is_looked_for_once(pipeline, monkeypatch, keeping):
    looked = []

    def find_file(name):
        looked.append(name)
        return found

    found = Path("cached.safetensors")
    found.write_bytes((2).to_bytes(8, "little") + b"{}")
    monkeypatch.setattr("longtake.cli.make.find_file", find_file)
    words = ["--frames", "2", "--lora", "who/what:0.5", "-o", "a.mp4", *keeping]
    assert main(["generate", "a.png", "It moves.", *words]) == 0
    assert looked == ["who/what"]
    assert [(Path(lora.path).name, lora.weights) for lora in pipeline.job.loras] == [(found.name, (0.5,))]
    # A job that is kept stands alone; else the video says what was asked for.
    named = "who/what" if not keeping else str(found.resolve())
    assert read_metadata("a.mp4").job.loras == (Lora(named, (0.5,)),)


def test_the_parts_of_a_model_can_lie_elsewhere(pipeline, monkeypatch):
    described = []

    def describe(name, without):
        described.append((name, *without))
        return {"parts": {}}

    def describe_part(name, place):
        described.append((name, place))
        return {"class": "Net", "bytes": 1}

    monkeypatch.setattr("longtake.weights.folder.describe", describe)
    monkeypatch.setattr("longtake.weights.folder.describe_part", describe_part)
    words = ["--model", "base", "--part", "transformer=other", "--part", "image_encoder=siglip"]
    assert main(["generate", "a.png", "It moves.", "--frames", "2", *words]) == 0
    parts = {"transformer": "other", "image_encoder": "siglip"}
    assert (pipeline.model, pipeline.parts, pipeline.job.parts) == ("base", parts, parts)
    assert described == [("base", *parts), *parts.items()]
    assert read_metadata("a.mp4").job.parts == parts


def test_what_is_not_said_is_left_to_the_job(pipeline):
    assert main(["generate", "a.png", "It moves.", "-o", "out.mp4"]) == 0
    assert (pipeline.dtype, pipeline.device, pipeline.preview) == ("auto", "auto", None)
    assert pipeline.job == Job("It moves.", anchors=(FIRST,), width=64, height=48, dtype="float32")


def test_a_zoom_that_is_too_much_for_the_model_s_size(pipeline, place, capsys):
    before = sorted(place.iterdir())
    assert main(["generate", "a.png", "It moves.", "--zoom", "300"]) == 2
    assert "64 x 48, enlarged 300 times, is 19200 x 14400" in capsys.readouterr().err
    assert pipeline.job is None and sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    "path", ["C:/films/walk.safetensors", "C:\\films\\walk.safetensors", "/a:b/walk", "who/what"]
)
def test_colons_in_paths_are_no_weights(path):
    assert lora(path) == Lora(path)
    assert lora(f"{path}:0.5") == Lora(path, (0.5,))


def test_generate_for_machines(pipeline, capsys):
    assert main(["generate", "a.png", "It moves.", "--frames", "20", "--json", "-o", "out.mp4"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    events = [json.loads(line) for line in said.out.splitlines()]
    kinds = [event["event"] for event in events]
    section = ["stepped"] * 3 + ["section_done"]
    assert kinds == [
        "loading",
        "loaded",
        "planned",
        "encoded",
        *section,
        *section,
        "frames_ready",
        "frames_ready",
        "done",
    ]
    assert events[1]["job"]["prompt"] == "It moves." and events[1]["job"]["height"] == 48
    assert events[4] | {"seconds_left": 0} == {
        "event": "stepped",
        "section": 0,
        "step": 0,
        "steps": 3,
        "sigma": 1.0,
        "seconds_left": 0,
    }
    assert [event["seconds_left"] for event in events if event["event"] == "section_done"][-1] == 0
    done = events[-1]
    assert (done["frames"], done["width"], done["height"], done["zoom"]) == (20, 64, 48, 6)
    assert set(done["seconds"]) == {"load", "sampling", "decoding", "writing", "total"}
    assert done["file"] == os.path.realpath("out.mp4") and done["peak_memory_mb"] > 10


def test_a_name_that_is_taken_is_not_overwritten_by_default(pipeline):
    for name in ("a.mp4", "a-2.mp4", "a-3.mp4"):
        assert not Path(name).exists()
        assert main(["generate", "a.png", "It moves.", "--frames", "2"]) == 0
        assert Path(name).exists()
    assert next(free_names("https://host/pictures/bird.jpeg?size=2")) == "bird.mp4"


def test_two_runs_at_once_take_two_names(pipeline, place):
    words = ["generate", "a.png", "It moves.", "--frames", "2"]

    def events(job):
        pipeline.events = events_of
        assert main([*words, "--seed", "1"]) == 0  # another process, while this one is at work
        yield from events_of(job)

    pipeline.events = events
    assert main(words) == 0
    assert [read_metadata(name).job.seed for name in ("a.mp4", "a-2.mp4")] == [0, 1]


def test_a_name_that_came_to_nothing_is_free_again(pipeline, place):
    before = sorted(place.iterdir())

    def events(job):
        assert Path("a.mp4").exists()
        raise ModelError("The model is broken.")
        yield

    pipeline.events = events
    assert main(["generate", "a.png", "It moves."]) == 2
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModelError("The model is broken."), 2, "longtake: The model is broken."),
        (RunError("The numbers went wrong.", 1, 2), 1, "longtake: The numbers went wrong."),
        (JobError("The disk is full."), 1, "longtake: The disk is full."),
        (MemoryError(), 1, "longtake: There is not enough memory"),
    ],
)
def test_a_video_that_is_not_finished_leaves_what_was_written_of_it(
    pipeline, place, capsys, error, code, words
):
    closed = []

    def events(job):
        try:
            for event in events_of(job):
                yield event
                if isinstance(event, FramesReady):
                    raise error
        finally:
            closed.append(True)

    pipeline.events = events
    before = sorted(place.iterdir())
    assert main(["generate", "a.png", "It moves.", "-o", "out.mp4", "--sheet", "s.png"]) == code
    assert words in capsys.readouterr().err
    assert sorted(place.iterdir()) == sorted([*before, place / "out.partial.mp4"])
    assert len(read_video("out.partial.mp4")[0]) > 0
    assert closed


def test_a_failure_for_machines(pipeline, capsys):
    def events(job):
        yield from itertools.islice(events_of(job), 4)
        raise RunError("The numbers went wrong.", section=0, step=2)

    pipeline.events = events
    assert main(["generate", "a.png", "It moves.", "--json"]) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"event": "error", "message": "The numbers went wrong.", "section": 0, "step": 2}


def test_warnings_of_ours_are_notes(pipeline, capsys):
    import warnings

    def events(job):
        warnings.warn("Something was done differently.", LongtakeWarning, stacklevel=1)
        yield from events_of(job)

    pipeline.events = events
    assert main(["generate", "a.png", "x", "--frames", "2", "-o", "out.mp4"]) == 0
    assert "note: Something was done differently.\n" in capsys.readouterr().err


def test_how_many_steps_were_computed_is_told_at_the_end(pipeline, place, capsys):
    def events(job):
        for event in events_of(job):
            yield (
                replace(event, velocities=2, computed=event.step % 2) if isinstance(event, Stepped) else event
            )

    pipeline.events = events
    assert main(["generate", "a.png", "It moves.", "--cache", "mag:0.3;1,1.5", "--frames", "37"]) == 0
    said = capsys.readouterr().out
    assert "steps computed: 2 of 12 (mag:0.3)" in said
    assert main(["generate", "a.png", "It moves.", "--frames", "37", "--json"]) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert done["steps"] == {"asked": 12, "computed": 2}


def test_a_cache_that_cannot_be_is_refused_before_the_model_loads(place, capsys):
    for cache, words in (("mag:none.json", "cannot be read from none.json"), ("no", "No cache 'no'")):
        assert main(["generate", "a.png", "It moves.", "--cache", cache]) == 2
        assert words in capsys.readouterr().err


def test_a_prompt_alone_begins_with_black_where_the_model_needs_a_picture(pipeline, capsys):
    assert main(["generate", "It moves.", "-o", "out.mp4"]) == 0
    assert "the video begins with plain black" in capsys.readouterr().err
    assert pipeline.inputs.pictures[0].getextrema() == ((0, 0),) * 3
    # Asked for again, by another model, the video is still one without a picture.
    assert not pipeline.job.from_text and read_metadata("out.mp4").job.anchors == ()
