"""The additions of a study to a scene, all of them off by default and functions of the frame number alone.

A camera that pans over a wider place, light that goes from day to dusk and back, a second character that comes in
later, and a curtain behind which something is hidden for a while: what the first picture does not show, or what has to
be remembered.

Legend: N frames, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

WIDE = 3
"""Frame widths of the place that a panning camera goes over, before it comes round."""
PAN_LAP = LIGHT_LAP = 480
"""Frames from the first picture to the farthest view, or to dusk, and back."""
DUSK = (0.62, 0.44, 0.50)
"""The part of red, green and blue that is left at dusk."""
SLIDE = 24
"""Frames in which a curtain comes down or goes up, and twice as many in which a guest comes in."""
GUEST_SCALE = 0.68
_CURTAIN, _HEM = (0.52, 0.37, 0.33), (0.86, 0.72, 0.42)

Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Extras:
    """The additions to a scene.

    `pan`: how far the camera goes to the right (negative: left) and back, in frame widths; the character keeps up.
    `light`: how far the light goes towards dusk and back, in [0, 1]. `guest`: the kind of a second, smaller character
    of `guest_colour`, which begins to come in at frame `guest_at` on side `guest_side` (-1 left, 1 right) and stays.
    From frame `hidden_at` on a curtain hides the guest, or the character where there is none, for `hidden_for` frames.
    """

    pan: float = 0.0
    light: float = 0.0
    guest: str = ""
    guest_colour: str = "red"
    guest_at: int = 45
    guest_side: int = -1
    hidden_at: int = 90
    hidden_for: int = 0


PLAIN = Extras()


def camera(extras: Extras, numbers: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The way of the camera to the right at each frame (N,), in frame widths; 0 at frame 0.

    >>> camera(Extras(pan=1.5), [0, 240, 480]).round(3).tolist()
    [0.0, 1.5, 0.0]
    """
    return extras.pan * _there_and_back(numbers, PAN_LAP)


def light(extras: Extras, numbers: npt.ArrayLike) -> Array:
    """The part of red, green and blue that is left at each frame (N, 3)."""
    share = extras.light * _there_and_back(numbers, LIGHT_LAP)[:, None]
    return np.asarray(1 - share * (1 - np.array(DUSK)), np.float32)


def daylight(frames: npt.NDArray[np.uint8], extras: Extras, numbers: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Frames (N, H, W, 3) with these numbers as they would be by day."""
    if not extras.light:
        return frames
    bright = frames / light(extras, numbers)[:, None, None]
    return np.asarray(np.clip(bright + 0.5, 0, 255), np.uint8)


def guest_x(extras: Extras, numbers: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The guest's centre (N,), in frame widths: outside the frame before it comes."""
    come = np.clip((np.asarray(numbers) - extras.guest_at) / (2 * SLIDE), 0, 1)
    come = come * come * (3 - 2 * come)
    x = 0.5 + extras.guest_side * (0.85 - 0.50 * come)
    return np.asarray(x - camera(extras, numbers))


def curtain(
    extras: Extras, numbers: Numbers, middle: npt.NDArray[np.float64], half: float, shape: tuple[int, int]
) -> Array:
    """The curtain in front of what stands at `middle` (N,), `half` to each side: colour and cover (N, H, W, 4)."""
    height, width = shape
    frames = np.asarray(numbers, np.float64)
    late = np.maximum(extras.hidden_at - frames, frames - (extras.hidden_at + extras.hidden_for - 1))
    down = np.clip(1 - late / SLIDE, 0, 1)[:, None, None] * 1.1 - 0.05
    x, y = (np.arange(width) + 0.5) / width, ((np.arange(height) + 0.5) / height)[:, None]
    beside = half - np.abs(x - middle[:, None, None])
    above = down - y
    cover = _soft(beside * width) * _soft(above * height)
    hem = _soft((0.06 - above) * height)[..., None]
    colour = np.array(_CURTAIN) + hem * (np.array(_HEM) - np.array(_CURTAIN))
    colour = np.broadcast_to(colour, (*cover.shape, 3))
    return np.concatenate((colour, cover[..., None]), -1).astype(np.float32)


def _soft(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.asarray(np.clip(pixels / 1.7 + 0.5, 0, 1))


def _there_and_back(numbers: npt.ArrayLike, lap: int) -> npt.NDArray[np.float64]:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.asarray(numbers, np.float64) / lap))
