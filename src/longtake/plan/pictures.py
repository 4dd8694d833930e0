"""The latent frames at which a job's pictures stand, as its plan has placed them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.plan.plans import Plan


def frames_of(job: Job, plan: Plan) -> dict[float | Literal["end"], int]:
    """The latent frame of each of the job's pictures, by its time; they stand in the order of their times.

    >>> from longtake.job import Anchor, Job
    >>> from longtake.plan.plans import plan_of
    >>> job = Job("", anchors=(Anchor(0, "a.png"), Anchor("end", "b.png")))
    >>> frames_of(job, plan_of(job))
    {0: 0, 'end': 37}
    """
    times = [anchor.at for anchor in job.anchors]
    within = sorted(at for at in times if at != "end" and at != 0)
    frames: dict[float | Literal["end"], int] = {0: 0} if 0 in times else {}
    frames.update(zip(within, plan.starts[1:], strict=True))
    if "end" in times:
        frames["end"] = plan.anchors[-1]
    return frames
