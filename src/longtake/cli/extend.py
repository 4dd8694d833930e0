"""`longtake extend`: make a video longer, at its end or at its beginning, by what its sampling made last."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from longtake.cli.change import Change, add_keep
from longtake.cli.options import number
from longtake.cli.place import add_place, place_of
from longtake.errors import JobError

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.jobs.folder import JobFolder
    from longtake.spans import Lora, WeightSpan

USAGE = "DIR (--seconds X | --frames N) [--before] [options]"
EXAMPLES = """\
longtake extend penguin --seconds 10
longtake extend penguin --frames 36 -o longer.mp4
longtake extend inverted-penguin --seconds 5 --before
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every verb on a job, the length to add, and where."""
    add_place(parser)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--seconds", type=number, metavar="X", help="so many seconds more")
    length.add_argument("--frames", type=int, metavar="N", help="so many frames more")
    parser.add_argument(
        "--before",
        action="store_true",
        help="at the beginning, behind the picture (inverted sampling), by whole sections",
    )
    add_keep(parser)


def run(args: argparse.Namespace) -> None:
    """Change the job's length, and make what it lacks then."""
    from longtake.cli.make import go_on
    from longtake.cli.progress import progress_for

    progress = progress_for(args.json)

    def change(folder: JobFolder) -> Change:
        job, frames = folder.job, args.frames
        if frames is None:
            frames = round(args.seconds * job.fps)
        job = earlier(job, frames) if args.before else longer(job, frames)
        if args.before:
            added = job.frames - folder.job.frames
            progress.say(
                f"{added} frames ({added / job.fps:g} s) are put before what is there: whole sections"
            )
        return Change(job, {}, args.keep_takes)

    go_on(place_of(args), change, progress)


def longer(job: Job, frames: int) -> Job:
    """The job with so many frames more at its end; JobError if that cannot move."""
    from longtake.plan.plans import PLANS, kind_named, plan_of

    _check(frames)
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
            f"extend is for jobs with --sampling {extendable}"
            f"{', or with --before, at its beginning' if _comes_backwards(job) else ''}."
        )
    return dataclasses.replace(job, frames=job.frames + frames)


def earlier(job: Job, frames: int) -> Job:
    """The job with about so many frames more behind its picture, in whole sections; JobError if nothing would stay.

    What the job says of seconds and sections moves with the frames that it was said of.
    """
    from longtake.plan.layout import LATENT_FRAMES
    from longtake.plan.plans import plan_of

    _check(frames)
    if not _comes_backwards(job):
        raise JobError(
            f"With --sampling {job.sampling} a video goes on from its picture, and nothing that is made can come "
            "before what it has; leave --before out, or begin a new one."
        )
    given = {
        "pictures in between": any(anchor.at not in (0, "end") for anchor in job.anchors),
        "a given clip": job.clip is not None,
        "a loop": job.loop,
        "a first frame from its prompt": job.from_text,
    }
    what = next((name for name, there in given.items() if there), None)
    if what is not None:
        raise JobError(
            f"A job with {what} cannot be extended at its beginning; begin a new one of {job.frames + frames} frames."
        )
    length = LATENT_FRAMES * job.window
    more = max(1, round(frames / length))
    new = _moved(job, more, length / job.fps)
    _check_kept(job, new, plan_of(job).count, more)
    return new


def _comes_backwards(job: Job) -> bool:
    """Tell if the sections of the job's plan are made from the last one to the first."""
    from longtake.plan.plans import kind_named

    # Of three, so that no other order looks like it.
    plan = kind_named(job.sampling).lay_out(3, job.window, False)
    return [section.number for section in plan] == [2, 1, 0]


def _moved(job: Job, more: int, seconds: float) -> Job:
    """The job with `more` sections of so many seconds each before what it has."""
    later = more * seconds
    frames = job.frames + round(later * job.fps)
    prompts = tuple(
        dataclasses.replace(
            span, start=span.start + later if span.start else 0.0, end=span.end and span.end + later
        )
        for span in job.prompts
    )
    changes = tuple(dataclasses.replace(change, section=change.section + more) for change in job.changes)
    loras = tuple(dataclasses.replace(lora, weights=_weights(lora, more, later)) for lora in job.loras)
    return dataclasses.replace(
        job, frames=frames, prompts=prompts, changes=changes, loras=loras, origin=job.origin + more
    )


def _weights(lora: Lora, more: int, later: float) -> tuple[float | WeightSpan, ...]:
    """The weights of a LoRA, moved with their sections or seconds; what is new has the first."""
    from longtake.spans import WeightSpan

    if len(lora.weights) == 1 and not lora.spans:
        return lora.weights
    if not lora.spans:
        return (*lora.weights[:1] * more, *lora.weights)
    return tuple(
        dataclasses.replace(
            span, start=span.start + later if span.start else 0.0, end=span.end and span.end + later
        )
        for span in lora.weights
        if isinstance(span, WeightSpan)
    )


def _check_kept(job: Job, new: Job, count: int, more: int) -> None:
    """Raise JobError if no section of the job is one of the new job."""
    from longtake.jobs.recipe import Recipes
    from longtake.plan.plans import plan_of

    if plan_of(new).count != count + more:
        raise JobError(
            "Something is said of less than half a section at the beginning, whose sections would not stay those that "
            f"they are if others came before; begin a new one of {new.frames} frames."
        )
    before, after = Recipes(job, plan_of(job), {}), Recipes(new, plan_of(new), {})
    if not any(before[number] == after[number + more] for number in reversed(range(count))):
        raise JobError(
            f"A section of a video of {count} {'section' if count == 1 else 'sections'} knows how far behind the "
            f"picture it is, so that nothing of it would stay; begin a new one of {new.frames} frames."
        )


def _check(frames: int) -> None:
    if frames < 1:
        raise JobError(f"A video can be made longer, by at least one frame; {frames} were asked for.")
