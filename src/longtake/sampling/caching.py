"""Step caches: the decision, at each step, whether the network runs or what it gave before serves again.

Here are decisions and arithmetic on numbers alone; `pipeline.caching` measures the numbers and keeps the tensors. A
cache is named by a text, such as "easy:0.05": its method, then the method's values in their order.

    easy    how much the velocity will have changed, estimated from how it answered to the latents before
            (EasyCache, arXiv 2507.02860): sees nothing but what goes into the network and what comes out
    mag     how much what the blocks add has changed in size, known beforehand (MagCache, arXiv 2506.09045)
    tea     how much the first block's input has changed, through a polynomial (TeaCache, arXiv 2411.19108)
    first   how much the first block's output has changed (first-block cache of ParaAttention)

Methods and constants are those of the papers and of the authors' code. The first step and the last are always computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from longtake.errors import JobError
from longtake.option import check_number, shown

STEADY = 0.06
"""A step that changes the size by more is computed, however small the sum (FramePack-Studio's rule for MagCache)."""

TEA = (733.226126, -401.131952, 67.5869174, -3.149878, 0.0961237896)
"""FramePack's polynomial of TeaCache, the highest power first."""

RATIOS = 1000
"""Most ratios of a branch: one for each step of a section."""


@dataclass(frozen=True)
class Past:
    """The facts for a decision: the steps since the last one that was computed."""

    error: float = 0.0
    size: float = 1.0
    """Of what the blocks add, against that step's (mag)."""
    skipped: int = 0


@dataclass(frozen=True)
class Value:
    """One of the numbers that a method takes."""

    name: str
    default: float
    least: float = 0.0
    most: float = 1.0
    kind: type = float


@dataclass(frozen=True)
class Method:
    """The facts of a method: what it takes, what it needs, and how its estimate of the error grows.

    `grow` is told of the past and of this step's change. `opens`: it stands between the blocks of the network.
    """

    help: str
    values: tuple[Value, ...]
    grow: Callable[[Past, float], Past]
    opens: bool = False
    ratios: bool = False
    """The changes are known beforehand: one ratio for each step."""


def _added(past: Past, change: float) -> Past:
    return replace(past, error=past.error + change)


def _polynomial(past: Past, change: float) -> Past:
    total = 0.0
    for factor in TEA:
        total = total * change + factor
    return replace(past, error=past.error + total)


def _alone(past: Past, change: float) -> Past:
    return replace(past, error=change)


def _sized(past: Past, change: float) -> Past:
    size = past.size * change
    error = past.error + abs(1.0 - size) if abs(1.0 - change) <= STEADY else math.inf
    return replace(past, error=error, size=size)


SKIPS = Value("the steps in a row that may be skipped", 1000, 0, 1000, int)
KEPT = Value("the share of first steps that are computed", 0.1)
ORDER = Value(
    "the order of the velocity's estimate (0: the last one again, 1: a line through two)", 1, 0, 1, int
)


def _threshold(default: float) -> Value:
    return Value("the threshold", default, 0.0, 100.0)


METHODS: dict[str, Method] = {
    "easy": Method("THRESHOLD, KEPT, ORDER; needs no calibration", (_threshold(0.05), KEPT, ORDER), _added),
    "mag": Method(
        "THRESHOLD, SKIPS, KEPT, ORDER; then ;FILE of `longtake calibrate`, or ratios",
        (_threshold(0.1), replace(SKIPS, default=2), replace(KEPT, default=0.25), ORDER),
        _sized,
        ratios=True,
    ),
    "tea": Method("THRESHOLD", (_threshold(0.15),), _polynomial, opens=True),
    "first": Method("THRESHOLD", (_threshold(0.1),), _alone, opens=True),
}


@dataclass(frozen=True)
class Cache:
    """A step cache as it is asked for: its method, the method's numbers, and what is known beforehand.

    `ratios` are one list for each branch of guidance, the prompt's first (one serves all); `file` is where they are to
    be read from. Neither: those of the model.
    """

    method: str
    numbers: tuple[float, ...]
    ratios: tuple[tuple[float, ...], ...] = ()
    file: str | None = None

    @property
    def of(self) -> Method:
        """The facts of its method."""
        return METHODS[self.method]

    def number(self, value: Value) -> float | None:
        """Its number for one of the values, by name; None if the method has no such value."""
        named = {each.name: number for each, number in zip(self.of.values, self.numbers, strict=True)}
        return named.get(value.name)

    @property
    def text(self) -> str:
        """The text that names it, with every number."""
        lists = [self.numbers, *self.ratios]
        parts = [",".join(map(_shortest, numbers)) for numbers in lists]
        return f"{self.method}:{';'.join(parts + ([self.file] if self.file else []))}"

    def check(self) -> None:
        """Raise JobError for a method that is not known, or a number that it does not take."""
        if self.method not in METHODS:
            raise JobError(f"No cache {shown(self.method)}; there are: {', '.join(METHODS)}.")
        name = f"the cache {self.method!r}"
        if len(self.numbers) != len(self.of.values):
            raise JobError(
                f"{name.capitalize()} takes up to {len(self.of.values)} numbers ({self.of.help}); "
                f"{len(self.numbers)} were given."
            )
        for value, number in zip(self.of.values, self.numbers, strict=True):
            check_number(f"{value.name.capitalize()} of {name}", number, value.kind, value.least, value.most)
        if (self.ratios or self.file) and not self.of.ratios:
            raise JobError(
                f"{name.capitalize()} takes numbers alone ({self.of.help}), no ratios and no file; "
                f"{shown(self.file or self.ratios)} was given."
            )
        check_ratios(self.ratios, name)


def parse(text: str) -> Cache | None:
    """The cache that a text names, checked; None for "", which is none. JobError, in one sentence, for any other text.

    >>> parse("easy").text, parse("mag:0.2;1,1.3,0.9").ratios
    ('easy:0.05,0.1,1', ((1.0, 1.3, 0.9),))
    """
    if not text:
        return None
    method, _, rest = text.partition(":")
    if method not in METHODS:
        raise JobError(f"No cache {shown(method)}; there are: {', '.join(METHODS)}.")
    values = METHODS[method].values
    lists, file = _numbers(rest)
    first = lists[0] if lists else ()
    given = tuple(
        int(number) if value.kind is int and number.is_integer() else number
        for value, number in zip(values, first, strict=False)
    )
    defaults = tuple(value.default for value in values[len(first) :])
    cache = Cache(method, given + first[len(values) :] + defaults, tuple(lists[1:]), file)
    cache.check()
    return cache


def _numbers(text: str) -> tuple[list[tuple[float, ...]], str | None]:
    """The lists of numbers of a text, the method's own first (it may be empty), and the file after them."""
    lists: list[tuple[float, ...]] = []
    rest = text
    while rest:
        part, _, after = rest.partition(";")
        try:
            lists.append(tuple(float(number) for number in part.split(",")) if part.strip() else ())
        except ValueError:
            # A file's name may hold any character, so it is all that is left.
            return lists or [()], rest
        rest = after
    return lists, None


def _shortest(number: float) -> str:
    """The number as people write it, and not less than it is."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(float(number))


def check_ratios(ratios: Sequence[Sequence[float]], name: str) -> None:
    """Raise JobError for ratios that are none: one or two lists of positive numbers."""
    if len(ratios) > 2 or any(not 1 <= len(branch) <= RATIOS for branch in ratios):
        raise JobError(
            f"The ratios of {name} must be one list, or one for each branch of guidance, of 1 to {RATIOS} numbers."
        )
    for branch in ratios:
        for ratio in branch:
            check_number(f"A ratio of {name}", ratio, least=1e-6, most=1e6)


class Decisions:
    """The decisions of one branch of guidance in one section: `computes` is asked at each step, in order."""

    def __init__(self, cache: Cache, steps: int, ratios: Sequence[float] = ()) -> None:
        self.cache, self.steps = cache, steps
        self.ratios = nearest(ratios, steps) if ratios else ()
        self.step = 0
        self._past = Past()

    @property
    def forced(self) -> bool:
        """Tell if the step to come is computed whatever has changed, so that nothing need be measured."""
        kept = self.cache.number(KEPT) or 0.0
        return self.step < max(1, math.floor(kept * self.steps + 0.5)) or self.step >= self.steps - 1

    def computes(self, change: Callable[[], float], forced: bool = False) -> bool:
        """Tell if the network runs at this step; `change` measures, and is not called where nothing depends on it.

        A change that is not known, or no number, is infinite.
        """
        forced, step = self.forced or forced, self.step
        self.step += 1
        if not forced:
            found = self.ratios[step] if self.cache.of.ratios else change()
            self._past = self.cache.of.grow(self._past, found)
            threshold, most = self.cache.numbers[0], self.cache.number(SKIPS)
            # Below, not at: at a threshold of 0 every step is computed.
            if self._past.error < threshold and (most is None or self._past.skipped < most):
                self._past = replace(self._past, skipped=self._past.skipped + 1)
                return False
        self._past = Past()
        return True


def nearest(ratios: Sequence[float], steps: int) -> tuple[float, ...]:
    """Ratios for another number of steps: at each place the nearest one.

    >>> nearest((1.0, 1.3, 0.9), 4)
    (1.0, 1.3, 1.3, 0.9)
    """
    if steps == 1:
        return (ratios[-1],)
    scale = (len(ratios) - 1) / (steps - 1)
    return tuple(ratios[math.floor(step * scale + 0.5)] for step in range(steps))


def reach(sigma: float, newest: float, before: float) -> float:
    """The way along the line through two velocities: to `sigma`, but never farther than from one to the other.

    Beyond that the line is a guess: on the embedded model it costs up to 7 dB.

    >>> reach(0.5, 0.625, 0.875), reach(0.25, 0.5, 0.625)
    (0.5, 1.0)
    """
    return min(1.0, (sigma - newest) / (newest - before))
