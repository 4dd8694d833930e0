"""Options of what stands in time, `--keyframe` and `--timeline`, and a job that is directed by them."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from longtake.errors import JobError
from longtake.job import Anchor, Job
from longtake.plan import spoken, timeline
from longtake.plan.plans import plan_of

ANY = spoken.Length(1, 1, 1)
"""A length where none is asked for: seconds are the same in all."""


def add_directing(group: Any) -> None:
    """`--keyframe` and `--timeline`, for a group of a parser that has `--last-image`."""
    group.add_argument(
        "--keyframe",
        dest="anchors",
        type=keyframe,
        action="append",
        metavar="SECONDS=PICTURE[:STRENGTH]",
        help='a picture at a time of the video, or at "end"; strength: 1 is all, 0.5 half as much (default: 1); may be '
        "given several times",
    )
    group.add_argument(
        "--timeline",
        metavar="FILE",
        help="prompts, pictures and LoRA weights in time, as JSON or as text (docs/timeline.md)",
    )


def keyframe(text: str) -> Anchor:
    """A picture at a time from "SECONDS=PICTURE" or "SECONDS=PICTURE:STRENGTH".

    The text after the last colon is a strength only if it is a number and no file has the whole name.

    >>> keyframe("2.5=b.png"), keyframe("end=http://x/c.png:0.5")
    (Anchor(at=2.5, image='b.png', strength=1.0), Anchor(at='end', image='http://x/c.png', strength=0.5))
    """
    when, sign, image = text.partition("=")
    if not (when.strip() and sign and image):
        raise argparse.ArgumentTypeError(
            f"a key frame looks like 2.5=picture.png or end=picture.png:0.5; {text!r} was given"
        )
    at: Any = "end"
    if when.strip() != "end":
        if "%" in when:
            raise argparse.ArgumentTypeError(f"a key frame stands at seconds or at end; {when!r} was given")
        try:
            at = spoken.moment(when, ANY)
        except JobError as error:
            raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None
    path, colon, tail = image.rpartition(":")
    if colon and path and re.fullmatch(r"\d+(\.\d*)?", tail) and not Path(image).exists():
        return Anchor(at, path, float(tail))
    return Anchor(at, image)


def directed(job: Job, args: argparse.Namespace) -> Job:
    """The job with the times that stand in its prompt and in its timeline's file, checked against its length.

    A prompt that was not typed (`args.typed` False) is taken as it is. Raises JobError for what cannot be done.
    """
    if getattr(args, "typed", True):
        common, spans = spoken.prompts(job.prompt, spoken.Length.of(job))
        # What is typed goes before what a preset or another video says.
        job = replace(job, prompt=common, prompts=spans or job.prompts)
    if getattr(args, "timeline", None) is not None:
        job = spoken.directed(job, read(Path(args.timeline), spoken.Length.of(job)))
    job.check()
    timeline.check(job, plan_of(job))
    return job


def read(file: Path, length: spoken.Length) -> dict[str, Any]:
    """The values of a timeline's file; files that it names are looked for beside it, and else as they stand."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise JobError(f"The timeline {file} cannot be read: {reason}.") from None
    values = spoken.read(text, length)
    for key, name in (("keyframes", "image"), ("loras", "path")):
        entries = values.get(key)
        if isinstance(entries, list):
            values[key] = [_near(entry, name, file.parent) for entry in entries]
    if "clip" in values:
        values["clip"] = _near(values["clip"], "video", file.parent)
    return values


def _near(entry: Any, name: str, folder: Path) -> Any:
    """An entry whose file lies in the folder, by its path from here; `@3.2s` behind it is a time in a video."""
    if not isinstance(entry, dict) or not isinstance(entry.get(name), str):
        return entry
    beside = folder / entry[name]
    try:
        there = beside.exists() or (folder / entry[name].rpartition("@")[0]).is_file()
    except (OSError, ValueError):
        return entry  # what is no name of a file is refused by who reads it
    return {**entry, name: str(beside)} if there else entry
