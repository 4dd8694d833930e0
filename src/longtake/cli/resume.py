"""`longtake resume`: go on with a job whose process ended, from its last finished section."""

from __future__ import annotations

import argparse

from longtake.cli.change import Change
from longtake.cli.place import add_place, place_of

USAGE = "DIR [options]"
EXAMPLES = """\
longtake resume penguin
longtake resume penguin -o elsewhere.mp4 --model models/framepack --device cuda:1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_place(parser)


def run(args: argparse.Namespace) -> None:
    """Make what the job lacks, and its video."""
    from longtake.cli.make import go_on
    from longtake.cli.progress import progress_for

    go_on(place_of(args), lambda folder: Change(folder.job), progress_for(args.json))
