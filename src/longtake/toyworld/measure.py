"""Measures scenes back from frames: where the character is, its size, its colour, the background, and what it does.

Every measure treats the frames of a video and the true frames of its scene in the same way, so that the edges, the
pose and the threshold weigh on both sides. The place and the character are known, the motion is not used.

Legend: T frames, H height, W width, K templates, P side of a crop around the character.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from longtake.toyworld.characters import REACH
from longtake.toyworld.draw import render
from longtake.toyworld.motion import FPS
from longtake.toyworld.places import background
from longtake.toyworld.scenes import Scene, still

_SEEN = 0.10  # difference to the empty place under which nothing is taken for a character
_ANGLES = 24

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Measurement:
    """The measurements of T frames.

    `x` the character's centre in frame widths; `y` in frame heights from the top;
    `area` the part of the frame that it covers; `colour` (T, 3) its mean colour in [0, 1]; `size_error` and
    `colour_error` relative to the true character's medians; `background_error` mean absolute, in [0, 1], outside it.
    """

    x: Array
    y: Array
    area: Array
    colour: Array
    size_error: Array
    colour_error: Array
    background_error: Array

    @cached_property
    def medians(self) -> dict[str, float]:
        """The three errors of the whole video."""
        names = ("size_error", "colour_error", "background_error")
        return {name: float(np.median(getattr(self, name))) for name in names}


def measure(frames: npt.NDArray[np.uint8], scene: Scene) -> Measurement:
    """Measures what the frames (T, H, W, 3) uint8 show against the truth of `scene`, frame 0 first."""
    height, width = frames.shape[1:3]
    found = _find(frames, scene)
    true_area, true_colour = _nominal(scene, height, width)
    colour = _mean_colour(frames, found.mask)
    area = found.mask.mean((1, 2), dtype=np.float32)
    error = np.abs(frames / np.float32(255) - background(scene, height, width)).mean(-1)
    outside = ~_dilated(found.mask, max(2, round(min(height, width) / 24)))
    return Measurement(
        x=found.x,
        y=found.y,
        area=area,
        colour=colour,
        size_error=np.abs(area / true_area - 1).astype(np.float32),
        colour_error=np.linalg.norm(colour - true_colour, axis=1) / np.float32(np.linalg.norm(true_colour)),
        background_error=(error * outside).sum((1, 2)) / np.maximum(outside.sum((1, 2)), 1),
    )


def classify_motion(frames: npt.NDArray[np.uint8], scene: Scene) -> str:
    """Says which of the motions the frames (T, H, W, 3) uint8 show, whatever motion `scene` has.

    The character and the place of `scene` are taken as known. The video should have two seconds or more: within one
    second most motions look alike.
    """
    height, width = frames.shape[1:3]
    plain = still(scene)
    found = _find(frames, plain)
    rest = _find(render(plain, [0], height, width), plain).y[0]
    unit = min(height, width) / height
    lift = (rest - found.y) / unit
    late = lift[min(int(1.5 * FPS), len(lift) // 2) :]
    if np.quantile(late, 0.08) > 0.13:
        return "flies"
    if abs(_turns_per_second(frames, found, plain)) > 0.06:
        return "spins"
    if np.quantile(lift, 0.95) - np.quantile(lift, 0.05) > 0.09:
        return "bounces"
    # A walker stays on one side of where it began, a dancer does not.
    left, right = (float(reach) for reach in np.quantile(scene.x - found.x, (0.92, 0.08)) * np.array((1, -1)))
    if max(left, right) > 0.07 and min(left, right) < 0.3 * max(left, right):
        return "walks right" if right > left else "walks left"
    return "dances" if left + right > 0.05 else "stays still"


# --- finding the character ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """Centres in frame widths and heights (T,), and masks (T, H, W) bool."""

    x: Array
    y: Array
    mask: npt.NDArray[np.bool_]


def _find(frames: npt.NDArray[np.uint8], scene: Scene) -> _Found:
    """The spot, about as large as the character, in which the frames differ from the empty place.

    Differences elsewhere count as background, so that a changed background cannot pass for a character.
    """
    height, width = frames.shape[1:3]
    tall = scene.height * min(height, width)
    change = np.abs(_soft(frames / np.float32(255) - background(scene, height, width))).max(-1)
    # Half the contrast near by: where a blurred edge stays. (Half the contrast of the nearest of the character's own
    # colours was tried and is worse: size error 2.4 instead of 1.3 % under blur.)
    edge = 0.5 * _largest_near(change, max(2, round(tall / 8)))
    mask = _majority(change > np.maximum(edge, _SEEN))
    column, row = _densest(mask, round(tall))
    x, y = column + 0.5, row + 0.5
    for _ in range(3):
        spot = mask & _square(x, y, 1.1 * REACH[scene.kind] * tall, height, width)
        x, y = _centre(spot, x, y)
    spot = _filled(_closed(spot, int(np.ceil(tall / 8))))
    x, y = _centre(spot, x, y)
    return _Found((x / width).astype(np.float32), (y / height).astype(np.float32), spot)


def _soft(values: Array) -> Array:
    """A light blur over rows and columns, against noise."""
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    values = 0.5 * padded[:, :, 1:-1] + 0.25 * (padded[:, :, 2:] + padded[:, :, :-2])
    return 0.5 * values[:, 1:-1] + 0.25 * (values[:, 2:] + values[:, :-2])


def _largest_near(values: Array, radius: int) -> Array:
    """The largest value within `radius` pixels in x and in y."""
    for axis in (1, 2):
        for _ in range(radius):
            values = np.maximum(values, np.maximum(_beside(values, -1, axis), _beside(values, 1, axis)))
    return values


def _beside(values: Array, step: int, axis: int) -> Array:
    """Each pixel's neighbour along an axis; at the edge the pixel itself."""
    size = values.shape[axis]
    return np.take(values, np.clip(np.arange(size) + step, 0, size - 1), axis)


