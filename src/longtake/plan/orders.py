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
from longtake.plan.sections import Plan, Section
from longtake.plan.stretches import Division

NEAR, FAR = 2, 3
"""Most blank windows of time between a section and what it sees across a gap: in the middle of a video, and outermost.

The reference found these caps to look better than the true distances.
"""

Known = Callable[[int], "int | None"]
"""The frame that lies at a place of the time axis; None if none is there."""

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


def onwards(view: View, division: Division) -> Plan:
    """From the picture onwards: a section sees the frames before it, of its own stretch."""
    if division.behind or division.loop:
        raise JobError("A last picture needs a plan that sees the end; this one never looks ahead.")

    def section(number: int) -> Section:
        own, start = division.frames(number), division.starts[division.stretch(number)]
        # The picture that stays in sight is not among what lies beyond.
        beyond = range(start + view.picture, max(start + view.picture, own.start - view.past))
        place = Place(number, own, start, (start,))
        found = _section(view, place, own.start, _within(start, own.start - 1), 1 + view.past)
        return replace(found, far=_far(view, view.before, beyond, 0))

    # A frame is seen as soon as it is made, and until it lies further back than the section sees.
    reach = division.reach(view.past)
    return _plan(view, division, section, int, forward=True, horizon=reach, extendable=True)


def backwards(view: View, division: Division) -> Plan:
    """From the end towards the picture: a section sees the picture, across a gap, and the frames behind it.

    A last picture is the frame behind the end. The section made first has it as its neighbour; the sections made later
    do not see it, as in the reference. Frames of a given video behind the end are seen as those that are made are.
    """
    count, last = division.count, division.last

    def section(made: int) -> Section:
        place = _place(division, count - 1 - made)
        own = place.frames
        there = _within(1, last + division.behind if division.behind > 1 else last)
        if made == 0 and place.ahead is not None:
            there = _with(there, last + 1, place.ahead)
        blank = division.window * (NEAR if place.ahead is None and made else FAR)
        time = 1 + min(own.start - place.picture - 1, blank)
        found = _section(view, place, own.start, there, time)
        beyond = range(min(last, own.stop - 1 + view.future) + 1, last + 1)
        return replace(found, far=_far(view, view.behind[::-1], beyond, time + len(own) + view.future))

    def order(number: int) -> int:
        return count - 1 - number

    reach = division.reach(view.future)
    return _plan(view, division, section, order, forward=False, horizon=reach)


def ends_first(view: View, division: Division, every: int | None = None, late: int = 0) -> Plan:
    """An end first, then what lies between, onwards: a section sees what is before it, and the end it goes to.

    Each `every` sections (None: all of a stretch) are a leg that has its last section as its end. The end comes from
    the picture and the end before it alone, across a gap of time; then its leg is filled. So a leg that lies further on
    is begun when the one before it is there: all ends first would give the same video, since no end sees what was
    filled, but nothing of it could be shown or forgotten before.

    The last end of a stretch has the next given picture behind it, if there is one, as in `backwards`. `late` leaves so
    many sections of the first leg out: a short video then has two ends, which is what training wants.
    """

    def leg(number: int) -> tuple[int, int]:
        """The first section of the leg that a section lies in, and its end."""
        stretch = division.stretch(number)
        own, left = division.sections(stretch), 0 if stretch else late
        stride = every or len(own)
        first = number - (number - own.start + left) % stride
        return max(own.start, first), min(first + stride, own.stop) - 1

    def order(number: int) -> int:
        first, at_end = leg(number)
        return first if number == at_end else number + 1

    def ending(number: int, begun: int) -> Section:
        """An end: the picture and the end before it, then a gap, the window, and the next picture if there is one."""
        place, first = _place(division, number), division.frames(begun).start
        own = place.frames
        known = _within(division.frames(begun - 1).start if begun else 0, first - 1)
        behind = _nothing if place.ahead is None else _with(_nothing, own.stop, place.ahead)
        time = 1 + view.past + min(own.start - first, division.window * FAR)
        return _section(view, place, first, known, time, own.stop, behind)

    def section(made: int) -> Section:
        # A leg takes the same places in both orders.
        begun, at_end = leg(made)
        if made == begun:
            return ending(at_end, begun)
        place = _place(division, made - 1)
        own, end = place.frames, division.frames(at_end)
        known, behind = _within(0, own.start - 1), _within(end.start, end.stop - 1)
        gap = min(end.start - own.stop, division.window * NEAR) if view.apart else 0
        nearest = end.start if view.apart else own.stop
        return _section(view, place, own.start, known, 1 + view.past, nearest, behind, gap)

    # What lies before a section was made at most one place earlier than its number says, and an end a whole leg.
    single = every is None or (len(division.starts) == 1 and every - late >= division.count)
    reach = 1 + division.reach(view.past) + (0 if single else every or 0)
    # The ends of whole stretches are seen until those are there, and by what comes next.
    ends = [division.frames(division.sections(number)[-1]) for number in range(len(division.starts))]
    kept = ends[0][: view.future] if len(ends) == 1 else [frame for end in ends for frame in end]
    lasting = frozenset(kept if single else ())
    given = frozenset([division.last + 1] if division.behind else ())
    last = division.sections(len(division.starts) - 1)
    left = late if last.start == 0 else 0
    closed = every is not None and (len(last) + left) % every == 0
    goes = division.behind or division.loop
    return _plan(
        view, division, section, order, False, reach, lasting | given, extendable=closed and not goes
    )


