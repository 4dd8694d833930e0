"""Built with the published configs, without memory, ours have the names and shapes of the libraries' classes."""

from __future__ import annotations

from collections.abc import Callable

import diffusers
import pytest
import torch
import transformers

from longtake.config import PUBLISHED
from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.siglip import SiglipVisionModel
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo


# The configs as they are published, not as ours say: the values of the repositories' config.json.
def framepack() -> torch.nn.Module:
    """lllyasviel/FramePackI2V_HY."""
    return diffusers.HunyuanVideoFramepackTransformer3DModel(has_image_proj=True, has_clean_x_embedder=True)


def vae() -> torch.nn.Module:
    """hunyuanvideo-community/HunyuanVideo, vae."""
    return diffusers.AutoencoderKLHunyuanVideo(
        down_block_types=["HunyuanVideoDownBlock3D"] * 4, up_block_types=["HunyuanVideoUpBlock3D"] * 4
    )


def llama() -> torch.nn.Module:
    """hunyuanvideo-community/HunyuanVideo, text_encoder."""
    config = transformers.LlamaConfig(
        vocab_size=128320,
        intermediate_size=14336,
        num_key_value_heads=8,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
    )
    return transformers.LlamaModel(config)


def clip() -> torch.nn.Module:
    """hunyuanvideo-community/HunyuanVideo, text_encoder_2."""
    config = transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768
    )
    return transformers.CLIPTextModel(config)


def siglip() -> torch.nn.Module:
    """lllyasviel/flux_redux_bfl, image_encoder."""
    config = transformers.SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    )
    return transformers.SiglipVisionModel(config)


@pytest.mark.parametrize(
    ("theirs", "ours", "name"),
    [
        (framepack, HunyuanVideoFramepackTransformer3DModel, "framepack"),
        (vae, AutoencoderKLHunyuanVideo, "hunyuan_vae"),
        (llama, LlamaModel, "llama"),
        (clip, CLIPTextModel, "clip_l"),
        (siglip, SiglipVisionModel, "siglip_so400m"),
    ],
)
def test_names_and_shapes_are_the_published_ones(
    theirs: Callable[[], torch.nn.Module], ours: Callable[..., torch.nn.Module], name: str
) -> None:
    with torch.device("meta"):
        expected, found = theirs().state_dict(), ours(PUBLISHED[name]).state_dict()
    assert {key: weight.shape for key, weight in found.items()} == {
        key: weight.shape for key, weight in expected.items()
    }
