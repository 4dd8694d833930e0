"""`longtake extend`: make a video longer that comes in its own order; it goes on where it ended."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from longtake.cli.options import number
from longtake.cli.place import add_place, place_of
from longtake.errors import JobError

if TYPE_CHECKING:
    from longtake.job import Job

USAGE = "DIR (--seconds X | --frames N) [options]"
EXAMPLES = """\
longtake extend penguin --seconds 10
longtake extend penguin --frames 36 -o longer.mp4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every verb on a job, and the length to add."""
    add_place(parser)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--seconds", type=number, metavar="X", help="so many seconds more")
    length.add_argument("--frames", type=int, metavar="N", help="so many frames more")


def run(args: argparse.Namespace) -> None:
    """Change the job's length, and make what it lacks then."""
    from longtake.cli.make import go_on
    from longtake.cli.progress import progress_for

    seconds, frames = args.seconds, args.frames

    def change(job: Job) -> Job:
        return longer(job, round(seconds * job.fps) if frames is None else frames)

    go_on(place_of(args), change, progress_for(args.json))


def longer(job: Job, frames: int) -> Job:
    """The job with so many frames more; JobError if its end cannot move."""
    from longtake.plan.plans import PLANS, kind_named, plan_of

    if frames < 1:
        raise JobError(f"A video can be made longer, by at least one frame; {frames} were asked for.")
    kind = kind_named(job.sampling)
    if kind.extendable and not plan_of(job).extendable:
        raise JobError(
            f"With --sampling {job.sampling} every {kind.every} sections have an end that is made first, and the last "
            f"one of this video would move; a multiple of {kind.every} sections without a last picture can be extended."
        )
    if not kind.extendable:
        extendable = ", ".join(name for name, plan in PLANS.items() if plan.extendable)
        raise JobError(
            f"With --sampling {job.sampling} the end of a video is made first and cannot move afterwards; "
            f"extend is for jobs with --sampling {extendable}."
        )
    return dataclasses.replace(job, frames=job.frames + frames)
