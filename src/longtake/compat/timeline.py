"""A job in time, as `pipe(..., timeline=…, loop=…)` says it, in any of the ways in which timelines are written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from longtake.errors import JobError
from longtake.job import Job
from longtake.pipeline.given import GIVEN
from longtake.plan import spoken


def directed(job: Job, timeline: Any, loop: bool) -> tuple[Job, dict[Any, Any]]:
    """The job with what is said in time, checked; and the pictures that are given as values, by their times.

    A timeline is a mapping in the canonical form, whose images may be anything that is a picture; a text, as people
    type it; or the file of either. Raises JobError for anything else.
    """
    pictures: dict[Any, Any] = {}
    if loop:
        job = replace(job, loop=True)
    if timeline is not None:
        values = _values(timeline, spoken.Length.of(job))
        if isinstance(values.get("keyframes"), list | tuple):
            values["keyframes"] = [_named(entry, pictures) for entry in values["keyframes"]]
        job = spoken.directed(job, values)
    job.check()
    return job, pictures


def _values(timeline: Any, length: spoken.Length) -> dict[str, Any]:
    if isinstance(timeline, Mapping):
        return dict(timeline)
    if not isinstance(timeline, str | os.PathLike):
        raise JobError(
            f"A timeline is a dict, a text or the file of one; {type(timeline).__name__} was given."
        )
    text = os.fspath(timeline)
    if isinstance(timeline, os.PathLike) or _is_file(text):
        try:
            text = Path(text).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
            raise JobError(f"The timeline {timeline} cannot be read: {reason}.") from None
    return spoken.read(text, length)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _named(entry: Any, pictures: dict[Any, Any]) -> Any:
    """A key frame with a name in the place of a picture that is a value, which is noted by its time."""
    if not isinstance(entry, Mapping) or isinstance(entry.get("image"), str):
        return entry
    if entry.get("image") is None or "at" not in entry:
        return dict(entry)  # refused by who reads it
    image = entry["image"]
    if isinstance(image, os.PathLike):
        return {**entry, "image": os.fspath(image)}
    pictures[entry["at"]] = image
    return {**entry, "image": GIVEN}
