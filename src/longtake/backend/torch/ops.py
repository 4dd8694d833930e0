"""The functions, which hold no weights, on PyTorch: names and argument order are torch's."""

from __future__ import annotations

import math
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

from longtake.backend.torch import kernels, runtime

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
    "frequencies",
    "from_numpy",
    "gelu",
    "index_select",
    "linear",
    "moments",
    "narrow",
    "on_cpu",
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
    "turning",
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
    kernel = kernels.here.kernel if kernels.here.own else kernels.native
    if kernels.here.own and torch.compiler.is_compiling():
        # The operator has no derivative.
        kernel = kernels.native if torch.is_grad_enabled() else kernels.compiled
    return kernel(query, key, value, mask, causal, scale)


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
    # torch itself takes a kernel 10 to 40 times as slow if batch · channels · frames · height is 20480 or less.
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


def frequencies(count: int, period: float, like: Tensor) -> Tensor:
    """period ** (-i / count) for i = 0 … count - 1, where `like` is and in its dtype.

    On the device, since an upload at each call would keep an accelerator waiting.
    """
    # In this order, as in diffusers' `get_timestep_embedding`.
    return exp(arange(count, like) * -math.log(period) / count)


def on_cpu(x: Tensor) -> bool:
    """Tell if `x` is on a CPU, for what is worth its while only there."""
    return bool(x.device.type == "cpu")


def piece_values(x: Tensor) -> int:
    """The number of values like those of `x` for one operation at a time: 4 MiB of them on CPUs, elsewhere 256 MiB.

    glibc maps every block above 32 MiB anew, and the kernel's zeroed pages cost more than most layers' arithmetic; with
    4 MiB instead of 16 the same tiles take no longer, and less memory.
    """
    return (4 if x.device.type == "cpu" else 256) * 2**20 // x.itemsize


def quick_gelu(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), CLIP's activation."""
    return x * sigmoid(1.702 * x)


def turning(cos: Tensor, sin: Tensor, fused: bool = False) -> tuple[Tensor, ...]:
    """Rotary tables (R, L, 1, E), each angle twice, in the form that `rotate_pairs` is fastest with.

    As complex numbers a turn is one pass over memory instead of six. torch.compile knows none, and fuses what is spelt
    out (`fused`: what turns is compiled); some accelerators have none.
    """
    if fused or torch.compiler.is_compiling() or cos.device.type not in ("cpu", "cuda"):
        return cos, sin
    return (torch.complex(cos[..., ::2], sin[..., ::2]),)


def rotate_pairs(x: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
    """Turn the channel pairs (0, 1), (2, 3), … of `x` by what `turning` made, in float32."""
    pairs = x.float().reshape(*x.shape[:-1], -1, 2)
    if len(tables) == 1:
        return torch.view_as_real(torch.view_as_complex(pairs) * tables[0]).flatten(-2).to(x.dtype)
    cos, sin = tables
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
    return (pairs.flatten(-2) * cos + turned * sin).to(x.dtype)


def scale_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x · scale + shift, in the dtype of `x`."""
    # On CPUs in float32: torch's kernel for bfloat16 is 15 times as slow there.
    wide = x if x.itemsize >= 4 or not on_cpu(x) else x.float()
    return torch.addcmul(shift, wide, scale).to(x.dtype)


def from_numpy(array: np.ndarray, like: Tensor | None = None) -> Tensor:
    """A tensor of the array's values, on the device and in the dtype of `like` if given."""
    # torch.compile follows numpy, but knows no memory order.
    tensor = torch.from_numpy(array if runtime.tracing() else np.asarray(array, order="C"))
    return tensor if like is None else tensor.to(device=like.device, dtype=like.dtype)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The tensor's values; bfloat16 and float16 come as float32."""
    tensor = tensor.detach().to("cpu")
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
