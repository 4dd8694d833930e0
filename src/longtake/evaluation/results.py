"""The results of an evaluation: records by arm, put together into one JSON that is small, and read again from it.

docs/evaluation.md describes the file. Figures stand there video by video, so that arms of different files are paired.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from longtake import __version__, disk, strictjson
from longtake.errors import JobError
from longtake.evaluation.bootstrap import Interval, intervals
from longtake.evaluation.measures import MEASURES
from longtake.evaluation.meter import Curve
from longtake.evaluation.records import Record, long, short
from longtake.evaluation.summaries import STATISTICS, is_gated

FORMAT, VERSION = "longtake evaluation", 1
POINTS = 60

Figures = Mapping[str, Mapping[str, list[float]]]
Key = tuple[int | str, int | None]


@dataclass(frozen=True)
class Band:
    """A curve of an arm: the mean of its videos, and its interval."""

    at: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class ArmResult:
    """All that is known of an arm; lists have one entry for each video.

    `of` says what was made, or which file was read; `figures` are by measure and statistic.
    """

    of: Mapping[str, Any]
    scenes: list[int | str]
    seeds: list[int | None]
    frames: list[int]
    asked: list[str | None]
    seen: list[str | None]
    lost: list[bool | None]
    figures: Figures = field(repr=False)
    similarity: Mapping[int, list[float]] = field(repr=False)
    curves: Mapping[str, Band] = field(repr=False)

    @property
    def keys(self) -> list[Key]:
        """The scene and seed of each video, which tell them apart."""
        return list(zip(self.scenes, self.seeds, strict=True))

    def summary(self) -> dict[str, dict[str, Interval]]:
        """The mean over the videos of each measure and statistic, and its interval."""
        return _summed(self.figures, self.scenes)

    def median(self, measure: str) -> float:
        """The median over the videos of their medians over their frames."""
        values = np.array(self.figures[measure]["median"])
        return float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")

    def gated(self) -> list[str]:
        """The measures that are bad in the mean of the first sections, whose drift says nothing."""
        first = {name: np.array(found["first"]) for name, found in self.figures.items()}
        return [
            name
            for name, values in first.items()
            if np.isfinite(values).any() and is_gated(name, float(np.nanmean(values)))
        ]

    def motions(self) -> dict[str, dict[str, float]]:
        """By prompted motion: how many videos, the share that shows it as a whole, and the share of stretches."""
        stretches = self.figures.get("prompted", {}).get("mean", [float("nan")] * len(self.asked))
        found = {}
        for motion in dict.fromkeys(name for name in self.asked if name is not None):
            which = [row for row, name in enumerate(self.asked) if name == motion]
            found[motion] = {
                "videos": len(which),
                "right": float(np.mean([self.seen[row] == motion for row in which])),
                "prompted": float(np.mean([stretches[row] for row in which])),
            }
        return found

    def lost_videos(self) -> int | None:
        """Videos whose character is lost at any time; None if there is none to lose."""
        known = [lost for lost in self.lost if lost is not None]
        return sum(known) if known else None


Results = dict[str, ArmResult]
"""Results by the names of their arms."""


def arm_of(records: Sequence[Record], of: Mapping[str, Any]) -> ArmResult:
    """The records of one arm put together."""
    records = sorted(records, key=lambda record: (str(type(record.scene)), record.scene, record.seed or 0))
    names = [name for name in MEASURES if any(name in record.summaries for record in records)]
    seconds = sorted({second for record in records for second in record.similarity})
    return ArmResult(
        of,
        [record.scene for record in records],
        [record.seed for record in records],
        [record.frames for record in records],
        [record.asked for record in records],
        [record.seen for record in records],
        [record.lost for record in records],
        {name: {each: [record.figure(name, each) for record in records] for each in STATISTICS} for name in names},
        {second: [record.similarity.get(second, np.nan) for record in records] for second in seconds},
        {name: _band([record.curves[name] for record in records if name in record.curves],
                     [record.scene for record in records if name in record.curves]) for name in names},
    )  # fmt: skip


def differences(results: Results, base: str) -> dict[str, dict[str, dict[str, Interval]]]:
    """Of each other arm, by measure and statistic: its videos' figures less the base's of the same scene and seed.

    Where one of them has one video a scene (as the truth has), every seed is compared with it.
    """
    found = {}
    for name, arm in results.items():
        pairs = [] if name == base else _pairs(arm, results[base])
        if not pairs:
            continue
        ours, theirs = (list(rows) for rows in zip(*pairs, strict=True))
        figures = {
            measure: {
                each: (
                    np.array(values)[ours] - np.array(results[base].figures[measure][each])[theirs]
                ).tolist()
                for each, values in statistics.items()
            }
            for measure, statistics in arm.figures.items()
            if measure in results[base].figures
        }
        found[name] = _summed(figures, [arm.scenes[row] for row in ours])
    return found


def write_results(path: Path, results: Results, base: str | None = None) -> None:
    """Write the results as JSON, whole or not at all."""
    values = {
        "format": FORMAT,
        "version": VERSION,
        "longtake": __version__,
        "measures": {
            name: {"help": each.help, "better": each.better, "gate": [short(value) for value in each.gate]}
            for name, each in MEASURES.items()
        },
        "arms": {name: _values(arm) for name, arm in results.items()},
    }
    if base is not None:
        values["differences"] = {"to": base, "arms": _told(differences(results, base))}
    disk.write(path, json.dumps(values, ensure_ascii=False).encode())


def read_results(path: Path) -> Results:
    """The arms of a file that `write_results` wrote; JobError if it is none."""
    what = f"an evaluation ({path})"
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path} cannot be read: {error}.") from None
    values = strictjson.parse(text, what)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise JobError(f"This is not {what}: longtake evaluate writes one as results.json.")
    if values.get("version") != VERSION:
        raise JobError(
            f"This is not {what} of version {VERSION} but of {values.get('version')!r}; evaluate again."
        )
    try:
        return {name: _arm(arm) for name, arm in values["arms"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise JobError(f"This is not {what} that is whole: {error!r} is wrong in it.") from None


def merged(every: Iterable[tuple[str, Results]]) -> Results:
    """Results of several files by (file, results); an arm whose name is taken gets its file's name behind it."""
    found: Results = {}
    for source, results in every:
        for name, arm in results.items():
            new, number = name, 1
            while new in found:
                new = f"{name} ({source})" if number == 1 else f"{name} ({source}, {number})"
                number += 1
            found[new] = arm
    return found


