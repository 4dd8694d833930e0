"""plan, scene, info and train."""

import importlib
import json
from pathlib import Path

import pytest
from PIL import Image

from longtake import backend
from longtake.cli import main
from longtake.cli.options import size


def test_sizes():
    assert (size("640x480"), size("64"), size("32X48")) == ((640, 480), (64, 64), (32, 48))


def test_plan(place, capsys):
    assert main(["plan", "--seconds", "5", "--sampling", "inverted"]) == 0
    text = capsys.readouterr().out
    assert "inverted: 5 sections of 9 latent frames make 181 frames, cut to 150" in text
    assert "37-45 @28-36" in text
    assert main(["plan", "--frames", "145", "--sampling", "vanilla", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [section["number"] for section in plan["sections"]] == [0, 1, 2, 3]
    assert plan["frames"] == plan["made"] == 145
    assert plan["sections"][1]["slots"]["1"]["frames"] == [0, 9]
    assert main(["plan", "--frames", "91", "--reference"]) == 0
    assert "3 sections" in capsys.readouterr().out
    assert main(["plan", "--frames", "91", "--last-image"]) == 0
    assert "109 frames are made instead of 91" in capsys.readouterr().out


def test_scene(place, capsys):
    assert main(["scene", "a penguin in the snow", "-o", "p.png", "--size", "96x64", "--seed", "2"]) == 0
    with Image.open("p.png") as picture:
        assert picture.size == (96, 64)
    assert "in the snow" in capsys.readouterr().out
    first = Path("p.png").read_bytes()
    assert main(["scene", "a penguin in the snow", "-o", "p.png", "--size", "96x64", "--seed", "2"]) == 0
    assert Path("p.png").read_bytes() == first


def test_info_of_a_video(pipeline, capsys):
    assert main(["generate", "a.png", "It moves.", "--frames", "3", "-o", "out.mp4"]) == 0
    capsys.readouterr()
    assert main(["info", "out.mp4"]) == 0
    text = capsys.readouterr().out
    assert "384" in text and "It moves." in text
    assert main(["info", "out.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["job"]["prompt"] == "It moves."


def test_info_of_a_model(place, capsys, monkeypatch):
    part = {
        "class": "Net",
        "parameters": 1234567,
        "bytes": 2500000,
        "dtypes": {"float16": 1234567},
        "config": {},
    }
    tokenizer = {"class": "Tokenizer", "library": "transformers", "bytes": 10}
    facts = {
        "folder": "/models/x",
        "class": "Pipeline",
        "parameters": 1234567,
        "bytes": 2500010,
        "parts": {"transformer": part, "tokenizer": tokenizer},
    }
    monkeypatch.setattr("longtake.weights.folder.describe", lambda name, without: facts)
    assert main(["info", "x"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "/models/x: Pipeline"
    assert [line.split() for line in lines[2:]] == [
        ["transformer", "Net", "1,234,567", "float16", "2.5"],
        ["tokenizer", "Tokenizer", "0.0"],
        ["total", "1,234,567", "2.5"],
    ]
    assert main(["info", "x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == facts


def test_info_of_a_model_in_parts(place, capsys, monkeypatch):
    def part(size):
        return {"class": "Net", "parameters": size, "bytes": size, "dtypes": {"float32": size}, "config": {}}

    models = {
        "base": {"transformer": part(1), "vae": part(2)},
        "who/what": {"transformer": part(40)},
        "many": {"image_encoder": part(5), "vae": part(6)},
    }

    def describe(name, without):
        parts = {part: facts for part, facts in models[name].items() if part not in without}
        return {"folder": name, "class": "Pipeline", "parameters": 0, "bytes": 0, "parts": parts}

    monkeypatch.setattr("longtake.weights.folder.describe", describe)
    monkeypatch.setattr("longtake.weights.folder.describe_part", lambda name, place: models[place][name])
    words = ["--part", "transformer=who/what", "--part", "image_encoder=many"]
    assert main(["info", "base", *words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["parameters"], facts["bytes"]) == (47, 47)
    assert facts["parts"]["transformer"] == {**part(40), "from": "who/what"}
    assert main(["info", "base", *words]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["transformer", "Net", "40", "float32", "0.0", "who/what"] in lines
    assert main(["info", "a.mp4", "--part", "vae=many"]) == 2
    assert "--part names a part of a model; a.mp4 is a video" in capsys.readouterr().err


@pytest.mark.skipif(backend.name != "torch", reason="training runs on PyTorch alone")
def test_train_passes_on_what_is_asked(place, monkeypatch):
    from longtake.training.loop import Length

    recipe, toy = (importlib.import_module(f"longtake.{name}") for name in ("toy.recipe", "toy.judge"))
    called = []
    monkeypatch.setattr(recipe, "train", lambda *words, **options: called.append((words, options)))
    assert (
        main(["train", "all", "--folder", "runs", "--minutes", "2.5", "--no-resume", "--threads", "2"]) == 0
    )
    length = Length(minutes=2.5)
    options = {"length": length, "resume": False, "threads": 2, "seed": 0, "device": "auto", "scenes": 1500}
    options |= {"start": None, "batch": None, "rate": None}
    assert called == [(("all", Path("runs"), toy.judge), options)]
