"""The timeline: what a job says in seconds, as what each section of its plan is told."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longtake.errors import JobError
from longtake.plan.layout import LATENT_FRAMES
from longtake.plan.lengths import shown_frames

if TYPE_CHECKING:
    from longtake.job import Job, PromptSpan
    from longtake.plan.plans import Plan


@dataclass(frozen=True)
class Direction:
    """All that one section is told and that may differ between sections. `strengths` are those of the job's LoRAs."""

    prompt: str
    seed: int
    strengths: tuple[float, ...]


def direct(job: Job, plan: Plan, number: int) -> Direction:
    """All that the section at this place in the video is told.

    Its prompt is the common one, and the text of the span that holds the middle of its seconds; a change of this very
    section wins.

    >>> from longtake.job import Job, PromptSpan
    >>> from longtake.plan.plans import plan_of
    >>> job = Job("A penguin", prompts=(PromptSpan("it jumps", 2.0),))
    >>> [direct(job, plan_of(job), number).prompt for number in range(4)]
    ['A penguin', 'A penguin', 'A penguin, it jumps', 'A penguin, it jumps']
    """
    change = job.change_of(number)
    prompt = _prompt(job, plan, number) if change.prompt is None else change.prompt
    # The last weight repeats.
    strengths = tuple(lora.weights[min(number, len(lora.weights) - 1)] for lora in job.loras)
    return Direction(prompt, job.seed if change.seed is None else change.seed, strengths)


def prompts(job: Job, plan: Plan) -> tuple[str, ...]:
    """All prompts that a section may be told, each once, the common one first."""
    spans = [_joined(job.prompt, span.text) for span in job.prompts]
    changed = [change.prompt for change in job.changes if change.prompt is not None]
    return tuple(dict.fromkeys([job.prompt, *spans, *changed]))


def check(job: Job, plan: Plan) -> None:
    """Raise JobError for what is asked of seconds or sections that this video does not have."""
    for change in job.changes:
        if change.section >= plan.count:
            raise JobError(
                f"There is no section {change.section}; this video has the sections 0 to {plan.count - 1}."
            )
    for lora in job.loras:
        if len(lora.weights) > plan.count:
            raise JobError(
                f"The LoRA {lora.path!r} has {len(lora.weights)} weights, one for each section; this video has "
                f"{plan.count} sections: leave the last weights out."
            )
    for span in job.prompts:
        _check_span(job, plan, span)


def seconds(job: Job, plan: Plan, number: int) -> tuple[float, float]:
    """From when to when the section at this place in the video is seen; what is cut off at the end does not count.

    >>> from longtake.job import Job
    >>> from longtake.plan.plans import plan_of
    >>> job = Job("", frames=100, fps=10)
    >>> [seconds(job, plan_of(job), number) for number in range(3)]
    [(0.1, 3.7), (3.7, 7.3), (7.3, 10.0)]
    """
    made = plan[plan.made_at(number)].frames
    first, end = shown_frames(min(made)).start, min(shown_frames(max(made)).stop, plan.frames)
    return first / job.fps, end / job.fps


def _prompt(job: Job, plan: Plan, number: int) -> str:
    middle = _middle(job, plan, number)
    said = (
        span.text for span in job.prompts if span.start <= middle and (span.end is None or middle < span.end)
    )
    return _joined(job.prompt, next(said, ""))


def _joined(common: str, text: str) -> str:
    return ", ".join(filter(None, (common, text)))


def _middle(job: Job, plan: Plan, number: int) -> float:
    return sum(seconds(job, plan, number)) / 2


def _check_span(job: Job, plan: Plan, span: PromptSpan) -> None:
    """Raise JobError unless the span lies in the video and is said in one section at least."""
    # Up to the end of what the last section makes: whoever counts in whole seconds need not know where it is cut.
    length, made = plan.frames / job.fps, plan.made / job.fps
    if span.start >= length or (span.end or 0) > made:
        raise JobError(
            f"A prompt is said from {span.start} s to {'the end' if span.end is None else f'{span.end} s'}; this "
            f"video has {length:g} s."
        )
    first = bisect_left(range(plan.count), span.start, key=lambda number: _middle(job, plan, number))
    if first == plan.count or (span.end is not None and _middle(job, plan, first) >= span.end):
        raise JobError(
            f"The prompt from {span.start} s on is said in no section, since it holds the middle of none; sections "
            f"are {LATENT_FRAMES * plan.window / job.fps:g} s long here."
        )
