"""Networks in one file as the field writes them: other layouts of names, 8-bit floats, files by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from longtake.backend import ops
from longtake.models import quantised
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.weights import arrays
from longtake.weights.header import CODES, compose
from longtake.weights.layouts import original_modules

WIDTH = 128


def transformer(**fields: Any) -> HunyuanVideoFramepackTransformer3DModel:
    """One head of the published width, since its rotary axes cannot be told from a file."""
    small = {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 1,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "text_embed_dim": 16,
        "pooled_projection_dim": 8,
        "image_proj_dim": 16,
        "mlp_ratio": 2.0,
    }
    return HunyuanVideoFramepackTransformer3DModel(**{**small, **fields})


def values_of(network: Any) -> dict[str, np.ndarray]:
    """The weights of a network; those that lie in 8 bits as the numbers that they stand for."""
    return {name: ops.to_numpy(value) for name, value in quantised.full_weights(network).items()}


def same(one: Any, other: Any) -> bool:
    ones, others = values_of(one), values_of(other)
    return ones.keys() == others.keys() and all(np.array_equal(ones[name], others[name]) for name in ones)


def write(file: Path, tensors: dict[str, np.ndarray], dtypes: dict[str, str] | None = None) -> Path:
    """A safetensors file of these arrays; those in `dtypes` are the bytes of another dtype."""
    dtypes = dtypes or {}
    kind = {name: dtypes.get(name, array.dtype.name) for name, array in tensors.items()}
    entries = {name: (CODES[kind[name]], array.shape) for name, array in tensors.items()}
    data = b"".join(np.ascontiguousarray(array).tobytes() for array in tensors.values())
    file.write_bytes(compose(entries, {}) + data)
    return file


def to_fp8(array: np.ndarray) -> np.ndarray:
    """The bytes of the nearest 8-bit floats."""
    numbers = arrays.E4M3[:127]
    order = np.argsort(numbers)
    near = np.searchsorted((numbers[order][1:] + numbers[order][:-1]) / 2, np.abs(array))
    return (order[near] | (np.signbit(array) << 7)).astype(np.uint8)


def original(weights: dict[str, np.ndarray], blocks: int = 1) -> dict[str, np.ndarray]:
    """The same weights as HunyuanVideo's own code names and fuses them, for so many blocks of each kind."""
    plain: dict[str, str] = {}
    fused: dict[str, list[str]] = {}
    modules = {name.rpartition(".")[0] for name in weights}
    for old in dict.fromkeys(
        re.sub(r"^(double|single)_blocks.0", rf"\1_blocks.{number}", name)
        for number in range(blocks)
        for name in ORIGINAL_MODULES
    ):
        targets = original_modules(old)
        assert targets is not None and modules.issuperset(targets), old
        fused[old] = list(targets)
        plain |= dict.fromkeys(targets, old)
    found: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        module, _, kind = name.rpartition(".")
        old = plain.get(module)
        if old is None:
            found[name] = array
        elif f"{old}.{kind}" not in found:
            parts = np.concatenate([weights[f"{target}.{kind}"] for target in fused[old]])
            half = len(parts) // 2
            swapped = old == "final_layer.adaLN_modulation.1"
            found[f"{old}.{kind}"] = np.concatenate([parts[half:], parts[:half]]) if swapped else parts
    return found


# As they stand in github.com/Tencent/HunyuanVideo, hyvideo/modules/models.py, for one block of each kind.
ORIGINAL_MODULES = (
    "img_in.proj", "time_in.mlp.0", "time_in.mlp.2", "guidance_in.mlp.0", "guidance_in.mlp.2",
    "vector_in.in_layer", "vector_in.out_layer", "final_layer.linear", "final_layer.adaLN_modulation.1",
    "txt_in.input_embedder", "txt_in.t_embedder.mlp.0", "txt_in.t_embedder.mlp.2",
    "txt_in.c_embedder.linear_1", "txt_in.c_embedder.linear_2",
    *(f"txt_in.individual_token_refiner.blocks.0.{name}" for name in (
        "norm1", "norm2", "self_attn_qkv", "self_attn_proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")),
    *(f"double_blocks.0.{side}_{name}" for side in ("img", "txt") for name in (
        "mod.linear", "attn_qkv", "attn_proj", "mlp.fc1", "mlp.fc2", "attn_q_norm", "attn_k_norm")),
    *(f"single_blocks.0.{name}" for name in ("linear1", "linear2", "modulation.linear", "q_norm", "k_norm")),
)  # fmt: skip