# --------------------------------------------------------------------------------------------------------------------


def _pairs(arm: ArmResult, base: ArmResult) -> list[tuple[int, int]]:
    """Rows of the same scene and seed in both; the seed None, which is one video for all, is of every seed."""
    rows: dict[int | str, list[tuple[int | None, int]]] = {}
    for theirs, (scene, seed) in enumerate(base.keys):
        rows.setdefault(scene, []).append((seed, theirs))
    return [
        (ours, theirs)
        for ours, (scene, seed) in enumerate(arm.keys)
        for other, theirs in rows.get(scene, ())
        if seed == other or seed is None or other is None
    ]


def _summed(figures: Figures, scenes: Sequence[int | str]) -> dict[str, dict[str, Interval]]:
    names = [(measure, each) for measure, statistics in figures.items() for each in statistics]
    if not names:
        return {}
    table = np.array([figures[measure][each] for measure, each in names]).T
    found: dict[str, dict[str, Interval]] = {}
    for (measure, each), value in zip(names, intervals(table, scenes), strict=True):
        found.setdefault(measure, {})[each] = value
    return found


def _band(curves: Sequence[Curve], scenes: Sequence[int | str]) -> Band:
    """The mean curve; curves over other frames than the longest one's are read between their points."""
    longest = max(curves, key=lambda curve: len(curve.at))
    table = [
        curve.values if np.array_equal(curve.at, longest.at) else _read_between(curve, longest.at)
        for curve in curves
    ]
    found = intervals(np.array(table, float), scenes, draws=500)
    rows = [[short(value) for value in each[:3]] for each in found]
    mean, low, high = ([long(value) for value in column] for column in zip(*rows, strict=True))
    return Band([float(at) for at in longest.at], mean, low, high)


def _read_between(curve: Curve, at: np.ndarray) -> np.ndarray:
    known = np.isfinite(curve.values)
    return np.interp(at, curve.at[known], curve.values[known], left=np.nan, right=np.nan)


def _values(arm: ArmResult) -> dict[str, Any]:
    return {
        "of": dict(arm.of),
        "videos": {
            "scene": arm.scenes, "seed": arm.seeds, "frames": arm.frames,
            "asked": arm.asked, "seen": arm.seen, "lost": arm.lost,
        },
        "summary": _told(arm.summary()),
        "medians": {name: short(arm.median(name)) for name in arm.figures},
        "gated": arm.gated(),
        "motions": arm.motions(),
        "lost": arm.lost_videos(),
        "curves": {
            name: {"at": _shorts(band.at), "mean": _shorts(band.mean), "low": _shorts(band.low),
                   "high": _shorts(band.high)}
            for name, band in arm.curves.items()
        },
        "figures": {
            name: {each: _shorts(values) for each, values in found.items()}
            for name, found in arm.figures.items()
        },
        "similarity": {str(second): _shorts(values) for second, values in arm.similarity.items()},
    }  # fmt: skip


def _arm(values: Mapping[str, Any]) -> ArmResult:
    videos = values["videos"]
    return ArmResult(
        values["of"], videos["scene"], videos["seed"], videos["frames"], videos["asked"], videos["seen"],
        videos["lost"],
        {
            name: {each: _longs(found[each]) for each in STATISTICS}
            for name, found in values["figures"].items()
            if name in MEASURES
        },
        {int(second): _longs(found) for second, found in values["similarity"].items()},
        {
            name: Band(*(_longs(band[each]) for each in ("at", "mean", "low", "high")))
            for name, band in values["curves"].items()
            if name in MEASURES
        },
    )  # fmt: skip


def _told(value: Any) -> Any:
    """Intervals inside objects as lists."""
    if isinstance(value, Interval):
        return [short(each) for each in value]
    return {name: _told(each) for name, each in value.items()}


def _shorts(values: Sequence[float]) -> list[float | None]:
    return [short(value) for value in values]


def _longs(values: Sequence[float | None]) -> list[float]:
    return [long(value) for value in values]
