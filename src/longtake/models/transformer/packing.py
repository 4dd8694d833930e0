"""Latents as one packed sequence: [beyond | 4x | 2x | 1x | window], then picture and text, which have no position.

Clean frames are packed by kernels that grow with their distance. What attention needs to know of a sequence is made
here too: rotary tables, and the mask of the text's valid tokens.

Shapes: B batch, C channels, T H W latents, D width, K tokens of clean frames, W of the window, N of picture and text,
E channels of a head, R rows of times (1 or B).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from longtake.backend import nn, ops, runtime
from longtake.errors import JobError
from longtake.models import rope
from longtake.models.layers import beside

Tensor = Any
Rotary = tuple[Tensor, ...]
# Latent frames' positions, (T,) or one row per video (B, T), in a list, an array or a tensor.
Times = Any
# Clean frames by scale: latents (B, C, T, H, W), or None, and their times.
Clean = Mapping[int, tuple[Tensor | None, Times]]
# The published network's arguments for clean frames, by scale.
SLOTS = {1: "latents_clean", 2: "latents_history_2x", 4: "latents_history_4x"}


@dataclass(frozen=True)
class Beyond:
    """The far end of the history: frames that are packed by `scale`, whole or pooled to cells (`plan.layout.Far`)."""

    latents: Tensor
    """(B, C, T, H, W), of the window's height and width or of fewer cells."""
    times: Times
    scale: int = 1


@dataclass(frozen=True)
class Context:
    """All that one section sees besides its own latents: the same at every step, and for every prompt."""

    clean: Tensor | None
    """(B, K, D): clean frames, most packed first."""
    rotary: tuple[Tensor, Tensor]
    """Cosine and sine (R, K + W, 1, E), float32."""
    grid: tuple[int, int, int]
    """The window's tokens in time, height and width."""

    @property
    def rows(self) -> tuple[int, int]:
        """The window's first token among the latents' tokens, and the one behind its last."""
        return (0 if self.clean is None else int(self.clean.shape[1])), int(self.rotary[0].shape[1])


@dataclass(frozen=True)
class Sight:
    """The tables and the mask of the whole sequence of one section and one prompt, for attention."""

    rotary: tuple[Tensor, Tensor]
    """Cosine and sine (R, K + W + N, 1, E), float32; picture and text are not turned."""
    mask: Tensor | None
    """(B, 1, 1, K + W + N), True where a key may be seen; None if all may."""


class PatchEmbedding(nn.Module):
    """Patches of latents -> tokens."""

    def __init__(self, channels: int, width: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, patch, stride=patch)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, L, D)."""
        return _flat(self.proj(latents))


class CleanEmbedding(nn.Module):
    """Clean frames -> tokens, by kernels of 1·2·2, 2·4·4 and 4·8·8."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj, self.proj_2x, self.proj_4x = (
            nn.Conv3d(channels, width, kernel, stride=kernel) for kernel in ((1, 2, 2), (2, 4, 4), (4, 8, 8))
        )

    def forward(self, latents: Tensor, scale: int) -> Tensor:
        """(B, C, T, H, W) -> (B, L, D); the last frame, row and column are repeated to fill the kernel."""
        kernel = (scale, 2 * scale, 2 * scale)
        t, h, w = (-size % side for size, side in zip(latents.shape[2:], kernel, strict=True))
        if t or h or w:
            latents = ops.pad(latents, (0, w, 0, h, 0, t), mode="replicate")
        return _flat({1: self.proj, 2: self.proj_2x, 4: self.proj_4x}[scale](latents))


def check_slot(name: str, slot: Tensor, shape: tuple[int, ...]) -> None:
    """Raise JobError for clean latents that do not go with a window's latents of `shape`."""
    if slot.shape[0] != shape[0] or tuple(slot.shape[3:]) != tuple(shape[3:]):
        raise JobError(f"{name} is {tuple(slot.shape)}, which does not go with latents {tuple(shape)}.")


