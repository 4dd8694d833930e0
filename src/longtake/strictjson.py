"""JSON from anywhere, read strictly: no NaN, no key twice, no depth that ends in a crash, no number without end."""

from __future__ import annotations

import json
from typing import Any

from longtake.errors import JobError, JobTypeError
from longtake.option import shown

LENGTH = 10_000_000
"""Most characters; a job of any use has some hundred."""

DIGITS = 100
"""Most digits of a whole number: reading them takes time in proportion to their square."""


def parse(text: Any, what: str) -> Any:
    """What `text` says; JobError, "This is not `what`", if that is no JSON or more than any reader should take.

    >>> parse('{"frames": 9}', "a job")
    {'frames': 9}
    """
    if not isinstance(text, str):
        raise JobTypeError(f"This is not {what}: JSON is a text; {shown(text)} was given.")
    if len(text) > LENGTH:
        raise JobError(f"This is not {what}: it has {len(text)} characters, and at most {LENGTH} are read.")

    def whole(digits: str) -> int:
        if len(digits) > DIGITS:
            raise JobError(f"This is not {what}: it has a number of {len(digits)} digits.")
        return int(digits)

    def no_number(word: str) -> Any:
        raise JobError(f"This is not {what}: it has the number {word}, which JSON does not know.")

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            raise JobError(f"This is not {what}: an object in it has a key twice.")
        return values

    try:
        return json.loads(text, parse_int=whole, parse_constant=no_number, object_pairs_hook=members)
    except RecursionError:
        raise JobError(f"This is not {what}: its JSON is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise JobError(f"This is not {what}: {error}.") from None
