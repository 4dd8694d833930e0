"""The table of results, for people: what was lost and what moved, then each measure with its arms below each other."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from longtake.evaluation.bootstrap import Interval
from longtake.evaluation.measures import MEASURES
from longtake.evaluation.results import Results

COLUMNS = ("mean", "median", "start", "end", "drift", "slope", "worst", "vde")
MARK = "*"


def table(
    results: Results,
    measures: Collection[str] = tuple(MEASURES),
    differences: Mapping[str, Mapping[str, Mapping[str, Interval]]] | None = None,
    base: str | None = None,
) -> str:
    """The results as text; with `differences` also those of the drifts to the `base`'s."""
    lines = [*_heads(results), ""]
    marked = False
    for name in (name for name in MEASURES if name in measures):
        rows = []
        for arm, found in results.items():
            if name not in found.figures:
                continue
            sums, gated = found.summary()[name], name in found.gated()
            marked |= gated
            drift = (
                f"{_number(sums['drift'].mean)} [{_number(sums['drift'].low)}, {_number(sums['drift'].high)}]"
            )
            other = (differences or {}).get(arm, {}).get(name)
            cells = [
                _number(found.median(name)) if each == "median"
                else drift + (MARK if gated else " ") if each == "drift"
                else _number(sums[each].mean)
                for each in COLUMNS
            ]  # fmt: skip
            rows.append((f"  {arm}", *cells, _difference(other["drift"]) if other else ""))
        if rows:
            heads = (name, *COLUMNS, f"drift less {base}'s" if differences else "")
            lines += [*_aligned([heads, *rows]), f"  {MEASURES[name].help}", ""]
    lines += _similar(results)
    if marked:
        lines.append(f"{MARK} bad from the first section on: its drift says little.")
    return "\n".join(line.rstrip() for line in lines).rstrip()


def _heads(results: Results) -> list[str]:
    """Each arm's videos, those that lost their character, and the share with the prompted motion, by motion."""
    motions = list(dict.fromkeys(motion for arm in results.values() for motion in arm.motions()))
    heads = ("arm", "videos", "frames", "lost", "right", *motions)
    rows = []
    for name, arm in results.items():
        found, lost = arm.motions(), arm.lost_videos()
        right = [seen == asked for seen, asked in zip(arm.seen, arm.asked, strict=True) if asked is not None]
        rows.append(
            (
                name,
                str(len(arm.scenes)),
                str(max(arm.frames)),
                "" if lost is None else str(lost),
                f"{np.mean(right):.2f}" if right else "",
                *(f"{found[motion]['right']:.2f}" if motion in found else "" for motion in motions),
            )
        )
    lines = _aligned([heads, *rows])
    if motions:
        lines.append(
            "  lost: videos whose character is lost at any time; right: the motion of the whole video"
        )
    return lines


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


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _difference(value: Interval) -> str:
    return f"{value.mean:+.4f} [{value.low:+.4f}, {value.high:+.4f}]" if value.count else ""


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
