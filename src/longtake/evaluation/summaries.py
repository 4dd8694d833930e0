"""The summary of a curve: its start and end, its drift, its slope, its worst moment.

Every figure is of one video; means over videos, and how sure they are, are `bootstrap`'s.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longtake.evaluation.measures import MEASURES
from longtake.evaluation.meter import Curve, Measured

SHARE = 0.15
"""The part of a video that counts as its start, and as its end (the paper's)."""
CHUNKS = 10
"""The parts that VDE compares with the first."""
RUNNING = 15
"""Values whose mean is one moment for `worst`: half a second of frames."""


@dataclass(frozen=True)
class Summary:
    """One curve summed up; NaN is what it has too few values for.

    `mean` is over all values (of `psnr`, the ratio of all frames together), `first` over the first section (by which a
    drift is gated), `start` and `end` those over the first and
    last 15 % of the frames, `drift` their distance (the paper's D_M), `slope` the least squares line's in 100 frames,
    `vde` the mean change relative to the first tenth, early tenths weighing most, `worst` the worst half second.
    """

    mean: float
    median: float
    first: float
    start: float
    end: float
    drift: float
    slope: float
    vde: float
    worst: float


STATISTICS = tuple(each.name for each in dataclasses.fields(Summary))


def summaries(measured: Measured, section: int = 36) -> dict[str, Summary]:
    """The summary of each curve of a video whose first section ends with frame `section`."""
    found = {
        name: summarise(curve, measured.frames, section, MEASURES[name].better)
        for name, curve in measured.curves.items()
        if np.isfinite(curve.values).any()
    }
    if "psnr" in found:
        values = measured.curves["psnr"].values
        found["psnr"] = dataclasses.replace(found["psnr"], mean=pooled_psnr(values[np.isfinite(values)]))
    return found


def pooled_psnr(values: npt.ArrayLike) -> float:
    """The ratio, in dB, of all frames together whose own ratios these are: that of their mean square error.

    >>> round(pooled_psnr([30.0, 20.0]), 2)
    22.6
    """
    return float(-10 * np.log10(np.mean(10 ** (-np.asarray(values, np.float64) / 10))))


def summarise(curve: Curve, frames: int, section: int = 36, better: str = "low") -> Summary:
    """The summary of a curve over so many frames.

    >>> line = Curve(np.arange(100), np.arange(100) / 100)
    >>> found = summarise(line, 100)
    >>> round(found.drift, 3), round(found.slope, 3), round(found.worst, 3)
    (0.85, 1.0, 0.92)
    """
    known = np.isfinite(curve.values)
    at, values = curve.at[known], curve.values[known].astype(np.float64)
    if not len(values):
        return Summary(*(float("nan"),) * len(STATISTICS))
    start = float(values[_at_least_one(at < SHARE * frames, 0)].mean())
    end = float(values[_at_least_one(at >= (1 - SHARE) * frames, -1)].mean())
    # The given picture itself is no part of what was made.
    first = values[_at_least_one((at >= 1) & (at <= section), 0)].mean()
    return Summary(
        mean=float(values.mean()),
        median=float(np.median(values)),
        first=float(first),
        start=start,
        end=end,
        drift=abs(start - end),
        slope=slope(at, values),
        vde=vde(at, values, frames),
        worst=worst(values, better, start, RUNNING if _is_dense(at) else 1),
    )


def slope(at: npt.NDArray[Any], values: npt.NDArray[Any]) -> float:
    """The slope of the least squares line, in 100 frames; NaN of a single value."""
    away = at - at.mean()
    square = float((away**2).sum())
    return 100 * float((away * values).sum()) / square if square else float("nan")


def vde(at: npt.NDArray[Any], values: npt.NDArray[Any], frames: int, chunks: int = CHUNKS) -> float:
    """Video drift error (BlockVid): the weighted mean of |m_i - m_1| / |m_1| over the chunks i = 2 … N.

    m_i are means, the weights N - i + 1; the paper's is the sum, N (N - 1) / 2 times as much. NaN if m_1 is about 0,
    or for less than two chunks.
    """
    which = np.minimum(at * chunks // frames, chunks - 1)
    means = [values[which == chunk].mean() if (which == chunk).any() else np.nan for chunk in range(chunks)]
    first, others = means[0], np.array(means[1:])
    known = np.isfinite(others)
    if not (known.any() and abs(first) > 1e-6):  # of NaN too
        return float("nan")
    weights = np.arange(chunks - 1, 0, -1)[known]
    return float((weights * np.abs(others[known] - first)).sum() / weights.sum() / abs(first))


def worst(values: npt.NDArray[Any], better: str, start: float, running: int) -> float:
    """The worst running mean: the largest, the smallest if high is better, or else the farthest from the start's."""
    count = min(running, len(values))
    means = np.convolve(values, np.full(count, 1 / count), "valid")
    if better == "low":
        return float(means.max())
    return float(means.min() if better == "high" else means[np.abs(means - start).argmax()])


def is_gated(name: str, first: float) -> bool:
    """Tell if a measure was bad from the first section on, so that its drift says nothing.

    >>> is_gated("background", 0.01), is_gated("background", 0.3), is_gated("luma", 0.9)
    (False, True, False)
    """
    low, high = MEASURES[name].gate
    return not low <= first <= high


def downsampled(curve: Curve, points: int = 60) -> Curve:
    """The curve as the means of at most so many stretches of equal length, each at its middle."""
    if len(curve.at) <= points:
        return curve
    edges = np.linspace(0, len(curve.at), points + 1).astype(int)[:-1]
    known = np.isfinite(curve.values)
    count = np.add.reduceat(known, edges, dtype=np.float64)
    total = np.add.reduceat(np.where(known, curve.values, 0), edges, dtype=np.float64)
    ends = np.append(edges[1:], len(curve.at)) - 1
    means = np.divide(total, count, out=np.full(points, np.nan), where=count > 0)
    return Curve((curve.at[edges] + curve.at[ends]) / 2, means)


def _is_dense(at: npt.NDArray[Any]) -> bool:
    """Tell if a curve has a value for nearly each frame."""
    return len(at) > 1 and (at[-1] - at[0]) / (len(at) - 1) < 2


def _at_least_one(which: npt.NDArray[np.bool_], otherwise: int) -> npt.NDArray[np.bool_]:
    """The place among the values; if there are none, this one."""
    if not which.any():
        which = which.copy()
        which[otherwise] = True
    return which
