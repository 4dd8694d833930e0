"""A job's folder, as the verbs that go on with it name it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from longtake.cli.options import add_json, add_machine, add_option, machine_of, parts_of
from longtake.machine import Machine


@dataclass(frozen=True)
class Place:
    """A job's folder, and the present places of its model and its video; None is the place that the job knows."""

    folder: Path
    output: str | None
    model: str | None
    parts: Mapping[str, str]
    machine: Machine


def add_place(parser: argparse.ArgumentParser) -> None:
    """The options of every verb on a job: its folder, the places of its model and its video, the machine, JSON."""
    parser.add_argument("folder", metavar="DIR", help="the folder that generate --job made")
    parser.add_argument("-o", "--output", metavar="OUT.mp4", help="the video (default: where the job has it)")
    add_option(parser, "model", "where the job's model is now (default: where it was)")
    add_option(parser, "parts", "where one part of it is now; may be given several times")
    add_machine(parser)
    add_json(parser)


def place_of(args: argparse.Namespace) -> Place:
    """The place that the arguments of `add_place` name."""
    return Place(Path(args.folder), args.output, args.model, parts_of(args.parts or ()), machine_of(args))
