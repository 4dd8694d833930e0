"""Draws scenes: any frame of any scene at any size, anti-aliased by signed distances, without state between calls.

Legend: T frames asked for, H height, W width, N frames drawn at once, P side of the patch around the character.
A frame costs about 0.1 ms at 64 x 64: the background is made once a scene, the character drawn in its patch only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from longtake.toyworld.characters import LAYERS, REACH, RGB, Layers
from longtake.toyworld.extras import GUEST_SCALE, PLAIN, camera, curtain, guest_x, light
from longtake.toyworld.motion import Pose, pose
from longtake.toyworld.places import empty_place, panorama
from longtake.toyworld.scenes import PENGUIN_COLOUR, Scene

_EDGE = 1.7  # width of an edge in pixels: wide enough for a small autoencoder, and still crisp to the eye
_BATCH = 16  # frames drawn at once: their arrays stay in the cache of one core

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Patches:
    """Rows (N, P, 1) and columns (N, 1, P) in the frame, coverage (N, P, P), colour times coverage (3, N, P, P)."""

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    cover: Array
    paint: Array


def _patches(scene: Scene, now: Pose, height: int, width: int, scale: float = 1.0) -> _Patches:
    unit = min(height, width)
    tall = scene.height * unit * scale
    cos, sin = np.cos(now.angle), np.sin(now.angle)
    # The pivot stays where it is in the standing pose; the centre swings about it.
    above = now.pivot * tall * now.stretch
    middle_x = now.x * width + sin * above
    middle_y = now.ground * height - now.lift * unit - (0.5 - now.pivot) * tall - cos * above
    rows, columns = _patch_pixels(
        middle_x, middle_y, 2 * int(np.ceil(1.05 * REACH[scene.kind] * tall)) + 3, height, width
    )
    dx = (columns + 0.5 - _stacked(middle_x, float)).astype(np.float32)
    dy = (rows + 0.5 - _stacked(middle_y, float)).astype(np.float32)
    # A bird turns round like a sheet of paper; its thinnest is a fifth, which keeps distances usable.
    body = now.body if scene.kind == "bird" else np.ones_like(now.body)
    thin = np.where(body < 0, -1, 1) * np.maximum(np.abs(body), 0.2)
    x = (_stacked(cos) * dx + _stacked(sin) * dy) / _stacked(tall * thin / now.stretch)
    y = (_stacked(cos) * dy - _stacked(sin) * dx) / _stacked(tall * now.stretch)
    layers = LAYERS[scene.kind](
        x, y, _stacked(now.look), _stacked(now.wing), _stacked(now.step), RGB[scene.colour]
    )
    drawn = _composite(layers, x.shape, np.float32(tall / _EDGE))
    return _Patches(rows, columns, drawn[3], drawn[:3])


def _patch_pixels(
    middle_x: npt.NDArray[np.float64], middle_y: npt.NDArray[np.float64], side: int, height: int, width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows (N, P, 1) and columns (N, 1, P) inside the frame, around the centres as far as there is room."""
    high, wide = min(side, height), min(side, width)
    first_row = np.clip(np.floor(middle_y - high / 2).astype(np.int64), 0, height - high)
    first_column = np.clip(np.floor(middle_x - wide / 2).astype(np.int64), 0, width - wide)
    rows = first_row[:, None, None] + np.arange(high)[None, :, None]
    return rows, first_column[:, None, None] + np.arange(wide)[None, None, :]


def _stacked(values: npt.NDArray[np.float64], dtype: type = np.float32) -> npt.NDArray[np.floating[Any]]:
    return values.astype(dtype)[:, None, None]


def _composite(layers: Layers, shape: tuple[int, ...], sharpness: np.float32) -> Array:
    """Lays the layers over each other; returns red, green, blue (times coverage) and coverage (4, N, P, P)."""
    drawn = np.zeros((4, *shape), np.float32)
    for distance, colour in layers:
        cover = np.clip(np.float32(0.5) - distance * sharpness, 0, 1)
        cover *= cover * (3 - 2 * cover)
        for channel, value in enumerate((*colour, 1.0)):
            drawn[channel] += cover * (np.float32(value) - drawn[channel])
    return drawn


