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
from longtake.errors import LongtakeWarning, ModelError


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


@pytest.mark.parametrize("kind", [TransformerConfig, VAEConfig])
def test_an_unknown_key_of_diffusers_is_named_with_its_file(kind: type[Config], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json has the key 'hiden_size'"):
        read(kind, tmp_path, hiden_size=3)


@pytest.mark.parametrize("kind", [LlamaConfig, CLIPTextConfig, SiglipVisionConfig])
def test_an_unknown_key_of_transformers_is_passed_over_with_a_warning(
    kind: type[Config], tmp_path: Path
) -> None:
    with pytest.warns(LongtakeWarning, match=r"config\.json has the key 'future_key'.*passed over"):
        assert read(kind, tmp_path, future_key=3) == read(kind, tmp_path)
    with pytest.warns(LongtakeWarning, match="future_key"):
        assert kind.of({"future_key": 3}) == kind()


@pytest.mark.parametrize("kind", PUBLISHED.values(), ids=list(PUBLISHED))
def test_a_field_that_nobody_has_is_refused(kind: Config) -> None:
    with pytest.raises(ModelError, match="no field 'hiden_size'"):
        type(kind).of(hiden_size=3)


@pytest.mark.parametrize(
    "values",
    [
        {"sliding_window": 4096},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"num_local_experts": 8},
        {"partial_rotary_factor": 0.5},
        {"pruned_heads": {"0": [1]}},
        {"quantization_config": {"load_in_4bit": True}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ],
)
def test_a_key_that_makes_another_network_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=next(iter(values))):
        read(LlamaConfig, tmp_path, **values)
    with pytest.raises(ModelError, match=next(iter(values))):
        LlamaConfig.of(SimpleNamespace(**values))


def test_the_same_keys_at_their_neutral_values_change_nothing(tmp_path: Path) -> None:
    neutral = {
        "sliding_window": None,
        "use_sliding_window": False,
        "layer_types": ["full_attention"] * 2,
        "num_local_experts": 0,
        "partial_rotary_factor": 1.0,
        "pruned_heads": {},
        "quantization_config": None,
    }
    assert read(LlamaConfig, tmp_path, **neutral) == read(LlamaConfig, tmp_path)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TransformerConfig, {"qk_norm": "layer_norm"}),
        (TransformerConfig, {"image_condition_type": "token_replace"}),
        (VAEConfig, {"act_fn": "gelu"}),
        (VAEConfig, {"down_block_types": ["HunyuanVideoDownBlock3D", "DownBlock3D"]}),
    ],
)
def test_a_value_that_means_another_network_is_refused(
    kind: type[Config], values: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=rf"config\.json.*{next(iter(values))}"):
        read(kind, tmp_path, **values)
    with pytest.raises(ModelError, match=next(iter(values))):
        kind.of(**values)


def test_a_transformer_may_have_no_norm_of_queries_and_keys(tmp_path: Path) -> None:
    assert read(TransformerConfig, tmp_path, qk_norm=None)["qk_norm"] is None


def test_a_config_is_read_like_a_mapping() -> None:
    config = VAEConfig(latent_channels=4)
    assert config["latent_channels"] == config.get("latent_channels") == dict(config)["latent_channels"] == 4
    assert "latent_channels" in config and "class_name" not in config and config.get("class_name") is None
    assert list(config) == list(config.keys()) and len(config) == len(list(config.values()))
    assert VAEConfig(**config) == config and hash(config) == hash(VAEConfig.of(config))
    with pytest.raises(KeyError):
        config["latent_chanels"]


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
