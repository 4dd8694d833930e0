"""The record of each video that was measured: numbers, coarse curves and a few stills; and its files.

A record is a small file of its own, so that an evaluation that was stopped goes on with what it has.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from longtake import disk, strictjson
from longtake.errors import LongtakeError
from longtake.evaluation.meter import Curve, Measured
from longtake.evaluation.summaries import STATISTICS, downsampled, summaries
from longtake.picture import load_image, save_picture

DIGITS = 5


@dataclass(frozen=True)
class Record:
    """One video: of which arm, which scene (a number, or a file's name) and seed (None: there is but one).

    `asked` and `seen` are motions; `summaries` are figures by measure and statistic, `curves` coarse; `stills` frames
    (N, H, W, 3) at evenly spread times, or None.
    """

    arm: str
    scene: int | str
    seed: int | None
    frames: int
    summaries: Mapping[str, Mapping[str, float]]
    curves: Mapping[str, Curve] = field(repr=False)
    similarity: Mapping[int, float]
    asked: str | None = None
    seen: str | None = None
    lost: bool | None = None
    stills: np.ndarray | None = field(default=None, repr=False)

    def figure(self, measure: str, statistic: str) -> float:
        """One figure; NaN if this video has none."""
        return self.summaries.get(measure, {}).get(statistic, math.nan)


def record_of(
    measured: Measured,
    arm: str,
    scene: int | str,
    seed: int | None = None,
    *,
    section: int = 36,
    asked: str | None = None,
    stills: np.ndarray | None = None,
) -> Record:
    """The record of a video whose first section ends with frame `section`."""
    lost = measured.curves.get("lost")
    found = {
        name: {each: getattr(summary, each) for each in STATISTICS}
        for name, summary in summaries(measured, section).items()
    }
    curves = {name: downsampled(curve) for name, curve in measured.curves.items() if name in found}
    return Record(
        arm, scene, seed, measured.frames, found, curves, measured.similarity, asked, measured.seen,
        None if lost is None else bool(lost.values.any()), stills,
    )  # fmt: skip


class Keep:
    """A folder of records. `facts` are what decides them beside arm, scene and seed: another length, other names."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = disk.make_folder(folder)

    def read(self, facts: Mapping[str, Any], arm: str, scene: int | str, seed: int | None) -> Record | None:
        """The record of a video that was measured before, or None."""
        place = self._place(facts, scene, seed)
        if not place.exists():
            return None
        try:
            values = strictjson.parse(place.read_text("utf-8"), "a record")
            strip = place.with_suffix(".png")
            stills = np.asarray(load_image(strip)) if strip.exists() else None
            return from_values(values, arm, stills)
        except (OSError, LongtakeError, KeyError, TypeError, ValueError):
            return None  # damaged: it is made again

    def write(self, facts: Mapping[str, Any], record: Record) -> None:
        """Keep a record; whole or not at all."""
        place = self._place(facts, record.scene, record.seed)
        if record.stills is not None:
            strip = np.concatenate(list(record.stills), axis=1)
            save_picture(load_image(strip), place.with_suffix(".png"))
        disk.write(place, json.dumps(to_values(record)).encode())

    def _place(self, facts: Mapping[str, Any], scene: int | str, seed: int | None) -> Path:
        text = json.dumps([facts, scene, seed], sort_keys=True, default=str)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def to_values(record: Record) -> dict[str, Any]:
    """A record as what JSON knows, with few digits; NaN is null. Stills are left out."""
    return {
        "arm": record.arm, "scene": record.scene, "seed": record.seed, "frames": record.frames,
        "asked": record.asked, "seen": record.seen, "lost": record.lost,
        "stills": 0 if record.stills is None else len(record.stills),
        "similarity": {str(seconds): short(value) for seconds, value in record.similarity.items()},
        "summaries": {
            name: {each: short(value) for each, value in found.items()}
            for name, found in record.summaries.items()
        },
        "curves": {
            name: {"at": [short(at) for at in curve.at], "values": [short(value) for value in curve.values]}
            for name, curve in record.curves.items()
        },
    }  # fmt: skip


def from_values(values: Mapping[str, Any], arm: str, stills: np.ndarray | None = None) -> Record:
    """The record of `to_values`, under the name of an arm."""
    frames = int(values["frames"])
    if stills is not None:
        stills = np.stack(np.split(stills, int(values["stills"]), axis=1))
    return Record(
        arm, values["scene"], values["seed"], frames,
        {
            name: {each: long(value) for each, value in found.items()}
            for name, found in values["summaries"].items()
        },
        {
            name: Curve(np.array(curve["at"], float), np.array([long(value) for value in curve["values"]]))
            for name, curve in values.get("curves", {}).items()
        },
        {int(seconds): float(value) for seconds, value in values["similarity"].items()},
        values["asked"], values["seen"], values["lost"], stills,
    )  # fmt: skip


def short(value: float) -> float | None:
    """A number with few digits; None if it is not finite.

    >>> short(0.123456789), short(float("nan")), short(36)
    (0.12346, None, 36)
    """
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded


def long(value: float | None) -> float:
    """The way back from `short`."""
    return math.nan if value is None else float(value)
