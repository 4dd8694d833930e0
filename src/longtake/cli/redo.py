"""`longtake redo`: make parts of a video again otherwise, and with them all that depends on them, and nothing else."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from longtake.cli.change import Change, add_keep, png_of
from longtake.cli.directing import keyframe
from longtake.cli.options import number
from longtake.cli.place import add_place, place_of
from longtake.errors import JobError
from longtake.spans import SEEDS, Anchor, in_order

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.jobs.folder import JobFolder

USAGE = "DIR [--section N | --seconds A-B] [what is different] [options]"
EXAMPLES = """\
longtake redo penguin --section 3
longtake redo penguin --section 2,5-7 --seed 7
longtake redo penguin --seconds 4-6.5 --prompt "It jumps."
longtake redo penguin --picture another.png
longtake redo penguin --length 12
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every verb on a job, which part of it, and what is different there."""
    add_place(parser)
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--section",
        type=places,
        metavar="N",
        help="the sections by their places in the video, 0 first, such as 3 or 2,5-7 (longtake info DIR lists them)",
    )
    part.add_argument(
        "--seconds",
        type=span,
        metavar="A-B",
        help="the sections of these seconds: 4-6.5, or 4- up to the end, or 4 (that one second's)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="their seed from now on (the job's own: as it was at first; default: one that they never had, if nothing "
        "else is different)",
    )
    parser.add_argument("--prompt", metavar="PROMPT", help="their prompt from now on")
    whole = parser.add_argument_group("of the whole video")
    whole.add_argument("--picture", metavar="PICTURE", help="the picture that it begins with from now on")
    whole.add_argument("--last-image", metavar="PICTURE", help="the picture that it ends with from now on")
    whole.add_argument(
        "--keyframe",
        action="append",
        type=keyframe,
        dest="keyframes",
        metavar="SECONDS=PICTURE[:STRENGTH]",
        help="a picture at a time from now on, in the place of one that is there; may be given several times",
    )
    length = whole.add_mutually_exclusive_group()
    length.add_argument("--length", type=number, metavar="X", help="its length from now on, in seconds")
    length.add_argument("--frames", type=int, metavar="N", help="its length from now on, in frames")
    add_keep(parser)


def run(args: argparse.Namespace) -> None:
    """Change the job, set aside what does not fit any more, and make what it lacks then."""
    from longtake.cli.make import go_on
    from longtake.cli.progress import progress_for

    given = [
        *([] if args.picture is None else [Anchor(0.0, args.picture)]),
        *(args.keyframes or ()),
        *([] if args.last_image is None else [Anchor("end", args.last_image)]),
    ]
    whole = bool(given) or args.length is not None or args.frames is not None
    part = args.section is not None or args.seconds is not None
    if not part and (args.seed, args.prompt) != (None, None):
        raise JobError("--seed and --prompt are those of a part; name it by --section N or --seconds A-B.")
    if not part and not whole:
        raise JobError(
            "Name what is made again: --section N, --seconds A-B, or what is different in the whole video."
        )

    def change(folder: JobFolder) -> Change:
        job = of_length(folder.job, args.length, args.frames)
        job, pictures = with_pictures(job, given)
        if part:
            numbers = sections_of(job, args.section, args.seconds)
            fresh = args.seed is None and args.prompt is None and not whole
            seed = unused_seed(folder, numbers) if fresh else args.seed
            job = with_sections(job, numbers, seed, args.prompt)
        return Change(job, pictures, args.keep_takes)

    go_on(place_of(args), change, progress_for(args.json))


def sections_of(
    job: Job, places: Sequence[range] | None, seconds: tuple[float, float | None] | None
) -> list[int]:
    """The numbers of the sections that are meant; JobError for what the video does not have."""
    from longtake.plan import timeline
    from longtake.plan.plans import plan_of

    plan = plan_of(job)
    if places is not None:
        for each in places:
            timeline.check_section(plan.count, each[-1])
        return sorted({section for each in places for section in each})
    assert seconds is not None
    found = timeline.sections_in(job, plan, *seconds)
    if not found:
        length = plan.frames / job.fps
        raise JobError(f"The video has {length:g} s; it was asked to be made again from {seconds[0]:g} s on.")
    return list(found)


def with_sections(job: Job, sections: Sequence[int], seed: int | None, prompt: str | None) -> Job:
    """The job with another seed or prompt in some of its sections; what is not given stays as it is there."""
    from longtake.job import SectionChange
    from longtake.plan.plans import plan_of
    from longtake.plan.timeline import direct

    plan, changes = plan_of(job), {change.section: change for change in job.changes}
    bare = dataclasses.replace(job, changes=())
    for section in sections:
        before, own = job.change_of(section), direct(bare, plan, section)
        now = SectionChange(
            section, before.seed if seed is None else seed, before.prompt if prompt is None else prompt
        )
        # What the job says there anyhow is no change.
        now = SectionChange(
            section,
            None if now.seed == own.seed else now.seed,
            None if now.prompt == own.prompt else now.prompt,
        )
        changes[section] = now
        if now == SectionChange(section):
            del changes[section]
    new = tuple(sorted(changes.values(), key=lambda change: change.section))
    if new == tuple(sorted(job.changes, key=lambda change: change.section)):
        said = ", ".join(map(str, sections[:5])) + ("…" if len(sections) > 5 else "")
        raise JobError(
            f"{'Sections' if len(sections) > 1 else 'Section'} {said} {'are' if len(sections) > 1 else 'is'} made with "
            "this seed and prompt already; give another --seed or --prompt."
        )
    job = dataclasses.replace(job, changes=new)
    job.check()
    return job


def unused_seed(folder: JobFolder, sections: Sequence[int]) -> int:
    """The first seed behind that of the first of the sections which none of their takes has."""
    from longtake.plan.plans import plan_of
    from longtake.plan.timeline import direct

    own = direct(folder.job, plan_of(folder.job), sections[0]).seed
    known = {own, *(take.seed for section in sections for take in folder.takes(section))}
    return next(
        seed % (SEEDS + 1) for seed in range(own, own + len(known) + 1) if seed % (SEEDS + 1) not in known
    )


def of_length(job: Job, seconds: float | None, frames: int | None) -> Job:
    """The job with another length, in seconds or frames; as it is if none is given."""
    if seconds is not None:
        frames = round(seconds * job.fps)
    return job if frames is None else dataclasses.replace(job, frames=frames)


def with_pictures(job: Job, pictures: Sequence[Anchor]) -> tuple[Job, dict[str, bytes | None]]:
    """The job with these pictures at their times, in the place of those that it has there; and they as files."""
    from longtake.jobs.pictures import file_of

    if not pictures:
        return job, {}
    if len({anchor.at for anchor in pictures}) < len(pictures):
        raise JobError("One picture can stand at one time; the command names a time twice.")
    anchors = {anchor.at: anchor for anchor in (*job.anchors, *pictures)}
    # With a picture to begin with, it is no video from text any more.
    job = dataclasses.replace(
        job, anchors=in_order(anchors.values()), from_text=job.from_text and 0 not in anchors
    )
    job.check()
    return job, {file_of(anchor.at): png_of(anchor.image) for anchor in pictures}


def places(text: str) -> list[range]:
    """Sections from "3" or "2,5-7".

    >>> places("2,5-7")
    [range(2, 3), range(5, 8)]
    """
    found = []
    for each in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", each)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise argparse.ArgumentTypeError(f"sections look like 3 or 2,5-7; {text!r} was given")
        found.append(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found


def span(text: str) -> tuple[float, float | None]:
    """Seconds from "4-6.5", or from "4-" (up to the end), or from "4" (that moment).

    >>> span("4-6.5"), span("4-"), span("4")
    ((4.0, 6.5), (4.0, None), (4.0, 4.0))
    """
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)(\s*-\s*(\d{1,9}(?:\.\d{1,9})?)?)?\s*", text)
    begin = float(match[1]) if match else 0.0
    end = begin if match is None or match[2] is None else float(match[3]) if match[3] else None
    if match is None or (end is not None and end < begin):
        raise argparse.ArgumentTypeError(f"seconds look like 4-6.5, 4- or 4; {text!r} was given")
    return begin, end
