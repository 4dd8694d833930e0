"""Plans: which sections make a video, in which order, and what each one sees.

Frame numbers are latent frames of the finished video; frame 0 is the picture. Times are what the model was trained to
see, which is not where the frames lie in a long video: the reference keeps them fixed or caps them.

A plan computes a section when it is asked for, so that it costs the same for ten frames and for ten million. Beside
its sections it says what the rest of the program needs to know of it; nobody asks for its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from longtake.errors import JobError
from longtake.plan import sights
from longtake.plan.layout import Slot
from longtake.plan.lengths import (
    WINDOW,
    nearest_section_count,
    reference_section_count,
    section_count,
    video_frames,
)

if TYPE_CHECKING:
    from longtake.job import Job

CONTEXT = {1: 1, 2: 2, 4: 16}
"""History frames that one section sees, by scale (the picture comes on top, at scale 1)."""


@dataclass(frozen=True)
class Section:
    """One denoised stretch of the video and the clean frames that it sees.

    `number` is its place in the video (0 first); `frames` are the latent frames that it makes, at `times`; `slots` are
    what it sees, by scale: any scales, and any number of frames in each.
    """

    number: int
    frames: tuple[int, ...]
    times: tuple[int, ...]
    slots: Mapping[int, Slot] = field(hash=False)


@dataclass(frozen=True, eq=False)
class Plan:
    """The sections of a video in the order of generation, and what is true of them as a whole.

    `count` sections, the longest of `window` latent frames, make `made` video frames, of which the first `frames` come
    out; `notice` says why these are not as many as were asked for. `forward` is true if the sections come in the
    video's order: frames can leave after each. `anchors` are the latent frames that are given and not made. A frame is
    read by at most the `horizon` sections that are made next, but for those in `lasting`, which any section may read.

    The last three are functions: the section made at a place in the order of generation; the order of the section at
    a place in the video; the section, by its place in the video, that makes a latent frame.
    """

    count: int
    window: int
    frames: int
    made: int
    forward: bool
    anchors: tuple[int, ...]
    horizon: int
    lasting: frozenset[int]
    section: Callable[[int], Section] = field(repr=False)
    order: Callable[[int], int] = field(repr=False)
    owner: Callable[[int], int] = field(repr=False)
    notice: str | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, made: int) -> Section:
        """The section at this place in the order of generation; from the last one backwards if negative."""
        if not -self.count <= made < self.count:
            raise IndexError(f"A plan of {self.count} sections has none that is made at place {made}.")
        return self.section(made % self.count)

    def __iter__(self) -> Iterator[Section]:
        return map(self.section, range(self.count))

    def made_at(self, number: int) -> int:
        """Place in the order of generation of the section at place `number` in the video."""
        if not 0 <= number < self.count:
            raise IndexError(
                f"There is no section {number}; this video has the sections 0 to {self.count - 1}."
            )
        return self.order(number)

    def maker(self, frame: int) -> int | None:
        """Number of the section that makes a latent frame; None for an anchor, which is given."""
        return None if frame in self.anchors else self.owner(frame)

    def sources(self, section: Section) -> tuple[int, ...]:
        """Numbers of the sections whose frames this one sees.

        >>> plan = vanilla(5)
        >>> plan.sources(plan[1]), plan.sources(plan[4])
        ((0,), (1, 2, 3))
        """
        seen = {frame for slot in section.slots.values() for frame in slot.frames if frame is not None}
        makers = {self.maker(frame) for frame in seen}
        return tuple(sorted(number for number in makers if number is not None))


def vanilla(sections: int, window: int = WINDOW, end: bool = False) -> Plan:
    """Plan from the picture onwards, as FramePack-F1: every section sees the 19 frames before it.

    >>> vanilla(2)[1].slots[1]
    Slot(scale=1, frames=(0, 9), times=(0, 19))
    """
    if end:
        raise JobError("A last picture needs a plan that sees the end; vanilla never looks ahead.")
    # The same times in every section: prefix 0 | 4x | 2x | 1x | window.
    x4_times, x2_times, x1_times, times = _spans(1, CONTEXT[4], CONTEXT[2], CONTEXT[1], window)

    def section(number: int) -> Section:
        first = 1 + window * number
        x4, x2, x1, made = _spans(first - sum(CONTEXT.values()), CONTEXT[4], CONTEXT[2], CONTEXT[1], window)
        slots = {
            1: Slot(1, (0, *_existing(x1, 0, first - 1)), (0, *x1_times)),
            2: Slot(2, _existing(x2, 0, first - 1), x2_times),
            4: Slot(4, _existing(x4, 0, first - 1), x4_times),
        }
        return Section(number, made, times, slots)

    return _on_a_grid(sections, window, section, order=int, forward=True, anchors=(0,))


def inverted(sections: int, window: int = WINDOW, end: bool = False) -> Plan:
    """Plan from the end towards the picture (inverted anti-drifting): every section sees the 19 frames after it.

    With `end`, a picture is given for frame `1 + window * sections`, the one behind the end. The section made first
    has it as its neighbour; the sections made later do not see it, as in the reference.

    >>> inverted(2)[1].slots[1]
    Slot(scale=1, frames=(0, 10), times=(0, 10))
    """
    last = window * sections

    def section(made: int) -> Section:
        number = sections - 1 - made
        times, x1_times, x2_times, x4_times = _spans(
            1 + window * padding(number, sections), window, CONTEXT[1], CONTEXT[2], CONTEXT[4]
        )
        frames, x1, x2, x4 = _spans(1 + window * number, window, CONTEXT[1], CONTEXT[2], CONTEXT[4])
        nearest = last + 1 if end and made == 0 else last
        slots = {
            1: Slot(1, (0, *_existing(x1, 0, nearest)), (0, *x1_times)),
            2: Slot(2, _existing(x2, 0, last), x2_times),
            4: Slot(4, _existing(x4, 0, last), x4_times),
        }
        return Section(number, frames, times, slots)

    anchors = (0, last + 1) if end else (0,)
    return _on_a_grid(
        sections, window, section, order=lambda number: sections - 1 - number, forward=False, anchors=anchors
    )


def padding(number: int, sections: int) -> int:
    """Blank windows that an inverted plan lets the model see between the picture and a section.

    Above four sections the distance is capped, which the reference found to look better than the true one.

    >>> [padding(number, 3) for number in range(3)], [padding(number, 6) for number in range(6)]
    ([0, 1, 2], [0, 1, 2, 2, 2, 3])
    """
    return min(number, 3 if number == sections - 1 else 2)


def _on_a_grid(
    sections: int,
    window: int,
    section: Callable[[int], Section],
    order: Callable[[int], int],
    forward: bool,
    anchors: tuple[int, ...],
) -> Plan:
    """A plan whose section p makes the frames 1 + w*p ... w + w*p and sees the nearest 19 frames and the picture."""
    if sections < 1 or window < 1:
        raise JobError(
            f"A plan needs at least one section of at least one latent frame, not {sections} of {window}."
        )
    made = video_frames(sections, window)
    # A neighbour's nearest frame is seen as soon as the neighbour is made, its farthest for 18 frames more.
    horizon = 1 + (sum(CONTEXT.values()) - 1) // window

    def owner(frame: int) -> int:
        return (frame - 1) // window

    return Plan(
        sections, window, made, made, forward, anchors, horizon, frozenset({0}), section, order, owner
    )


@dataclass(frozen=True)
class Kind:
    """One kind of plan.

    `lay_out(sections, window, end)` makes the plan, with a picture behind the end or without one; `sees_end` says if it
    can have one, `extendable` if a finished video can be made longer; `structure` is its name in the paper.
    """

    lay_out: Callable[[int, int, bool], Plan]
    sees_end: bool
    extendable: bool
    help: str
    structure: str


PLANS: dict[str, Kind] = {
    "inverted": Kind(
        inverted,
        sees_end=True,
        extendable=False,
        help="from the end to the picture",
        structure="f1k1_x_g9_f1k1f2k2f16k4_td",
    ),
    # The picture stays in sight, as the F1 model was trained to.
    "vanilla": Kind(
        vanilla,
        sees_end=False,
        extendable=True,
        help="from the picture onwards",
        structure="f1k1_x_f16k4f2k2f1k1_g9",
    ),
}
"""All kinds of plans: the one place that has their names."""


def plan_of(job: Job) -> Plan:
    """The plan of a job that `check` lets through: its sections, and what will come out."""
    end = job.last_picture is not None
    # The end must be the last picture's, so nothing can be cut off there: the nearest length is taken.
    counted = reference_section_count if job.reference else nearest_section_count if end else section_count
    plan = sights.seen(job, PLANS[job.sampling].lay_out(counted(job.frames, job.window), job.window, end))
    frames = plan.made if job.reference or end else job.frames
    if frames == job.frames:
        return replace(plan, frames=frames)
    reason = (
        "the reference never cuts" if job.reference else "a video with a last picture ends with a section"
    )
    notice = f"{frames} frames are made instead of {job.frames}: {reason}."
    return replace(plan, frames=frames, notice=notice)


def _spans(first: int, *sizes: int) -> list[tuple[int, ...]]:
    """Consecutive stretches of the integers, from `first` on."""
    starts = [first + sum(sizes[:place]) for place in range(len(sizes))]
    return [tuple(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]


def _existing(frames: Iterable[int], first: int, last: int) -> tuple[int | None, ...]:
    return tuple(frame if first <= frame <= last else None for frame in frames)
