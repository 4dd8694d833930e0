"""Finds a scene's character in frames, whatever it does there: its centre, its mask, and what else stands out.

Legend: T frames, H height, W width; planes are (3, T, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtake.toyworld.characters import REACH
from longtake.toyworld.draw import empties
from longtake.toyworld.scenes import Scene

_SEEN = 0.10  # difference to the empty place under which nothing is taken for a character

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """Centres in frame widths and heights (T,), the character's mask (T, H, W), and all that stands out.

    `change` (3, T, H, W) is what the frames differ from the empty place by, in [-1, 1].
    """

    x: Array
    y: Array
    mask: Mask
    seen: Mask
    change: Array


def empty_planes(scene: Scene, numbers: npt.NDArray[np.int64], height: int, width: int) -> Array:
    """All but the character in the frames with these numbers, by day: (3, T, H, W) in [0, 1], or (3, 1, H, W)."""
    return empties(scene, numbers, height, width).transpose(3, 0, 1, 2)


def planes(frames: npt.NDArray[np.uint8]) -> Array:
    """Frames (T, H, W, 3) uint8 as (3, T, H, W) in [0, 1], each colour for itself."""
    return np.ascontiguousarray(frames.transpose(3, 0, 1, 2)) * np.float32(1 / 255)


def find(frames: npt.NDArray[np.uint8], scene: Scene, numbers: npt.NDArray[np.int64]) -> Found:
    """The spot, about as large as the character, in which the frames with these numbers differ from the empty place.

    Differences elsewhere count as background, so that a changed background cannot pass for a character.
    """
    height, width = frames.shape[1:3]
    tall = scene.height * min(height, width)
    change = planes(frames)
    change -= empty_planes(scene, numbers, height, width)
    strongest = _strongest(_soft(change))
    # Half the contrast near by: where a blurred edge stays. (Half the contrast of the nearest of the character's own
    # colours was tried and is worse: size error 2.4 instead of 1.3 % under blur.)
    edge = 0.5 * _largest_near(strongest, max(2, round(tall / 8)))
    seen = _majority(strongest > np.maximum(edge, np.float32(_SEEN)))
    column, row, _ = densest(seen, round(tall))
    x, y = column + 0.5, row + 0.5
    for _ in range(3):
        spot = seen & _square(x, y, 1.1 * REACH[scene.kind] * tall, height, width)
        x, y = _centre(spot, x, y)
    spot = _filled(_closed(spot, int(np.ceil(tall / 8))))
    x, y = _centre(spot, x, y)
    return Found((x / width).astype(np.float32), (y / height).astype(np.float32), spot, seen, change)


def densest(
    mask: Mask, side: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Column and row (T,) of the middle of the square that holds most of the mask, and how many pixels it holds."""
    before, after = (side - 1) // 2, side // 2
    width = mask.shape[2]
    wide = np.pad(mask, ((0, 0), (before + 1, after), (before + 1, after)))
    total = np.cumsum(wide, 1, dtype=np.int32)
    total = np.cumsum(total[:, side:] - total[:, :-side], 2)
    total = total[:, :, side:] - total[:, :, :-side]
    flat = total.reshape(len(mask), -1)
    best = flat.argmax(1)
    return best % width, best // width, flat[np.arange(len(mask)), best]


def without(mask: Mask, column: npt.NDArray[np.int64], row: npt.NDArray[np.int64], side: int) -> Mask:
    """The mask without the squares of `densest`."""
    height, width = mask.shape[1:]
    near = (np.abs(np.arange(width) - column[:, None]) <= side / 2)[:, None, :]
    near = near & (np.abs(np.arange(height) - row[:, None]) <= side / 2)[:, :, None]
    return mask & ~near


def dilated(mask: Mask, radius: int) -> Mask:
    """The mask and all pixels that are near to it, in x and in y."""
    return _largest_near(mask, radius)


