"""The orders in which a video's sections can be made, and what each section then sees: onwards, backwards, ends first.

A `View` says what a section sees beside its window; an order says which of those frames are there. Every section of a
plan has the same slots, so that each costs the same: a frame that is not there (yet) is None.

Time 0 is the picture's place, whether it is seen or not; the frames before a section have the times from 1 on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from longtake.errors import JobError
from longtake.plan.layout import Far, Packed, Slot
from longtake.plan.lengths import video_frames
from longtake.plan.sections import Plan, Section

NEAR, FAR = 2, 3
"""Most blank windows of time between a section and what it sees across a gap: in the middle of a video, and outermost.

The reference found these caps to look better than the true distances.
"""

Stretch = tuple[int, tuple[int | None, ...], tuple[int, ...]]
"""A scale, frames and their times."""


@dataclass(frozen=True)
class View:
    """The sight of every section of a plan, in the order of time.

    `picture` is frame 0, wherever the section lies; `before` are the frames up to the window, `behind` those from its
    end on or, if `apart`, the first frames of the next end, whatever lies between. `tail` is what becomes of the frames
    beyond (a key of `layout.TAILS`).
    """

    picture: bool = True
    before: tuple[Packed, ...] = ()
    behind: tuple[Packed, ...] = ()
    apart: bool = False
    tail: str = "td"

    @property
    def past(self) -> int:
        """Frames that are seen before the window."""
        return _count(self.before)

    @property
    def future(self) -> int:
        """Frames that are seen behind the window."""
        return _count(self.behind)


def onwards(view: View, sections: int, window: int, end: bool = False) -> Plan:
    """From the picture onwards: a section sees the frames before it."""
    _check(sections, window)
    if end:
        raise JobError("A last picture needs a plan that sees the end; this one never looks ahead.")

    def section(number: int) -> Section:
        first = 1 + window * number
        # The picture that stays in sight is not among what lies beyond.
        beyond = range(int(view.picture), max(int(view.picture), first - view.past))
        found = _section(view, number, window, first, _within(0, first - 1), 1 + view.past)
        return replace(found, far=_far(view, view.before, beyond, 0))

    # A frame is seen as soon as it is made, and until it lies further back than the section sees.
    reach = _reach(view.past, window)
    return _plan(view, sections, window, section, int, forward=True, horizon=reach, extendable=True)


def backwards(view: View, sections: int, window: int, end: bool = False) -> Plan:
    """From the end towards the picture: a section sees the picture, across a gap, and the frames behind it.

    With `end`, a picture is given for frame `1 + window * sections`, the one behind the end. The section made first
    has it as its neighbour; the sections made later do not see it, as in the reference.
    """
    _check(sections, window)
    last = window * sections

    def section(made: int) -> Section:
        number = sections - 1 - made
        there = _within(1, last + 1 if end and made == 0 else last)
        time = 1 + window * padding(number, sections)
        found = _section(view, number, window, 1 + window * number, there, time)
        beyond = range(min(last, window * (number + 1) + view.future) + 1, last + 1)
        return replace(found, far=_far(view, view.behind[::-1], beyond, time + window + view.future))

    def order(number: int) -> int:
        return sections - 1 - number

    reach = _reach(view.future, window)
    return _plan(view, sections, window, section, order, forward=False, horizon=reach, end=end)


def ends_first(
    view: View, sections: int, window: int, end: bool = False, every: int | None = None, late: int = 0
) -> Plan:
    """An end first, then what lies between, onwards: a section sees what is before it, and the end it goes to.

    Each `every` sections (None: all of the video's) are a stretch that has its last section as its end. The end comes
    from the picture and the end before it alone, across a gap of time; then its stretch is filled. So a stretch that
    lies further on is begun when the one before it is there: all ends first would give the same video, since no end
    sees what was filled, but nothing of it could be shown or forgotten before.

    With `end`, the last of the ends has a given picture behind it, as in `backwards`. `late` leaves so many sections
    of the first stretch out: a short video then has two ends, which is what training wants.
    """
    _check(sections, window)
    stride, last = every or sections, window * sections

    def stretch(number: int) -> tuple[int, int]:
        """The first section of the stretch that a section lies in, and its end."""
        first = number - (number + late) % stride
        return max(0, first), min(first + stride, sections) - 1

    def order(number: int) -> int:
        first, at_end = stretch(number)
        return first if number == at_end else number + 1

    def ending(number: int, begun: int) -> Section:
        """An end: the picture and the end before it, then a gap, the window, and the last picture if there is one."""
        before = window * begun
        known = _within(max(0, before - window + 1), before)
        behind = _within(last + 1, last + 1) if end and number == sections - 1 else _nothing
        time = 1 + view.past + window * min(number - begun, FAR)
        return _section(view, number, window, before + 1, known, time, last + 1, behind)

    def section(made: int) -> Section:
        # A stretch takes the same places in both orders.
        begun, at_end = stretch(made)
        if made == begun:
            return ending(at_end, begun)
        number = made - 1
        first, ahead = 1 + window * number, 1 + window * at_end
        known, behind = _within(0, first - 1), _within(ahead, ahead + window - 1)
        gap = window * min(at_end - 1 - number, NEAR) if view.apart else 0
        nearest = ahead if view.apart else first + window
        return _section(view, number, window, first, known, 1 + view.past, nearest, behind, gap)

    # What lies before a section was made at most one place earlier than its number says, and an end a whole stretch.
    single = stride - late >= sections
    reach = 1 + _reach(view.past, window) + (0 if single else stride)
    # The one end of the whole video is seen until the video is there.
    kept = range(last - window + 1, last - window + 1 + min(view.future, window))
    lasting = frozenset(kept if single else ())
    given = frozenset({last + 1} if end else ())
    closed = every is not None and (sections + late) % every == 0
    return _plan(
        view, sections, window, section, order, False, reach, end, lasting | given, closed and not end
    )


def padding(number: int, sections: int) -> int:
    """Blank windows that an inverted plan lets the model see between the picture and a section.

    Above four sections the distance is capped, which the reference found to look better than the true one.

    >>> [padding(number, 3) for number in range(3)], [padding(number, 6) for number in range(6)]
    ([0, 1, 2], [0, 1, 2, 2, 2, 3])
    """
    return min(number, FAR if number == sections - 1 else NEAR)


def _section(
    view: View,
    number: int,
    window: int,
    first: int,
    before: Callable[[int], bool],
    time: int,
    nearest: int | None = None,
    behind: Callable[[int], bool] | None = None,
    gap: int = 0,
) -> Section:
    """A section whose window begins at `time`.

    `first` is the frame behind those that it sees before it, `nearest` the first that it sees behind it (None: the
    window's neighbour), `gap` the blank times between. `before` and `behind` tell which frames are there.
    """
    own = 1 + window * number
    stretches: list[Stretch] = [(1, (0,), (0,))] if view.picture else []
    stretches += _stretches(view.before, first - view.past, 1, before)
    begin = own + window if nearest is None else nearest
    stretches += _stretches(view.behind, begin, time + window + gap, behind or before)
    scales = sorted({scale for scale, _, _ in stretches})
    slots = {scale: _slot(scale, stretches) for scale in scales}
    return Section(number, tuple(range(own, own + window)), tuple(range(time, time + window)), slots)


def _far(view: View, packed: tuple[Packed, ...], frames: range, time: int) -> Far | None:
    """The frames beyond, nearest the time of the packed ones, the farthest of which are packed first."""
    if view.tail == "td":
        return None
    appended = view.tail == "ta"
    return Far(1 if appended else packed[0].scale, frames, time, appended)


def _slot(scale: int, stretches: list[Stretch]) -> Slot:
    mine = [stretch for stretch in stretches if stretch[0] == scale]
    frames = tuple(frame for _, frames, _ in mine for frame in frames)
    return Slot(scale, frames, tuple(time for _, _, times in mine for time in times))


def _stretches(
    packed: tuple[Packed, ...], frame: int, time: int, there: Callable[[int], bool]
) -> Iterator[Stretch]:
    """Packed frames from a first one and a first time on; None for those that are not there."""
    for each in packed:
        frames = range(frame, frame + each.frames)
        seen = tuple(number if there(number) else None for number in frames)
        yield each.scale, seen, tuple(range(time, time + each.frames))
        frame, time = frame + each.frames, time + each.frames


def _plan(
    view: View,
    sections: int,
    window: int,
    section: Callable[[int], Section],
    order: Callable[[int], int],
    forward: bool,
    horizon: int,
    end: bool = False,
    lasting: frozenset[int] = frozenset(),
    extendable: bool = False,
) -> Plan:
    """A plan whose section p makes the frames 1 + w*p ... w + w*p."""
    made = video_frames(sections, window)
    anchors = (0, window * sections + 1) if end else (0,)
    kept = lasting | {0} if view.picture else lasting

    def owner(frame: int) -> int:
        return (frame - 1) // window

    return Plan(
        sections, window, made, made, forward, anchors, horizon, kept, section, order, owner,
        extendable=extendable,
    )  # fmt: skip


def _check(sections: int, window: int) -> None:
    if sections < 1 or window < 1:
        raise JobError(
            f"A plan needs at least one section of at least one latent frame, not {sections} of {window}."
        )


def _reach(frames: int, window: int) -> int:
    """The count of sections further on that see a frame, if each sees so many frames next to it."""
    return 1 + (frames - 1) // window


def _count(packed: tuple[Packed, ...]) -> int:
    return sum(each.frames for each in packed)


def _within(first: int, last: int) -> Callable[[int], bool]:
    return lambda frame: first <= frame <= last


def _nothing(frame: int) -> bool:
    return False
