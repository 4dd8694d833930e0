"""The functions, which hold no weights, on MindSpore: names and argument order are torch's.

Many functions have no kernel on CPUs in one of MindSpore's two families (`mint` and `ops`) and one in the other; what
stands here was seen to run and to be right on a CPU (docs/backends.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint
from mindspore import ops as native
from mindspore.mint import cat, clamp, cos, narrow, rsqrt, sigmoid, sin

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

# A block of attention scores (float32) takes at most so many values: 64 MiB.
SCORES = 16 * 2**20
# The side of the pattern that stands for a longer triangle in Ascend's kernel.
TRIANGLE = 2048
# Added to a score, times the scale (about 0.1), it leaves no weight in any dtype; float16 goes to 65504.
HIDDEN = -60000.0

# Whether the device has the fused attention kernel, and whether its exponential is off by 4e-6 (the float32 kernel for
# CPUs); read when a graph is compiled, so these are no functions.
flash = ms.get_context("device_target") == "Ascend"
coarse_exp = ms.get_context("device_target") == "CPU"


def arange(stop: int, like: Tensor) -> Tensor:
    """0 … stop - 1, in the dtype of `like`."""
    return native.arange(stop).astype(like.dtype)


def argmax(input: Tensor, dim: int) -> Tensor:
    """The place of the first highest value along `dim`."""
    return native.argmax(input, dim)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention over (B, heads, L, D); `mask` is boolean (True: may be seen) or added."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if key.shape[1] != query.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = _repeat_heads(key, times), _repeat_heads(value, times)
    if flash:
        return _flash_attention(query, key, value, mask, causal, scale)
    if causal:
        seen = Tensor(np.tri(query.shape[2], key.shape[2], dtype=bool))
        mask = seen if mask is None else mask & seen
    rows = max(1, SCORES // (query.shape[0] * query.shape[1] * key.shape[2]))
    if rows >= query.shape[2]:
        return _attention(query, key, value, mask, scale)
    parts = []
    for start in range(0, query.shape[2], rows):
        stop = min(start + rows, query.shape[2])
        part = mask[:, :, start:stop] if mask is not None and mask.ndim == 4 and mask.shape[2] > 1 else mask
        parts.append(_attention(query[:, :, start:stop], key, value, part, scale))
    return cat(parts, 2)


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    # On a CPU the batched product that transposes by itself is up to twice as fast as matmul of a transposed view.
    scores = native.BatchMatMul(transpose_b=True)(query * scale, key)
    if mask is not None:
        scores = mint.where(mask, scores, float("-inf")) if mask.dtype == ms.bool_ else scores + mask
    return native.BatchMatMul()(native.softmax(scores, -1), value)


def _flash_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float
) -> Tensor:
    """Ascend's kernel; it computes in half precision, and its mask is True for what may not be seen.

    That mask has a value for each query and key, 400 MB a row at 20000 tokens. So keys that no query may see are hidden
    by a channel of their own: 1 in each query, HIDDEN in such a key, 0 in the others and in the values. 15 channels of
    zeros stand beside it, since the kernel takes multiples of 16.
    """
    dtype, width = query.dtype, value.shape[-1]
    half = dtype if dtype in (ms.float16, ms.bfloat16) else ms.bfloat16
    q, k, v = (x.astype(half) for x in (query, key, value))
    hidden = None
    if mask is not None:
        hidden = mint.logical_not(mask) if mask.dtype == ms.bool_ else (mask < 0)
        if hidden.ndim == 4 and hidden.shape[2] == 1:
            marks = hidden.reshape(-1, 1, hidden.shape[3], 1).astype(half) * HIDDEN
            q, k, v = _wider(q, ones(1, 1, 1, 1)), _wider(k, marks), _wider(v, zeros(1, 1, 1, 1))
            hidden = None
        elif hidden.ndim == 4:
            hidden = hidden.broadcast_to((q.shape[0], 1, q.shape[2], k.shape[2]))
    long = max(q.shape[2], k.shape[2]) > TRIANGLE
    sparse_mode = 0
    if causal and hidden is None and long:
        # A pattern of 2048 by 2048 says it all; the kernel lays it from the upper left corner on.
        sparse_mode, hidden = 2, _unseen(TRIANGLE, TRIANGLE)
    elif causal:
        unseen = _unseen(q.shape[2], k.shape[2])
        hidden = unseen if hidden is None else mint.logical_or(hidden, unseen)
    seen = native.flash_attention_score(
        q,
        k,
        v,
        q.shape[1],
        attn_mask=hidden,
        scalar_value=scale,
        input_layout="BNSD",
        sparse_mode=sparse_mode,
    )
    return seen[..., :width].astype(dtype)


def _unseen(queries: int, keys: int) -> Tensor:
    """True for the keys that stand after a query."""
    return Tensor(np.logical_not(np.tri(queries, keys, dtype=bool)))


def _wider(x: Tensor, first: Tensor) -> Tensor:
    """x (B, H, L, D) with 16 more channels: `first` (or one value of it for all), then zeros."""
    shape = x.shape[:3]
    return cat([x, first.astype(x.dtype).broadcast_to((*shape, 1)), native.zeros((*shape, 15), x.dtype)], -1)


def _repeat_heads(x: Tensor, times: int) -> Tensor:
    batch, heads, length, dim = x.shape
    return mint.tile(x[:, :, None], (1, 1, times, 1, 1)).reshape(batch, heads * times, length, dim)


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int]) -> Tensor:
    """A convolution over (B, C, H, W) without padding."""
    return native.conv2d(input, weight, bias, stride=tuple(stride))


def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int]) -> Tensor:
    """A convolution over (B, C, T, H, W) without padding."""
    return native.conv3d(input, weight, bias, stride=tuple(stride))


def exp(input: Tensor) -> Tensor:
    """e to the input; on a CPU in float64, since MindSpore's float32 kernel is off by 4e-6 there."""
    return native.exp(input.astype(ms.float64)).astype(input.dtype) if coarse_exp else native.exp(input)


