"""The division of a video into stretches, runs and sections, before it is said what a section sees.

A stretch begins with a given latent frame that holds one video frame (a picture), and goes up to the next one. A cut is
where something changes inside of it: a prompt, the weight of a LoRA. Between two cuts lies a run, whose frames are
divided into sections as equal as can be, each about a window long.

Whatever is asked of a division is found by bisection in its runs, however many sections they have.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from longtake.errors import JobError
from longtake.plan.layout import LATENT_FRAMES


@dataclass(frozen=True)
class Run:
    """The `length` latent frames from `first` on, in `count` sections as equal as can be; the first has `number`.

    >>> run = Run(1, 20, 2, 0)
    >>> run.frames(0), run.frames(1), run.owner(10), run.owner(11)
    (range(1, 11), range(11, 21), 0, 1)
    """

    first: int
    length: int
    count: int
    number: int

    def frames(self, number: int) -> range:
        """The latent frames of one of its sections."""
        place = number - self.number
        begin, end = (self.first + edge * self.length // self.count for edge in (place, place + 1))
        return range(begin, end)

    def owner(self, frame: int) -> int:
        """The section that makes one of its latent frames."""
        return self.number + ((frame - self.first + 1) * self.count - 1) // self.length

    @property
    def shortest(self) -> int:
        """Latent frames of its shortest section."""
        return self.length // self.count

    @property
    def longest(self) -> int:
        """Latent frames of its longest section."""
        return -(-self.length // self.count)


@dataclass(frozen=True)
class Division:
    """The sections of a video by number, in runs, and its stretches, which begin at the latent frames `starts`.

    `window` is the usual length of a section. `lead` latent frames of a given video lie before the first that is made
    (0: the picture alone). `behind` given frames lie behind the last one: 1 is a last picture. With `loop` the frame
    behind the last one is the first. The runs of a stretch follow one another; between stretches lies a start.
    """

    window: int
    runs: tuple[Run, ...]
    starts: tuple[int, ...] = (0,)
    lead: int = 0
    behind: int = 0
    loop: bool = False

    @property
    def count(self) -> int:
        """Sections."""
        return self.runs[-1].number + self.runs[-1].count

    @property
    def last(self) -> int:
        """The last latent frame that is made."""
        return self.runs[-1].first + self.runs[-1].length - 1

    @property
    def longest(self) -> int:
        """Latent frames of the longest section."""
        return max(run.longest for run in self.runs)

    @property
    def made(self) -> int:
        """Video frames, without those of the lead."""
        held = LATENT_FRAMES * (self.last + 1) - (LATENT_FRAMES - 1) * len(self.starts)
        return held - self.led

    @property
    def led(self) -> int:
        """Video frames of the lead."""
        return max(0, LATENT_FRAMES * self.lead - (LATENT_FRAMES - 1))

    @property
    def anchors(self) -> tuple[int, ...]:
        """The latent frames that are given."""
        behind = range(self.last + 1, self.last + 1 + self.behind)
        return (*range(max(1, self.lead)), *self.starts[1:], *behind)

    @cached_property
    def _numbers(self) -> list[int]:
        return [run.number for run in self.runs]

    @cached_property
    def _firsts(self) -> list[int]:
        return [run.first for run in self.runs]

    @cached_property
    def begins(self) -> list[int]:
        """The first section of each stretch."""
        return [self.runs[bisect_right(self._firsts, start + 1) - 1].number for start in self.starts[1:]]

    def frames(self, number: int) -> range:
        """The latent frames of a section."""
        return self.runs[bisect_right(self._numbers, number) - 1].frames(number)

    def owner(self, frame: int) -> int:
        """The section that makes a latent frame."""
        return self.runs[max(0, bisect_right(self._firsts, frame) - 1)].owner(frame)

    def stretch(self, number: int) -> int:
        """The place of the stretch that a section lies in."""
        return bisect_right(self.begins, number)

    def sections(self, stretch: int) -> range:
        """The sections of a stretch."""
        edges = (0, *self.begins[max(0, stretch - 1) : stretch + 1], self.count)
        return range(edges[min(stretch, 1)], edges[min(stretch, 1) + 1])

    def ahead(self, stretch: int) -> int | None:
        """The given frame that a stretch goes to: the next start, or what lies behind the last frame; None if nothing.

        In a loop it is frame 0.
        """
        if stretch + 1 < len(self.starts):
            return self.starts[stretch + 1]
        return 0 if self.loop else self.last + 1 if self.behind else None

    def reach(self, seen: int) -> int:
        """Most sections that begin within so many latent frames: how many see a frame, if each sees so far."""
        most = 0
        for place, run in enumerate(self.runs):
            end, shortest = run.first + run.length + seen, run.shortest
            for other in self.runs[place + 1 :]:
                if other.first >= end:
                    break
                shortest = min(shortest, other.shortest)
            most = max(most, 1 + (seen - 1) // shortest)
        return most


def even(sections: int, window: int, end: bool = False) -> Division:
    """One stretch of whole windows behind a picture, with a last picture or without; JobError if there is none.

    >>> even(4, 9).frames(3), even(4, 9, True).anchors
    (range(28, 37), (0, 37))
    """
    if sections < 1 or window < 1:
        raise JobError(
            f"A plan needs at least one section of at least one latent frame, not {sections} of {window}."
        )
    return Division(window, (Run(1, window * sections, sections, 0),), behind=int(end))


def runs_of(stretches: Sequence[tuple[int, Sequence[int]]], window: int, whole: int = 0) -> tuple[Run, ...]:
    """The runs of stretches that are told as their first latent frame to be made and the lengths between their cuts.

    `whole` is the number of whole windows that the last run is (0: it is divided as the others are).

    >>> runs_of([(1, [9, 4]), (15, [20])], 9)
    (Run(first=1, length=9, count=1, number=0), Run(first=10, length=4, count=1, number=1), \
Run(first=15, length=20, count=2, number=2))
    """
    runs: list[Run] = []
    number = 0
    for first, lengths in stretches:
        for length in lengths:
            # The nearest to the window; the more of two.
            count = max(1, (2 * length + window) // (2 * window))
            runs.append(Run(first, length, count, number))
            first, number = first + length, number + count
    if whole:
        last = runs[-1]
        runs[-1] = Run(last.first, whole * window, whole, last.number)
    return tuple(runs)
