"""`evaluate`: a model, video files, earlier results; and what it refuses before a model loads."""

import json
from pathlib import Path

import pytest

from longtake import backend
from longtake.cli import main
from longtake.toyworld import Scene, render
from longtake.video import export_to_video

SHORT = ["--scenes", "2", "--frames", "9", "--window", "2", "--steps", "1"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """An evaluation of the embedded model in a folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    words = [
        "evaluate",
        "embedded",
        *SHORT,
        "--sampling",
        "vanilla,inverted",
        "-o",
        str(folder / "one"),
        "--sheet",
    ]
    with pytest.MonkeyPatch.context() as patch:
        if backend.name == "mindspore":  # which would take minutes to compile graphs for these few steps
            patch.setattr(backend.runtime, "graph", False)
        assert main(words) == 0
    return folder / "one", words


def test_a_model_is_evaluated_and_an_evaluation_goes_on(evaluated, capsys):
    folder, words = evaluated
    values = json.loads((folder / "results.json").read_text())
    assert list(values["arms"]) == ["truth", "autoencoder", "vanilla", "inverted"]
    assert values["differences"]["to"] == "vanilla"
    assert values["arms"]["inverted"]["of"]["job"]["steps"] == 1
    assert values["arms"]["vanilla"]["videos"]["scene"] == [0, 1]
    assert (folder / "sheet.png").stat().st_size > 1000
    assert main([*words[:-1], "--measures", "background,lost", "--json"]) == 0  # all is kept
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    videos = [event for event in events if event["event"] == "video"]
    assert [(event["arm"], event["scene"]) for event in videos[-4:]] == [
        ("vanilla", 0), ("vanilla", 1), ("inverted", 0), ("inverted", 1),
    ]  # fmt: skip
    assert events[-1]["event"] == "done" and events[-1]["against"] == "vanilla"


def test_earlier_results_and_files_stand_beside_each_other(evaluated, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    export_to_video(render(Scene(motion="dances"), range(30)), "clip.mp4", 30)
    assert main(["evaluate", str(evaluated[0]), "clip.mp4", "-o", "both", "--against", "truth"]) == 0
    text = capsys.readouterr().out
    assert "inverted" in text and "clip.mp4" in text and "drift less truth's" in text
    arms = json.loads(Path("both/results.json").read_text())["arms"]
    assert list(arms) == ["clip.mp4", "truth", "autoencoder", "vanilla", "inverted"]


def test_arms_come_from_a_file(tmp_path, monkeypatch):
    from longtake.cli import parser as build
    from longtake.cli.arms import arms_of

    monkeypatch.chdir(tmp_path)
    Path("arms.json").write_text(
        '{"few": {"steps": 4}, "back": {"sampling": "inverted", "cache": "easy:0.05"}}'
    )
    args = build().parse_args(
        ["evaluate", "embedded", "--arms", "arms.json", "--seconds", "2", "--sampling", "vanilla,planned"]
    )
    arms = arms_of(args, "embedded")
    assert [(arm.name, arm.job.sampling, arm.job.steps, arm.job.frames) for arm in arms] == [
        ("few vanilla", "vanilla", 4, 60), ("few planned", "planned", 4, 60), ("back", "inverted", 25, 60),
    ]  # fmt: skip
    assert arms[2].job.cache == "easy:0.05" and arms[0].job.cache == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["embedded", "--scenes", "0"], "--scenes must be at least 1"),
        (["embedded", "--sampling", "vanilla,sideways"], "sideways"),
        (["embedded", "--measures", "beauty"], "There is no measure 'beauty'"),
        (["embedded", "--against", "nobody"], "There is no arm 'nobody'"),
        (["embedded", "--arms", "none.json"], "none.json cannot be read"),
        (["embedded", "--arms", "list.json"], "holds no arms"),
        (["embedded", "--arms", "said.json"], "names prompt, which the scenes"),
        (["embedded", "--reference", "a.mp4"], "--reference is for video files"),
        (["a.mp4", "--sampling", "vanilla"], "are for models"),
        (["a.mp4"], "There is no file a.mp4"),
        (["folder.mp4"], "neither a model, nor videos"),
        (["list.json"], "is not an evaluation"),
        (["model"], "neither a model, nor videos"),
        (["a.png", "a.png"], "a.png"),
        (["embedded", "-o", "a.png"], "a.png is a file"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(words, told, place, capsys):
    Path("list.json").write_text("[]")
    Path("said.json").write_text('{"one": {"prompt": "It moves."}}')
    assert main(["evaluate", *words]) == 2
    assert told in capsys.readouterr().err
