"""The words above the pictures of a contact sheet: when they are seen, and what changes there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.plan.sections import Plan

NEAR = 2.5
"""Video frames by which a picture's place may differ from the time that was asked, and a little."""


def has_timeline(job: Job) -> bool:
    """Tell if anything of a job changes with time, beside the pictures at both ends."""
    between = any(anchor.at not in (0, "end") for anchor in job.anchors)
    return bool(job.prompts or between or any(change.prompt is not None for change in job.changes))


def of_sections(job: Job, plan: Plan, numbers: Iterable[int]) -> dict[int, str]:
    """The captions of sections, in the order of the video: their seconds, a prompt that is new there, key frames.

    >>> from longtake.job import PromptSpan
    >>> from longtake.job import Job
    >>> from longtake.plan.plans import plan_of
    >>> job = Job("A penguin", prompts=(PromptSpan("it jumps", 2.4),))
    >>> of_sections(job, plan_of(job), range(4))
    {0: '0.0 s: A penguin', 1: '1.2 s', 2: '2.4 s: it jumps', 3: '3.6 s'}
    """
    from longtake.plan.timeline import prompt_of, seconds

    found, before, until = {}, None, 0.0
    for number in numbers:
        begin, end = seconds(job, plan, number)
        said = prompt_of(job, plan, number)
        words = [*_pictures(job, until, end), *([_own(job, said)] if said != before else [])]
        when = f"{0.0 if number == 0 else begin:.1f} s"
        found[number] = f"{when}: {' '.join(words)}" if words else when
        before, until = said, end
    return found


def of_frames(job: Job, plan: Plan, frames: Sequence[int]) -> dict[int, str]:
    """The captions of frames by their places among them; where several are of one section, the first has it."""
    from longtake.plan.timeline import shown

    def begin(number: int) -> int:
        return shown(plan, number)[0]

    numbers = [max(0, bisect_right(range(plan.count), frame, key=begin) - 1) for frame in frames]
    told = of_sections(job, plan, dict.fromkeys(numbers))
    return {numbers.index(number): text for number, text in told.items()}


def _pictures(job: Job, begin: float, end: float) -> list[str]:
    """The pictures at times from `begin` to `end`; each lies up to two frames away from the time that is asked."""
    near = NEAR / job.fps
    between = [(float(each.at), each.image) for each in job.anchors if each.at not in (0, "end")]
    return [f"[{Path(image).name}]" for at, image in sorted(between) if begin - near <= at < end - near]


def _own(job: Job, prompt: str) -> str:
    """A section's prompt without the common part that all begin with."""
    return prompt.removeprefix(f"{job.prompt}, ") if job.prompt else prompt
