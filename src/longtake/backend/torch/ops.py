"""What holds no weights, on PyTorch: names and argument order are torch's."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import (
    Tensor,
    argmax,
    cat,
    clamp,
    cos,
    exp,
    index_select,
    narrow,
    ones,
    rsqrt,
    sigmoid,
    sin,
    stack,
    zeros,
)
from torch.nn.functional import conv2d, gelu, interpolate, linear, pad, silu

__all__ = [
    "Tensor",
    "arange",
    "argmax",
    "attention",
    "cat",
    "clamp",
    "conv2d",
    "cos",
    "exp",
    "from_numpy",
    "gelu",
    "index_select",
    "interpolate",
    "linear",
    "narrow",
    "ones",
    "pad",
    "quick_gelu",
    "rsqrt",
    "silu",
    "sin",
    "stack",
    "to_numpy",
    "zeros",
]


def arange(stop: int, like: Tensor) -> Tensor:
    """0 … stop - 1, on the device and in the dtype of `like`."""
    return torch.arange(stop, device=like.device, dtype=like.dtype)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention over (B, heads, L, D); `mask` is boolean (True: may be seen) or added."""
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=causal,
        scale=scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def quick_gelu(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), CLIP's activation."""
    return x * sigmoid(1.702 * x)


def from_numpy(array: np.ndarray, like: Tensor | None = None) -> Tensor:
    """A tensor of the array's values, on the device and in the dtype of `like` where given."""
    tensor = torch.from_numpy(np.asarray(array, order="C"))
    return tensor if like is None else tensor.to(device=like.device, dtype=like.dtype)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The tensor's values; bfloat16 and float16 come as float32."""
    tensor = tensor.detach().to("cpu")
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
