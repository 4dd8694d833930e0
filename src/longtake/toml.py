"""TOML from anywhere, with Python's own reader, or before 3.11 with the package that it came from."""

from __future__ import annotations

import importlib
from typing import Any

from longtake.errors import JobError


def parse(text: str, what: str) -> dict[str, Any]:
    """The tables of a text; JobError, "`what` is no TOML", if it is none.

    >>> parse("steps = 9", "fast.toml")
    {'steps': 9}
    """
    reader = _reader()
    try:
        return dict(reader.loads(text))
    except ValueError as error:
        raise JobError(f"{what} is no TOML: {str(error).rstrip('.')}.") from None


def _reader() -> Any:
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise JobError(
        "Python 3.10 reads TOML with another package: pip install longtake[toml]; or write it as JSON."
    )
