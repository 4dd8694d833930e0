"""The timeline: what a job says in seconds, as what each section of its plan is told."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from longtake.errors import JobError
from longtake.plan import pictures
from longtake.plan.cuts import frame_at
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
    section wins, and does not blend.

    >>> from longtake.job import Job, PromptSpan
    >>> from longtake.plan.plans import plan_of
    >>> job = Job("A penguin", prompts=(PromptSpan("it jumps", 2.0),))
    >>> [direct(job, plan_of(job), number).prompt for number in range(4)]
    ['A penguin', 'A penguin', 'A penguin, it jumps', 'A penguin, it jumps']
    """
    change, middle = job.change_of(number), middle_of(plan, number)
    span = _at(job.prompts, middle, job.fps)
    seeds = (change.seed, None if span is None else span.seed, job.seed)
    seed = next(seed for seed in seeds if seed is not None)
    strengths = tuple(_strength(lora, middle, number, job.fps) for lora in job.loras)
    said = _said(job, plan, number)
    voices = [
        Voice(weight * share, prompt, hidden)
        for weight, hidden in _shown(job, plan, number)
        for share, prompt in said
    ]
    return Direction(said[0][1], seed, strengths, tuple(voices))


def prompt_of(job: Job, plan: Plan, number: int) -> str:
    """The prompt of the section at this place in the video; when one turns into another, the one that is new."""
    changed = job.change_of(number).prompt
    return _in_time(job, plan, number) if changed is None else changed


def _in_time(job: Job, plan: Plan, number: int) -> str:
    span = _at(job.prompts, middle_of(plan, number), job.fps)
    return _joined(job.prompt, "" if span is None else span.text)


def _said(job: Job, plan: Plan, number: int) -> list[tuple[float, str]]:
    """The prompt of a section, and the one before while it fades, by their shares.

    Section j of the n after a change (0 first) has the new one with the share (j + 1) / (n + 1).
    """
    prompt = prompt_of(job, plan, number)
    if not job.blend or job.change_of(number).prompt is not None:
        return [(1.0, prompt)]
    for since in range(min(job.blend, number)):
        before = _in_time(job, plan, number - since - 1)
        if before != prompt:
            share = (since + 1) / (job.blend + 1)
            return [(share, prompt), (1 - share, before)]
    return [(1.0, prompt)]


def _shown(job: Job, plan: Plan, number: int) -> list[tuple[float, tuple[int, ...]]]:
    """The pictures of another strength than 1 that a section is made without, as parts of a mixture: weight, hidden.

    All that are at least so strong are shown together, from the strongest on: so n pictures cost at most n + 1 passes,
    each picture is shown with its own strength in all, and equal ones come and go together.
    """
    strong = strengths_of(job, plan)
    if not strong:
        return [(1.0, ())]
    section = plan[plan.made_at(number)]
    seen = {frame for slot in section.slots.values() for frame in slot.frames} | {*section.pictures}
    found = sorted(((strength, frame) for frame, strength in strong.items() if frame in seen), reverse=True)
    levels = [1.0, *(strength for strength, _ in found), 0.0]
    parts = [
        (levels[place] - levels[place + 1], tuple(sorted(frame for _, frame in found[place:])))
        for place in range(len(found) + 1)
    ]
    return [(weight, hidden) for weight, hidden in reversed(parts) if weight]


def strengths_of(job: Job, plan: Plan) -> dict[int, float]:
    """The strength of each picture that has another one than 1, by its latent frame."""
    if all(anchor.strength == 1 for anchor in job.anchors):
        return {}
    frames = pictures.frames_of(job, plan)
    return {frames[anchor.at]: anchor.strength for anchor in job.anchors if anchor.strength != 1}


def prompts(job: Job, plan: Plan) -> tuple[str, ...]:
    """All prompts that a section may be told, each once, the common one first."""
    spans = [_joined(job.prompt, span.text) for span in job.prompts]
    changed = [change.prompt for change in job.changes if change.prompt is not None]
    return tuple(dict.fromkeys([job.prompt, *spans, *changed]))


def check(job: Job, plan: Plan) -> None:
    """Raise JobError for what is asked of seconds or sections that this video does not have."""
    for change in job.changes:
        check_section(plan.count, change.section)
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
        for weight in lora.spans:
            _check_span(job, plan, weight, f"The weight of the LoRA {lora.path!r}", "holds")
    for span in job.prompts:
        _check_span(job, plan, span, "A prompt", "is said")


