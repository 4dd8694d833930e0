"""Options: what one value of a request may be, and how the command line asks for it.

A field of `longtake.job.Job` carries an `Option` in its metadata. The job is checked by it and the command line's
parser is built from it, so that a default, a limit and a help text stand once.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from longtake.errors import JobError, JobTypeError

TEXT = 100_000
"""Characters of a prompt; encoders read some hundred words, and reading a book for them would take minutes."""

NAME = 4096
"""Characters of a path, an address or a name on the hub: as many as Linux takes."""

ITEMS = 10_000
"""Entries of any list in a job: one for each section of a video of three hours, and few enough to search."""


@dataclass(frozen=True)
class Option:
    """One value of a request: its help, its type and its limits.

    `kind` is the type of the value, or of its entries if there may be `many`. `least` and `most` limit a number, or
    the length of a text. `flag` is what the command line calls it if that is not the field's name; fields without a
    `group` have no flag that could be built from this alone.
    """

    help: str
    kind: type
    flag: str | None = None
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    group: str | None = None
    least: float | None = None
    most: float | None = None
    optional: bool = False
    many: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raise JobError, or JobTypeError, for the value of the field `name` if it is none that this option takes."""
        if value is None and self.optional:
            return
        if self.many:
            check_many(name, value, self.kind, self.most)
        elif self.choices is not None:
            check_choice(name, value, self.choices)
        elif self.kind is bool:
            if not isinstance(value, bool):
                raise JobTypeError(f"{name} must be true or false; {shown(value)} was given.")
        elif self.kind is str:
            check_text(name, value, self.least, self.most)
        elif self.kind in (int, float):
            check_number(name, value, self.kind, self.least, self.most)
        elif self.kind is not dict and not isinstance(value, self.kind):
            raise JobTypeError(f"{name} must be a {self.kind.__name__}; {shown(value)} was given.")


def option(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    metavar: str | None = None,
    choices: tuple[str, ...] | None = None,
    group: str | None = "model",
    kind: type | None = None,
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """A field of a dataclass with this default and an `Option` about it; `kind` defaults to the default's type."""
    made = Option(
        help,
        kind or type(default),
        flag,
        metavar,
        choices,
        group,
        least,
        most,
        default is None,
        default == (),
    )
    metadata = {"option": made}
    if kind is dict:
        return dataclasses.field(default_factory=dict, hash=False, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def options(kind: type) -> dict[str, Option]:
    """The options of a dataclass by the names of their fields, in their order."""
    found = {field.name: field.metadata.get("option") for field in dataclasses.fields(kind)}
    return {name: made for name, made in found.items() if made is not None}


def check_number(
    name: str, value: Any, kind: type = float, least: float | None = None, most: float | None = None
) -> None:
    """Raise JobError unless `value` is a number from `least` to `most`; of the kind int, a whole one."""
    allowed, word = (int, "a whole number") if kind is int else ((int, float), "a number")
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise JobTypeError(f"{name} must be {word}; {shown(value)} was given.")
    if isinstance(value, float) and not math.isfinite(value):
        raise JobError(f"{name} must be a finite number; {value} was given.")
    if least is not None and value < least:
        raise JobError(f"{name} must be at least {least}; {shown(value)} was asked for.")
    if most is not None and value > most:
        raise JobError(f"{name} must be at most {most}; {shown(value)} was asked for.")


def check_text(name: str, value: Any, least: float | None = None, most: float | None = None) -> None:
    """Raise JobError unless `value` is a text that can be written down, of `least` to `most` characters."""
    if not isinstance(value, str):
        raise JobTypeError(f"{name} must be a text; {shown(value)} was given.")
    if len(value) < (least or 0):
        raise JobError(f"{name} must not be empty.")
    if most is not None and len(value) > most:
        raise JobError(f"{name} must have at most {most} characters; it has {len(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise JobError(
            f"{name} is no valid text: its character {error.start + 1} is half of a pair; give it as UTF-8."
        ) from None
    if "\0" in value:
        raise JobError(f"{name} has the character NUL, which ends a text for many programs; leave it out.")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise JobError unless `value` is one of the choices."""
    if not isinstance(value, str):
        raise JobTypeError(f"{name} must be one of {', '.join(choices)}; {shown(value)} was given.")
    if value not in choices:
        raise JobError(f"No {name} {shown(value)}; there are: {', '.join(choices)}.")


def check_many(name: str, value: Any, kind: type, most: float | None = ITEMS) -> None:
    """Raise JobError unless `value` is a tuple of so many of this kind."""
    if not isinstance(value, tuple):
        raise JobTypeError(f"{name} must be a list of {kind.__name__}; {shown(value)} was given.")
    if most is not None and len(value) > most:
        raise JobError(f"{name} must have at most {most} entries; it has {len(value)}.")
    for item in value:
        if not isinstance(item, kind):
            raise JobTypeError(f"{name} must be a list of {kind.__name__}; it has {shown(item)}.")


def shown(value: Any) -> str:
    """A value as a message shows it: whatever it is, and not at length.

    >>> shown("9"), shown(10**5000), shown([0] * 1000)
    ("'9'", 'a number of thousands of digits', '[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, …')
    """
    if isinstance(value, int) and value.bit_length() > 3000:
        return "a number of thousands of digits"  # Python declines to write it down
    try:
        words = repr(value)
    except Exception:  # a value's own repr may raise whatever it likes
        words = f"something of the type {type(value).__name__}"
    return words if len(words) <= 60 else words[:58] + "…"
