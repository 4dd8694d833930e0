"""The timeline: what a job says in seconds, as what each section of its plan is told."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from longtake.errors import JobError
from longtake.plan.layout import LATENT_FRAMES
from longtake.spans import Lora, PromptSpan, WeightSpan

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.plan.plans import Plan


@dataclass(frozen=True)
class Voice:
    """One part of a mixture of velocities: its weight, its prompt, and given frames that are blank to it everywhere."""

    weight: float
    prompt: str
    hidden: tuple[int, ...] = ()


@dataclass(frozen=True)
class Direction:
    """All that one section is told and that may differ between sections. `strengths` are those of the job's LoRAs.

    `voices` are mixed: the section's velocity is the sum of theirs by their weights, which add up to 1.
    """

    prompt: str
    seed: int
    strengths: tuple[float, ...]
    voices: tuple[Voice, ...] = ()

    def __post_init__(self) -> None:
        if not self.voices:
            object.__setattr__(self, "voices", (Voice(1.0, self.prompt),))


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
    change, middle = job.change_of(number), _middle(job, plan, number)
    span = _at(job.prompts, middle)
    prompt = (
        _joined(job.prompt, "" if span is None else span.text) if change.prompt is None else change.prompt
    )
    seeds = (change.seed, None if span is None else span.seed, job.seed)
    seed = next(seed for seed in seeds if seed is not None)
    strengths = tuple(_strength(lora, middle, number) for lora in job.loras)
    return Direction(prompt, seed, strengths)


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
    if job.origin >= plan.count:
        raise JobError(
            f"{job.origin} sections were put before the first one of this job, and its video has {plan.count}; none "
            "that it began with is left: begin the job anew."
        )
    for lora in job.loras:
        if len(lora.weights) > plan.count and not lora.spans:
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
    first, end = plan.shown(min(made)).start, min(plan.shown(max(made)).stop, plan.frames)
    return first / job.fps, end / job.fps


def sections_in(job: Job, plan: Plan, begin: float, end: float | None) -> range:
    """The sections whose middle lies in these seconds; if there is none, the one that is seen at `begin`.

    >>> from longtake.job import Job
    >>> from longtake.plan.plans import plan_of
    >>> job = Job("", frames=145, fps=36)
    >>> [sections_in(job, plan_of(job), *each) for each in ((1, 3), (0, 0), (2.9, 3.1), (2, None), (9, None))]
    [range(1, 3), range(0, 1), range(2, 3), range(2, 4), range(0, 0)]
    """
    numbers = range(plan.count)
    if begin >= plan.frames / job.fps:
        return range(0)
    first = bisect_left(numbers, begin, key=lambda number: _middle(job, plan, number))
    last = (
        plan.count
        if end is None
        else bisect_left(numbers, end, key=lambda number: _middle(job, plan, number))
    )
    if first < last:
        return range(first, last)
    shown = bisect_right(numbers, begin, key=lambda number: seconds(job, plan, number)[0])
    return range(max(0, shown - 1), max(1, shown))


T = TypeVar("T", PromptSpan, WeightSpan)


def _at(spans: Sequence[T], middle: float) -> T | None:
    """The span that holds this second; None if none does."""
    found = (span for span in spans if span.start <= middle and (span.end is None or middle < span.end))
    return next(found, None)


def _strength(lora: Lora, middle: float, number: int) -> float:
    """The weight of a LoRA at this second, in the section with this number."""
    if lora.spans:
        span = _at(lora.spans, middle)
        return 0.0 if span is None else span.weight
    # The last weight repeats.
    weight = lora.weights[min(number, len(lora.weights) - 1)]
    assert not isinstance(weight, WeightSpan)
    return weight


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
