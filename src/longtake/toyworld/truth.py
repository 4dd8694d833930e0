"""The true look of a scene's character: its area, its colour, and pictures of it in many poses.

Made once a scene from true frames, by the same finding and cutting out as of any other frames, so that edges and
thresholds weigh on both sides.

Legend: T frames, K templates, P side of a crop around the character.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from longtake.toyworld.draw import render
from longtake.toyworld.extras import PLAIN
from longtake.toyworld.find import Array, Found, Mask, dilated, find
from longtake.toyworld.scenes import MOTIONS, Scene, still

ANGLES = 24
"""Pictures of a whole turn."""
_POSES = range(12, 108, 8)  # frames of every other motion: three seconds, which is a cycle and more

NUMBERS = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """The true character: medians of its `area` (a part of the frame) and `colour` (3,), its row at rest `y`.

    `pictures` (K, P * P * 3) are crops as of `crops`, `shapes` (K, P * P) their masks; of both the first 2 * ANGLES are
    turns, once looking one way, then the other.
    """

    area: float
    colour: Array
    y: float
    side: int
    pictures: Array
    shapes: Array

    def distances(self, found: Array) -> Array:
        """The squared distances (T, K) of crops from the pictures."""
        own = np.einsum("tp,tp->t", found, found)[:, None]
        squares = np.einsum("kp,kp->k", self.pictures, self.pictures)
        return np.maximum(own - 2 * found @ self.pictures.T + squares, 0)

    def overlaps(self, masks: Array) -> Array:
        """The largest intersection over union (T,) of masks (T, P * P) with any of the shapes; 0 of an empty mask."""
        common = masks @ self.shapes.T
        union = masks.sum(1)[:, None] + self.shapes.sum(1) - common
        return np.asarray((common / np.maximum(union, 1)).max(1))


@lru_cache(maxsize=32)
def truth_of(scene: Scene, height: int, width: int) -> Truth:
    """The true look of this scene's character in frames of this size."""
    scene, numbers = replace(scene, extras=PLAIN), np.arange(0, 150, 5)
    frames = render(scene, numbers, height, width)
    mask = find(frames, scene, numbers).mask
    rest = find(render(still(scene), [0], height, width), scene, np.zeros(1, np.int64)).y[0]
    pictures, shapes = _templates(still(scene), height, width)
    side = crop_side(scene, height, width)
    area = float(np.median(mask.mean((1, 2))))
    colour = np.median(mean_colour(frames, mask), 0).astype(np.float32)
    return Truth(area, colour, float(rest), side, pictures, shapes)


def crop_side(scene: Scene, height: int, width: int) -> int:
    """The side of a square that holds the character in any pose, in pixels."""
    return 2 * round(0.6 * scene.height * min(height, width)) + 1


def crops(frames: npt.NDArray[np.uint8], found: Found, side: int) -> tuple[Array, Array]:
    """The pixels inside the masks on middle grey, centred (T, P * P * 3), values about 0; and the masks (T, P * P)."""
    count, height, width = found.mask.shape
    rows = np.round(found.y * height - side / 2).astype(int)[:, None, None] + np.arange(side)[:, None]
    columns = np.round(found.x * width - side / 2).astype(int)[:, None, None] + np.arange(side)
    valid = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    here = np.arange(count)[:, None, None]
    inside = found.mask[here, rows, columns] & valid
    values = frames[here, rows, columns] * np.float32(1 / 255) - np.float32(0.5)
    values *= inside[..., None]
    return values.reshape(count, -1), inside.reshape(count, -1).astype(np.float32)


def mean_colour(frames: npt.NDArray[np.uint8], mask: Mask) -> Array:
    """The mean colour (T, 3) in [0, 1] inside the mask, without its edge if it has an inside."""
    core = mask & ~dilated(~mask, 1)
    core = np.where(core.any((1, 2), keepdims=True), core, mask)
    count = len(mask)
    weights, pixels = core.reshape(count, 1, -1).astype(np.float32), frames.reshape(count, -1, 3)
    total = (weights @ pixels.astype(np.float32))[:, 0]
    return np.asarray(total / (255 * np.maximum(core.sum((1, 2)), 1)[:, None]), np.float32)


def _templates(scene: Scene, height: int, width: int) -> tuple[Array, Array]:
    """Crops and masks of the character: a turn looking one way, a turn looking the other way, then other motions."""
    drawn: list[tuple[Scene, NUMBERS]] = []
    for facing in (1, -1):
        for number in range(ANGLES):
            phase = facing * number / ANGLES  # a bird that looks to the left spins the other way
            turned = replace(scene, motion="spins", facing=facing, phase=phase)
            drawn.append((turned, np.zeros(1, np.int64)))
    for motion in MOTIONS:
        if motion in ("spins", "stays still") or (motion == "flies" and scene.kind != "bird"):
            continue
        for facing in (1, -1):
            drawn.append((replace(scene, motion=motion, facing=facing, pace=1.0), np.asarray(_POSES)))
    frames = np.concatenate([render(each, numbers, height, width) for each, numbers in drawn])
    numbers = np.concatenate([numbers for _, numbers in drawn])
    return crops(frames, find(frames, scene, numbers), crop_side(scene, height, width))
