"""The certainty of a mean over videos: bootstrap over scenes, and over the seeds within them.

Legend: V videos, K figures of each, B draws.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

DRAWS = 2000
LEVEL = 0.95

Array = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A mean, between which two values it lies with 95 % confidence, and of how many videos it is."""

    mean: float
    low: float
    high: float
    videos: int


def intervals(
    values: npt.ArrayLike,
    scenes: Sequence[Hashable] | None = None,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> list[Interval]:
    """The means of K figures of V videos (V, K), and their intervals.

    Scenes are drawn with replacement, then the seeds within each. `scenes` says which scene each video is of (default:
    each of its own). Values that are not finite are left out. For differences of two arms, give these: they are paired.

    >>> intervals([[1.0, 2.0], [1.0, 2.0]])[0]
    Interval(mean=1.0, low=1.0, high=1.0, videos=2)
    """
    table = np.asarray(values, np.float64)
    known = np.isfinite(table)
    filled = np.where(known, table, 0)
    weights = drawn_weights(range(len(table)) if scenes is None else scenes, draws, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ filled) / (weights @ known)
        own = filled.sum(0) / known.sum(0)
    tails = [(1 - level) / 2, (1 + level) / 2]
    found = []
    for figure, count in enumerate(known.sum(0)):
        drawn = means[:, figure][np.isfinite(means[:, figure])]
        low, high = np.quantile(drawn, tails) if len(drawn) else (np.nan, np.nan)
        found.append(Interval(float(own[figure]), float(low), float(high), int(count)))
    return found


def drawn_weights(scenes: Sequence[Hashable], draws: int = DRAWS, seed: int = 0) -> Array:
    """The count of each video in each draw (B, V)."""
    groups: dict[Hashable, list[int]] = {}
    for video, scene in enumerate(scenes):
        groups.setdefault(scene, []).append(video)
    rng = np.random.default_rng(seed)
    weights = np.zeros((draws, len(scenes)))
    count = max(len(groups), 1)
    times = rng.multinomial(count, np.full(count, 1 / count), draws)
    for number, videos in enumerate(groups.values()):
        # A scene that is drawn n times draws as many of its videos as it has, each time.
        size = len(videos)
        weights[:, videos] = rng.multinomial(times[:, number] * size, np.full(size, 1 / size))
    return weights
