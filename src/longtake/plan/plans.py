"""Plans: which sections make a video, in which order, and what each one sees.

A plan is a list of `Section` in the order of generation. Frame numbers are latent frames of the finished video; frame
0 is the picture, section p makes 1 + w*p ... w + w*p (w is the window). Times are what the model was trained to
see, which is not where the frames lie in a long video: the reference keeps them fixed or caps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from longtake.errors import JobError
from longtake.plan.layout import LATENT_FRAMES, Slot, slot_tokens, token_count

if TYPE_CHECKING:
    from longtake.events import Planned
    from longtake.job import Job

WINDOW = 9
"""Latent frames of one section in the released models."""

CONTEXT = {1: 1, 2: 2, 4: 16}
"""History frames that one section sees, by scale (the picture comes on top, at scale 1)."""


@dataclass(frozen=True)
class Section:
    """One denoised stretch of the video and the clean frames that it sees.

    `number` is its place in the video (0 first); `frames` are the latent frames that it makes, at `times`; `clean` is
    the slot of scale 1 (the picture, then the nearest neighbour), `x2` and `x4` are the farther ones.
    """

    number: int
    frames: tuple[int, ...]
    times: tuple[int, ...]
    clean: Slot
    x2: Slot
    x4: Slot

    @property
    def slots(self) -> tuple[Slot, Slot, Slot]:
        """The three slots, scale 1 first."""
        return (self.clean, self.x2, self.x4)


def vanilla(sections: int, window: int = WINDOW) -> list[Section]:
    """Plan from the picture onwards, as FramePack-F1: every section sees the 19 frames before it.

    >>> vanilla(2)[1].clean
    Slot(scale=1, frames=(0, 9), times=(0, 19))
    """
    _check(sections, window)
    # The same times in every section: prefix 0 | 4x | 2x | 1x | window.
    x4_times, x2_times, x1_times, times = _spans(1, CONTEXT[4], CONTEXT[2], CONTEXT[1], window)

    def section(number: int) -> Section:
        first = 1 + window * number
        x4, x2, x1, made = _spans(first - sum(CONTEXT.values()), CONTEXT[4], CONTEXT[2], CONTEXT[1], window)
        return Section(
            number=number,
            frames=made,
            times=times,
            clean=Slot(1, (0, *_existing(x1, 0, first - 1)), (0, *x1_times)),
            x2=Slot(2, _existing(x2, 0, first - 1), x2_times),
            x4=Slot(4, _existing(x4, 0, first - 1), x4_times),
        )

    return [section(number) for number in range(sections)]


def inverted(sections: int, window: int = WINDOW, last_picture: bool = False) -> list[Section]:
    """Plan from the end towards the picture (inverted anti-drifting): every section sees the 19 frames after it.

    With `last_picture` the section made first has frame `1 + window * sections`, the one behind the end, as its
    neighbour; the sections made later do not see it, as in the reference.

    >>> inverted(2)[1].clean
    Slot(scale=1, frames=(0, 10), times=(0, 10))
    """
    _check(sections, window)
    end = window * sections

    def section(number: int, padding: int) -> Section:
        times, x1_times, x2_times, x4_times = _spans(
            1 + padding * window, window, CONTEXT[1], CONTEXT[2], CONTEXT[4]
        )
        made, x1, x2, x4 = _spans(1 + number * window, window, CONTEXT[1], CONTEXT[2], CONTEXT[4])
        nearest = end + 1 if last_picture and number == sections - 1 else end
        return Section(
            number=number,
            frames=made,
            times=times,
            clean=Slot(1, (0, *_existing(x1, 0, nearest)), (0, *x1_times)),
            x2=Slot(2, _existing(x2, 0, end), x2_times),
            x4=Slot(4, _existing(x4, 0, end), x4_times),
        )

    numbers = reversed(range(sections))
    return [section(number, padding) for number, padding in zip(numbers, paddings(sections), strict=True)]


def paddings(sections: int) -> list[int]:
    """How many blank windows lie between the picture and each section of an inverted plan, in the order of generation.

    Above four sections the distance is capped, which the reference found to look better than the true one.

    >>> paddings(3), paddings(6)
    ([2, 1, 0], [3, 2, 2, 2, 1, 0])
    """
    if sections > 4:
        return [3] + [2] * (sections - 3) + [1, 0]
    return list(reversed(range(sections)))


@dataclass(frozen=True)
class Kind:
    """A kind of plan: how it is laid out, if it can end in a given picture, if it can be made longer later."""

    lay_out: Callable[..., list[Section]]
    sees_end: bool
    extendable: bool
    help: str


PLANS: dict[str, Kind] = {
    "inverted": Kind(inverted, sees_end=True, extendable=False, help="from the end to the picture"),
    "vanilla": Kind(vanilla, sees_end=False, extendable=True, help="from the picture onwards"),
}
"""All kinds of plans: the one place that has their names."""


def video_frames(sections: int, window: int = WINDOW) -> int:
    """Frames of a video of so many sections.

    >>> video_frames(4)
    145
    """
    return LATENT_FRAMES * window * sections + 1


def section_count(frames: int, window: int = WINDOW) -> int:
    """Smallest number of sections that makes `frames` frames.

    >>> section_count(145), section_count(146)
    (4, 5)
    """
    _check_frames(frames)
    return max(1, -(-(frames - 1) // (LATENT_FRAMES * window)))


def reference_section_count(frames: int, window: int = WINDOW) -> int:
    """Number of sections that diffusers makes for `num_frames`; often one more than is needed.

    >>> reference_section_count(91), reference_section_count(129), reference_section_count(145)
    (3, 4, 5)
    """
    _check_frames(frames)
    return max(1, -(-frames // (LATENT_FRAMES * (window - 1) + 1)))


def plan_of(job: Job, last_picture: bool = False) -> tuple[list[Section], Planned]:
    """The sections of a job, in the order of generation, and what will come out."""
    if last_picture and job.sampling != "inverted":
        raise JobError("A last picture needs inverted sampling: vanilla never looks ahead.")
    if job.reference:
        sections = reference_section_count(job.frames, job.window)
    elif last_picture:
        # The end must be the last picture's, so nothing can be cut off there: the nearest length is taken.
        sections = max(1, int((job.frames - 1) / (video_frames(1, job.window) - 1) + 0.5))
    else:
        sections = section_count(job.frames, job.window)
    made = video_frames(sections, job.window)
    frames = made if job.reference or last_picture else job.frames
    notice = None
    if frames != job.frames:
        reason = (
            "the reference never cuts" if job.reference else "a video with a last picture ends with a section"
        )
        notice = f"{frames} frames are made instead of {job.frames}: {reason}."
    from longtake.events import Planned

    lay_out = partial(inverted, last_picture=True) if last_picture else PLANS[job.sampling].lay_out
    return lay_out(sections, job.window), Planned(sections, frames, job.steps, notice)


def tokens(section: Section, height: int, width: int) -> int:
    """Image tokens of one call of the model for this section; `height` and `width` in pixels.

    >>> tokens(vanilla(1)[0], 640, 608)
    17500
    """
    window = token_count(len(section.frames), height, width)
    return window + sum(slot_tokens(slot, height, width) for slot in section.slots)


def sources(plan: Sequence[Section]) -> dict[int, tuple[int, ...]]:
    """For each section, by number, the numbers of those whose frames it sees; pictures belong to no section.

    >>> sources(vanilla(4))
    {0: (), 1: (0,), 2: (0, 1), 3: (0, 1, 2)}
    >>> sources(inverted(2, last_picture=True))
    {1: (), 0: (1,)}
    """
    maker = {frame: section.number for section in plan for frame in section.frames}
    seen = {s.number: {maker[f] for slot in s.slots for f in slot.frames if f in maker} for s in plan}
    return {number: tuple(sorted(numbers)) for number, numbers in seen.items()}


def table(sections: Sequence[Section], height: int, width: int) -> str:
    """Table of a plan, one line for each section in the order of generation; `height` and `width` in pixels.

    Latent frames are written with their times after an @; `zeros` stands where there is no frame.

    >>> print(table(vanilla(2), 64, 64))
    section  makes         sees 1x      sees 2x         sees 4x             tokens
          0  1-9 @20-28    0, 0 @0, 19  2 zeros @17-18  16 zeros @1-16         184
          1  10-18 @20-28  0, 9 @0, 19  7-8 @17-18      9 zeros, 0-6 @1-16     184
    """
    rows: list[tuple[str, ...]] = [("section", "makes", "sees 1x", "sees 2x", "sees 4x", "tokens")]
    for section in sections:
        seen = [f"{ranges(slot.frames)} @{ranges(slot.times)}" for slot in section.slots]
        made = f"{ranges(section.frames)} @{ranges(section.times)}"
        rows.append((str(section.number), made, *seen, str(tokens(section, height, width))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(size) if place in (0, len(row) - 1) else cell.ljust(size)
            for place, (cell, size) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def ranges(numbers: Iterable[int | None]) -> str:
    """Numbers as ranges, in their order; None is a zero frame.

    >>> ranges([None, None, 0, 1, 2, 7])
    '2 zeros, 0-2, 7'
    """
    runs: list[list[int | None]] = []
    for number in numbers:
        last = runs[-1][-1] if runs else None
        follows = number is None if last is None else number == last + 1
        if runs and follows:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(map(_range, runs))


def _range(run: Sequence[int | None]) -> str:
    if run[0] is None:
        return "zeros" if len(run) == 1 else f"{len(run)} zeros"
    return f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}"


def _spans(first: int, *sizes: int) -> list[tuple[int, ...]]:
    """Consecutive stretches of the integers, from `first` on."""
    starts = [first + sum(sizes[:place]) for place in range(len(sizes))]
    return [tuple(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]


def _existing(frames: Iterable[int], first: int, last: int) -> tuple[int | None, ...]:
    return tuple(frame if first <= frame <= last else None for frame in frames)


def _check(sections: int, window: int) -> None:
    if sections < 1 or window < 1:
        raise JobError(
            f"A plan needs at least one section of at least one latent frame, not {sections} of {window}."
        )


def _check_frames(frames: int) -> None:
    if frames < 1:
        raise JobError(f"A video needs at least one frame; {frames} were asked for.")
