"""The five networks' configurations: frozen dataclasses whose fields carry the published names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from longtake.config.reading import Config
from longtake.errors import ModelError


@dataclass(frozen=True)
class TransformerConfig(Config):
    """HunyuanVideoFramepackTransformer3DModel; the defaults are FramePack's published 13B."""

    class_name: ClassVar[str] = "HunyuanVideoFramepackTransformer3DModel"
    # The published repositories carry the name of the original code's class.
    also_in: ClassVar[Mapping[str, tuple[str, ...]]] = {"HunyuanVideoTransformer3DModelPacked": ()}
    # Plain HunyuanVideo (`weights/unpacked.py`).
    grown: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "HunyuanVideoTransformer3DModel": {"has_image_proj": True, "has_clean_x_embedder": True}
    }
    stock: ClassVar[Mapping[str, Any]] = {"has_image_proj": False, "has_clean_x_embedder": False}

    known: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "qk_norm": ("rms_norm", None),
        "image_condition_type": (None,),
    }

    in_channels: int = 16
    """Of the latents that it is given …"""
    out_channels: int = 16
    """… and of the velocity that it returns."""
    num_attention_heads: int = 24
    attention_head_dim: int = 128
    """Features of one head; the width of the network is heads times this."""
    num_layers: int = 20
    """Blocks in which latents and text have weights of their own (FLUX calls them double blocks)."""
    num_single_layers: int = 40
    """Blocks after them, in which they share one set of weights."""
    num_refiner_layers: int = 2
    """Blocks over the text alone, before all others."""
    mlp_ratio: float = 4.0
    """Width of a block's hidden layer, in widths of the network."""
    patch_size: int = 2
    """Latent pixels along each side of a token."""
    patch_size_t: int = 1
    """Latent frames of a token."""
    qk_norm: str | None = "rms_norm"
    """The norm of queries and keys, head by head; None for none."""
    guidance_embeds: bool = True
    """The network is told the scale of the distilled guidance."""
    text_embed_dim: int = 4096
    """Features of a token of Llama."""
    pooled_projection_dim: int = 768
    """Features of CLIP's pooled state."""
    rope_theta: float = 256.0
    """The base of the rotary frequencies."""
    rope_axes_dim: tuple[int, ...] = (16, 56, 56)
    """Features of a head that turn with time, height and width; together one head."""
    image_condition_type: str | None = None
    """The way in which plain HunyuanVideo is told the picture; FramePack has its own way, so only None is known."""
    has_image_proj: bool = True
    """SigLIP's tokens are read."""
    image_proj_dim: int = 1152
    """Features of a token of SigLIP."""
    has_clean_x_embedder: bool = True
    """Clean frames of the history are read."""


@dataclass(frozen=True)
class VAEConfig(Config):
    """AutoencoderKLHunyuanVideo; the defaults are HunyuanVideo's published autoencoder."""

    class_name: ClassVar[str] = "AutoencoderKLHunyuanVideo"

    known: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "act_fn": ("silu", "swish"),
        "down_block_types": ("HunyuanVideoDownBlock3D",),
        "up_block_types": ("HunyuanVideoUpBlock3D",),
    }

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    down_block_types: tuple[str, ...] = ("HunyuanVideoDownBlock3D",) * 4
    up_block_types: tuple[str, ...] = ("HunyuanVideoUpBlock3D",) * 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    """Channels of the encoder's blocks; the decoder's are the same in reverse."""
    layers_per_block: int = 2
    """Resnets of an encoder's block; the decoder's have one more."""
    act_fn: str = "silu"
    """The activation; "swish" is another name of the same."""
    norm_num_groups: int = 32
    """Groups of the group norms; they divide all channels."""
    scaling_factor: float = 0.476986
    """Latents are multiplied by it for the transformer, which brings their variance near to 1."""
    spatial_compression_ratio: int = 8
    """Pixels to one latent pixel, on each axis."""
    temporal_compression_ratio: int = 4
    """Frames to one latent frame, but for the first, which is alone in its own."""
    mid_block_add_attention: bool = True


