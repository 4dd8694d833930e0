"""The checks of what a job asks in time of its sampling: what does not go together is refused in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longtake.errors import JobError
from longtake.sampling.ways import wanted_of

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.plan.plans import Kind


def check(job: Job, kind: Kind, seeing: str) -> None:
    """Raise JobError for pictures, a loop, a clip or a beginning that this kind of plan cannot have.

    `seeing` are the names of those that see the end.
    """
    times = [anchor.at for anchor in job.anchors]
    if len(set(times)) < len(times):
        raise JobError("One picture can stand at one time; the job's anchors name a time twice.")
    if "end" in times and not kind.sees_end:
        raise JobError(
            f"A last picture needs a sampling that sees the end ({seeing}); {job.sampling} was asked for, which "
            "never looks ahead."
        )
    later = [at for at in times if at not in (0, "end")]
    if later and not kind.sees_end and job.unforeseen == "refuse":
        raise JobError(
            f"A picture at {later[0]:g} s needs a sampling that sees the end ({seeing}); {job.sampling} was asked for, "
            "which never looks ahead: take one of these, or let the video begin anew there (--unforeseen restart, in "
            "Python unforeseen='restart')."
        )
    if later and not _sinks_across(kind) and wanted_of(job.history, "sink") is not None:
        raise JobError(
            f"A sink is seen for good, and with {job.sampling} a section sees nothing that lies across the picture at "
            f"{later[0]:g} s; leave the history's sink out, or the picture."
        )
    if kind.keeps_tail and any(anchor.strength != 1 for anchor in job.anchors):
        raise JobError(
            f"The sampling {job.sampling} keeps what lies far back, where no picture can be left out; take strength 1, "
            "or the same sampling with td."
        )
    if job.loop:
        _check_loop(job, kind, seeing)
    if job.clip is not None:
        _check_clip(job, kind)
    if job.from_text and 0 in times:
        raise JobError("A video from text alone has no picture at 0; leave one of the two out.")
    if job.blend and not job.prompts:
        raise JobError(
            f"A blend of {job.blend} sections needs prompts in time to blend; leave it out, or give prompts."
        )


def _sinks_across(kind: Kind) -> bool:
    """Tell if what is made first is seen across a picture in time: backwards, or where far history lies before."""
    view = kind.view
    if view is None or not kind.sees_end:
        return False
    if not view.before:
        return not view.apart
    return max(each.scale for each in view.before) >= max((each.scale for each in view.behind), default=1)


def _check_loop(job: Job, kind: Kind, seeing: str) -> None:
    if not kind.sees_end:
        raise JobError(
            f"A loop needs a sampling that sees the end ({seeing}); {job.sampling} was asked for, which never looks "
            "ahead."
        )
    if job.last_picture is not None:
        raise JobError("A loop ends with the picture that it begins with; leave the last picture out.")
    if job.clip is not None:
        raise JobError("A loop ends where it begins, and so has no clip before it or behind it.")


def _check_clip(job: Job, kind: Kind) -> None:
    """Raise JobError for a clip whose place is taken, or that the plan has no place for."""
    if kind.view is None:
        raise JobError(
            f"The sampling {job.sampling} does not say what a section sees; it cannot go on from a clip."
        )
    if kind.view.before and (job.picture is not None or job.from_text):
        raise JobError(
            f"A video that goes on from a clip begins with it; with {job.sampling} leave out the picture at 0 and the "
            "beginning from text, or the clip."
        )
    if not kind.view.before and job.last_picture is not None:
        raise JobError(
            f"With {job.sampling} a clip comes behind the video, which ends with it; leave out the last picture, or "
            "the clip."
        )
