"""config.json as diffusers and transformers write it, and as they wrote it once."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from longtake.config import (
    PUBLISHED,
    CLIPTextConfig,
    Config,
    LlamaConfig,
    SiglipVisionConfig,
    TransformerConfig,
    VAEConfig,
)
from longtake.errors import ModelError


def read(kind: type[Config], tmp_path: Path, **values: Any) -> Config:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(values))
    return kind.read(file)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_comes_back(name: str, tmp_path: Path) -> None:
    config = PUBLISHED[name]
    assert read(type(config), tmp_path, **config.published()) == config


def test_framepack_is_read_as_it_was_published(tmp_path: Path) -> None:
    config = read(
        TransformerConfig,
        tmp_path,
        _class_name="HunyuanVideoTransformer3DModelPacked",
        _diffusers_version="0.33.0.dev0",
        _name_or_path="hunyuanvideo-community/HunyuanVideo",
        has_clean_x_embedder=True,
        has_image_proj=True,
        rope_axes_dim=[16, 56, 56],
    )
    assert config == TransformerConfig()


def test_an_absent_key_means_what_the_library_takes_for_it(tmp_path: Path) -> None:
    assert read(TransformerConfig, tmp_path)["has_image_proj"] is False
    assert read(SiglipVisionConfig, tmp_path, vision_config={"hidden_size": 16})["patch_size"] == 16
    llama = read(LlamaConfig, tmp_path, num_attention_heads=4)
    assert (llama["num_key_value_heads"], llama["rope_theta"], llama["vocab_size"]) == (4, 10000.0, 32000)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        {"rope_theta": 500000, "rope_parameters": {"rope_theta": 500000, "rope_type": "default"}},
    ],
)
def test_rotary_settings_of_both_versions_are_read(rope: dict[str, Any], tmp_path: Path) -> None:
    assert read(LlamaConfig, tmp_path, **rope)["rope_theta"] == 5e5
    assert LlamaConfig.of(SimpleNamespace(hidden_size=8, **rope)).rope_theta == 5e5


def test_scaled_rotary_positions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json.*'llama3'.*'rope_scaling'"):
        read(LlamaConfig, tmp_path, rope_scaling={"rope_type": "llama3", "factor": 8.0})


@pytest.mark.parametrize(
    "kind", [TransformerConfig, VAEConfig, LlamaConfig, CLIPTextConfig, SiglipVisionConfig]
)
def test_an_unknown_key_is_named_with_its_file(kind: type[Config], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json has the key 'hiden_size'"):
        read(kind, tmp_path, hiden_size=3)
    with pytest.raises(ModelError, match="no field 'hiden_size'"):
        kind.of(hiden_size=3)


def test_housekeeping_is_known_for_its_library_alone(tmp_path: Path) -> None:
    assert (
        read(CLIPTextConfig, tmp_path, torch_dtype="float16", projection_dim=768, dropout=0.0)["hidden_size"]
        == 512
    )
    with pytest.raises(ModelError, match="'torch_dtype'"):
        read(VAEConfig, tmp_path, torch_dtype="float16")


def test_a_mapping_of_a_library_is_taken_with_its_private_keys() -> None:
    assert (
        VAEConfig.of({"latent_channels": 4, "_class_name": "AutoencoderKLHunyuanVideo"}).latent_channels == 4
    )
