"""Options are built from the fields of `longtake.job.Job`: their defaults, limits and help stand there, once.

By hand is only what is not one field: a size is two, a length may be in seconds, a picture is an anchor.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from longtake.cli.directing import add_directing, directed
from longtake.errors import JobError
from longtake.job import Anchor, Job, Lora
from longtake.machine import Machine
from longtake.option import Option, options

OPTIONS = options(Job)
MACHINE = options(Machine)
FIELDS = {field.name: field for kind in (Job, Machine) for field in dataclasses.fields(kind)}

GROUPS = {
    "length": "the length",
    "video": "the video",
    "plan": "the plan",
    "model": "the model and how it is sampled",
}
"""Titles of the groups of options in the help, in their order."""

SIZE = "size in pixels"

# A parser of options -> a job -----------------------------------------------------------------------------------------


def add_job_options(parser: argparse.ArgumentParser, names: Collection[str] = tuple(OPTIONS)) -> None:
    """An option for each field of the job that has a group, or for those of them with one of the `names`."""
    for group, title in GROUPS.items():
        fields = [name for name, option in OPTIONS.items() if option.group == group and name in names]
        section: Any = parser.add_argument_group(title) if fields else None
        if "width" in names and group == "video":
            section.add_argument(
                "--size", type=size, metavar="WxH", help=f"{SIZE} (default: the model's own)"
            )
        for name in fields:
            if name == "frames":
                length = section.add_mutually_exclusive_group()
                add_option(length, name)
                length.add_argument(
                    "--seconds", type=number, metavar="X", help="length in seconds of --fps frames"
                )
            else:
                add_option(section, name)
            if name == "anchors":
                add_directing(section)


def add_option(group: Any, name: str, help: str | None = None) -> None:
    """The option of one field of a job or a machine; what is not given stays None, so that its own default holds."""
    own = (OPTIONS | MACHINE)[name]
    add_one(group, name, own, help or _help(own, FIELDS[name].default))


def add_settings(parser: Any, kind: type, groups: Mapping[str, str]) -> None:
    """An option for each field of a dataclass of options, in groups by their titles."""
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for group, title in groups.items():
        section = parser.add_argument_group(title)
        for name, option in options(kind).items():
            if option.group == group:
                add_one(section, name, option, _help(option, defaults[name]))


def add_one(group: Any, name: str, option: Option, help: str) -> None:
    """The option of one field; what is not given stays None."""
    flag = option.flag or f"--{name.replace('_', '-')}"
    if option.kind is bool:
        # With a --no-…, since a preset or --like may have switched it on.
        group.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, default=None, help=help)
        return
    kind, metavar = KINDS[option.kind]
    group.add_argument(
        flag,
        dest=name,
        type=kind,
        action="append" if option.many or kind is part else "store",
        choices=option.choices,
        metavar=None if option.choices else option.metavar or metavar,
        help=help,
    )


def _help(option: Option, default: Any) -> str:
    """The help of one field, with its default if there is one that says something."""
    words = option.help.replace("%", "%%")
    said = "default:" in words or isinstance(default, bool) or not isinstance(default, int | float | str)
    return words if said or default == "" else f"{words} (default: {default})"


def job_of(args: argparse.Namespace) -> Job:
    """The job that the options of `add_job_options` ask for; JobError if it cannot be done.

    `picture` is the one at the beginning.
    """
    given = {name: value for name, value in vars(args).items() if value is not None}
    values = {name: value for name, value in given.items() if name in OPTIONS}
    if "size" in given:
        values["width"], values["height"] = given["size"]
    _check_typed(OPTIONS, values)
    if "seconds" in given:
        values["frames"] = _frames(given["seconds"], given.get("fps", FIELDS["fps"].default))
    first = [Anchor(0, given["picture"])] if "picture" in given else []
    job = Job(
        **{
            "prompt": "",
            **values,
            "anchors": (*first, *values.get("anchors", ())),
            "loras": tuple(values.get("loras", ())),
            "parts": parts_of(values.get("parts", ())),
        }
    )
    return directed(job, args)


def _frames(seconds: float, fps: int) -> int:
    """The frames of so many seconds; JobError for fewer than one."""
    frames = round(seconds * fps)
    if frames < 1:
        raise JobError(f"A video has at least one frame; --seconds {seconds:g} at {fps} fps is none.")
    return frames


def parts_of(pairs: Collection[tuple[str, str]]) -> dict[str, str]:
    """The places of parts from what `--part` gave; JobError if one is named twice."""
    parts = dict(pairs)
    if len(parts) < len(pairs):
        raise JobError("One part comes from one place; --part names a part twice.")
    return parts


# Other options of several verbs ---------------------------------------------------------------------------------------


def add_machine(parser: Any, names: Collection[str] = tuple(MACHINE)) -> None:
    """An option for each field of a machine, or for those with one of the `names`."""
    section = parser.add_argument_group("this machine")
    for name in names:
        add_option(section, name)


def machine_of(args: argparse.Namespace) -> Machine:
    """The machine that the options of `add_machine` ask for; JobError if it cannot be."""
    values = {name: value for name, value in vars(args).items() if name in MACHINE and value is not None}
    _check_typed(MACHINE, values)
    return Machine(**values)


def _check_typed(options: Mapping[str, Option], values: Mapping[str, Any]) -> None:
    """Check single values by the names that were typed."""
    for name, option in options.items():
        if name in values and not option.many and option.kind is not dict:
            option.check(option.flag or name, values[name])


def add_json(parser: Any, help: str = "one JSON object for each event on standard output") -> None:
    """`--json`, for a parser or a group of one."""
    parser.add_argument("--json", action="store_true", help=help)


def mute_hub(as_json: bool = False) -> None:
    """Let the hub's client show its progress on a terminal alone, and nothing beside JSON; before it is imported."""
    if as_json or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


