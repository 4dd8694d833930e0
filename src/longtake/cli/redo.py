"""`longtake redo`: make one section again with another seed or prompt, and with it all that sees it."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from typing import TYPE_CHECKING

from longtake.cli.place import add_place, place_of
from longtake.errors import JobError

if TYPE_CHECKING:
    from longtake.job import Job

USAGE = "DIR --section N [--seed N] [--prompt PROMPT] [options]"
EXAMPLES = """\
longtake redo penguin --section 3 --seed 7
longtake redo penguin --section 3 --prompt "It jumps."
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every verb on a job, and the section."""
    add_place(parser)
    parser.add_argument(
        "--section",
        type=int,
        required=True,
        metavar="N",
        help="the section by its place in the video, 0 first (longtake info DIR lists them)",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="its seed from now on (the job's own: as it was at first)"
    )
    parser.add_argument("--prompt", metavar="PROMPT", help="its prompt from now on")


def run(args: argparse.Namespace) -> None:
    """Change the section in the job, drop what does not fit any more, and make what it lacks then."""
    from longtake.cli.make import go_on
    from longtake.cli.progress import progress_for

    change = partial(with_section, section=args.section, seed=args.seed, prompt=args.prompt)
    go_on(place_of(args), change, progress_for(args.json))


def with_section(job: Job, section: int, seed: int | None, prompt: str | None) -> Job:
    """The job with another seed or prompt in one of its sections; what is not given stays as it is there."""
    from longtake.job import SectionChange
    from longtake.plan.plans import plan_of

    sections = plan_of(job).count
    if not 0 <= section < sections:
        raise JobError(f"There is no section {section}; this video has the sections 0 to {sections - 1}.")
    before = job.change_of(section)
    seed = before.seed if seed is None else seed
    prompt = before.prompt if prompt is None else prompt
    # The job's own seed and prompt are no change.
    now = SectionChange(section, None if seed == job.seed else seed, None if prompt == job.prompt else prompt)
    if now == before:
        raise JobError(
            f"Section {section} is made with this seed and prompt already; give another --seed or --prompt."
        )
    others = [change for change in job.changes if change.section != section]
    changes = [*others, now] if now != SectionChange(section) else others
    job = dataclasses.replace(job, changes=tuple(sorted(changes, key=lambda change: change.section)))
    job.check()
    return job
