"""The store of finished sections: whatever reads and writes latents by a section's place in the video."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

import numpy as np

from longtake.errors import RunError
from longtake.job import Job


class Store(Protocol):
    """The store as the loop uses it; `longtake.jobs` has the one that lasts."""

    def begin(self, job: Job, form: str) -> None:
        """Take sections of this job, made by networks in this form; JobError if others lie here already."""

    def read_section(self, number: int) -> np.ndarray | None:
        """The latents (B, C, T, h, w) of the section at this place, or None if it is still to be made."""

    def write_section(self, number: int, latents: np.ndarray) -> None:
        """Keep a finished section."""


class Scratch:
    """Sections that wait, for as long as one video is made: a temporary folder, gone when it is closed."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="longtake-", ignore_cleanup_errors=True)

    def close(self) -> None:
        """Remove the folder and what lies there."""
        self._folder.cleanup()

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

    def forget(self, number: int) -> None:
        """Remove a section that does not wait any more."""
        self._file(number).unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return Path(self._folder.name) / f"{number:05}.npy"
