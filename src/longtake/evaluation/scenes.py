"""Measures of a toy world's scene against its truth, as frames come.

Legend: T frames, H height, W width.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from longtake import toyworld
from longtake.evaluation import pixels
from longtake.evaluation.pixels import Array, Frames

WINDOW_SECONDS, HOP_SECONDS = 3, 1
"""A motion is told from three seconds; a stretch of so many begins every second."""
LOST_FRAMES = 30
"""The character is lost where it is not to be recognised in most of so many frames in a row: a second. A bird that
turns round is thin like a sheet of paper for a third of one."""
_STRIDE = (
    3  # frames over which speed is taken: a tenth of a second, since a centre is found to a part of a pixel
)

Found = dict[str, tuple[np.ndarray, np.ndarray]]


class Watch:
    """What the frames of one video show of its scene."""

    def __init__(self, scene: toyworld.Scene, certain: bool = False) -> None:
        self._scene, self._certain = scene, certain or is_certain(scene)
        self._parts: list[toyworld.Measurement] = []
        self._psnr: list[Array] = []
        self._shape: tuple[int, ...] = (0, 0)

    def push(self, frames: Frames, first: int) -> None:
        """Take the next frames (T, H, W, 3), the first of which has this number."""
        self._shape = frames.shape[1:3]
        self._parts.append(toyworld.measure(frames, self._scene, first))
        if self._certain:
            true = toyworld.render(self._scene, range(first, first + len(frames)), *self._shape)
            self._psnr.append(frame_psnr(frames, true))

    def finish(self) -> tuple[Found, str]:
        """Frame numbers and values by measure, and the motion that the whole video shows."""
        found = toyworld.joined(self._parts)
        numbers = np.arange(len(found.x))
        lost = is_lost(found, toyworld.truth_of(self._scene, *self._shape[:2]).area)
        values = {
            "background": found.background_error,
            "size": found.size_error,
            "colour": found.colour_error,
            "shape": found.shape_error,
            "look": found.look_error,
            "count": found.count,
            "lost": lost.astype(np.float32),
            "speed": speed(found, self._shape),
        }
        if self._psnr:
            values["psnr"] = np.concatenate(self._psnr)
        seen = self._seen(found)
        curves: Found = {name: (numbers, each) for name, each in values.items()}
        curves["prompted"] = self._prompted(found)
        return curves, seen

    def _seen(self, found: toyworld.Measurement) -> str:
        return toyworld.motion_of(found, self._scene, self._shape)

    def _prompted(self, found: toyworld.Measurement) -> tuple[np.ndarray, np.ndarray]:
        """For each stretch, by its middle, whether the motion is the prompted one."""
        length, count = WINDOW_SECONDS * toyworld.FPS, len(found.x)
        starts = np.arange(0, max(1, count - length + 1), HOP_SECONDS * toyworld.FPS)
        right = [self._seen(found[start : start + length]) == self._scene.motion for start in starts]
        return starts + min(length, count) // 2, np.array(right, np.float32)


def is_certain(scene: toyworld.Scene) -> bool:
    """Tell if the first frame says all of a scene's future: nothing moves in it."""
    return scene.motion == "stays still"


def frame_psnr(frames: Frames, true: Frames) -> Array:
    """The peak signal-to-noise ratio (T,) of each frame, in dB; at most 60, since equal frames have none."""
    error = np.square(frames.astype(np.float32) - true).mean((1, 2, 3))
    return np.asarray(10 * np.log10(255**2 / np.maximum(error, 0.065)), np.float32)


def speed(found: toyworld.Measurement, shape: tuple[int, ...]) -> Array:
    """The speed (T,) of the character's centre, in shorter sides of the frame a second."""
    unit = min(shape)
    across = (np.diff(found.x, append=found.x[-1:]) + 0.5) % 1 - 0.5
    x = np.concatenate(([0], np.cumsum(across[:-1]))) * shape[1] / unit
    y = found.y * shape[0] / unit
    values = np.full(len(x), np.nan, np.float32)
    step = np.hypot(x[_STRIDE:] - x[:-_STRIDE], y[_STRIDE:] - y[:-_STRIDE])
    values[_STRIDE:] = step * toyworld.FPS / _STRIDE
    values[found.area == 0] = np.nan
    return values


def is_lost(found: toyworld.Measurement, area: float) -> np.ndarray:
    """For each frame, whether the character is missing or not to be recognised in most of the second around it."""
    bad = (found.area < 0.1 * area) | (found.shape_error > 0.5) | (found.colour_error > 0.4)
    near = np.ones(min(LOST_FRAMES, len(bad)))
    return np.convolve(bad, near, "same") > 0.5 * np.convolve(np.ones(len(bad)), near, "same")


@lru_cache(maxsize=256)
def true_sharpness(scene: toyworld.Scene, height: int, width: int) -> float:
    """The sharpness of the scene's true frames: the median over five seconds."""
    frames = toyworld.render(scene, range(0, 150, 5), height, width)
    return float(np.median(pixels.sharpness(pixels.luma(frames))))
