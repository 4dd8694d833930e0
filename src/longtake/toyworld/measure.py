"""Measures scenes back from frames: where the character is, its size, its colour, the background, and what it does.

Every measure treats the frames of a video and the true frames of its scene in the same way, so that the edges, the
pose and the threshold weigh on both sides. The place and the character are known, the motion is not used.

Legend: T frames, H height, W width, K templates, P side of a crop around the character.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from longtake.toyworld.extras import daylight
from longtake.toyworld.find import Array, Found, Mask, densest, dilated, find, without
from longtake.toyworld.motion import FPS
from longtake.toyworld.scenes import Scene
from longtake.toyworld.truth import ANGLES, Truth, crops, mean_colour, truth_of

_PART = 0.35  # of the character's area: what is taken for another character, or for a piece of a torn one
_MOST = 3  # characters that are counted beside the first

ERRORS = ("size_error", "colour_error", "background_error")


@dataclass(frozen=True)
class Measurement:
    """The measurements of T frames.

    `x` the character's centre in frame widths; `y` in frame heights from the top; `area` the part of the
    frame that it covers; `colour` (T, 3) its mean colour in [0, 1]; `count` how many characters there are, torn pieces
    among them; `angle` which of the true pictures of a turn is nearest.

    Errors: `size_error` and `colour_error` relative to the true character's medians; `background_error` mean absolute,
    in [0, 1], outside the character; `shape_error` 1 - the largest intersection over union with its true shapes;
    `look_error` the root mean square difference to the nearest of its true pictures, by their pixels, in [0, 1].
    """

    x: Array
    y: Array
    area: Array
    colour: Array
    count: Array
    angle: npt.NDArray[np.int64]
    size_error: Array
    colour_error: Array
    background_error: Array
    shape_error: Array
    look_error: Array

    @cached_property
    def medians(self) -> dict[str, float]:
        """Three errors of the whole video."""
        return {name: float(np.median(getattr(self, name))) for name in ERRORS}

    def __getitem__(self, frames: slice) -> Measurement:
        return Measurement(**{name: values[frames] for name, values in self.arrays().items()})

    def arrays(self) -> dict[str, npt.NDArray]:
        """All measurements by their names."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}