def positions(times: Times, frames: int, batch: int, name: str) -> np.ndarray:
    """Positions (R, T) of a slot's frames."""
    if times is None:
        raise JobError(
            f"{name} is missing: these latents need the time position of each of their {frames} frames."
        )
    array = np.atleast_2d(ops.to_numpy(times) if isinstance(times, ops.Tensor) else np.asarray(times))
    if array.shape not in ((1, frames), (batch, frames)):
        raise JobError(
            f"{name} has the shape {array.shape}; {frames} frames need {(frames,)} or {(batch, frames)}."
        )
    return array


def on_device(table: rope.Table, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine (R, L, 1, E) on the device of `like`."""
    cos, sin = (beside(part[:, :, None], like) for part in table)
    return cos, sin


def unturned(table: Tensor, value: float, count: int) -> Tensor:
    """The table (R, L, 1, E) with `count` tokens of one value behind it."""
    # Made where the table is, so that nothing is uploaded.
    still = ops.narrow(table, 1, 0, 1) * 0.0 + value
    return ops.cat([table, still + ops.arange(count, like=table).reshape(1, count, 1, 1) * 0.0], 1)


def valid_tokens(text: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The valid tokens of each row (B, N, D), moved to its front and cut at the longest row; which are valid (B, N).

    The second is None if all are. Unlike the reference: it keeps the first `mask.sum()` tokens wherever the ones
    stand. Code that is being compiled as a whole cannot look at values: there all tokens stay where they are, and the
    mask alone hides those that are not valid (text has no position, so that is the same function).
    """
    batch, length, dim = text.shape
    if mask is None:
        return text, None
    if tuple(mask.shape) != (batch, length):
        raise JobError(
            f"encoder_attention_mask is {tuple(mask.shape)}; text {tuple(text.shape)} needs {(batch, length)}."
        )
    if runtime.tracing():
        return text, runtime.place(mask != 0, text.device)
    valid = np.asarray(ops.to_numpy(mask) if isinstance(mask, ops.Tensor) else mask) != 0
    counts = valid.sum(1)
    # One token stays if no row has any; the mask of the attention hides it.
    longest = max(1, int(counts.max()))
    front = np.arange(length) < counts[:, None]
    if (valid != front).any():
        first = np.argsort(~valid, axis=1, kind="stable")[:, :longest] + np.arange(batch)[:, None] * length
        chosen = ops.index_select(text.reshape(batch * length, dim), 0, beside(first.reshape(-1), text))
        text = chosen.reshape(batch, longest, dim)
    full = bool((counts == longest).all())
    return text[:, :longest], None if full else beside(front[:, :longest], text)


def shares(text: Tensor, valid: Tensor | None) -> Tensor:
    """Each token's share (B, N, 1) of the mean over its row's valid ones, float32.

    Unlike the reference: an empty text has the mean 0 (it divides by zero there).
    """
    if valid is None:
        batch, length = int(text.shape[0]), int(text.shape[1])
        return beside(np.full((batch, length, 1), 1 / length, np.float32), text)
    ones = valid.float()
    return (ones / ops.clamp(ones.sum(1, keepdim=True), min=1.0))[:, :, None]


def refiner_mask(valid: Tensor | None) -> Tensor | None:
    """The keys (B, 1, 1, N) that the refiner sees: the valid ones."""
    if valid is None:
        return None
    # A row without text still sees its first key, else its softmax has nothing to sum.
    ones = valid.float()
    empty = ones.sum(1, keepdim=True) == 0
    first = ops.arange(int(valid.shape[1]), like=ones)[None] == 0
    return (valid | (empty & first))[:, None, None]


def key_mask(valid: Tensor | None, seen: int) -> Tensor | None:
    """The keys (B, 1, 1, seen + N) that the blocks see: `seen` tokens before the text, and the text's valid ones."""
    if valid is None:
        return None
    before = beside(np.ones((int(valid.shape[0]), seen), bool), valid)
    return ops.cat([before, valid], 1)[:, None, None]


def _flat(x: Tensor) -> Tensor:
    """(B, D, T, H, W) -> (B, T·H·W, D)."""
    return x.flatten(2).permute(0, 2, 1)
