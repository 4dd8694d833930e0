"""The table of results, for people: what was lost and what moved, then each measure with its arms below each other."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from longtake.evaluation.bootstrap import Interval
from longtake.evaluation.measures import MEASURES, TRUTH
from longtake.evaluation.results import ArmResult, Results
from longtake.evaluation.summaries import pooled_psnr

COLUMNS = ("mean", "of truth", "median", "start", "end", "of start", "drift", "slope", "worst", "vde")
"""`of truth` and `of start` are the mean's and the end's ratio to the truth's mean and to the start."""
MARK = "*"


def table(
    results: Results,
    measures: Collection[str] = tuple(MEASURES),
    differences: Mapping[str, Mapping[str, Mapping[str, Interval]]] | None = None,
    base: str | None = None,
) -> str:
    """The results as text; with `differences` also those of the drifts to the `base`'s."""
    sums = {arm: found.summary() for arm, found in results.items()}
    gated = {arm: found.gated() for arm, found in results.items()}
    lines = [*_heads(results), ""]
    for name in (name for name in MEASURES if name in measures):
        rows = []
        for arm, found in results.items():
            if name not in found.figures:
                continue
            mark = MARK if name in gated[arm] else " "
            cells = _cells(sums[arm][name], found.median(name), sums.get(TRUTH, {}).get(name), mark)
            other = (differences or {}).get(arm, {}).get(name)
            rows.append((f"  {arm}", *cells, _difference(other["drift"]) if other else ""))
        if rows:
            heads = (name, *COLUMNS, f"drift less {base}'s" if differences else "")
            lines += [*_aligned(_filled([heads, *rows])), f"  {MEASURES[name].help}", ""]
    if len(measures) == len(MEASURES):
        lines += _similar(results)
    if any(name in measures for names in gated.values() for name in names):
        lines.append(f"{MARK} bad from the first section on: its drift says little.")
    return "\n".join(line.rstrip() for line in lines).rstrip()


def _cells(
    sums: Mapping[str, Interval], median: float, truth: Mapping[str, Interval] | None, mark: str
) -> list[str]:
    """The cells of `COLUMNS`."""
    drift = sums["drift"]
    return [
        _number(sums["mean"].mean),
        "" if truth is None else _ratio(sums["mean"].mean, truth["mean"].mean),
        _number(median),
        _number(sums["start"].mean),
        _number(sums["end"].mean),
        _ratio(sums["end"].mean, sums["start"].mean),
        f"{_number(drift.mean)} [{_number(drift.low)}, {_number(drift.high)}]{mark}",
        *(_number(sums[name].mean) for name in ("slope", "worst", "vde")),
    ]


def _heads(results: Results) -> list[str]:
    """Each arm's videos, those that lost their character, and the share with the prompted motion, by motion."""
    motions = list(dict.fromkeys(motion for arm in results.values() for motion in arm.motions()))
    heads = ("arm", "videos", "frames", "psnr", "lost", "right", *motions)
    rows = []
    for name, arm in results.items():
        found, lost = arm.motions(), arm.lost_videos()
        right = [seen == asked for seen, asked in zip(arm.seen, arm.asked, strict=True) if asked is not None]
        rows.append(
            (
                name,
                str(len(arm.scenes)),
                str(max(arm.frames)),
                _whole_psnr(arm),
                "" if lost is None else str(lost),
                f"{np.mean(right):.2f}" if right else "",
                *(f"{found[motion]['right']:.2f}" if motion in found else "" for motion in motions),
            )
        )
    lines = _aligned(_filled([heads, *rows]))
    if motions:
        lines.append(
            "  lost: videos whose character is lost at any time; right: the motion of the whole video"
        )
    return lines


def _filled(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The rows without the columns in which no row has anything."""
    kept = [place for place in range(len(rows[0])) if any(row[place] for row in rows[1:])]
    return [[row[place] for place in kept] for row in rows]


def _similar(results: Results) -> list[str]:
    """The likeness of videos to themselves."""
    seconds = sorted({second for arm in results.values() for second in arm.similarity})
    if not seconds:
        return []
    rows = [
        (f"  {name}", *(_number(_mean(arm.similarity.get(second, []))) for second in seconds))
        for name, arm in results.items()
    ]
    heads = ("similarity", *(f"{second} s" for second in seconds))
    return [*_aligned([heads, *rows]), "  correlation with the same video so many seconds before", ""]


def _whole_psnr(arm: ArmResult) -> str:
    """The signal-to-noise ratio over all videos; said only if all of them have one."""
    values = np.array(arm.figures.get("psnr", {}).get("mean", [np.nan]))
    return f"{pooled_psnr(values):.2f}" if np.isfinite(values).all() else ""


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _ratio(value: float, other: float) -> str:
    return f"{value / other:.2f}" if abs(other) > 1e-4 and math.isfinite(value / other) else ""


def _difference(value: Interval) -> str:
    return f"{value.mean:+.4f} [{value.low:+.4f}, {value.high:+.4f}]" if value.videos else ""


def _number(value: float) -> str:
    """A number in six characters or so.

    >>> _number(0.01234), _number(-1.5), _number(31.27), _number(float("nan"))
    ('0.0123', '-1.5000', '31.27', '')
    """
    if not math.isfinite(value):
        return ""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(size) if place else cell.ljust(size)
            for place, (cell, size) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