def joined(parts: Sequence[Measurement]) -> Measurement:
    """One measurement of frames that were measured in parts."""
    names = [each.name for each in dataclasses.fields(Measurement)]
    return Measurement(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def measure(frames: npt.NDArray[np.uint8], scene: Scene, first: int | Sequence[int] = 0) -> Measurement:
    """Measures what the frames (T, H, W, 3) uint8 show against the truth of `scene`.

    `first` is the number of the first frame, or the number of each. Frames are measured one by one: parts of a video
    may be measured apart, and `joined`. Where light changes, all are measured as by day.
    """
    count, height, width = frames.shape[:3]
    numbers = first + np.arange(count) if isinstance(first, int) else np.asarray(first)
    frames = daylight(frames, scene.extras, numbers)
    truth, found = truth_of(scene, height, width), find(frames, scene, numbers)
    colour = mean_colour(frames, found.mask)
    area = found.mask.mean((1, 2), dtype=np.float32)
    cut, shapes = crops(frames, found, truth.side)
    distances = truth.distances(cut)
    return Measurement(
        x=found.x,
        y=found.y,
        area=area,
        colour=colour,
        count=_count(found, area, truth, scene),
        angle=distances[:, : 2 * ANGLES].argmin(1) % ANGLES,
        size_error=np.abs(area / truth.area - 1).astype(np.float32),
        colour_error=np.linalg.norm(colour - truth.colour, axis=1) / np.float32(np.linalg.norm(truth.colour)),
        background_error=_background_error(found),
        shape_error=(1 - truth.overlaps(shapes)).astype(np.float32),
        look_error=_look_error(distances, truth),
    )


def classify_motion(frames: npt.NDArray[np.uint8], scene: Scene) -> str:
    """Says which of the motions the frames (T, H, W, 3) uint8 show, whatever motion `scene` has (`motion_of`)."""
    return motion_of(measure(frames, scene), scene, frames.shape[1:3])


def motion_of(found: Measurement, scene: Scene, shape: tuple[int, ...]) -> str:
    """Says which of the motions a measured stretch of frames (height, width) shows, whatever motion `scene` has.

    The character and the place are taken as known. The stretch should have three seconds: within one second most
    motions look alike.
    """
    lift = (truth_of(scene, *shape[:2]).y - found.y) * shape[0] / min(shape)
    late = lift[min(int(1.5 * FPS), len(lift) // 2) :]
    if np.quantile(late, 0.08) > 0.13:
        return "flies"
    across = np.quantile(found.x, 0.92) - np.quantile(found.x, 0.08)  # what turns stays where it is
    if abs(_turns_per_second(found.angle)) > 0.06 and across < 0.10:
        return "spins"
    if np.quantile(lift, 0.95) - np.quantile(lift, 0.05) > 0.09:
        return "circles" if across > 0.12 else "bounces"
    return _way(found.x - np.float32(scene.x))


def _way(offset: Array) -> str:
    """The motion along the ground: a walker stays on one side of where it began, a dancer does not."""
    left, right = -float(np.quantile(offset, 0.08)), float(np.quantile(offset, 0.92))
    if left + right <= 0.05:  # wherever that is
        return "stays still"
    if max(left, right) > 0.06 and min(left, right) < 0.3 * max(left, right):
        return "walks right" if right > left else "walks left"
    return "dances"


def _turns_per_second(nearest: npt.NDArray[np.int64]) -> float:
    """Turns of the character in its place, clockwise, by the pictures that it is nearest to."""
    angle = np.exp(2j * np.pi * nearest / ANGLES)
    stride = min(12, len(angle) - 1)
    if stride < 1:
        return 0.0
    # The mean of the steps as complex numbers: a wrong frame turns it little, and a sway cancels.
    step = (angle[stride:] * angle[:-stride].conj()).mean()
    return float(np.angle(step) / (2 * np.pi) * FPS / stride)


def _background_error(found: Found) -> Array:
    error = np.abs(found.change)
    error = error[0] + error[1] + error[2]
    outside = ~dilated(found.mask, max(2, round(min(found.mask.shape[1:]) / 24)))
    return np.asarray((error * outside).sum((1, 2)) / (3 * np.maximum(outside.sum((1, 2)), 1)))


def _look_error(distances: Array, truth: Truth) -> Array:
    """The distance to the nearest picture, for each value of a pixel of it."""
    nearest = distances.argmin(1)
    pixels = 3 * np.maximum(truth.shapes.sum(1), 1)
    return np.asarray(np.sqrt(distances[np.arange(len(nearest)), nearest] / pixels[nearest]), np.float32)


def _count(found: Found, area: Array, truth: Truth, scene: Scene) -> Array:
    """The count of spots (T,) as large as a good part of the character, the found one among them."""
    height, width = found.mask.shape[1:]
    side = round(scene.height * min(height, width))
    least = _PART * truth.area
    count = (area >= least).astype(np.float32)
    where, rest = np.arange(len(area)), found.seen & ~dilated(found.mask, max(2, side // 8))
    for _ in range(_MOST):
        where, rest = _chosen(rest.mean((1, 2)) >= least, where, rest)
        if not len(where):
            break
        column, row, held = densest(rest, side)
        enough = held >= least * height * width
        where, rest = _chosen(enough, where, rest)
        count[where] += 1
        rest = without(rest, column[enough], row[enough], side)
    return count


def _chosen(which: Mask, where: npt.NDArray[np.int64], rest: Mask) -> tuple[npt.NDArray[np.int64], Mask]:
    return where[which], rest[which]
