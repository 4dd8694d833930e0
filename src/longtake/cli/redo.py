"""`longtake redo`: make one section again with another seed or prompt, and with it all that sees it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from longtake.cli.resume import add_job, go_on, opened
from longtake.errors import JobError

if TYPE_CHECKING:
    from longtake.job import Job


def add_parser(verbs: Any) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "redo", help="make one section of a job again", description=__doc__, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    add_job(parser)
    parser.add_argument(
        "--section",
        type=int,
        required=True,
        metavar="N",
        help="the section by its place in the video, 0 first (longtake info DIR lists them)",
    )
    parser.add_argument("--seed", type=int, help="its seed from now on (the job's own: as it was at first)")
    parser.add_argument("--prompt", help="its prompt from now on")


def run(args: argparse.Namespace) -> None:
    """Change the section in the job, drop what does not fit any more, and make what it lacks then."""
    with opened(args) as folder:
        changed = with_section(folder.job, args.section, len(folder.states()), args.seed, args.prompt)
        dropped = folder.change(changed)
        if not args.json:
            kept = len(folder.states()) - len(dropped)
            print(
                f"sections to make again: {', '.join(map(str, dropped)) or 'none'}; kept: {kept}",
                file=sys.stderr,
            )
        go_on(folder, args)


def with_section(job: Job, section: int, sections: int, seed: int | None, prompt: str | None) -> Job:
    """The job with another seed or prompt in one of its `sections`; what is not given stays as it is there."""
    from longtake.job import SectionChange

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
