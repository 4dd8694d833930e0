"""Folders that diffusers and transformers write are read by ours, and ours by theirs, weight for weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.pretrained import PretrainedModel
from longtake.models.siglip import SiglipVisionModel
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo

LAYERS = {"intermediate_size": 24, "num_hidden_layers": 2}
ENCODER = {"hidden_size": 16, "num_attention_heads": 2, **LAYERS}
BLOCKS = {
    "down_block_types": ["HunyuanVideoDownBlock3D"] * 4,
    "up_block_types": ["HunyuanVideoUpBlock3D"] * 4,
}


def transformer() -> Any:
    return diffusers.HunyuanVideoFramepackTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=2,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
        has_image_proj=True,
        image_proj_dim=16,
        has_clean_x_embedder=True,
    )


def vae() -> Any:
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, **BLOCKS
    )


def llama() -> Any:
    return transformers.LlamaModel(
        transformers.LlamaConfig(vocab_size=50, num_key_value_heads=1, rope_theta=1234.0, **ENCODER)
    )


def clip() -> Any:
    tokens = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 2}
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(projection_dim=8, **tokens, **ENCODER))


def siglip() -> Any:
    return transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(image_size=28, patch_size=14, **ENCODER)
    )


PAIRS: list[Any] = [
    pytest.param(transformer, HunyuanVideoFramepackTransformer3DModel, id="transformer"),
    pytest.param(vae, AutoencoderKLHunyuanVideo, id="vae"),
    pytest.param(llama, LlamaModel, id="llama"),
    pytest.param(clip, CLIPTextModel, id="clip"),
    pytest.param(siglip, SiglipVisionModel, id="siglip"),
]
STORED = [(torch.float32, "10GB"), (torch.float16, "5KB"), (torch.bfloat16, "10GB"), (torch.float32, "5KB")]


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    one, two = left.state_dict(), right.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("dtype", "shard"), STORED)
@pytest.mark.parametrize(("build", "kind"), PAIRS)
def test_we_read_what_they_write(
    build: Any, kind: type[PretrainedModel], shard: str, dtype: Any, tmp_path: Path
) -> None:
    theirs = build().to(dtype)
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "5KB")
    ours = kind.from_pretrained(tmp_path)
    assert ours.dtype == dtype
    assert same(ours, theirs)
    written, read = json.loads((tmp_path / "config.json").read_text()), ours.config.to_dict()
    shared = written.keys() & read.keys()
    assert {name: written[name] for name in shared} == {name: read[name] for name in shared}
    # A library's config object and its config.json say the same.
    assert kind.config_class.of(theirs.config) == ours.config


@pytest.mark.parametrize(("dtype", "shard"), STORED)
@pytest.mark.parametrize(("build", "kind"), PAIRS)
def test_they_read_what_we_write(
    build: Any, kind: type[PretrainedModel], shard: str, dtype: Any, tmp_path: Path
) -> None:
    source = build().to(dtype)
    source.save_pretrained(tmp_path / "theirs")
    ours = kind.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours", max_shard_size=shard)
    theirs, info = type(source).from_pretrained(
        tmp_path / "ours", torch_dtype=dtype, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert same(theirs, ours)
    assert kind.config_class.of(theirs.config) == ours.config


@pytest.mark.parametrize(("build", "kind"), PAIRS)
def test_variants_have_the_names_of_the_field(
    build: Any, kind: type[PretrainedModel], tmp_path: Path
) -> None:
    theirs = build()
    for shard in ("10GB", "5KB"):
        theirs.save_pretrained(tmp_path / "theirs" / shard, variant="fp16", max_shard_size=shard)
        ours = kind.from_pretrained(tmp_path / "theirs", subfolder=shard, variant="fp16")
        assert same(ours, theirs)
        ours.save_pretrained(tmp_path / "ours" / shard, variant="fp16", max_shard_size=shard)
        again = type(theirs).from_pretrained(tmp_path / "ours" / shard, variant="fp16")
        assert same(again, theirs)


def test_towers_of_a_larger_model_are_read(tmp_path: Path) -> None:
    both = {
        "text_config": {**ENCODER, "vocab_size": 50, "pad_token_id": 1},
        "vision_config": {**ENCODER, "image_size": 28, "patch_size": 14},
    }
    siglip = transformers.SiglipModel(transformers.SiglipConfig(**both))
    siglip.save_pretrained(tmp_path / "siglip")
    ours = SiglipVisionModel.from_pretrained(tmp_path / "siglip")
    assert same(ours, siglip.vision_model)
    clip = transformers.CLIPModel(transformers.CLIPConfig(**both, projection_dim=8))
    clip.save_pretrained(tmp_path / "clip")
    assert same(CLIPTextModel.from_pretrained(tmp_path / "clip"), clip.text_model)
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=50, **ENCODER))
    llama.save_pretrained(tmp_path / "llama")
    assert same(LlamaModel.from_pretrained(tmp_path / "llama"), llama.model)
