"""Where finished sections lie: whatever reads and writes latents by a section's place in the video."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

import numpy as np

from longtake.errors import RunError
from longtake.job import Job


class Store(Protocol):
    """What the loop asks of the place where sections lie; `longtake.jobs` has the one that lasts."""

    def begin(self, job: Job, form: str) -> None:
        """Take sections of this job, made by networks in this form; JobError where other ones lie here already."""

    def read_section(self, number: int) -> np.ndarray | None:
        """The latents (B, C, T, h, w) of the section at this place, or None where it is still to be made."""

    def write_section(self, number: int, latents: np.ndarray) -> None:
        """Keep a finished section."""


class Scratch:
    """A store for as long as one video is made: a temporary folder, gone at the end of the `with` block."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="longtake-", ignore_cleanup_errors=True)

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def begin(self, job: Job, form: str) -> None:
        """Nothing lies here yet."""

    def read_section(self, number: int) -> np.ndarray | None:
        """The latents that were written, or None."""
        file = self._file(number)
        return np.asarray(np.load(file)) if file.exists() else None

    def write_section(self, number: int, latents: np.ndarray) -> None:
        """Keep the latents until this is closed."""
        try:
            np.save(self._file(number), latents)
        except OSError as error:
            raise RunError(
                f"{self._folder.name}, which holds the latents of a video in the making, cannot be written: "
                f"{error.strerror or error}; free some space, or name another place in TMPDIR.",
                section=number,
            ) from error

    def _file(self, number: int) -> Path:
        return Path(self._folder.name) / f"{number:05}.npy"