def frequencies(count: int, period: float, like: Tensor) -> Tensor:
    """period ** (-i / count) for i = 0 … count - 1, in the dtype of `like`.

    By numpy, so that no device is asked for float64 and none decides their last bits.
    """
    exponents = np.arange(count, dtype=np.float32) * np.float32(-math.log(period)) / np.float32(count)
    return from_numpy(np.exp(exponents.astype(np.float64)), like)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """GELU, exact or in its tanh form."""
    if approximate == "tanh":
        # (1 + tanh y) / 2 is sigmoid(2 y), whose kernel for CPUs is three times as fast, and exact to 4e-8.
        return input * sigmoid(2 * math.sqrt(2 / math.pi) * input * (1 + 0.044715 * input * input))
    return native.gelu(input, approximate=approximate)


def group_norm(input: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Zero mean and unit variance over groups of channels of (B, C, …), then weight and bias (C,)."""
    return mint.nn.functional.group_norm(input, groups, weight, bias, eps)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries of `input` along `dim` that `index` (N,) names."""
    return native.gather(input, index, dim)


def layer_norm(input: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Zero mean and unit variance over the last axis, then weight and bias."""
    return native.LayerNorm(-1, -1, eps)(input, weight, bias)[0]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input · weightᵀ + bias."""
    rows = native.MatMul(transpose_b=True)(input.reshape(-1, input.shape[-1]), weight)
    return (rows if bias is None else rows + bias).reshape(*input.shape[:-1], weight.shape[0])


def ones(*size: int) -> Tensor:
    """Ones, float32."""
    return native.ones(size, ms.float32)


def pad(input: Tensor, pad: Sequence[int], mode: str) -> Tensor:
    """Repeat the edges: `pad` counts before and after, last axis first.

    By joining slices: the native kernel for CPUs takes four times as long.
    """
    for step in range(len(pad) // 2):
        axis, before, after = input.ndim - 1 - step, pad[2 * step], pad[2 * step + 1]
        if before or after:
            first = narrow(input, axis, 0, 1)
            last = narrow(input, axis, input.shape[axis] - 1, 1)
            input = cat([first] * before + [input] + [last] * after, axis)
    return input


def channels_last(x: Tensor) -> Tensor:
    """As it is: MindSpore has one layout."""
    return x


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (B, C, T) of each frame and channel of (B, C, T, H, W), float32 or wider."""
    wide = x if x.dtype in (ms.float32, ms.float64) else x.astype(ms.float32)
    centred = wide - wide[:, :, :, :1, :1]
    mean = centred.mean((3, 4))
    return mean + wide[:, :, :, 0, 0], (centred * centred).mean((3, 4)) - mean * mean


def on_cpu(x: Tensor) -> bool:
    """Tell if `x` is on a CPU, for what is worth its while only there."""
    return not flash


def piece_values(x: Tensor) -> int:
    """The number of values like those of `x` for one operation at a time."""
    return 2**26


def quick_gelu(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), CLIP's activation."""
    return x * sigmoid(1.702 * x)


def turning(cos: Tensor, sin: Tensor, fused: bool = False) -> tuple[Tensor, ...]:
    """Rotary tables (R, L, 1, E), each angle twice, in the form that `rotate_pairs` is fastest with: as they are."""
    return cos, sin


def rotate_pairs(x: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
    """Turn the channel pairs (0, 1), (2, 3), … of `x` by what `turning` made, in float32."""
    wide = x.float()
    pairs = wide.reshape(*x.shape[:-1], -1, 2)
    turned = native.stack([-pairs[..., 1], pairs[..., 0]], -1).reshape(x.shape)
    return (wide * tables[0] + turned * tables[1]).to(x.dtype)


def scale_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x · scale + shift, in the dtype of `x`."""
    return (x * scale + shift).astype(x.dtype)


def silu(input: Tensor) -> Tensor:
    """input · sigmoid(input)."""
    return mint.nn.functional.silu(input)


def zeros(*size: int) -> Tensor:
    """Zeros, float32."""
    return native.zeros(size, ms.float32)


def from_numpy(array: np.ndarray, like: Tensor | None = None) -> Tensor:
    """A tensor of the array's values, in the dtype of `like` if given."""
    tensor = Tensor(np.asarray(array, order="C"))
    return tensor if like is None else tensor.astype(like.dtype)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The tensor's values; bfloat16 and float16 come as float32."""
    wide = tensor.astype(ms.float32) if tensor.dtype in (ms.bfloat16, ms.float16) else tensor
    return np.asarray(wide.asnumpy())
