"""Logs for other programs' eyes, beside log.jsonl: TensorBoard and trackio, each of which may be missing."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from longtake.errors import JobError

KINDS = {
    "tensorboard": 'pip install "longtake[tensorboard]"',
    # Its 0.43 asks for a Pillow below 13, which has known holes, and logs as well with a newer one.
    "trackio": "pip install --no-deps trackio, and what docs/training.md names beside it",
}
"""The kinds of logs, which are also the packages that write them, each with the way to install it."""


def check(kinds: Sequence[str]) -> None:
    """Raise JobError for a kind that is not known, or whose package is not installed."""
    for kind in kinds:
        if kind not in KINDS:
            raise JobError(f"There is no log {kind!r}; there are: {', '.join(KINDS)}.")
        if importlib.util.find_spec(kind) is None:
            raise JobError(
                f"--log {kind} needs the package {kind}, which is not installed; install it by {KINDS[kind]}, or leave "
                "--log out: log.jsonl is always written."
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
        with redirect_stdout(sys.stderr):  # it talks, and standard output is for machines
            self.module.init(project=folder.name, config=dict(settings), resume="allow", name=folder.name)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures of a step."""
        self.module.log(dict(figures), step=step)

    def close(self) -> None:
        """Write what is left."""
        with redirect_stdout(sys.stderr):
            self.module.finish()


WRITERS: dict[str, Any] = {"tensorboard": TensorBoard, "trackio": Trackio}


def writers(kinds: Sequence[str], folder: Path, settings: Mapping[str, Any], steps: int) -> list[Any]:
    """The logs that were asked for, going on after so many steps."""
    return [WRITERS[kind](folder, settings, steps) for kind in kinds]
