"""Configs from shapes: what the weights of a network say of it.

What shapes cannot say (the axes of rotary positions, the width of a head, a norm's epsilon) is as in the published
networks; where that does not fit, the error asks for a config.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from longtake.config import PUBLISHED, Config
from longtake.config.networks import (
    CLIPTextConfig,
    LlamaConfig,
    SiglipVisionConfig,
    TransformerConfig,
    VAEConfig,
)
from longtake.errors import ModelError

Shapes = Mapping[str, tuple[int, ...]]


def config_of(file: Path, kind: type[Config], shapes: Shapes) -> Config:
    """The config of a network with weights of these shapes; ModelError if they cannot be of such a network."""
    try:
        return kind.of(DERIVED[kind](shapes))
    except KeyError as error:
        raise ModelError(f"{file} lacks the weight {error.args[0]!r} of {kind.class_name}.") from None
    except (IndexError, ZeroDivisionError):
        raise ModelError(f"{file} has weights in shapes that {kind.class_name} never has.") from None
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None


def _transformer(shapes: Shapes) -> dict[str, Any]:
    patch = shapes["x_embedder.proj.weight"]
    width, size_t, size = patch[0], patch[2], patch[3]
    normed = "transformer_blocks.0.attn.norm_q.weight" in shapes
    head = shapes["transformer_blocks.0.attn.norm_q.weight"][0] if normed else 128
    published = PUBLISHED["framepack"]
    if head != sum(published["rope_axes_dim"]) or width % head:
        raise ModelError(
            f"its heads are {head} wide in a width of {width}, FramePack's {sum(published['rope_axes_dim'])}; "
            "the axes of its rotary positions cannot be told from the file, so that it needs a config (config=)."
        )
    image = shapes.get("image_projection.up.weight")
    packs = "clean_x_embedder.proj.weight" in shapes
    given = shapes["proj_out.weight"][0] // (size_t * size * size)
    if not packs and given != patch[1]:
        raise ModelError(
            f"it takes {patch[1]} channels and gives {given}, as plain HunyuanVideo does that makes videos of "
            "pictures; only the one that makes them of texts becomes a FramePack transformer."
        )
    return {
        "in_channels": patch[1],
        "out_channels": given,
        "num_attention_heads": width // head,
        "attention_head_dim": head,
        "num_layers": _count(shapes, "transformer_blocks."),
        "num_single_layers": _count(shapes, "single_transformer_blocks."),
        "num_refiner_layers": _count(shapes, "context_embedder.token_refiner.refiner_blocks."),
        "mlp_ratio": shapes["transformer_blocks.0.ff.net.0.proj.weight"][0] / width,
        "patch_size": size,
        "patch_size_t": size_t,
        "qk_norm": "rms_norm" if normed else None,
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in shapes,
        "text_embed_dim": shapes["context_embedder.proj_in.weight"][1],
        "pooled_projection_dim": shapes["time_text_embed.text_embedder.linear_1.weight"][1],
        "has_image_proj": image is not None or not packs,
        "image_proj_dim": image[1] if image else published["image_proj_dim"],
        "has_clean_x_embedder": True,
    }


def _vae(shapes: Shapes) -> dict[str, Any]:
    levels = _count(shapes, "encoder.down_blocks.")
    first = [shapes[f"encoder.down_blocks.{level}.resnets.0.conv1.conv.weight"][0] for level in range(levels)]
    groups = PUBLISHED["hunyuan_vae"]["norm_num_groups"]
    if any(channels % groups for channels in first):
        raise ModelError(
            f"its channels, {first}, do not divide into {groups} groups, so that it needs a config (config=)."
        )
    return {
        "in_channels": shapes["encoder.conv_in.conv.weight"][1],
        "out_channels": shapes["decoder.conv_out.conv.weight"][0],
        "latent_channels": shapes["decoder.conv_in.conv.weight"][1],
        "down_block_types": ("HunyuanVideoDownBlock3D",) * levels,
        "up_block_types": ("HunyuanVideoUpBlock3D",) * levels,
        "block_out_channels": tuple(first),
        "layers_per_block": _count(shapes, "encoder.down_blocks.0.resnets."),
        "mid_block_add_attention": "encoder.mid_block.attentions.0.to_q.weight" in shapes,
    }


def _llama(shapes: Shapes) -> dict[str, Any]:
    vocabulary, width = shapes["embed_tokens.weight"]
    head = 128
    queries, keys = (shapes[f"layers.0.self_attn.{name}_proj.weight"][0] for name in "qk")
    if queries % head or keys % head:
        raise ModelError(f"its heads are not {head} wide, so that it needs a config (config=).")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": _count(shapes, "layers."),
        "num_attention_heads": queries // head,
        "num_key_value_heads": keys // head,
        "head_dim": None if queries == width else head,
        "attention_bias": "layers.0.self_attn.q_proj.bias" in shapes,
        "mlp_bias": "layers.0.mlp.gate_proj.bias" in shapes,
    }


def _clip(shapes: Shapes) -> dict[str, Any]:
    vocabulary, width = shapes["embeddings.token_embedding.weight"]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "max_position_embeddings": shapes["embeddings.position_embedding.weight"][0],
        **_encoder(shapes, width, 64),
    }


def _siglip(shapes: Shapes) -> dict[str, Any]:
    width, channels, patch, _ = shapes["embeddings.patch_embedding.weight"]
    side = round(shapes["embeddings.position_embedding.weight"][0] ** 0.5)
    return {
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch,
        "image_size": side * patch,
        "vision_use_head": "head.probe" in shapes,
        **_encoder(shapes, width, 72),
    }


def _encoder(shapes: Shapes, width: int, head: int) -> dict[str, Any]:
    if width % head:
        raise ModelError(
            f"its width is {width}, which heads of {head} do not fill, so that it needs a config (config=)."
        )
    return {
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, "encoder.layers."),
        "num_attention_heads": width // head,
    }


DERIVED: dict[type[Config], Callable[[Shapes], dict[str, Any]]] = {
    TransformerConfig: _transformer,
    VAEConfig: _vae,
    LlamaConfig: _llama,
    CLIPTextConfig: _clip,
    SiglipVisionConfig: _siglip,
}


def _count(shapes: Shapes, start: str) -> int:
    """The number of the blocks whose names begin so."""
    return len({name.removeprefix(start).split(".")[0] for name in shapes if name.startswith(start)})