@dataclass(frozen=True)
class LlamaConfig(Config):
    """LlamaModel; the defaults are the text encoder of HunyuanVideo (Llama 3 8B)."""

    library: ClassVar[str] = "transformers"
    class_name: ClassVar[str] = "LlamaModel"
    model_type: ClassVar[str] = "llama"
    also_in: ClassVar[Mapping[str, tuple[str, ...]]] = {"LlamaForCausalLM": ("lm_head.",)}
    part: ClassVar[str] = "text_config"
    stock: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 32000,
        "intermediate_size": 11008,
        "num_key_value_heads": None,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 2048,
    }
    ignored: ClassVar[frozenset[str]] = frozenset({"pretraining_tp"})
    variants: ClassVar[tuple[str, ...]] = ("rope_parameters", "rope_scaling")

    vocab_size: int = 128320
    hidden_size: int = 4096
    """Features of a token."""
    intermediate_size: int = 14336
    """Width of a block's hidden layer."""
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    """Heads of keys and values; several heads of queries share one."""
    head_dim: int | None = None
    """Features of a head; None: the features of a token divided among the heads."""
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500000.0
    """The base of the rotary frequencies."""
    max_position_embeddings: int = 8192
    """Tokens that it was trained for; nothing is stored for each."""
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def plain(cls, values: dict[str, Any], where: str) -> dict[str, Any]:
        """Turn transformers' dictionaries of rotary settings into `rope_theta`, and no key/value heads into all."""
        values = dict(values)
        for name in cls.variants:
            rope = values.pop(name, None) or {}
            kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, Mapping) else rope
            if kind != "default":
                raise ModelError(
                    f"{where} has {kind!r} for the key {name!r}; only plain rotary positions are known."
                )
            if rope.get("partial_rotary_factor") not in (None, 1.0):
                raise ModelError(
                    f"{where} turns a part of each head only ({name!r}); here all of it is turned."
                )
            if "rope_theta" in rope:
                values["rope_theta"] = float(rope["rope_theta"])
        if values.get("num_key_value_heads", 0) is None:
            values["num_key_value_heads"] = values.get("num_attention_heads", cls.num_attention_heads)
        return values

    def published(self) -> dict[str, Any]:
        """config.json's content, with the rotary settings in transformers 4's and in transformers 5's form."""
        rope = {"rope_type": "default", "rope_theta": self.rope_theta}
        return {**super().published(), "rope_parameters": rope}


@dataclass(frozen=True)
class CLIPTextConfig(Config):
    """CLIPTextModel; the defaults are CLIP ViT-L/14's text tower."""

    library: ClassVar[str] = "transformers"
    class_name: ClassVar[str] = "CLIPTextModel"
    model_type: ClassVar[str] = "clip_text_model"
    file_prefix: ClassVar[str] = "text_model."
    also_in: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "CLIPModel": ("vision_model.", "visual_projection.", "text_projection.", "logit_scale"),
        "CLIPTextModelWithProjection": ("text_projection.",),
    }
    part: ClassVar[str] = "text_config"
    stock: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "eos_token_id": 49407,
    }
    ignored: ClassVar[frozenset[str]] = frozenset({"projection_dim"})

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    """Tokens of a text; each place has a weight of its own."""
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 2
    """The token whose state is the pooled one; 2 stands for the largest id of the text, as CLIP was published."""


@dataclass(frozen=True)
class SiglipVisionConfig(Config):
    """SiglipVisionModel; the defaults are SigLIP so400m at 384 pixels (flux_redux_bfl)."""

    library: ClassVar[str] = "transformers"
    class_name: ClassVar[str] = "SiglipVisionModel"
    model_type: ClassVar[str] = "siglip_vision_model"
    file_prefix: ClassVar[str] = "vision_model."
    also_in: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "SiglipModel": ("text_model.", "logit_scale", "logit_bias")
    }
    part: ClassVar[str] = "vision_config"
    stock: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    }

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 384
    """Pixels along each side of its picture."""
    patch_size: int = 14
    """Pixels along each side of a token."""
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    vision_use_head: bool = True
    """It has a pooling head, whose output FramePack does not use."""


PUBLISHED: dict[str, Config] = {
    "framepack": TransformerConfig(),
    "hunyuan_vae": VAEConfig(),
    "llama": LlamaConfig(),
    "clip_l": CLIPTextConfig(),
    "siglip_so400m": SiglipVisionConfig(),
}
