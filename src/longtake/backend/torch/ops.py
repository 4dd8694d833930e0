"""What holds no weights, on PyTorch: names and argument order are torch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    zeros,
)
from torch.nn.functional import gelu, linear, pad, silu

__all__ = [
    "Tensor",
    "arange",
    "argmax",
    "attention",
    "cat",
    "channels_last",
    "clamp",
    "conv2d",
    "conv3d",
    "cos",
    "exp",
    "exp_of",
    "from_numpy",
    "gelu",
    "index_select",
    "linear",
    "moments",
    "narrow",
    "ones",
    "pad",
    "piece_values",
    "quick_gelu",
    "rotate_pairs",
    "rsqrt",
    "scale_shift",
    "silu",
    "sin",
    "to_numpy",
    "zeros",
]

MKLDNN = torch.backends.mkldnn.is_available()


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


def channels_last(x: Tensor) -> Tensor:
    """(B, C, T, H, W) laid out as convolutions are fastest with: on CPUs with a pixel's channels side by side."""
    as_is = x.device.type != "cpu" or x.stride(1) == 1
    return x if as_is else x.contiguous(memory_format=torch.channels_last_3d)


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int]) -> Tensor:
    """A convolution over (B, C, H, W) without padding."""
    return _conv(F.conv2d, input, weight, bias, stride)


def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int]) -> Tensor:
    """A convolution over (B, C, T, H, W) without padding."""
    return _conv(F.conv3d, input, weight, bias, stride)


def _conv(
    function: Callable[..., Tensor], input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int]
) -> Tensor:
    plain = MKLDNN and input.device.type == "cpu" and input.dtype == weight.dtype == torch.float32
    # torch itself takes a kernel 10 to 40 times as slow where batch · channels · frames · height is 20480 or less.
    none, ones = [0] * len(stride), [1] * len(stride)
    if plain and torch.compiler.is_compiling():
        fused = torch.ops.mkldnn._convolution_pointwise  # what torch.compile itself makes of large ones
        return fused(input, weight, bias, none, stride, ones, 1, "none", [], "")
    if plain and not torch.is_autocast_enabled("cpu"):
        return torch.mkldnn_convolution(input, weight, bias, none, stride, ones, 1)
    return function(input, weight, bias, stride)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (B, C, T) of each frame and channel of (B, C, T, H, W), float32 or wider."""
    if x.device.type != "cpu":
        variance, mean = torch.var_mean(x if x.itemsize >= 4 else x.float(), (3, 4), correction=0)
        return mean, variance
    # Around one of the values, which leaves little to cancel, in sums that add in pairs: torch's own norms, with
    # channels last, add one by one and are 5e-4 off at 17 frames of 256 pixels; its `var_mean` is 20 times as slow.
    wide = x if x.itemsize >= 4 else x.float()
    pivot = wide[:, :, :, :1, :1]
    centred = wide - pivot
    # Frames by pixels by channels: torch adds over one axis between two others 18 times as fast as over the last two.
    batch, channels, frames = x.shape[:3]
    rows = centred.permute(0, 2, 3, 4, 1).reshape(batch * frames, -1, channels)
    mean, square = (
        each.mean(1).reshape(batch, frames, channels).swapaxes(1, 2) for each in (rows, rows * rows)
    )
    return mean + pivot[..., 0, 0], square - mean * mean


def exp_of(array: np.ndarray, like: Tensor) -> Tensor:
    """e to a table of numbers, on the device and in the dtype of `like`: of diffusers' very bits."""
    return exp(from_numpy(array, like))


def piece_values(x: Tensor) -> int:
    """How many values like those of `x` an operation should have at once: on CPUs 4 MiB, elsewhere 256 MiB.

    glibc maps every block above 32 MiB anew, and the kernel's zeroed pages cost more than most layers' arithmetic; with
    4 MiB instead of 16 the same tiles take no longer, and less memory.
    """
    return (4 if x.device.type == "cpu" else 256) * 2**20 // x.itemsize


def quick_gelu(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), CLIP's activation."""
    return x * sigmoid(1.702 * x)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the channel pairs (0, 1), (2, 3), … of `x` by tables that have each angle twice, in float32."""
    pairs = x.float().reshape(*x.shape[:-1], -1, 2)
    if torch.compiler.is_compiling():  # torch.compile knows no complex numbers, and fuses what is spelt out
        turned = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
        return (pairs.flatten(-2) * cos + turned * sin).to(x.dtype)
    # One pass over memory instead of six.
    table = torch.complex(cos[..., ::2], sin[..., ::2])
    return torch.view_as_real(torch.view_as_complex(pairs) * table).flatten(-2).to(x.dtype)


def scale_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x · scale + shift, in the dtype of `x`."""
    # In float32: torch's kernel for bfloat16 is 15 times as slow.
    wide = x if x.itemsize >= 4 else x.float()
    return torch.addcmul(shift, wide, scale).to(x.dtype)


def from_numpy(array: np.ndarray, like: Tensor | None = None) -> Tensor:
    """A tensor of the array's values, on the device and in the dtype of `like` where given."""
    tensor = torch.from_numpy(np.asarray(array, order="C"))
    return tensor if like is None else tensor.to(device=like.device, dtype=like.dtype)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The tensor's values; bfloat16 and float16 come as float32."""
    tensor = tensor.detach().to("cpu")
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
