"""Rotary tables of packed latents, in numpy (index arithmetic stays outside the frameworks).

A token at time t, row y, column x turns the pairs of its query and key by t, y and x times fixed frequencies; the
axes share the head's channels (16 + 56 + 56 of 128 in the published model). Tokens of a slot packed by 2 or 4 stand
for a block of k·k·k tokens and take the mean cosine and sine of that block. Cosine and sine of each channel depend
on one axis alone, so the mean over a block is a mean along that axis: the whole table is built from three short ones.

Shapes: R rows with times of their own (1, or the batch), T H W tokens, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from longtake.plan.layout import divided

Table = tuple[np.ndarray, np.ndarray]


def axis(positions: np.ndarray, dim: int, theta: float, scale: int = 1) -> Table:
    """Cosine and sine (R, ceil(N / scale), dim) of `positions` (R, N), each pair's value written twice.

    With `scale` k, means over k neighbours; the last position is repeated if k does not divide N.
    """
    # float32 in this order, as in the reference: at position 100 another order differs by 1e-5.
    frequencies = np.float32(1) / np.float32(theta) ** (
        np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    )
    angles = positions.astype(np.float32)[..., None] * frequencies
    return _pool(np.cos(angles), scale).repeat(2, axis=-1), _pool(np.sin(angles), scale).repeat(2, axis=-1)


def rotary(
    times: np.ndarray, height: int, width: int, axes: Sequence[int], theta: float = 256.0, scale: int = 1
) -> Table:
    """Cosine and sine (R, T·H·W after packing, D) of latents at `times` (R, T), tokens in the order of t, y, x.

    `height` and `width` count tokens before packing by `scale`; `axes` are the channels of t, y and x.
    """
    tables = [
        axis(positions, dim, theta, scale)
        for positions, dim in zip((times, np.arange(height)[None], np.arange(width)[None]), axes, strict=True)
    ]
    cos, sin = zip(*tables, strict=True)
    return _grid(*cos), _grid(*sin)


def coarse(
    times: np.ndarray, size: tuple[int, int], grid: tuple[int, int], axes: Sequence[int], theta: float = 256.0
) -> Table:
    """Cosine and sine (R, T·H·W, D) of frames that were pooled to `grid` tokens (H, W), from `size` of them.

    Each token takes the mean of those that it stands for, as `rotary` does for blocks.
    """
    time = axis(times, axes[0], theta)
    row, column = (
        tuple(_merged(part, count) for part in axis(np.arange(whole)[None], dim, theta))
        for whole, count, dim in zip(size, grid, axes[1:], strict=True)
    )
    return _grid(time[0], row[0], column[0]), _grid(time[1], row[1], column[1])


def _merged(table: np.ndarray, count: int) -> np.ndarray:
    """Means over `count` even parts of axis 1."""
    edges = divided(table.shape[1], count)
    return np.stack([table[:, first:last].mean(axis=1) for first, last in pairwise(edges)], axis=1)


def _grid(time: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The three axes' tables spread over all tokens and laid side by side."""
    shape = (len(time), time.shape[1], row.shape[1], column.shape[1])
    spread = (time[:, :, None, None], row[:, None, :, None], column[:, None, None, :])
    parts = [np.broadcast_to(part, (*shape, part.shape[-1])) for part in spread]
    return np.concatenate(parts, axis=-1).reshape(len(time), -1, sum(part.shape[-1] for part in parts))


def _pool(table: np.ndarray, scale: int) -> np.ndarray:
    """Means over `scale` neighbours along axis 1, the last one repeated to fill."""
    if scale == 1:
        return table
    missing = -table.shape[1] % scale
    filled = np.concatenate([table, *[table[:, -1:]] * missing], axis=1)
    return filled.reshape(len(table), -1, scale, table.shape[-1]).mean(axis=2)


def sequence(parts: Sequence[Table]) -> Table:
    """The tables one after the other; rows are repeated if one part has one row and another has the batch's."""
    rows = max(len(cos) for cos, _ in parts)
    cos, sin = (
        np.concatenate([np.broadcast_to(part[i], (rows, *part[i].shape[1:])) for part in parts], axis=1)
        for i in (0, 1)
    )
    return cos, sin
