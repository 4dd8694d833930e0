"""Pictures of results: curves over time, and contact sheets of what was measured."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longtake import disk
from longtake.errors import BackendError, PictureError
from longtake.evaluation.measures import MEASURES
from longtake.evaluation.records import Record
from longtake.evaluation.results import Results
from longtake.picture import contact_sheet, reason, save_picture

COLUMNS = 3
ROWS = 42
"""Most rows of a sheet."""


def check_plots() -> None:
    """Raise BackendError if there is nothing to plot with."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise BackendError(
            "Plots are drawn by matplotlib, which is not installed: pip install longtake[plot]."
        ) from None


def plot(results: Results, path: Path, measures: Collection[str] = tuple(MEASURES)) -> None:
    """Write a PNG of the curves of each measure, an arm a line, its interval as a band."""
    check_plots()
    import matplotlib

    known = [
        name for name in MEASURES if name in measures and any(name in arm.curves for arm in results.values())
    ]
    with matplotlib.rc_context({"font.size": 8}):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        down = max(1, math.ceil(len(known) / COLUMNS))
        figure = Figure((4.4 * COLUMNS, 2.6 * down + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        drawn: dict[str, Any] = {}
        axes = np.atleast_1d(figure.subplots(down, COLUMNS)).ravel()
        for name, axis in zip(known, axes, strict=False):
            _draw(axis, name, results, drawn)
        for axis in axes[len(known) :]:
            axis.remove()
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=min(6, len(drawn) or 1))
        try:
            with disk.replacing(path) as file:
                figure.savefig(file, format="png", dpi=110)
        except OSError as error:
            raise PictureError(f"{path} cannot be written: {reason(error)}.") from None


def _draw(axis: Any, name: str, results: Results, drawn: dict[str, Any]) -> None:
    for number, (arm, found) in enumerate(results.items()):
        if name not in found.curves:
            continue
        band = found.curves[name]
        at = np.array(band.at)
        few = "o" if len(at) < 3 else ""
        (line,) = axis.plot(at, band.mean, few or "-", color=f"C{number % 10}", linewidth=1.1)
        axis.fill_between(at, band.low, band.high, color=f"C{number % 10}", alpha=0.15, linewidth=0)
        drawn.setdefault(arm, line)
    axis.set_title(name)
    axis.set_xlabel("frame")
    axis.grid(alpha=0.3)


def sheet(records: Sequence[Record], path: Path) -> list[str]:
    """Write a PNG with a row for each video that has stills, scene by scene, arms below each other; the rows' names."""
    order = {arm: number for number, arm in enumerate(dict.fromkeys(record.arm for record in records))}
    scenes = {scene: number for number, scene in enumerate(dict.fromkeys(record.scene for record in records))}
    shown = sorted(
        (record for record in records if record.stills is not None),
        key=lambda record: (scenes[record.scene], order[record.arm]),
    )[:ROWS]
    if not shown:
        return []
    columns = max(len(record.stills) for record in shown if record.stills is not None)
    height, width = shown[0].stills.shape[1:3]  # type: ignore[union-attr]
    frames = []
    for record in shown:
        assert record.stills is not None
        row = [_fitted(frame, height, width) for frame in record.stills]
        frames += row + [np.full((height, width, 3), 255, np.uint8)] * (columns - len(row))
    save_picture(contact_sheet(frames, columns=columns), path)
    return [f"{record.scene} {record.arm}" for record in shown]


def _fitted(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))