def _dilated(mask: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    return np.asarray(_largest_near(mask.astype(np.float32), radius) > 0)


def _majority(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The mask without the pixels that stand alone: fewer than four of the nine in their square are set."""
    total = np.pad(mask.astype(np.int8), ((0, 0), (1, 1), (1, 1)))
    total = total[:, :, 2:] + total[:, :, 1:-1] + total[:, :, :-2]
    agree = total[:, 2:] + total[:, 1:-1] + total[:, :-2]
    return np.asarray(mask & (agree >= 4))


def _densest(mask: npt.NDArray[np.bool_], side: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Column and row (T,) of the middle of the square that holds most of the mask."""
    before, after = (side - 1) // 2, side // 2
    width = mask.shape[2]
    padded = np.pad(mask.astype(np.float32), ((0, 0), (before + 1, after), (before + 1, after)))
    total = np.cumsum(padded, 1)
    total = np.cumsum(total[:, side:] - total[:, :-side], 2)
    total = total[:, :, side:] - total[:, :, :-side]
    best = total.reshape(len(mask), -1).argmax(1)
    return best % width, best // width


def _square(x: Array, y: Array, half: float, height: int, width: int) -> npt.NDArray[np.bool_]:
    near_x = np.abs(np.arange(width) + 0.5 - x[:, None]) <= half
    near_y = np.abs(np.arange(height) + 0.5 - y[:, None]) <= half
    return near_y[:, :, None] & near_x[:, None, :]


def _centre(mask: npt.NDArray[np.bool_], x: Array, y: Array) -> tuple[Array, Array]:
    """The mask's centre in pixels (T,) each; if it is empty, the one given."""
    count = mask.sum((1, 2))
    columns, rows = np.arange(mask.shape[2]) + 0.5, np.arange(mask.shape[1]) + 0.5
    full = np.maximum(count, 1)
    new_x, new_y = mask.sum(1) @ columns / full, mask.sum(2) @ rows / full
    return np.where(count > 0, new_x, x), np.where(count > 0, new_y, y)


def _closed(mask: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """The mask with its narrow gaps filled, such as the ball's white stripe in front of snow."""
    return np.asarray(mask | ~_dilated(~_dilated(mask, radius), radius))


def _filled(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The mask with its holes filled (mask on all four sides), such as a white belly in front of snow."""
    inside = np.ones_like(mask)
    for axis in (1, 2):
        inside &= np.maximum.accumulate(mask, axis) & np.flip(
            np.maximum.accumulate(np.flip(mask, axis), axis), axis
        )
    return mask | inside


def _mean_colour(frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> Array:
    """The mean colour (T, 3) in [0, 1] inside the mask, without its edge if it has an inside."""
    core = mask & ~_dilated(~mask, 1)
    core = np.where(core.any((1, 2), keepdims=True), core, mask)
    total = np.einsum("thw,thwc->tc", core.astype(np.float32), frames.astype(np.float32))
    return np.asarray(total / (255 * np.maximum(core.sum((1, 2)), 1)[:, None]), np.float32)


@lru_cache(maxsize=64)
def _nominal(scene: Scene, height: int, width: int) -> tuple[float, Array]:
    """The true area and colour: medians over five seconds of the true video."""
    frames = render(scene, range(0, 150, 5), height, width)
    mask = _find(frames, scene).mask
    return float(np.median(mask.mean((1, 2)))), np.median(_mean_colour(frames, mask), 0).astype(np.float32)


# --- rotation -------------------------------------------------------------------------------------------------------


def _turns_per_second(frames: npt.NDArray[np.uint8], found: _Found, scene: Scene) -> float:
    """Turns of the character in its place, clockwise, by comparison with its true picture at `_ANGLES` angles."""
    templates = _templates(scene, *frames.shape[1:3])
    side = _crop_side(scene, *frames.shape[1:3])
    crops = _crops(frames, found, side)
    match = crops @ templates.T - 0.5 * (templates**2).sum(1)  # nearest template, less what is common to all
    angle = np.exp(2j * np.pi * (match.argmax(1) % _ANGLES) / _ANGLES)
    stride = min(12, len(angle) - 1)
    if stride < 1:
        return 0.0
    # The mean of the steps as complex numbers: a wrong frame turns it little, and a sway cancels.
    step = (angle[stride:] * angle[:-stride].conj()).mean()
    return float(np.angle(step) / (2 * np.pi) * FPS / stride)


def _crop_side(scene: Scene, height: int, width: int) -> int:
    return 2 * round(0.6 * scene.height * min(height, width)) + 1


@lru_cache(maxsize=64)
def _templates(scene: Scene, height: int, width: int) -> Array:
    """Crops (2K, P * P * 3) of the true character: K angles looking one way, then K looking the other way."""
    pictures = []
    for facing in (1, -1):
        for number in range(_ANGLES):
            phase = facing * number / _ANGLES  # a bird that looks to the left spins the other way
            pictures.append(
                render(replace(scene, motion="spins", facing=facing, phase=phase), [0], height, width)[0]
            )
    frames = np.stack(pictures)
    return _crops(frames, _find(frames, scene), _crop_side(scene, height, width))


def _crops(frames: npt.NDArray[np.uint8], found: _Found, side: int) -> Array:
    """The pixels inside the masks on middle grey, centred (T, P * P * 3), values about 0."""
    count, height, width = found.mask.shape
    rows = np.round(found.y * height - side / 2).astype(int)[:, None, None] + np.arange(side)[:, None]
    columns = np.round(found.x * width - side / 2).astype(int)[:, None, None] + np.arange(side)
    valid = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    here = np.arange(count)[:, None, None]
    inside = (found.mask[here, rows, columns] & valid)[..., None]
    crops = np.where(inside, frames[here, rows, columns] / np.float32(255) - np.float32(0.5), np.float32(0))
    return crops.reshape(count, -1).astype(np.float32)
