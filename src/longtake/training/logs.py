"""Logs for other programs' eyes, beside log.jsonl: TensorBoard and trackio, each an extra that may be missing."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longtake.errors import JobError

KINDS = {"tensorboard": "tensorboard", "trackio": "trackio"}
"""The kinds of logs, each with the package that writes it."""


def check(kinds: Sequence[str]) -> None:
    """Raise JobError for a kind that is not known, or whose package is not installed."""
    for kind in kinds:
        if kind not in KINDS:
            raise JobError(f"There is no log {kind!r}; there are: {', '.join(KINDS)}.")
        if importlib.util.find_spec(KINDS[kind]) is None:
            raise JobError(
                f"--log {kind} needs the package {KINDS[kind]}, which is not installed; install it with: "
                f'pip install "longtake[{kind}]", or leave --log out: log.jsonl is always written.'
            )


class TensorBoard:
    """Figures as TensorBoard shows them, in OUT/tensorboard."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], steps: int) -> None:
        from longtake.backend import training

        # What was logged of steps after the checkpoint comes again.
        self.writer = training.tensorboard(folder / "tensorboard", steps)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures of a step."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


class Trackio:
    """Figures as trackio shows them, a project named after the folder; trackio keeps them in its own place."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], steps: int) -> None:
        self.module: Any = importlib.import_module("trackio")
        self.module.init(project=folder.name, config=dict(settings), resume="allow", name=folder.name)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures of a step."""
        self.module.log(dict(figures), step=step)

    def close(self) -> None:
        """Write what is left."""
        self.module.finish()


WRITERS: dict[str, Any] = {"tensorboard": TensorBoard, "trackio": Trackio}


def writers(kinds: Sequence[str], folder: Path, settings: Mapping[str, Any], steps: int) -> list[Any]:
    """The logs that were asked for, going on after so many steps."""
    return [WRITERS[kind](folder, settings, steps) for kind in kinds]
