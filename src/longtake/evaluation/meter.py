"""A meter: takes a video's frames as they come and keeps numbers alone, so that a video may have any length.

Legend: T frames, H height, W width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from longtake import toyworld
from longtake.evaluation import pixels
from longtake.evaluation.pixels import Array, Frames
from longtake.evaluation.scenes import Watch, true_sharpness
from longtake.plan.lengths import shown_frames

if TYPE_CHECKING:
    from longtake.plan.plans import Plan

SIMILAR = (1, 2, 5, 10, 20, 50)
"""Seconds after which a video is compared with itself."""
STRIDE = 5
"""Frames over which `motion` is taken: a sixth of a second, in which what moves goes further than a blur reaches."""
_THUMBNAILS = 2  # a second
_BESIDE = 0.5  # seconds on each side of a seam, that it is compared with
_LEAST = (
    0.25 / 255
)  # a change that counts as none, so that a video that stands still has seams like its inside


@dataclass(frozen=True)
class Curve:
    """The values of one measure, each at a frame number; NaN where there is none."""

    at: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Standard:
    """The standard of sharpness and colours: a mean energy, and mean histograms."""

    sharpness: float
    shares: Array


@dataclass(frozen=True)
class Measured:
    """All that is known of one video: its curves by measure, its likeness to itself by seconds, the motion seen."""

    frames: int
    curves: dict[str, Curve]
    similarity: dict[int, float]
    seen: str | None = None


class Meter:
    """One video's measurements; `push` its frames in order, then `finish`.

    With a `scene` its truth is measured too; `certain` says that it is so to the frame, as of true videos that went
    through an autoencoder. `seams` are the numbers of frames with which sections begin. Without a
    `standard` the video's own first second is one.
    """

    def __init__(
        self,
        scene: toyworld.Scene | None = None,
        seams: Sequence[int] = (),
        fps: float = toyworld.FPS,
        standard: Standard | None = None,
        certain: bool = False,
    ) -> None:
        self.count = 0
        self._watch = None if scene is None else Watch(scene, certain)
        self._scene, self._seams, self._fps = scene, seams, fps
        self._before: Frames | None = None
        self._parts: dict[str, list[Array]] = {name: [] for name in FRAMES}
        self._beginning = _Beginning(max(1, round(fps)), standard)
        self._likeness = _Likeness(fps)

    def push(self, frames: Frames) -> None:
        """Take the next frames (T, H, W, 3)."""
        if not len(frames):
            return
        bright = pixels.luma(frames)
        known = np.concatenate((self._before, frames)) if self._before is not None else frames
        found = {
            "luma": bright.mean((1, 2)),
            "saturation": pixels.saturation(frames),
            "contrast": bright.std((1, 2)),
            "sharpness": pixels.sharpness(bright),
            "change": _since(pixels.change, known, 1, len(frames)),
            "motion": _since(pixels.motion, known, STRIDE, len(frames)),
            "colours": self._beginning.push(frames),
        }
        for name, values in found.items():
            self._parts[name].append(values)
        self._likeness.push(frames, self.count)
        if self._watch is not None:
            self._watch.push(frames, self.count)
        self._before, self.count = known[-STRIDE:].copy(), self.count + len(frames)

    def finish(self) -> Measured:
        """The curves."""
        self._parts["colours"].append(self._beginning.finish())
        every = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        every["sharpness"] = every["sharpness"] / max(self._own_sharpness(every["sharpness"]), 1e-12)
        numbers = np.arange(self.count)
        curves = {name: Curve(numbers, values) for name, values in every.items()}
        seams = [frame for frame in self._seams if 1 < frame < self.count]
        curves["seam"] = Curve(np.array(seams, int), _seam_ratios(every["change"], seams, self._fps))
        seen = None
        if self._watch is not None:
            found, seen = self._watch.finish()
            curves |= {name: Curve(at, values) for name, (at, values) in found.items()}
        return Measured(self.count, curves, self._likeness.means(), seen)

    def _own_sharpness(self, energy: Array) -> float:
        """The energy that the sharpness is relative to."""
        if self._scene is not None and self._before is not None:
            return true_sharpness(self._scene, *self._before.shape[1:3])
        standard = self._beginning.standard
        return standard.sharpness if standard else float(energy[: max(1, round(self._fps))].mean())

    def as_standard(self) -> Standard:
        """The standard for other videos, if this one is their reference; before `finish`."""
        return Standard(float(np.concatenate(self._parts["sharpness"]).mean()), self._beginning.mean())


FRAMES = ("luma", "saturation", "contrast", "sharpness", "change", "motion", "colours")


def seams_of(plan: Plan) -> list[int]:
    """The numbers of the frames with which the sections of a plan begin in the video, but for the first one.

    >>> from longtake.plan.plans import vanilla
    >>> seams_of(vanilla(3))
    [37, 73]
    """
    last = (plan.made - 1) // 4
    makers = [plan.maker(frame) for frame in range(1, last + 1)]
    begins = [frame for frame in range(2, last + 1) if makers[frame - 1] != makers[frame - 2]]
    return [start for frame in begins if (start := shown_frames(frame).start) < plan.frames]


def _since(measure: Callable[[Frames, Frames], Array], known: Frames, stride: int, count: int) -> Array:
    """The difference of each of the last `count` frames to the one `stride` before it; NaN where none is known."""
    values = np.full(count, np.nan, np.float32)
    have = min(count, len(known) - stride)
    if have > 0:
        values[-have:] = measure(known[-have:], known[-have - stride : -stride])
    return values


def _seam_ratios(change: Array, seams: Sequence[int], fps: float) -> Array:
    """The change across each seam over the mean change in half a second on both sides."""
    beside = max(1, round(_BESIDE * fps))
    ratios = []
    for frame in seams:
        near = np.concatenate(
            (change[max(1, frame - beside) : frame], change[frame + 1 : frame + 1 + beside])
        )
        inside = float(near.mean()) if len(near) else float("nan")
        ratios.append((float(change[frame]) + _LEAST) / (inside + _LEAST))
    return np.array(ratios, np.float32)


class _Beginning:
    """The distance of each frame's colours to the mean of the first second, or of another video."""

    def __init__(self, frames: int, standard: Standard | None) -> None:
        self.standard = standard
        self._frames, self._waiting, self._taken = frames, [np.zeros((0, 3, 256), np.float32)], 0
        self._shares: Array | None = None if standard is None else standard.shares
        self._sum, self._count = np.zeros((3, 256)), 0

    def push(self, frames: Frames) -> Array:
        """The distances of frames whose reference is known: of these, and of those that waited."""
        shares = pixels.histograms(frames)
        self._sum += shares.sum(0)
        self._count += len(shares)
        if self._shares is not None:
            return pixels.colour_distance(shares, self._shares)
        self._waiting.append(shares)
        return self.finish() if self._count >= self._frames else np.zeros(0, np.float32)

    def finish(self) -> Array:
        """The distances of what still waits."""
        waiting, self._waiting = np.concatenate(self._waiting), self._waiting[:1]
        if not len(waiting):
            return np.zeros(0, np.float32)
        if self._shares is None:
            self._shares = waiting[: self._frames].mean(0)
        return pixels.colour_distance(waiting, self._shares)

    def mean(self) -> Array:
        """The mean of all frames."""
        return np.asarray(self._sum / max(self._count, 1), np.float32)


class _Likeness:
    """The likeness of a video to itself some seconds before: correlations of thumbnails of the last 50 s."""

    def __init__(self, fps: float) -> None:
        self._stride = max(1, round(fps / _THUMBNAILS))
        self._kept: deque[Array] = deque(maxlen=SIMILAR[-1] * _THUMBNAILS + 1)
        self._sums = dict.fromkeys(SIMILAR, (0.0, 0))

    def push(self, frames: Frames, first: int) -> None:
        """Take the next frames, the first of which has this number."""
        for number in range(-first % self._stride, len(frames), self._stride):
            self._kept.append(pixels.thumbnail(frames[number]))
            for seconds, (total, count) in self._sums.items():
                back = seconds * _THUMBNAILS + 1
                if back <= len(self._kept):
                    self._sums[seconds] = (
                        total + float(self._kept[-1] @ self._kept[-back]), count + 1
                    )  # fmt: skip

    def means(self) -> dict[int, float]:
        """The mean correlation by seconds, of those that the video is long enough for."""
        return {seconds: total / count for seconds, (total, count) in self._sums.items() if count}
