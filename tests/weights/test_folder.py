"""model_index.json, the embedded model's place, and what `longtake info` reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from longtake.backend import ops
from longtake.config import LlamaConfig, VAEConfig
from longtake.errors import ModelError
from longtake.weights import folder as model_folder
from longtake.weights import saving
from longtake.weights.folder import ModelIndex, describe, describe_part, embedded_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    index = ModelIndex(
        "HunyuanVideoFramepackPipeline",
        {
            "vae": ("diffusers", "AutoencoderKLHunyuanVideo"),
            "text_encoder": ("transformers", "LlamaModel"),
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
            "image_encoder": None,
        },
    )
    model_folder.write_model_index(tmp_path, index)
    saving.write_weights(tmp_path / "vae", "diffusion_pytorch_model", {"a": ops.zeros(4, 5)})
    saving.write_json(tmp_path / "vae" / "config.json", VAEConfig(latent_channels=4).published())
    halves = {name: ops.from_numpy(np.zeros(10, np.float16)) for name in "ab"}
    saving.write_weights(tmp_path / "text_encoder", "model", halves, max_shard_size=20, variant="fp16")
    saving.write_json(tmp_path / "text_encoder" / "config.json", LlamaConfig(hidden_size=8).published())
    saving.write_json(tmp_path / "scheduler" / "scheduler_config.json", {"shift": 7.0})
    return tmp_path


def test_the_index_comes_back(model: Path) -> None:
    index = model_folder.read_model_index(model)
    assert index.class_name == "HunyuanVideoFramepackPipeline"
    assert index.parts["vae"] == ("diffusers", "AutoencoderKLHunyuanVideo")
    assert index.parts["image_encoder"] is None


def test_a_model_is_described_from_its_headers(model: Path) -> None:
    told = model_folder.describe(model)
    json.dumps(told)
    assert told["class"] == "HunyuanVideoFramepackPipeline"
    assert told["parameters"] == 40
    vae, text = told["parts"]["vae"], told["parts"]["text_encoder"]
    assert (vae["class"], vae["parameters"], vae["dtypes"]) == (
        "AutoencoderKLHunyuanVideo",
        20,
        {"float32": 20},
    )
    assert vae["config"]["latent_channels"] == 4
    assert (text["files"], text["dtypes"], text["config"]["hidden_size"]) == (2, {"float16": 20}, 8)
    assert told["parts"]["scheduler"]["class"] == "FlowMatchEulerDiscreteScheduler"
    assert told["bytes"] == sum(file.stat().st_size for file in model.glob("*/*"))


def test_one_network_is_described_alone(model: Path) -> None:
    told = model_folder.describe(model / "vae")
    assert told["class"] == "AutoencoderKLHunyuanVideo"
    assert told["parameters"] == 20


def test_describing_loads_no_framework(model: Path) -> None:
    code = (
        "import sys; from longtake.weights import folder; folder.describe(sys.argv[1]);"
        "assert not {'torch', 'mindspore', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(model)], check=True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model_index.json").unlink(), ("no model folder",)),
        (lambda f: (f / "model_index.json").write_text("{}"), ("model_index.json", "_class_name")),
        (lambda f: (f / "model_index.json").write_text("{]"), ("model_index.json", "not valid JSON")),
        (
            lambda f: (f / "model_index.json").write_text('{"_class_name": "P", "vae": ["x"]}'),
            ("model_index.json", "'vae'"),
        ),
        (lambda f: (f / "scheduler").rename(f / "other"), ("'scheduler'", "missing")),
        (lambda f: (f / "scheduler" / "scheduler_config.json").unlink(), ("scheduler", "none of")),
        (lambda f: next((f / "text_encoder").glob("*-00001-*")).unlink(), ("-00001-of-", "missing")),
        (lambda f: next((f / "vae").glob("*.safetensors")).unlink(), ("vae", "holds config.json")),
        (lambda f: (f / "vae" / "config.json").write_text('{"chanels": 3}'), ("config.json", "'chanels'")),
    ],
)
def test_a_damaged_model_is_one_sentence(model: Path, damage, words: tuple[str, ...]) -> None:
    damage(model)
    with pytest.raises(ModelError) as caught:
        model_folder.describe(model)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_names_that_are_no_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="no model 'nobody/nothing': no folder has that name"):
        model_folder.find_model("nobody/nothing")
    with pytest.raises(ModelError, match="no model ''"):
        model_folder.find_model("")
    assert model_folder.find_model(tmp_path) == tmp_path


def test_a_missing_embedded_model_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder.resources, "files", lambda package: tmp_path)
    with pytest.raises(ModelError, match="embedded model is missing"):
        model_folder.find_model("embedded")
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "model_index.json").write_text("{}")
    assert model_folder.find_model("embedded") == tmp_path / "embedded"


def test_a_part_is_described_wherever_it_lies(tmp_path: Path) -> None:
    whole = embedded_model()
    for part, entry in describe(whole)["parts"].items():
        inside = describe_part(part, whole)
        assert inside["bytes"] == entry["bytes"] and inside.get("parameters") == entry.get("parameters"), part
        alone = describe_part(part, whole / part)
        assert alone["bytes"] == entry["bytes"], part
    assert "vae" not in describe(whole, without=["vae"])["parts"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ModelError, match=r"empty has no part 'vae': neither a folder of that name, nor config.json"
    ):
        describe_part("vae", tmp_path / "empty")
