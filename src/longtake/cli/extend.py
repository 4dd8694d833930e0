"""`longtake extend`: make a vanilla video longer; it goes on where it ended."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from longtake.cli.options import number
from longtake.cli.resume import add_job, go_on, opened
from longtake.errors import JobError


def add_parser(verbs: Any) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "extend", help="make the video of a job longer", description=__doc__, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    add_job(parser)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--seconds", type=number, help="so many seconds more")
    length.add_argument("--frames", type=int, help="so many frames more")


def run(args: argparse.Namespace) -> None:
    """Change the job's length, and make what it lacks then."""
    with opened(args) as folder:
        job = folder.job
        more = round(args.seconds * job.fps) if args.seconds is not None else int(args.frames)
        if more < 1:
            raise JobError(f"A video can be made longer, by at least one frame; {more} were asked for.")
        if job.sampling != "vanilla":
            raise JobError(
                f"An {job.sampling} video is made from its end, which cannot move afterwards; "
                "extend is for jobs with --sampling vanilla."
            )
        folder.change(dataclasses.replace(job, frames=job.frames + more))
        go_on(folder, args)
