"""`calibrate`: from pictures and prompts to a file of ratios that a cache takes."""

import json

import pytest
from PIL import Image

from longtake.cli import main


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Two pictures, where the test runs."""
    monkeypatch.chdir(tmp_path)
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (64, 64), colour).save(name)


def test_ratios_are_written_and_serve(pictures, capsys):
    words = [
        "--frames",
        "9",
        "--window",
        "2",
        "--steps",
        "3",
        "--cfg",
        "2",
        "--sampling",
        "vanilla",
        "-o",
        "r.json",
    ]
    assert main(["calibrate", "embedded", "a.png", "It moves.", "b.png", "It rests.", *words]) == 0
    assert (
        "r.json: 3 ratios of 2 branches of guidance; use them by --cache mag:r.json"
        in capsys.readouterr().out
    )
    with open("r.json") as file:
        found = json.load(file)
    assert (found["model"], found["steps"], found["videos"], found["cfg_scale"]) == ("embedded", 3, 2, 2.0)
    assert [len(branch) for branch in found["ratios"]] == [3, 3] and found["ratios"][0][0] == 1.0
    words = ["--frames", "9", "--window", "2", "--steps", "3", "--cache", "mag:9,9,0;r.json", "-o", "out.mp4"]
    assert main(["generate", "a.png", "It moves.", *words]) == 0
    assert "of 3 (mag:9,9,0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a.png", "It moves.", "b.png"], "'b.png' has no prompt"),
        (["none.png", "It moves."], "There is no file none.png"),
        (["a.png", "It moves.", "-o", "nowhere/r.json"], "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, told, pictures, capsys):
    assert main(["calibrate", "embedded", *words]) == 2
    assert told in capsys.readouterr().err
