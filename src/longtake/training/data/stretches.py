"""The frames of a video that are learned from: at which pace, and which stretches of them. Numbers alone, no pixels.

A stretch has 1 + 4 · window · n frames: the picture that it begins with, and n whole sections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from longtake.errors import JobError
from longtake.plan.layout import LATENT_FRAMES
from longtake.plan.lengths import WINDOW

WAYS = ("full", "head", "chunk", "slide", "uniform")
"""musubi-tuner's words for `frame_extraction`."""

FPS = 30.0
"""Frames a second that FramePack was trained on."""

SAME = 0.005
"""Rates that differ by less (29.97 and 30) are taken as one: else a frame would be shown twice every half minute."""


@dataclass(frozen=True)
class Cut:
    """The stretches of a video's frames: `how` is one of WAYS, the other names are musubi-tuner's, shortened."""

    how: str = "full"
    targets: tuple[int, ...] = ()
    stride: int = 1
    samples: int = 1
    most: int | None = None
    window: int = WINDOW

    def stretches(self, frames: int) -> list[tuple[int, int]]:
        """(first frame, number of frames) of each stretch of so many frames; none if they make no section.

        >>> Cut().stretches(100), Cut(most=50).stretches(100), Cut().stretches(36)
        ([(0, 73)], [(0, 37)], [])
        >>> Cut("chunk", (37,)).stretches(120)
        [(0, 37), (37, 37), (74, 37)]
        """
        found = [(start, self.whole(count)) for start, count in self._raw(frames)]
        return list(dict.fromkeys((start, count) for start, count in found if count))

    def whole(self, frames: int) -> int:
        """The frames of the whole sections that so many frames make, with the first picture; 0 if they make none.

        >>> Cut().whole(37), Cut().whole(100), Cut().whole(36)
        (37, 73, 0)
        """
        length = LATENT_FRAMES * self.window
        return 1 + (frames - 1) // length * length if frames > length else 0

    @property
    def least(self) -> int:
        """Frames of the shortest stretch."""
        return 1 + LATENT_FRAMES * self.window

    def _raw(self, frames: int) -> list[tuple[int, int]]:
        """Stretches before they are trimmed to whole sections."""
        if self.how == "full":
            return [(0, frames if self.most is None else min(frames, self.most))]
        found = []
        for target in self.rounded():
            if self.how == "head" or (self.how == "uniform" and self.samples == 1):
                starts = [0] if frames >= target else []
            elif self.how == "chunk":
                starts = list(range(0, frames - target + 1, target))
            elif self.how == "slide":
                starts = list(range(0, frames - target + 1, self.stride))
            else:
                most = frames - target
                starts = np.linspace(0, most, self.samples).astype(int).tolist() if most >= 0 else []
            found += [(start, target) for start in starts]
        return found

    def rounded(self) -> list[int]:
        """The targets as whole latent frames make them, each once."""
        return sorted({1 + (target - 1) // LATENT_FRAMES * LATENT_FRAMES for target in self.targets})

    def check(self, where: str) -> None:
        """Raise JobError, which names the place, for numbers by which nothing could be cut."""
        if self.how not in WAYS:
            raise JobError(f"{where}: no frame_extraction {self.how!r}; there are: {', '.join(WAYS)}.")
        counts = {
            "frame_stride": self.stride,
            "frame_sample": self.samples,
            "fp_latent_window_size": self.window,
        }
        for name, value in counts.items():
            if value < 1:
                raise JobError(f"{where}: {name} must be at least 1; it is {value}.")
        if self.how == "full":
            if self.most is not None and self.most < self.least:
                raise JobError(
                    f"{where}: max_frames is {self.most}, and one section needs {self.least} frames; allow more."
                )
            return
        short = [target for target in self.targets if self.whole(target) == 0]
        if short or not self.targets:
            told = f"has {short[0]}" if short else "is empty"
            raise JobError(
                f"{where}: target_frames {told}, and one section needs {self.least} frames; name 1 + "
                f'{LATENT_FRAMES * self.window} n, such as {self.least}, or use frame_extraction = "full".'
            )


@dataclass(frozen=True)
class Pace:
    """The frames of a video that make its motion as fast as it is at `fps` a second.

    Without `fps` every frame is taken. With `source` the file is believed to have that rate, and frames are dropped as
    musubi-tuner drops them; else the frame that is shown at each moment is taken, by the file's own times, so that a
    slower video shows some frames twice.
    """

    fps: float | None = FPS
    source: float | None = None

    def picked(self, times: np.ndarray, lasting: float) -> np.ndarray:
        """The number of the frame for each moment, of frames that are shown at `times` (T,) seconds.

        >>> Pace().picked(np.arange(6) / 60, 1 / 60), Pace().picked(np.arange(4) / 15, 1 / 15)
        (array([0, 2, 4]), array([0, 0, 1, 1, 2, 2, 3, 3]))
        >>> Pace(30, 40).picked(np.arange(8) / 24, 1 / 24)
        array([0, 2, 3, 4, 6, 7])
        """
        count = len(times)
        if self.fps is None:
            return np.arange(count)
        if self.source is not None:
            # Summed up and not multiplied, as there: the last bit decides which frame goes.
            shown = np.concatenate([[0.0], np.cumsum(np.full(count, self.fps / self.source))[:-1]])
            return np.flatnonzero(np.diff(shown.astype(np.int64), prepend=-1))
        if _steady(times, lasting, self.fps):
            return np.arange(count)
        moments = np.arange(max(1, int((times[-1] + lasting) * self.fps + 1e-3))) / self.fps
        middles = (times[1:] + times[:-1]) / 2
        return np.searchsorted(middles, moments - 1e-6, side="left")


def _steady(times: np.ndarray, lasting: float, fps: float) -> bool:
    """Tell if frames are shown at this rate already: on the average, and each near to its time."""
    count = len(times)
    rate = count / (float(times[-1]) + lasting)
    return abs(rate / fps - 1) < SAME and float(np.abs(times - np.arange(count) / rate).max()) < 0.5 / rate