def _strongest(change: Array) -> Array:
    """The largest absolute value of the three colours (T, H, W)."""
    change = np.abs(change, out=change)
    return np.maximum(np.maximum(change[0], change[1]), change[2])


def _soft(values: Array) -> Array:
    """A light blur of planes over rows and columns, against noise."""
    wide = np.concatenate((values[..., :1], values, values[..., -1:]), -1)
    across = wide[..., :-2] + wide[..., 2:]
    across += 2 * values
    tall = np.concatenate((across[:, :, :1], across, across[:, :, -1:]), 2)
    down = tall[:, :, :-2] + tall[:, :, 2:]
    across *= 2
    down += across
    down *= np.float32(1 / 16)
    return np.asarray(down)


def _largest_near(values: npt.NDArray, radius: int) -> npt.NDArray:
    """The largest value of (T, H, W) within `radius` pixels in x and in y; for a mask, whether one is set there."""
    height, width = values.shape[1:]
    wide = np.pad(values, ((0, 0), (radius, radius), (radius, radius)), mode="edge")
    wide = _largest_of(wide, 2 * radius + 1, 2)[..., :width]
    return _largest_of(wide, 2 * radius + 1, 1)[:, :height]


def _largest_of(values: npt.NDArray, count: int, axis: int) -> npt.NDArray:
    """The largest of each `count` neighbours along an axis, by doubling."""
    done = 1
    while done < count:
        step = min(done, count - done)
        size = values.shape[axis] - step
        first, second = [slice(None)] * 3, [slice(None)] * 3
        first[axis], second[axis] = slice(0, size), slice(step, step + size)
        values = np.maximum(values[tuple(first)], values[tuple(second)])
        done += step
    return values


def _majority(mask: Mask) -> Mask:
    """The mask without the pixels that stand alone: fewer than four of the nine in their square are set."""
    total = mask.view(np.int8)
    wide = np.pad(total, ((0, 0), (0, 0), (1, 1)))
    total = total + wide[..., :-2] + wide[..., 2:]
    agree = total.copy()
    agree[:, 1:] += total[:, :-1]
    agree[:, :-1] += total[:, 1:]
    return np.asarray(mask & (agree >= 4))


def _square(x: npt.NDArray, y: npt.NDArray, half: float, height: int, width: int) -> Mask:
    near_x = np.abs(np.arange(width) + 0.5 - x[:, None]) <= half
    near_y = np.abs(np.arange(height) + 0.5 - y[:, None]) <= half
    return np.asarray(near_y[:, :, None] & near_x[:, None, :])


def _centre(mask: Mask, x: npt.NDArray, y: npt.NDArray) -> tuple[npt.NDArray, npt.NDArray]:
    """The mask's centre in pixels (T,) each; if it is empty, the one given."""
    columns, rows = np.arange(mask.shape[2]) + 0.5, np.arange(mask.shape[1]) + 0.5
    across = mask.sum(1, dtype=np.int16)
    count = across.sum(1, dtype=np.int64)
    full = np.maximum(count, 1)
    new_x, new_y = across @ columns / full, mask.sum(2, dtype=np.int16) @ rows / full
    return np.where(count > 0, new_x, x), np.where(count > 0, new_y, y)


def _closed(mask: Mask, radius: int) -> Mask:
    """The mask with its narrow gaps filled, such as the ball's white stripe in front of snow."""
    wide = dilated(np.pad(mask, ((0, 0), (radius, radius), (radius, radius))), radius)
    return np.asarray(mask | ~dilated(~wide, radius)[:, radius:-radius, radius:-radius])


def _filled(mask: Mask) -> Mask:
    """The mask with its holes filled (mask on all four sides), such as a white belly in front of snow."""
    inside = np.ones_like(mask)
    for axis in (1, 2):
        inside &= np.logical_or.accumulate(mask, axis)
        inside &= np.flip(np.logical_or.accumulate(np.flip(mask, axis), axis), axis)
    return mask | inside
