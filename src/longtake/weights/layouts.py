"""Other layouts of networks that are ours: a file's names and rows -> our names, with a view of the file's tensors.

| layout | whose |
|---|---|
| `double_blocks`, fused projections | HunyuanVideo's own code, ComfyUI, most GGUF |
| `decoder.up.3.block.0` | latent diffusion's own code, for the autoencoder |
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from longtake.errors import ModelError
from longtake.weights.header import View, Weight
from longtake.weights.lora import BLOCKS, ORIGINAL, SWAPPED

Weights = dict[str, Weight]
Names = dict[str, str]
"""Names in a file, by ours."""


# Modules of the original HunyuanVideo that no LoRA changes.
NORMS = {
    "txt_in.individual_token_refiner.blocks.{}.": {"norm1": ("norm1",), "norm2": ("norm2",)},
    "double_blocks.{}.": {
        "img_attn_q_norm": ("attn.norm_q",),
        "img_attn_k_norm": ("attn.norm_k",),
        "txt_attn_q_norm": ("attn.norm_added_q",),
        "txt_attn_k_norm": ("attn.norm_added_k",),
    },
    "single_blocks.{}.": {"q_norm": ("attn.norm_q",), "k_norm": ("attn.norm_k",)},
}

# The original HunyuanVideo's layout -----------------------------------------------------------------------------------


def from_original(file: Path, weights: Weights, names: Names) -> tuple[Weights, Names]:
    """By our names; of a module that is several of ours, each has its rows."""
    width = weights["img_in.proj.weight"].shape[0] if "img_in.proj.weight" in weights else 0
    ours: Weights = {}
    stored: Names = {}
    for name, weight in weights.items():
        module, _, kind = name.rpartition(".")
        targets = original_modules(module) or (module,)
        rows = weight.shape[0] if weight.shape else 0
        cuts = _cuts(len(targets), rows, width)
        if cuts is None:
            raise ModelError(
                f"{file} has the weight {names[name]!r} in the shape {list(weight.shape)}, which does not divide into "
                f"{', '.join(targets)}."
            )
        for target, (begin, end) in zip(targets, cuts, strict=True):
            view = weight.view or View()
            view = replace(view, rows=(begin, end) if len(targets) > 1 else None, swapped=module == SWAPPED)
            size = weight.bytes * (end - begin) // rows if rows else weight.bytes
            shape = (end - begin, *weight.shape[1:]) if rows else weight.shape
            ours[f"{target}.{kind}"] = replace(
                weight, shape=shape, bytes=size, view=view if view != View() else None
            )
            stored[f"{target}.{kind}"] = names[name]
    return ours, stored


def original_modules(module: str) -> tuple[str, ...] | None:
    """Our modules that one of the original HunyuanVideo is, in the order of its rows; None if it is not known.

    >>> original_modules("double_blocks.3.txt_attn_qkv")[1], original_modules("final_layer.linear")
    ('transformer_blocks.3.attn.add_k_proj', ('proj_out',))
    """
    if module in ORIGINAL:
        return ORIGINAL[module]
    for (old, new), inside in BLOCKS.items():
        before, after = old.split("{}")
        match = re.fullmatch(rf"{re.escape(before)}(\d+){re.escape(after)}(.+)", module)
        if match:
            targets = inside.get(match[2]) or NORMS[old].get(match[2])
            return tuple(new.format(match[1]) + target for target in targets) if targets else None
    return None


def _cuts(parts: int, rows: int, width: int) -> list[tuple[int, int]] | None:
    """The rows of each part: all, thirds, or queries, keys, values and the rest."""
    if parts == 1:
        return [(0, rows)]
    size = rows // 3 if parts == 3 else width
    if not size or (parts == 3 and rows % 3) or (parts == 4 and rows <= 3 * width):
        return None
    edges = [0, size, 2 * size, 3 * size, rows][: parts + 1]
    return [(edges[number], edges[number + 1]) for number in range(parts)]


# Latent diffusion's layout of an autoencoder --------------------------------------------------------------------------

ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def from_latent_diffusion(weights: Weights, names: Names) -> tuple[Weights, Names]:
    """By our names; what attention has as convolutions of one pixel are matrices here."""
    levels = 1 + max(int(match[1]) for name in weights if (match := re.match(r"decoder\.up\.(\d+)\.", name)))
    ours: Weights = {}
    stored: Names = {}
    for name, weight in weights.items():
        own = latent_diffusion_name(name, levels)
        if ".attentions." in own and own.endswith(".weight") and len(weight.shape) > 2:
            weight = replace(weight, shape=weight.shape[:2], view=weight.view or View())
        ours[own], stored[own] = weight, names[name]
    return ours, stored


def latent_diffusion_name(name: str, levels: int) -> str:
    """Our name of an autoencoder's weight, of whose decoder so many levels are counted the other way round.

    >>> latent_diffusion_name("decoder.up.3.block.0.nin_shortcut.conv.weight", 4)
    'decoder.up_blocks.0.resnets.0.conv_shortcut.conv.weight'
    >>> latent_diffusion_name("encoder.mid.attn_1.q.weight", 4)
    'encoder.mid_block.attentions.0.to_q.weight'
    """
    name = re.sub(r"\.mid\.block_(\d)\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}.", name)
    name = re.sub(r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets.", name)
    name = re.sub(r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0.", name)
    name = re.sub(r"\.up\.(\d+)\.block\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.resnets.", name)
    name = re.sub(
        r"\.up\.(\d+)\.upsample\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.upsamplers.0.", name
    )
    name = name.replace(".nin_shortcut.", ".conv_shortcut.").replace(
        "coder.norm_out.", "coder.conv_norm_out."
    )
    match = re.fullmatch(r"(.*)\.mid\.attn_1\.(\w+?)(?:\.conv)?\.(weight|bias)", name)
    return (
        f"{match[1]}.mid_block.attentions.0.{ATTENTION.get(match[2], match[2])}.{match[3]}" if match else name
    )
