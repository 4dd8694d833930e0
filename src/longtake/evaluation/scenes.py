"""Measures of a toy world's scene against its truth, as frames come.

Legend: T frames, H height, W width.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from longtake import toyworld
from longtake.evaluation import pixels
from longtake.evaluation.asked import asked_motion, curtain, is_certain, last_change, recalled, unseen
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
    """The scene as the frames of one video show it."""

    def __init__(self, scene: toyworld.Scene, certain: bool = False) -> None:
        self._scene, self._certain = scene, certain or is_certain(scene)
        self._parts: list[toyworld.Measurement] = []
        self._psnr: list[Array] = []
        self._guest: list[Array] = []
        self._shape: tuple[int, ...] = (0, 0)

    def push(self, frames: Frames, first: int) -> None:
        """Take the next frames (T, H, W, 3), the first of which has this number."""
        self._shape, numbers = frames.shape[1:3], range(first, first + len(frames))
        self._parts.append(toyworld.measure(frames, self._scene, first))
        if self._certain:
            true = toyworld.render(self._scene, numbers, *self._shape)
            self._psnr.append(frame_psnr(frames, true))
        if self._scene.extras.guest:
            self._guest.append(guest_error(frames, self._scene, numbers))

    def finish(self) -> tuple[Found, str]:
        """Frame numbers and values by measure, and the motion that the video shows (since the last change)."""
        found = toyworld.joined(self._parts)
        numbers = np.arange(len(found.x))
        hidden = unseen(self._scene, len(numbers))
        lost = is_lost(found, toyworld.truth_of(self._scene, *self._shape[:2]).area, hidden)
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
        for name in values.keys() - {"background", "lost"}:
            values[name] = np.where(hidden, np.nan, values[name])
        if self._psnr:
            values["psnr"] = np.concatenate(self._psnr)
        if self._guest:
            values["guest"] = np.concatenate(self._guest)
        curves: Found = {name: (numbers, each) for name, each in values.items()}
        again = [number for number in recalled(self._scene) if number < len(numbers)]
        if again:
            what = values["guest"] if self._guest else values["look"]
            curves["recalled"] = (np.array(again), what[again])
        curves["prompted"] = self._prompted(found, hidden)
        return curves, self._seen(found[last_change(self._scene, len(numbers)) :])

    def _seen(self, found: toyworld.Measurement) -> str:
        return toyworld.motion_of(found, self._scene, self._shape)

    def _prompted(self, found: toyworld.Measurement, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each stretch, by its middle, whether the motion is the prompted one; NaN where that cannot be told."""
        length, count = WINDOW_SECONDS * toyworld.FPS, len(found.x)
        starts = np.arange(0, max(1, count - length + 1), HOP_SECONDS * toyworld.FPS)
        right = []
        for start in starts:
            asked = asked_motion(self._scene, start, min(start + length, count))
            part = slice(start, start + length)
            known = asked is not None and not hidden[part].any()
            right.append(float(self._seen(found[part]) == asked) if known else np.nan)
        return starts + min(length, count) // 2, np.array(right, np.float32)


def guest_error(frames: Frames, scene: toyworld.Scene, numbers: range) -> Array:
    """The mean absolute error (T,) inside the guest, in [0, 1]; NaN where it is not there or behind a curtain."""
    height, width = frames.shape[1:3]
    inside = toyworld.guest_masks(scene, numbers, height, width) > 0.9
    hidden = curtain(scene)
    errors = np.full(len(frames), np.nan, np.float32)
    for place, number in enumerate(numbers):
        if number not in hidden and inside[place].any():
            true = toyworld.background(scene, height, width, number)[inside[place]]
            errors[place] = np.abs(frames[place][inside[place]] / np.float32(255) - true).mean()
    return errors


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


def is_lost(found: toyworld.Measurement, area: float, hidden: np.ndarray) -> np.ndarray:
    """For each frame, whether the character is missing or not to be recognised in most of the second around it.

    Where it is `hidden`, it is not.
    """
    bad = (found.area < 0.1 * area) | (found.shape_error > 0.5) | (found.colour_error > 0.4)
    bad &= ~hidden
    near = np.ones(min(LOST_FRAMES, len(bad)))
    return np.convolve(bad, near, "same") > 0.5 * np.convolve(np.ones(len(bad)), near, "same")


@lru_cache(maxsize=256)
def true_sharpness(scene: toyworld.Scene, height: int, width: int) -> float:
    """The sharpness of the scene's true frames: the median over five seconds."""
    frames = toyworld.render(scene, range(0, 150, 5), height, width)
    return float(np.median(pixels.sharpness(pixels.luma(frames))))