def _batches(numbers: npt.NDArray[np.int64]) -> Iterator[tuple[slice, npt.NDArray[np.int64]]]:
    for first in range(0, len(numbers), _BATCH):
        yield slice(first, first + _BATCH), numbers[first : first + _BATCH]


def _draw_over(
    video: npt.NDArray[np.generic],
    scene: Scene,
    frames: npt.ArrayLike,
    empty: Array,
    white: float,
    black: float,
) -> None:
    """Paints the character over `video` (T, H, W, 3), whose empty place is `empty`, between these two values."""
    for part, batch in _batches(np.asarray(frames, np.int64)):
        patches = _patches(scene, pose(scene, batch), *empty.shape[:2])
        cover, paint = patches.cover[..., None], np.moveaxis(patches.paint, 0, -1)
        behind = empty[patches.rows, patches.columns]
        here = np.arange(part.start, part.start + len(batch))[:, None, None]
        mixed = behind * (1 - cover) + ((white - black) * paint + black * cover)
        video[here, patches.rows, patches.columns] = mixed.astype(video.dtype)


def render(scene: Scene, frames: npt.ArrayLike, height: int = 64, width: int = 64) -> npt.NDArray[np.uint8]:
    """Draws the frames with these numbers, in any order: (T, H, W, 3) uint8.

    >>> render(Scene(), range(5), 64, 96).shape
    (5, 64, 96, 3)
    """
    if scene.extras != PLAIN:
        return np.asarray(_with_extras(scene, frames, height, width) * 255 + np.float32(0.5), np.uint8)
    empty = empty_place(scene, height, width) * 255 + np.float32(0.5)  # the half makes truncation round
    video = np.repeat(empty.astype(np.uint8)[None], len(np.asarray(frames)), 0)
    _draw_over(video, scene, frames, empty, white=255.5, black=0.5)
    return video


def render_float(scene: Scene, frames: npt.ArrayLike, height: int = 64, width: int = 64) -> Array:
    """Draws the frames with these numbers: (T, H, W, 3) float32 in [-1, 1], the range that the networks see."""
    if scene.extras != PLAIN:
        return _with_extras(scene, frames, height, width) * 2 - 1
    empty = empty_place(scene, height, width) * 2 - 1
    video = np.repeat(empty[None], len(np.asarray(frames)), 0)
    _draw_over(video, scene, frames, empty, white=1.0, black=-1.0)
    return video


def render_masks(scene: Scene, frames: npt.ArrayLike, height: int = 64, width: int = 64) -> Array:
    """The share of each pixel that shows the character: (T, H, W) float32 in [0, 1]."""
    return _masks(
        scene, lambda numbers: _patches(scene, pose(scene, numbers), height, width), frames, height, width
    )


def guest_masks(scene: Scene, frames: npt.ArrayLike, height: int = 64, width: int = 64) -> Array:
    """The share of each pixel that shows the guest, or would if the character did not stand before it: (T, H, W)."""
    if not scene.extras.guest:
        return np.zeros((len(np.asarray(frames)), height, width), np.float32)
    return _masks(scene, lambda numbers: _guest(scene, numbers, height, width), frames, height, width)


def empties(scene: Scene, frames: npt.ArrayLike, height: int, width: int) -> Array:
    """All but the character in the frames with these numbers, by day (T, H, W, 3), or (1, H, W, 3) if none moves."""
    if not (scene.extras.pan or scene.extras.guest or scene.extras.hidden_for):
        return empty_place(scene, height, width)[None]
    numbers = np.asarray(frames, np.int64)
    return _behind_curtain(scene, numbers, _behind(scene, numbers, height, width))


