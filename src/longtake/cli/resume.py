"""`longtake resume`: go on with a job whose process ended, from its last finished section."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from longtake.cli.options import add_device, add_json, add_option, parts_of

USAGE = "DIR [options]"
EXAMPLES = """\
longtake resume penguin
longtake resume penguin -o elsewhere.mp4 --model models/framepack --device cuda:1
"""


@dataclass(frozen=True)
class Place:
    """A job's folder, and where its model and its video are now; None is where they were."""

    folder: Path
    output: str | None
    model: str | None
    parts: Mapping[str, str]
    device: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every verb on a job takes: its folder, where the model and the video are now, the device, and JSON."""
    parser.add_argument("folder", metavar="DIR", help="the folder that generate --job made")
    parser.add_argument("-o", "--output", metavar="OUT.mp4", help="the video (default: where the job has it)")
    add_option(parser, "model", "where the job's model is now (default: where it was)")
    add_option(parser, "parts", "where one part of it is now; may be given several times")
    add_device(parser)
    add_json(parser)


def place_of(args: argparse.Namespace) -> Place:
    """What the arguments of `add_arguments` say."""
    return Place(Path(args.folder), args.output, args.model, parts_of(args.parts or ()), args.device)


def run(args: argparse.Namespace) -> None:
    """Make what the job lacks, and its video."""
    from longtake.cli.make import go_on
    from longtake.cli.progress import progress_for

    go_on(place_of(args), lambda job: job, progress_for(args.json))