def check_section(count: int, number: int) -> None:
    """Raise JobError if a video of so many sections has none of this number."""
    if not 0 <= number < count:
        raise JobError(f"There is no section {number}; this video has the sections 0 to {count - 1}.")


def seconds(job: Job, plan: Plan, number: int) -> tuple[float, float]:
    """From when to when the section at this place in the video is seen; what is cut off at the end does not count.

    >>> from longtake.job import Job
    >>> from longtake.plan.plans import plan_of
    >>> job = Job("", frames=100, fps=10)
    >>> [seconds(job, plan_of(job), number) for number in range(3)]
    [(0.1, 3.7), (3.7, 7.3), (7.3, 10.0)]
    """
    first, end = shown(plan, number)
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
    first = bisect_left(numbers, begin, key=lambda number: middle_of(plan, number) / job.fps)
    last = (
        plan.count
        if end is None
        else bisect_left(numbers, end, key=lambda number: middle_of(plan, number) / job.fps)
    )
    if first < last:
        return range(first, last)
    shown = bisect_right(numbers, begin, key=lambda number: seconds(job, plan, number)[0])
    return range(max(0, shown - 1), max(1, shown))


def shown(plan: Plan, number: int) -> tuple[int, int]:
    """The video frames of a section, from the first one to the one behind the last; what is cut off does not count."""
    made = plan.latents(number)
    return plan.shown(made[0]).start, min(plan.shown(made[-1]).stop, plan.frames)


T = TypeVar("T", PromptSpan, WeightSpan)


def _at(spans: Sequence[T], middle: float, fps: int) -> T | None:
    """The span that holds this video frame; None if none does."""
    for span in spans:
        # Most are far away, which is seen at once.
        if span.start * fps > middle + 1 or (span.end is not None and span.end * fps < middle - 1):
            continue
        if frame_at(span.start, fps) <= middle and (span.end is None or middle < frame_at(span.end, fps)):
            return span
    return None


def _strength(lora: Lora, middle: float, number: int, fps: int) -> float:
    """The weight of a LoRA at this video frame, in the section with this number."""
    if lora.spans:
        span = _at(lora.spans, middle, fps)
        return 0.0 if span is None else span.weight
    # The last weight repeats.
    weight = lora.weights[min(number, len(lora.weights) - 1)]
    assert not isinstance(weight, WeightSpan)
    return weight


def _joined(common: str, text: str) -> str:
    """The common prompt and the text of a span: behind a whole sentence comes another, behind words a clause.

    >>> _joined("A red penguin.", "It dances."), _joined("A red penguin", "it dances"), _joined("", "It dances.")
    ('A red penguin. It dances.', 'A red penguin, it dances', 'It dances.')
    """
    ended = common.rstrip().endswith((".", "!", "?", "…", "。", "！", "？"))  # noqa: RUF001
    return (" " if ended else ", ").join(filter(None, (common.rstrip() if ended else common, text)))


def middle_of(plan: Plan, number: int) -> float:
    """The middle of a section, in video frames."""
    return sum(shown(plan, number)) / 2


def _check_span(job: Job, plan: Plan, span: PromptSpan | WeightSpan, name: str, does: str) -> None:
    """Raise JobError unless the span lies in the video and holds for one section at least."""
    # Up to the end of what the last section makes: whoever counts in whole seconds need not know where it is cut.
    length, made = plan.frames / job.fps, max(plan.made, job.frames) / job.fps
    if span.start >= length or (span.end or 0) > made:
        raise JobError(
            f"{name} {does} from {span.start} s to {'the end' if span.end is None else f'{span.end} s'}; this "
            f"video has {length:g} s."
        )
    start = frame_at(span.start, job.fps)
    first = bisect_left(range(plan.count), start, key=lambda number: middle_of(plan, number))
    if first == plan.count or (
        span.end is not None and middle_of(plan, first) >= frame_at(span.end, job.fps)
    ):
        raise JobError(
            f"{name} from {span.start} s on {does} in no section, since it holds the middle of none; a section has "
            f"at least {LATENT_FRAMES} frames ({LATENT_FRAMES / job.fps:g} s)."
        )
