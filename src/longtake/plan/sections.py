"""Sections and plans as data: what each section makes and sees, and what is true of them as a whole.

Frame numbers are latent frames of the finished video; frame 0 is the picture. Times are what the model was trained to
see, which is not where the frames lie in a long video: the reference keeps them fixed or caps them.

A plan computes a section when it is asked for, so that it costs the same for ten frames and for ten million. Beside
its sections it says what the rest of the program needs to know of it; nobody asks for its name.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from longtake.plan.layout import LATENT_FRAMES, Far, Slot


@dataclass(frozen=True)
class Section:
    """One denoised stretch of the video and the clean frames that it sees.

    `number` is its place in the video (0 first); `frames` are the latent frames that it makes, at `times`; `slots` are
    what it sees, by scale: any scales, and any number of frames in each; `far` is what lies beyond these, None if that
    is not seen. `pictures` are the latent frames whose pictures it is told of: the mean of their states, or none.
    """

    number: int
    frames: tuple[int, ...]
    times: tuple[int, ...]
    slots: Mapping[int, Slot] = field(hash=False)
    far: Far | None = None
    pictures: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Seam:
    """The place where frames that lead to a given one meet it, in video frames.

    `at` of them come before it; `own` are it and the one behind it (in a loop: the video's first two); `span` is how
    many are made before it, since the given one before that.
    """

    at: int
    own: tuple[int, ...]
    span: int


@dataclass(frozen=True, eq=False)
class Plan:
    """The sections of a video in the order of generation, and what is true of them as a whole.

    `count` sections, the longest of `window` latent frames, make `made` video frames, of which the first `frames` come
    out; `notice` says why these are not as many as were asked for. `forward` is true if the sections come in the
    video's order: frames can leave after each. `anchors`, ascending, are the latent frames that are given and not made.
    A frame is read by at most the `horizon` sections that are made next, but for those in `lasting`, which any section
    may read; what lies in a section's far end does not count, since the history knows it by its sum.
    `extendable` is true if a longer plan of the same kind begins with these very sections, unless more is asked of it.
    `starts` are latent frames that hold one video frame each, as the picture does: the decoder begins anew at each.
    The first `lead` latent frames are the end of a given video, which is not shown again. `seams` are where what was
    made meets what it leads to.

    Four more are functions: the section made at a place in the order of generation; the order of the section at
    a place in the video; the section, by its place in the video, that makes a latent frame; and the latent frames of
    the section at a place in the video, which are found from the section where this is left out.
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
    extendable: bool = False
    starts: tuple[int, ...] = (0,)
    lead: int = 0
    seams: tuple[Seam, ...] = ()
    made_by: Callable[[int], Sequence[int]] | None = field(default=None, repr=False)

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

    def latents(self, number: int) -> Sequence[int]:
        """The latent frames of the section at this place in the video, ascending."""
        if self.made_by is not None:
            return self.made_by(number)
        return sorted(self.section(self.made_at(number)).frames)

    def maker(self, frame: int) -> int | None:
        """Number of the section that makes a latent frame; None for an anchor, which is given."""
        place = bisect_left(self.anchors, frame)
        given = place < len(self.anchors) and self.anchors[place] == frame
        return None if given else self.owner(frame)

    def shown(self, frame: int) -> range:
        """Numbers of the video frames that one latent frame holds; 0 is the first that is shown, before it is the lead.

        >>> from dataclasses import replace
        >>> from longtake.plan.plans import vanilla
        >>> plan = replace(vanilla(5), starts=(0, 12))
        >>> [plan.shown(frame) for frame in (0, 11, 12, 13)]
        [range(0, 1), range(41, 45), range(45, 46), range(46, 50)]
        """
        stretch = bisect_right(self.starts, frame) - 1
        start = self.starts[stretch]
        # Each start before this one holds one frame, and not four.
        begin = LATENT_FRAMES * start - (LATENT_FRAMES - 1) * stretch - max(0, LATENT_FRAMES * self.lead - 3)
        if frame == start:
            return range(begin, begin + 1)
        first = begin + 1 + LATENT_FRAMES * (frame - start - 1)
        return range(first, first + LATENT_FRAMES)

    def sources(self, section: Section) -> tuple[int, ...]:
        """Numbers of the sections whose frames this one sees, or is told of.

        >>> from longtake.plan.plans import vanilla
        >>> plan = vanilla(5)
        >>> plan.sources(plan[1]), plan.sources(plan[4])
        ((0,), (1, 2, 3))
        """
        seen = {frame for slot in section.slots.values() for frame in slot.frames if frame is not None}
        seen.update(section.far.frames if section.far is not None else ())
        seen.update(section.pictures)
        makers = {self.maker(frame) for frame in seen}
        return tuple(sorted(number for number in makers if number is not None))
