"""`longtake finetune` from words to files, on a model's folder and a video; and what it says on the way."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clips import clip
from longtake.cli import main
from longtake.cli.telling import Telling
from longtake.errors import JobError
from longtake.pipeline.networks import save_networks
from longtake.training.samples import read_samples
from longtake.weights.arrays import read_arrays

WORDS = ("--window", "2", "--rank", "2", "--sampling", "vanilla", "--log-every", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, networks: Any) -> Path:
    """A model, a clip with its text, a picture, and prompts for samples."""
    folder = tmp_path_factory.mktemp("door")
    save_networks(networks, folder / "model", "HunyuanVideoFramepackPipeline")
    (folder / "clips").mkdir()
    clip(folder / "clips" / "grey.mp4", 18)
    (folder / "clips" / "grey.txt").write_text("it turns grey")
    Image.new("RGB", (48, 32), "red").save(folder / "a.png")
    (folder / "prompts.txt").write_text("# a comment\n\nA ball bounces. --f 9 --s 1 --d 3 --i a.png\n")
    return folder


def finetune(place: Path, out: str, *words: str) -> int:
    return main(
        ["finetune", str(place / "model"), str(place / "clips"), "-o", str(place / out), *WORDS, *words]
    )


def test_from_a_video_to_a_lora_and_a_video(place: Path, capsys: Any) -> None:
    words = ("--steps", "2", "--sample-prompts", str(place / "prompts.txt"), "--json")
    assert finetune(place, "out", *words) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [event["event"] for event in told]
    assert kinds[0] == "surveyed" and kinds[-1] == "finished" and told[-1]["step"] == 2
    assert kinds.count("learnt") == 2 and "encoding" in kinds and told[-1]["figures"]["loss"] > 0
    sheets = sorted(path.name for path in (place / "out" / "samples").iterdir())
    assert sheets == ["000000-0.png", "000002-0.png"]
    _, metadata = read_arrays(place / "out" / "pytorch_lora_weights.safetensors")
    assert json.loads(metadata["lora_adapter_metadata"])["transformer.r"] == 2
    assert metadata["ss_num_train_items"] == "1" and metadata["longtake_sampling"] == "vanilla"
    video = place / "video.mp4"
    made = [
        "generate",
        str(place / "a.png"),
        "x",
        "--model",
        str(place / "model"),
        "--lora",
        str(place / "out"),
    ]
    assert main([*made, "--frames", "9", "--window", "2", "--steps", "1", "-o", str(video)]) == 0
    assert video.exists()


def test_ctrl_c_saves_and_says_how_to_go_on(
    place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = Telling.tell

    def interrupted(self: Telling, event: Any) -> None:
        tell(self, event)
        if getattr(event, "step", 0) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Telling, "tell", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert finetune(place, "stopped", "--steps", "3") == 130
    assert "saved after step 1; go on by the same command" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    assert finetune(place, "stopped", "--steps", "3") == 0
    assert "going on after step 1" in capsys.readouterr().err


def test_a_whole_model_is_a_folder_that_loads(place: Path) -> None:
    assert main(
        ["finetune", str(place / "model"), str(place / "clips"), "-o", str(place / "whole"), "--window", "2",
         "--sampling", "vanilla", "--whole", "--steps", "1", "--lr", "0.01", "--save-dtype", "float16"]
    ) == 0  # fmt: skip
    from longtake.pipeline.loading import load_networks

    made, first = (load_networks(str(place / name)) for name in ("whole/model", "model"))
    one, two = (each.transformer.proj_out.weight for each in (made, first))
    assert 0 < float((one - two).detach().abs().max()) < 0.1


def test_a_model_that_lacks_an_encoder_is_refused_before_it_loads(
    place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "model", place / "lacking")
    shutil.rmtree(place / "lacking" / "text_encoder_2")
    monkeypatch.setattr("longtake.training.finetune.load_networks", None)
    words = ["-o", str(place / "none"), *WORDS]
    assert main(["finetune", str(place / "lacking"), str(place / "clips"), *words]) == 2
    assert "text_encoder_2" in capsys.readouterr().err


def test_what_cannot_be_is_one_sentence(place: Path, capsys: Any) -> None:
    for words, said in (
        (("--rank", "0"), "--rank must be at least 1; 0 was asked for."),
        (("--targets", "to_z"), "--targets 'to_z' names no linear layer"),
        (("--history", "forget"), "The history's 'forget' is for sampling alone"),
        (("--log", "wandb"), "There is no log 'wandb'; there are: tensorboard, trackio."),
    ):
        assert finetune(place, "none", *words) == 2
        assert said in capsys.readouterr().err and not (place / "none").exists()
    assert main(["finetune", str(place / "model"), str(place / "nowhere"), "-o", str(place / "none")]) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("A ball. --f 9", "a video begins with a picture"),
        ("A ball. --i a.png --cn x", "--cn is not read here"),
        ("A ball. --i a.png --w wide", "--w takes a number; 'wide' was given"),
        ("A ball. --i a.png --w 50", "Line 1 of .* multiple of 16"),
    ],
)
def test_a_line_that_cannot_be_made_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(line)
    with pytest.raises(JobError, match=said):
        read_samples(file, "vanilla", 9)
