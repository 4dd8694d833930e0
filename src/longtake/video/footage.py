"""Frames of a clip beside the joint, in a video's size: what a video that goes on from it or leads to it sees."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from longtake.picture import cover
from longtake.plan.layout import LATENT_FRAMES
from longtake.video.edges import read_edge

STRETCH = 1.1
"""The most that a clip is stretched, in one direction against the other, so that all of it is seen: sizes that a model
knows are few. A clip of quite another shape is cut, as a picture is."""

MULTIPLE = 16
"""Pixels to the side of what a transformer sees as one."""


@dataclass(frozen=True)
class Footage:
    """The frames of a clip that sections see, in the order of time, and in the size of the video.

    `first` (H, W, 3) uint8 is the first of them, whose latent frame is a picture's; `pair` (2, H, W, 3) are the two at
    the joint: the last two, or, if the clip comes `behind` the video, the first two (one twice if there is one alone).
    `frames` (T, H, W, 3) are all, T = 1 + 4 (K - 1); `latents` (1, C, K, h, w), scaled, are made of them, and one of
    both is enough.
    """

    first: np.ndarray = field(repr=False)
    pair: np.ndarray = field(repr=False)
    behind: bool
    frames: np.ndarray | None = field(default=None, repr=False)
    latents: np.ndarray | None = field(default=None, repr=False)

    @property
    def count(self) -> int:
        """Latent frames of it."""
        if self.latents is not None:
            return int(self.latents.shape[2])
        assert self.frames is not None
        return 1 + (len(self.frames) - 1) // LATENT_FRAMES

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.first.shape[1], self.first.shape[0]

    @property
    def edge(self) -> np.ndarray:
        """The frame (H, W, 3) at the joint."""
        edge: np.ndarray = self.pair[0 if self.behind else -1]
        return edge


def read_footage(
    path: str | os.PathLike[str], latents: int, fps: float, size: tuple[int, int], behind: bool
) -> Footage:
    """The frames that so many latent frames hold, or as many as a shorter clip has, `fps` a second, in this size."""
    count = 1 + LATENT_FRAMES * (latents - 1)
    frames = read_edge(path, count, fps, not behind, lambda frame: fitted(frame, *size))
    pair = frames[:2] if behind else frames[-2:]
    return Footage(frames[0], np.concatenate([pair, pair])[-2:], behind, frames)


def fitted(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """A frame (H, W, 3) in this size: stretched if the shapes are near, so that all of it is seen, else cut."""
    picture = Image.fromarray(frame)
    if near(picture.size, (width, height)):
        return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
    return np.asarray(cover(picture, width, height))


def near(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Tell if two shapes are so alike that one is stretched to the other.

    >>> near((832, 480), (1920, 1080)), near((64, 64), (640, 480))
    (True, False)
    """
    return abs(math.log(size[0] * other[1] / (size[1] * other[0]))) <= math.log(STRETCH)


def shaped(area: int, ratio: float) -> tuple[int, int]:
    """The width and height of the nearest number of pixels, with a ratio to which a clip can be stretched.

    >>> shaped(64 * 64, 16 / 9), shaped(64 * 64, 1.0), shaped(640 * 608, 9 / 16)
    ((80, 48), (64, 64), (464, 832))
    """
    height = math.sqrt(area / ratio)
    rows = {MULTIPLE * max(1, math.floor(height / MULTIPLE) + more) for more in (0, 1)}
    sizes = [(MULTIPLE * max(1, round(row * ratio / MULTIPLE)), row) for row in rows]

    def apart(size: tuple[int, int]) -> tuple[float, int]:
        stretched = abs(math.log(size[0] / size[1] / ratio))
        return max(stretched, math.log(STRETCH)), abs(size[0] * size[1] - area)

    return min(sizes, key=apart)