# Words -> values ------------------------------------------------------------------------------------------------------


def number(text: str) -> float:
    """A finite float."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def size(text: str) -> tuple[int, int]:
    """Width and height from "640x480", or from "64", a square.

    >>> size("640x480"), size("64")
    ((640, 480), (64, 64))
    """
    match = re.fullmatch(r"(\d{1,6})(?:[xX](\d{1,6}))?", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"a size looks like 640x480 (width x height); {text!r} was given")
    width, height = match.groups()
    return int(width), int(height or width)


def part(text: str) -> tuple[str, str]:
    """A part's name and its place from "PART=PLACE".

    >>> part("vae=models/vae")
    ('vae', 'models/vae')
    """
    name, sign, place = text.partition("=")
    if not (name and sign and place):
        raise argparse.ArgumentTypeError(
            f"a part looks like vae=models/vae or vae=owner/name; {text!r} was given"
        )
    return name, place


def last_image(text: str) -> Anchor:
    """The picture at the end of the video."""
    return Anchor("end", text)


def lora(text: str) -> Lora:
    """A LoRA from "FILE" or "FILE:WEIGHT"; several weights, with commas, are one for each section.

    The text after the last colon is a weight only if it looks like one, so that C:/walk.safetensors is a file. If a
    file exists under the whole name, it is that file.

    >>> lora("walk.safetensors"), lora("walk.safetensors:0.8,0")
    (Lora(path='walk.safetensors', weights=(1.0,)), Lora(path='walk.safetensors', weights=(0.8, 0.0)))
    """
    path, colon, tail = text.rpartition(":")
    if not colon or Path(text).exists():
        return Lora(text)
    if re.fullmatch(r"[-+0-9.eE,\s]+", tail) and path:
        try:
            return Lora(path, tuple(number(part) for part in tail.split(",")))
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{tail!r} is no weight: numbers with commas between them"
            ) from None
    if path.endswith(".safetensors"):
        raise argparse.ArgumentTypeError(
            f"{tail!r} after {path} is no weight: numbers with commas between them"
        )
    return Lora(text)


KINDS: dict[type, tuple[Any, str]] = {
    int: (int, "N"),
    float: (number, "X"),
    str: (str, "NAME"),
    dict: (part, "PART=PLACE"),
    Anchor: (last_image, "PICTURE"),
    Lora: (lora, "FILE"),
}
"""For each kind of value: the function that reads it from the command line, and its name in the help."""
