"""Pieces that the networks share; attribute names are the published weights' names.

Shapes: B batch, L tokens, D width, H heads, E channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from longtake.backend import nn, ops, runtime
from longtake.errors import ModelError

Tensor = Any


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    return ops.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": ops.silu,
    "quick_gelu": ops.quick_gelu,
    "gelu": ops.gelu,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_new": gelu_tanh,
}
"""transformers' names for what an encoder's MLP may have between its layers."""


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function that a config's `hidden_act` names; raises ModelError for one that is not known here."""
    if name not in ACTIVATIONS:
        raise ModelError(f"The config's hidden_act is {name!r}; known activations: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def beside(array: np.ndarray, tensor: Tensor) -> Tensor:
    """The array as a tensor of its own dtype, on the device of `tensor`."""
    return ops.from_numpy(array).to(tensor.device)


def rows_of(table: Any, places: Tensor, like: Tensor) -> Tensor:
    """The rows of an embedding that lies anywhere and in any dtype, beside `like` and in its dtype."""
    weight = table.weight
    rows = table(runtime.place(places, weight.device))
    return runtime.place(rows, like.device, like.dtype)


def sinusoid(values: Tensor, dim: int = 256) -> Tensor:
    """Cosines, then sines, (N, dim) float32, of `values` (N,) at periods from 2π to 10000 · 2π.

    At timesteps and guidance of 1000 to 10000 one bit of a frequency is 1e-4 of the result, so the order of the float32
    operations is the reference's (diffusers' `get_timestep_embedding`), and callers keep this out of compiled code.
    """
    values = values.float()
    half = dim // 2
    angles = values[:, None] * ops.frequencies(half, 10000.0, like=values)[None]
    return ops.cat([ops.cos(angles), ops.sin(angles)], -1)


def rotate(x: Tensor, rotary: tuple[Tensor, ...]) -> Tensor:
    """Turn the channel pairs (0, 1), (2, 3), … of x (B, L, H, E) by what `ops.turning` made of tables (R, L, 1, E)."""
    return ops.rotate_pairs(x, rotary)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention over (B, L, H, E), returned as (B, L, H·E)."""
    q, k, v = (x.to(v.dtype).permute(0, 2, 1, 3) for x in (q, k, v))
    return ops.attention(q, k, v, mask).permute(0, 2, 1, 3).flatten(2)


class RMSNorm(nn.Module):
    """Divide by the root mean square of the last axis, taken in float32, then scale in the weight's dtype."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(ops.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (…, dim) -> the same shape."""
        wide = x.float()
        scale = ops.rsqrt((wide * wide).mean(-1, keepdim=True) + self.eps)
        return (wide * scale).to(self.weight.dtype) * self.weight


class Projected(nn.Module):
    """A linear layer and the activation after it."""

    def __init__(self, dim: int, hidden: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, hidden)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """x (…, dim) -> (…, hidden)."""
        return self.activation(self.proj(x))


class FeedForward(nn.Module):
    """Widen, activate, narrow. The middle entry stands where the reference has a dropout, to keep the names."""

    def __init__(self, dim: int, hidden: int, activation: Callable[[Tensor], Tensor] = gelu_tanh) -> None:
        super().__init__()
        self.hidden = hidden
        self.net = nn.Sequential(Projected(dim, hidden, activation), nn.Identity(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, dim) -> the same shape."""
        rows = rows_at_once(x, self.hidden)
        if x.shape[1] <= rows:
            return self.net(x)
        return ops.cat([self.net(piece) for piece in x.split(rows, 1)], 1)


def rows_at_once(x: Tensor, width: int) -> int:
    """The number of tokens of x (B, L, D) to widen to `width` at once: all of them, but fewer on a CPU.

    A CPU then keeps them in its cache; the results are equal. Twice what `ops.piece_values` says, since a matrix
    product wants many rows.
    """
    if not ops.on_cpu(x):
        return x.shape[1]  # in compiled code maybe no number, but any
    return max(1, 2 * ops.piece_values(x) // (x.shape[0] * width))


class EmbeddingMLP(nn.Module):
    """Two linear layers with SiLU between, as for timesteps, guidance and pooled text."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(dim, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, dim) -> (B, width)."""
        return self.linear_2(ops.silu(self.linear_1(x)))


class Modulation(nn.Module):
    """`parts` vectors from the conditioning (B, D), side by side: shifts, scales and gates (adaLN)."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, parts * width)

    def forward(self, conditioning: Tensor) -> Tensor:
        """conditioning (B, D) -> (B, 1, parts · D)."""
        return self.linear(ops.silu(conditioning))[:, None]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x · (1 + scale) + shift."""
    return ops.scale_shift(x, 1 + scale, shift)
