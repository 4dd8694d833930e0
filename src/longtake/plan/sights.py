"""Which frames the sections of a plan see, where a job's `history` says otherwise than the plan: sinks, and forgetting.

Both give a plan again, so that recipes, pruning and the table of `longtake plan` know of it, and the loop need not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from longtake.errors import JobError
from longtake.plan import timeline
from longtake.plan.layout import Slot
from longtake.sampling.ways import wanted_of

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.plan.plans import Plan, Section

SINK_SCALE = 2
"""The scale at which sink frames are seen: finer than the far history, at an eighth of a full frame's cost."""


def seen(job: Job, plan: Plan) -> Plan:
    """The plan with what the job's `history` says of the frames seen. Raises JobError if the plan cannot have it."""
    if job.history and plan[-1].far is not None:
        raise JobError(
            f"Nothing can be done to the history that {job.sampling} keeps beyond its packed frames; leave history "
            "out, or take the same sampling with td."
        )
    sink, forget = (wanted_of(job.history, name) for name in ("sink", "forget"))
    kept: frozenset[int] = frozenset()
    if sink is not None:
        kept = sink_frames(plan, int(sink.numbers[0]))
        plan = sunk(plan, kept)
    return plan if forget is None else forgetting(job, plan, kept)


def sink_frames(plan: Plan, count: int) -> frozenset[int]:
    """The first `count` frames that are made of the video, or the last ones if what a section sees lies behind it.

    Raises JobError if the plan's far history is not one stretch of whole kernels that has room for them.
    """
    far = _far(plan[-1])
    if far is None:
        raise JobError("A sink takes the place of far history, and this plan has none; leave it out.")
    if count % far.scale or count > len(far.frames):
        most = len(far.frames) // far.scale * far.scale
        raise JobError(
            f"A sink of {count} frames was asked for; under this plan it is a multiple of {far.scale}, up to {most}, "
            f"since it takes the place of far history, which is packed by {far.scale}."
        )
    if _is_before(plan[-1], far):
        # Frame 0 has a section of its own if it is made; it is seen as the picture is.
        start = min(plan[plan.made_at(int(plan.maker(0) == 0))].frames)
    else:
        start = max(plan[plan.made_at(plan.count - 1)].frames) - count + 1
    return frozenset(range(start, start + count))


def sunk(plan: Plan, sink: frozenset[int]) -> Plan:
    """The plan whose sections see the frames of the sink for good, by k2, at the times of the farthest frames.

    So many frames of the far slot go there: first the farthest ones as they are, and the sink as soon as they have left
    it behind. Attention sinks of StreamingLLM, as deep as in Deep Forcing (arXiv 2512.05081). Unlike there, where the
    sink is 40 to 60 % of the window and all frames are of one scale: the cost stays that of a few more k2 frames.

    >>> from longtake.plan.plans import vanilla
    >>> plan = sunk(vanilla(9), frozenset({1, 2, 3, 4}))
    >>> plan[8].slots[2].frames, plan[8].slots[2].times, len(plan[8].slots[4].frames)
    ((1, 2, 3, 4, 70, 71), (1, 2, 3, 4, 17, 18), 12)
    """
    count = len(sink)

    def section(made: int) -> Section:
        found = plan.section(made)
        far = _far(found)
        if far is None or len(far.frames) < count:
            return found
        before = _is_before(found, far)
        cut, rest = (slice(count), slice(count, None)) if before else (slice(-count, None), slice(-count))
        frames = far.frames[cut]
        outer = frames[0] if before else frames[-1]
        # Once the sink itself has left the far slot, the nearest of its frames lies behind the farthest frame seen.
        if outer is not None and (outer > min(sink) if before else outer < max(sink)):
            frames = tuple(sorted(sink))
        slots = dict(found.slots)
        slots[far.scale] = Slot(far.scale, far.frames[rest], far.times[rest])
        if not slots[far.scale].frames:
            del slots[far.scale]
        scale = min(far.scale, SINK_SCALE)
        near = slots.get(scale, Slot(scale, (), ()))
        pieces = [(frames, far.times[cut]), (near.frames, near.times)]
        (a, a_times), (b, b_times) = pieces if before else pieces[::-1]
        slots[scale] = Slot(scale, (*a, *b), (*a_times, *b_times))
        return replace(found, slots=dict(sorted(slots.items())))

    return replace(plan, section=section, lasting=plan.lasting | sink)


def forgetting(job: Job, plan: Plan, kept: frozenset[int] = frozenset()) -> Plan:
    """The plan whose sections do not see, beyond k1, what was made before a change of prompt; zeros are fed for it.

    What is given, `kept` (the sink) and the frames by k1 (the picture and the nearest frame) stay. Infinity-RoPE's
    flush of keys and values (arXiv 2511.20649) keeps the same: the sink and the last frame. There is no cache to flush
    here: frames are seen as long as all sections between, theirs included, have this section's prompt.
    """

    def section(made: int) -> Section:
        found = plan.section(made)
        own = timeline.prompt_of(job, plan, found.number)
        reached: dict[int | None, bool] = {None: True}

        def stays(frame: int | None) -> bool:
            maker = None if frame is None or frame in kept else plan.maker(frame)
            if maker not in reached:
                reached[maker] = _is_same(job, plan, own, found.number, maker)
            return reached[maker]

        def told(slot: Slot) -> Slot:
            return replace(slot, frames=tuple(frame if stays(frame) else None for frame in slot.frames))

        slots = {scale: slot if scale == 1 else told(slot) for scale, slot in found.slots.items()}
        return replace(found, slots=slots)

    return replace(plan, section=section)


def _is_same(job: Job, plan: Plan, prompt: str, number: int, maker: int | None) -> bool:
    """Tell if all sections from one to the other have this prompt."""
    assert maker is not None
    first, last = sorted((number, maker))
    return all(timeline.prompt_of(job, plan, each) == prompt for each in range(first, last + 1))


def _far(section: Section) -> Slot | None:
    """The slot of the coarsest scale, where the far history is; None if there is but the picture and one frame."""
    slot = section.slots[max(section.slots)] if section.slots else None
    return None if slot is None or (slot.scale == 1 and len(slot.frames) < 3) else slot


def _is_before(section: Section, far: Slot) -> bool:
    """Tell if the far history lies before the section. Raises JobError if it lies on both sides."""
    before = all(time < min(section.times) for time in far.times)
    if not before and not all(time > max(section.times) for time in far.times):
        raise JobError(
            "A sink takes the place of far history on one side of a section; under this plan it lies on both."
        )
    return before
