"""The four places: smooth backgrounds that wrap around from right to left.

Legend: H height, W width. They are simple on purpose: a very small autoencoder has to learn them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from longtake.toyworld.characters import RGB
from longtake.toyworld.extras import WIDE
from longtake.toyworld.motion import smoothstep
from longtake.toyworld.scenes import COLOURS_OF_PLACE, Scene

Array = npt.NDArray[np.float32]


def empty_place(scene: Scene, height: int, width: int) -> Array:
    """The empty place (H, W, 3) in [0, 1]; it wraps around from right to left. Do not write into it: it is shared."""
    return _background(scene.place, scene.seed, height, width, 1)


def panorama(scene: Scene, height: int, width: int) -> Array:
    """A place of `WIDE` frame widths (H, WIDE * W, 3) with trees in it, whose colours only a camera that pans finds."""
    return _with_trees(scene.place, scene.seed, height, width)


@lru_cache(maxsize=32)
def _with_trees(place: str, seed: int, height: int, width: int) -> Array:
    rng = np.random.default_rng((seed, WIDE))
    picture = _background(place, seed, height, width, WIDE).astype(np.float64)
    unit = min(height, width)
    x, y = np.arange(WIDE * width)[None, :] + 0.5, np.arange(height)[:, None] + 0.5
    colours = [COLOURS_OF_PLACE[place][n] for n in rng.permutation(len(COLOURS_OF_PLACE[place]))]
    for number, colour in enumerate((*colours, *colours)[: 2 * WIDE]):
        foot, top = rng.uniform(0.62, 0.70) * height, rng.uniform(0.36, 0.44) * height
        middle = (number + rng.uniform(0.3, 0.7)) * width / 2
        aside = (x - middle + WIDE * width / 2) % (WIDE * width) - WIDE * width / 2
        trunk = np.minimum(0.022 * unit - np.abs(aside), np.minimum(y - top, foot - y))
        crown = 0.10 * unit - np.hypot(aside, y - top)
        for inside, paint in ((trunk, (0.42, 0.30, 0.22)), (crown, RGB[colour])):
            picture = _over(picture, np.array(paint), (inside / 1.7)[..., None])
    shared = picture.astype(np.float32)
    shared.setflags(write=False)
    return shared


@lru_cache(maxsize=32)
def _background(place: str, seed: int, height: int, width: int, frames: int) -> Array:
    rng = np.random.default_rng(seed)
    x = ((np.arange(frames * width) + 0.5) / width)[None, :, None]
    y = ((np.arange(height) + 0.5) / height)[:, None, None]
    horizon, start = 0.60 + 0.05 * (2 * rng.random() - 1), rng.random()
    hill = horizon - rng.uniform(0.02, 0.045) * np.sin(2 * np.pi * (x + start))
    soft = max(2.0 / height, 0.03)  # how wide an edge is, in frame heights
    if place == "snow":
        sky = _fade(y, (0.58, 0.76, 0.93), (0.84, 0.91, 0.97), 0, horizon)
        ground, edge = _fade(y, (0.95, 0.97, 0.99), (0.86, 0.90, 0.96), horizon, 1), hill
    elif place == "grass":
        sky = _fade(y, (0.42, 0.70, 0.95), (0.76, 0.89, 0.98), 0, horizon)
        ground, edge = _fade(y, (0.50, 0.77, 0.34), (0.34, 0.62, 0.26), horizon, 1), hill
    elif place == "beach":
        sky = _fade(y, (0.55, 0.80, 0.96), (0.90, 0.94, 0.95), 0, horizon - 0.1)
        sea = _fade(y, (0.24, 0.66, 0.76), (0.42, 0.80, 0.82), horizon - 0.12, horizon + 0.03)
        sky = _over(sky, sea, (y - horizon + 0.12) / soft)
        ground, edge = (
            _fade(y, (0.96, 0.88, 0.66), (0.90, 0.79, 0.54), horizon, 1),
            (hill + horizon) / 2 + 0.02,
        )
    else:
        sky = _fade(y, (0.13, 0.15, 0.38), (0.34, 0.34, 0.62), 0, horizon)
        sky = sky + _night_lights(rng, x, y, width / height) * (np.array((0.98, 0.95, 0.80)) - sky)
        ground, edge = _fade(y, (0.36, 0.42, 0.60), (0.26, 0.31, 0.48), horizon, 1), hill
    picture = np.asarray(_over(sky, ground, (y - edge) / soft) + rng.uniform(-0.03, 0.03, 3))
    shared = np.clip(picture, 0, 1).astype(np.float32)
    shared.setflags(write=False)
    return shared


def _fade(
    y: npt.NDArray[Any], top: Sequence[float], bottom: Sequence[float], first: float, last: float
) -> npt.NDArray[Any]:
    """From one colour to the other between two heights."""
    share = np.clip((y - first) / (last - first), 0, 1)
    return np.asarray(np.array(top) + share * (np.array(bottom) - np.array(top)))


def _over(far: npt.NDArray[Any], near: npt.NDArray[Any], below: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`near` where `below`, a distance under its upper edge in widths of a soft edge, is positive."""
    return np.asarray(far + smoothstep(below + 0.5) * (near - far))


def _night_lights(
    rng: np.random.Generator, x: npt.NDArray[Any], y: npt.NDArray[Any], aspect: float
) -> npt.NDArray[Any]:
    """The light of the moon and of three soft stars (H, W, 1)."""

    def away(across: float, down: float) -> npt.NDArray[Any]:
        aside = ((x - across + 0.5) % 1 - 0.5) * max(aspect, 1)
        return np.hypot(aside, (y - down) * max(1 / aspect, 1))

    light = 0.95 * smoothstep((0.075 - away(rng.random(), rng.uniform(0.14, 0.22))) / 0.03 + 0.5)
    for _ in range(3):
        light = np.maximum(light, 0.5 * np.exp(-((away(rng.random(), rng.uniform(0.06, 0.4)) / 0.026) ** 2)))
    return light