def background(scene: Scene, height: int, width: int, frame: int = 0) -> Array:
    """All but the character in a frame (H, W, 3), in [0, 1]. Do not write into it: it may be shared."""
    if scene.extras == PLAIN:
        return empty_place(scene, height, width)
    return np.asarray(empties(scene, [frame], height, width)[0] * light(scene.extras, [frame])[0])


def _with_extras(scene: Scene, frames: npt.ArrayLike, height: int, width: int) -> Array:
    """The frames with all that a study adds (T, H, W, 3), in [0, 1]."""
    drawn = []
    for _, numbers in _batches(np.asarray(frames, np.int64)):
        picture = _behind(scene, numbers, height, width)
        _paint(picture, _patches(scene, pose(scene, numbers), height, width))
        picture = _behind_curtain(scene, numbers, picture)
        drawn.append(picture * light(scene.extras, numbers)[:, None, None])
    return np.concatenate(drawn)


def _behind(scene: Scene, numbers: npt.NDArray[np.int64], height: int, width: int) -> Array:
    """The place as the camera sees it, and the guest in it (N, H, W, 3)."""
    if scene.extras.pan:
        wide = panorama(scene, height, width)
        left = camera(scene.extras, numbers) * width
        columns = np.floor(left).astype(np.int64)[:, None] + np.arange(width + 1)
        seen = wide[:, columns % wide.shape[1]].swapaxes(0, 1)
        share = (left % 1).astype(np.float32)[:, None, None, None]
        picture = seen[:, :, :-1] + share * (seen[:, :, 1:] - seen[:, :, :-1])
    else:
        picture = np.repeat(empty_place(scene, height, width)[None], len(numbers), 0)
    if scene.extras.guest:
        _paint(picture, _guest(scene, numbers, height, width))
    return picture


def _guest(scene: Scene, numbers: npt.NDArray[np.int64], height: int, width: int) -> _Patches:
    extras = scene.extras
    colour = PENGUIN_COLOUR if extras.guest == "penguin" else extras.guest_colour
    guest = Scene(extras.guest, colour, "small", ground=0.72, facing=-extras.guest_side)
    now = replace(pose(guest, numbers), x=guest_x(extras, numbers))
    return _patches(guest, now, height, width, GUEST_SCALE)


def _behind_curtain(scene: Scene, numbers: npt.NDArray[np.int64], picture: Array) -> Array:
    """The pictures (N, H, W, C) with the curtain before them, where there is one."""
    extras = scene.extras
    if not extras.hidden_for:
        return picture
    height, width = picture.shape[1:3]
    unit = min(height, width) / width
    if extras.guest:
        middle, half = guest_x(extras, numbers), 0.68 * GUEST_SCALE * 0.44 * unit
    else:
        middle, half = (
            np.full(len(numbers), scene.x, np.float64),
            (REACH[scene.kind] + 0.1) * scene.height * unit + 0.14,
        )
    drawn = curtain(extras, numbers, middle, half, (height, width))
    colour = drawn[..., :3] if picture.shape[-1] == 3 else np.float32(0)
    return np.asarray(picture + drawn[..., 3:] * (colour - picture))


def _paint(picture: Array, patches: _Patches) -> None:
    """Paints the patches (N, P, P) over the pictures (N, H, W, 3) in [0, 1]."""
    here = np.arange(len(picture))[:, None, None]
    behind = picture[here, patches.rows, patches.columns]
    picture[here, patches.rows, patches.columns] = behind * (1 - patches.cover[..., None]) + np.moveaxis(
        patches.paint, 0, -1
    )


def _masks(
    scene: Scene,
    patches_of: Callable[[npt.NDArray[np.int64]], _Patches],
    frames: npt.ArrayLike,
    height: int,
    width: int,
) -> Array:
    numbers = np.asarray(frames, np.int64)
    masks = np.zeros((len(numbers), height, width), np.float32)
    for part, batch in _batches(numbers):
        patches = patches_of(batch)
        here = np.arange(part.start, part.start + len(batch))[:, None, None]
        masks[here, patches.rows, patches.columns] = patches.cover
    return _behind_curtain(scene, numbers, masks[..., None])[..., 0]
