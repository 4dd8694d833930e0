"""A change of a job on disk, as the verbs that change one ask for it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from longtake.errors import JobError

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.jobs.folder import JobFolder


@dataclass(frozen=True)
class Change:
    """The job that a folder's job becomes, its new pictures by the names of their files, and the takes that are kept.

    `undo` says that it is the job before, whose pictures come back with it.
    """

    job: Job
    pictures: Mapping[str, bytes | None] = field(default_factory=dict)
    keep_takes: int | None = None
    undo: bool = False

    def make(self, folder: JobFolder) -> list[int] | None:
        """Change the folder's job; the sections to make again, or None if it is as it was."""
        if self.undo:
            return folder.undo()
        if self.job == folder.job and not self.pictures and self.keep_takes in (None, folder.made.takes):
            return None
        return folder.change(self.job, self.pictures, self.keep_takes)


def add_keep(parser: argparse.ArgumentParser) -> None:
    """`--keep-takes`."""
    parser.add_argument(
        "--keep-takes",
        type=takes,
        metavar="N",
        help="how many takes of a section are kept beside the one in use, from now on (default: as before, at first 4)",
    )


def takes(text: str) -> int:
    """A number of takes."""
    from longtake.jobs.takes import MOST_KEPT

    if not text.isdecimal() or len(text) > 9 or int(text) > MOST_KEPT:
        raise argparse.ArgumentTypeError(
            f"the number of takes lies between 0 and {MOST_KEPT}; {text!r} was given"
        )
    return int(text)


def png_of(source: str) -> bytes:
    """The picture as a job's folder keeps it."""
    from longtake.jobs.beginning import png
    from longtake.video.edges import load_picture

    if not source:
        raise JobError("A picture has a name; an empty one was given.")
    return png(load_picture(source))