@dataclass(frozen=True)
class Place:
    """The place of a section: its number and latent `frames`, and the `picture` that its stretch begins with.

    `pictures` are those that it is told of; `ahead` is the given frame behind it, None if none is.
    """

    number: int
    frames: range
    picture: int
    pictures: tuple[int, ...]
    ahead: int | None = None


def _place(division: Division, number: int) -> Place:
    """The place of a section in a plan that sees the end of each stretch."""
    stretch = division.stretch(number)
    start, ahead = division.starts[stretch], division.ahead(stretch)
    pictures = tuple(sorted({start, start if ahead is None else ahead}))
    outermost = number == division.sections(stretch)[-1]
    return Place(number, division.frames(number), start, pictures, ahead if outermost else None)


def _section(
    view: View,
    place: Place,
    first: int,
    before: Known,
    time: int,
    nearest: int | None = None,
    behind: Known | None = None,
    gap: int = 0,
) -> Section:
    """A section whose window begins at `time`.

    `first` is the frame behind those that it sees before it, `nearest` the first that it sees behind it (None: the
    window's neighbour), `gap` the blank times between. `before` and `behind` say which frames are there.
    """
    own = place.frames
    stretches: list[Stretch] = [(1, (place.picture,), (0,))] if view.picture else []
    stretches += _stretches(view.before, first - view.past, 1, before)
    begin = own.stop if nearest is None else nearest
    stretches += _stretches(view.behind, begin, time + len(own) + gap, behind or before)
    scales = sorted({scale for scale, _, _ in stretches})
    slots = {scale: _slot(scale, stretches) for scale in scales}
    times = tuple(range(time, time + len(own)))
    return Section(place.number, tuple(own), times, slots, pictures=place.pictures)


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


def _stretches(packed: tuple[Packed, ...], frame: int, time: int, known: Known) -> Iterator[Stretch]:
    """Packed frames from a first one and a first time on; None for those that are not there."""
    for each in packed:
        seen = tuple(known(number) for number in range(frame, frame + each.frames))
        yield each.scale, seen, tuple(range(time, time + each.frames))
        frame, time = frame + each.frames, time + each.frames


def _plan(
    view: View,
    division: Division,
    section: Callable[[int], Section],
    order: Callable[[int], int],
    forward: bool,
    horizon: int,
    lasting: frozenset[int] = frozenset(),
    extendable: bool = False,
) -> Plan:
    """A plan of these sections."""
    kept = lasting | {0} if view.picture or division.loop else lasting
    return Plan(
        division.count, division.longest, division.made, division.made, forward, division.anchors, horizon,
        kept | frozenset(division.starts[1:]), section, order, division.owner,
        extendable=extendable, starts=division.starts, lead=division.lead, made_by=division.frames,
    )  # fmt: skip


def _count(packed: tuple[Packed, ...]) -> int:
    return sum(each.frames for each in packed)


def _within(first: int, last: int) -> Known:
    return lambda frame: frame if first <= frame <= last else None


def _with(known: Known, place: int, frame: int) -> Known:
    """The same, and a frame that lies at this place."""
    return lambda number: frame if number == place else known(number)


def _nothing(frame: int) -> int | None:
    return None
