"""The ways to treat the history that a section sees, by name.

A text names it, such as "noise:0.1" or "discrete:256+forget": names with their values, joined by "+" or ",", done in
their order. What concerns values is in `sampling.treatments`, which frames a section sees in `plan.sights`, and what
happens between two steps in `pipeline.correcting`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from longtake.errors import JobError
from longtake.option import check_number, shown
from longtake.sampling.caching import Value

MOST = 2**16
"""Most codes of a discrete history."""

MOST_GROUPS = 64
"""Most groups of channels that have codes of their own."""


@dataclass(frozen=True)
class Way:
    """The facts of one of the names: what it does, what it takes, and where it can be done."""

    help: str
    values: tuple[Value, ...] = ()
    sampling: bool = True
    training: bool = False


WAYS: dict[str, Way] = {
    "discrete": Way(
        "K, GROUPS: each pixel becomes the nearest of K codes, of so many groups of channels (longtake codebook)",
        (
            Value("the number of codes", 256, 1, MOST, int),
            Value("the number of groups of channels", 1, 1, MOST_GROUPS, int),
        ),
        training=True,
    ),
    "noise": Way("LEVEL: mixed with noise", (Value("the noise level", 0.1),), training=True),
    "corrupt": Way(
        "LEVEL, NOISED, CLEAN: damaged as Helios does, in training alone",
        (
            Value("the highest noise level", 1 / 3),
            Value("the share of frames with noise, not blurred", 0.9),
            Value("the share of clean frames", 0.1),
        ),
        sampling=False,
        training=True,
    ),
    "adaptive": Way(
        "NOISE, THRESHOLD, RHO: noise when the last section left the mean of those before",
        (
            Value("the noise that is added", 0.1, 0.0, 10.0),
            Value("the distance that counts", 0.15, 0.0, 1000.0),
            Value("the share of the past in the mean", 0.9),
        ),
    ),
    "statistics": Way("SHARE: mean and spread of each channel as the picture's", (Value("the share", 1.0),)),
    "forget": Way("without the far frames from before a change of prompt"),
    "sink": Way(
        "FRAMES: so many of the video's first frames (its last, if it is made backwards) are always seen, by k2",
        (Value("the number of frames", 4, 1, 1000, int),),
    ),
    "correct": Way(
        "STEPS, LEVEL: so many late steps are corrected by the picture alone",
        (
            Value("the number of steps", 2, 1, 1000, int),
            Value("the noise level from which on they are late", 0.5),
        ),
    ),
}
"""Everything that can be done to a history, by name."""


@dataclass(frozen=True)
class Wanted:
    """One thing that is to be done: its name and its numbers, one for each of its values."""

    name: str
    numbers: tuple[float, ...] = ()

    def check(self) -> None:
        """Raise JobError for a number that it does not take."""
        values = WAYS[self.name].values
        for value, number in zip(values, self.numbers, strict=True):
            title = f"{value.name.capitalize()} of the history's {self.name!r}"
            check_number(title, number, value.kind, value.least, value.most)


def parse(text: str) -> tuple[Wanted, ...]:
    """The wishes of a text, checked, in its order; JobError, in one sentence, for a text that says nothing of it.

    >>> parse("noise:0.2+forget"), parse("adaptive:0.2,0.1")[0].numbers
    ((Wanted(name='noise', numbers=(0.2,)), Wanted(name='forget', numbers=())), (0.2, 0.1, 0.9))
    """
    if not text:
        return ()
    # A comma or a plus before a letter begins another name; before a digit, it belongs to the numbers.
    found = tuple(_one(part) for part in re.split(r"\s*[+,]\s*(?=[A-Za-z])", text.strip()))
    names = [wanted.name for wanted in found]
    for name in names:
        if names.count(name) > 1:
            raise JobError(f"The history {shown(text)} asks twice for {name!r}; each can be done once.")
    return found


def _one(text: str) -> Wanted:
    name, _, rest = text.partition(":")
    if name not in WAYS:
        raise JobError(f"Nothing {shown(name)} can be done to the history; there are: {', '.join(WAYS)}.")
    way = WAYS[name]
    try:
        given = [float(number) for number in rest.split(",")] if rest else []
    except ValueError:
        raise JobError(
            f"The history's {name!r} takes {way.help.partition(':')[0] if way.values else 'no numbers'}; "
            f"{shown(rest)} was given."
        ) from None
    if len(given) > len(way.values):
        raise JobError(f"The history's {name!r} takes {_count(way)}; {len(given)} were given.")
    numbers = (*given, *(value.default for value in way.values[len(given) :]))
    whole = tuple(
        int(number) if value.kind is int and float(number).is_integer() else number
        for value, number in zip(way.values, numbers, strict=True)
    )
    wanted = Wanted(name, whole)
    wanted.check()
    return wanted


def _count(way: Way) -> str:
    count = len(way.values)
    return "no numbers" if not count else "one number" if count == 1 else f"up to {count} numbers"


def wanted_of(text: str, name: str) -> Wanted | None:
    """The wish of a text under this name; None if it has none.

    >>> wanted_of("noise+sink:8", "sink").numbers, wanted_of("", "sink")
    ((8,), None)
    """
    return next((wanted for wanted in parse(text) if wanted.name == name), None)


def discrete_of(text: str) -> tuple[int, int] | None:
    """The number of codes of a discrete history, and the groups of channels that they are for; None if it is as it is.

    >>> discrete_of("discrete:64"), discrete_of("noise+discrete:256,4"), discrete_of("noise")
    ((64, 1), (256, 4), None)
    """
    wanted = wanted_of(text, "discrete")
    return None if wanted is None else (int(wanted.numbers[0]), int(wanted.numbers[1]))


def name_of(count: int, groups: int = 1) -> str:
    """The name of so many codes for so many groups.

    >>> name_of(256), name_of(256, 4)
    ('256', '256x4')
    """
    return str(count) if groups == 1 else f"{count}x{groups}"


def numbers_of(name: str) -> tuple[int, int]:
    """The way back; raises ValueError for what is no such name.

    >>> numbers_of("256"), numbers_of("256x4")
    ((256, 1), (256, 4))
    """
    count, sign, groups = name.partition("x")
    return int(count), int(groups) if sign else 1


def check_sampling(text: str) -> None:
    """Raise JobError for what can be done in training alone."""
    for wanted in parse(text):
        if not WAYS[wanted.name].sampling:
            raise JobError(
                f"The history's {wanted.name!r} is for training alone; leave it out, or take noise:LEVEL."
            )


def check_training(text: str) -> None:
    """Raise JobError for what can be done in sampling alone."""
    for wanted in parse(text):
        if not WAYS[wanted.name].training:
            raise JobError(
                f"The history's {wanted.name!r} is for sampling alone; training takes: "
                f"{', '.join(name for name, way in WAYS.items() if way.training)}."
            )


def check_discrete(sampling: str, discrete: bool, text: str) -> None:
    """Raise JobError if a sampling has a discrete history by its name (+D) and the text asks for none."""
    if discrete and discrete_of(text) is None:
        raise JobError(
            f"The sampling {sampling} has a discrete history; say of how many codes: --history discrete:256 (in Python "
            "history='discrete:256')."
        )
