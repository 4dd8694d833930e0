"""`encode`: what there is, what is skipped, and a cache that is made once."""

import json

import pytest

from clips import clip
from longtake.cli import main


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with a video of two sections, and one without a caption."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    clip(tmp_path / "data" / "a.mp4", 10, size=(64, 64))
    (tmp_path / "data" / "a.txt").write_text("a grey field")
    clip(tmp_path / "data" / "b.mp4", 10)
    return tmp_path


def test_a_cache_is_told_then_made_then_kept(data, capsys):
    words = ["encode", "embedded", "data", "--window", "1", "--cache", "cache"]
    assert main([*words, "--dry-run"]) == 0
    told = capsys.readouterr().err
    assert "examples: 1, of videos 1 (2 sections, 0:00:00)" in told and "64 x 64: 1" in told
    assert "b.mp4 skipped: it has no caption" in told and "to encode: 1 examples and 2 prompts" in told
    assert not (data / "cache").exists()
    assert main([*words, "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["data", "encoded", "encoded", "done"]
    assert events[0]["skipped"].keys() == {"b.mp4"} and events[0]["to_encode"] == 1
    assert main(words) == 0
    assert "to encode: 0 examples and 0 prompts" in capsys.readouterr().err


def test_a_dataset_files_batch_is_the_runs(data, capsys, torch_only):
    text = (
        '[[datasets]]\nvideo_directory = "data"\nframe_extraction = "full"\nresolution = 64\nbatch_size = 2\n'
    )
    (data / "dataset.toml").write_text(text, encoding="utf-8")
    words = ["finetune", "embedded", "dataset.toml", "-o", "out", "--window", "1"]
    assert main([*words, "--batch", "3"]) == 2
    assert "asks for a batch_size of 2, and this run has 3; give it by --batch 2" in capsys.readouterr().err
    assert not (data / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "nowhere is not there; data are a folder"),
        (["data", "--max-frames", "20"], "max_frames is 20, and one section needs 37 frames"),
        (["data", "--size", "60x64"], "a resolution of 60 x 64 is no multiple of 16 pixels; write 64 x 64"),
        (["data", "--fps", "0"], "fps must be at least 0.1"),
        (["data", "--window", "0"], "window"),
        (["data"], "There is nothing to learn from in data"),
    ],
)
def test_what_cannot_be_encoded_is_refused(words, told, data, capsys):
    assert main(["encode", "embedded", *words]) == 2
    assert told in capsys.readouterr().err
