"""What options of several verbs have in common: how sizes, lengths and numbers are read."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longtake.job import Lora

# As in longtake.job, which imports numpy.
SAMPLINGS = ("inverted", "vanilla")
DECODINGS = ("exact", "causal")


def add_length(parser: argparse.ArgumentParser) -> None:
    """`--seconds` or `--frames`, with `--fps`."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--frames", type=int, help="length in frames (default: 145)")
    length.add_argument("--seconds", type=number, help="length in seconds")
    parser.add_argument("--fps", type=int, default=30, help="frames a second (default: %(default)s)")


def add_plan(parser: argparse.ArgumentParser) -> None:
    """What decides the plan besides the length."""
    parser.add_argument(
        "--sampling",
        choices=SAMPLINGS,
        default="inverted",
        help="inverted: from the end to the picture; vanilla: from the picture onwards (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=int,
        default=9,
        help="latent frames of a section, 4 frames each (default: %(default)s)",
    )
    parser.add_argument(
        "--reference", action="store_true", help="do as diffusers does, number for number, also where it errs"
    )


def frames_of(args: argparse.Namespace) -> int:
    """The length in frames that `add_length`'s options ask for."""
    if args.seconds is not None:
        return round(args.seconds * args.fps)
    return 145 if args.frames is None else int(args.frames)


def add_device(parser: Any) -> None:
    """`--device`, for a parser or a group of one."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="where the networks run: cpu, cuda, cuda:1, mps, … (default: the framework's own, cpu on PyTorch)",
    )


def mute_hub(json: bool = False) -> None:
    """No bars of the hub's downloads where nobody watches, or where a program reads along."""
    if json or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


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


def lora(text: str) -> Lora:
    """A LoRA from "FILE" or "FILE:WEIGHT"; several weights, with commas, are one for each section.

    What follows the last colon is a weight only where it looks like one, so that C:/walk.safetensors is a file, and
    a file that exists under the whole name is that file.

    >>> lora("walk.safetensors"), lora("walk.safetensors:0.8,0")
    (Lora(path='walk.safetensors', weights=(1.0,)), Lora(path='walk.safetensors', weights=(0.8, 0.0)))
    """
    from longtake.job import Lora

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
