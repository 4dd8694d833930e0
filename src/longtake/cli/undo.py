"""`longtake undo`: go back to the job as it was before the last redo, extend or choice of a take, and so on."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from longtake.cli.change import Change
from longtake.cli.place import add_place, place_of

if TYPE_CHECKING:
    from longtake.jobs.folder import JobFolder

USAGE = "DIR [options]"
EXAMPLES = """\
longtake undo penguin
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every verb on a job."""
    add_place(parser)


def run(args: argparse.Namespace) -> None:
    """Take the last change back; what is still kept is not made again."""
    from longtake.cli.make import go_on
    from longtake.cli.progress import progress_for

    def change(folder: JobFolder) -> Change:
        return Change(folder.earlier, undo=True)

    go_on(place_of(args), change, progress_for(args.json))
