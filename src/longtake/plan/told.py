"""A timeline as it has become under a plan: where each time that was asked for lies, and what each section is told."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longtake.plan import cuts, pictures, timeline
from longtake.plan.table import aligned, halves

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.plan.sections import Plan

TEXT = 60
"""Most characters of a prompt in a table."""


@dataclass(frozen=True)
class Moved:
    """One time that was asked for: `what` happens, at which video frame it was asked and to which it has come."""

    what: str
    asked: float
    came: int

    @property
    def frames(self) -> float:
        """Video frames by which it was moved; later is more."""
        return round(self.came - self.asked, 3)


def in_time(job: Job) -> bool:
    """Tell if a job asks for anything at some second."""
    spans = bool(job.prompts) or any(lora.spans for lora in job.loras)
    return spans or bool(cuts.key_frames(job)) or any(anchor.strength != 1 for anchor in job.anchors)


def moves(job: Job, plan: Plan) -> Iterator[Moved]:
    """Each time that a job asks for, and where it has come to lie.

    >>> from longtake.job import Job, PromptSpan
    >>> from longtake.plan.plans import plan_of
    >>> job = Job("", prompts=(PromptSpan("it jumps", 2.0),))
    >>> [(each.asked, each.came, each.frames) for each in moves(job, plan_of(job))]
    [(60.0, 61, 1.0)]
    """
    frames = pictures.frames_of(job, plan)
    for anchor in sorted(
        (each for each in job.anchors if each.at not in (0, "end")), key=lambda each: each.at
    ):
        asked = cuts.frame_at(float(anchor.at), job.fps)
        yield Moved(f"picture {anchor.image}", asked, plan.shown(frames[anchor.at]).start)
    spans: list[tuple[str, Any]] = [(f"prompt {_short(span.text)!r}", span) for span in job.prompts]
    spans += [(f"LoRA {lora.path} at {span.weight:g}", span) for lora in job.loras for span in lora.spans]
    for name, span in sorted(spans, key=lambda each: each[1].start):
        for words, second in (("begins", span.start), ("ends", span.end)):
            if second:
                asked = cuts.frame_at(second, job.fps)
                yield Moved(f"{name} {words}", asked, _edge(plan, asked))


def _edge(plan: Plan, asked: float) -> int:
    """The video frame with which the first section begins whose middle lies at a frame or behind it, or the end."""
    numbers = range(plan.count)
    number = bisect_left(numbers, asked, key=lambda each: timeline.middle_of(plan, each))
    return plan.frames if number == plan.count else begin_of(plan, number)


def begin_of(plan: Plan, number: int) -> int:
    """The video frame with which a section begins; a picture before it counts to it."""
    first = plan.latents(number)[0]
    pictured = first - 1 >= plan.lead and first - 1 in plan.starts
    return plan.shown(first - 1 if pictured else first).start


def values_of(job: Job, plan: Plan, number: int) -> dict[str, Any]:
    """All that the section at this place in the video is told, as values of JSON."""
    told = timeline.direct(job, plan, number)
    return {
        "seconds": [round(each, 4) for each in timeline.seconds(job, plan, number)],
        "prompt": told.prompt,
        "seed": told.seed,
        "loras": list(told.strengths),
        "voices": [
            {"weight": round(voice.weight, 6), "prompt": voice.prompt, "hidden": list(voice.hidden)}
            for voice in told.voices
        ],
    }


def moved_table(job: Job, plan: Plan) -> str:
    """A line for each time that was asked for: where it lies, and how far that is from where it was asked."""
    found = [*moves(job, plan)]
    first, last = halves(len(found))
    rows = [("asked for", "at", "comes at", "moved")]
    for place in (*first, *last):
        each = found[place]
        moved = "" if not each.frames else f"{each.frames:+g} frame{'s' if abs(each.frames) != 1 else ''}"
        rows.append((each.what, f"{each.asked / job.fps:.3f} s", f"{each.came / job.fps:.3f} s", moved))
    return _with_gap(aligned(rows, right=(1, 2, 3)), len(first), len(found))


def said_table(job: Job, plan: Plan) -> str:
    """A line for each section in the video's order: when it is seen, what it says, which pictures it is told of."""
    first, last = halves(plan.count)
    names = {frame: _name(job, at) for at, frame in pictures.frames_of(job, plan).items()}
    rows: list[tuple[str, ...]] = [("section", "seconds", "says", "pictures")]
    rows += [_said(job, plan, number, names) for number in (*first, *last)]
    return _with_gap(aligned(rows, right=(0,)), len(first), plan.count)


def _said(job: Job, plan: Plan, number: int, names: Mapping[int, str]) -> tuple[str, ...]:
    told = timeline.direct(job, plan, number)
    begin, end = timeline.seconds(job, plan, number)
    shares: dict[str, float] = {}
    for voice in told.voices:
        shares[voice.prompt] = shares.get(voice.prompt, 0.0) + voice.weight
    says = " + ".join(
        _short(prompt) if len(shares) == 1 else f"{share:.0%} {_short(prompt)}"
        for prompt, share in shares.items()
    )
    more = [] if told.seed == job.seed else [f"seed {told.seed}"]
    more += [
        f"{weight:g} {lora.path}"
        for lora, weight in zip(job.loras, told.strengths, strict=True)
        if lora.spans
    ]
    seen = plan[plan.made_at(number)].pictures
    return (
        str(number),
        f"{begin:.2f}-{end:.2f}",
        "; ".join([says or "nothing", *more]),
        ", ".join(names.get(frame, "the picture" if not frame else f"frame {frame}") for frame in seen)
        or "none",
    )


def _name(job: Job, at: Any) -> str:
    """A picture's file, and its strength if that is not all."""
    anchor = next(each for each in job.anchors if each.at == at)
    return anchor.image if anchor.strength == 1 else f"{anchor.strength:g} {anchor.image}"


def _with_gap(lines: list[str], first: int, count: int) -> str:
    left_out = count - (len(lines) - 1)
    if left_out:
        lines.insert(1 + first, f"… {left_out} more …")
    return "\n".join(line.rstrip() for line in lines)


def _short(text: str) -> str:
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"
