"""`longtake plan`: the sections of a video, in the order of generation, and what each of them sees."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from longtake.cli.options import add_job_options, job_of, size
from longtake.job import Anchor, Job


USAGE = "[options]"
EXAMPLES = """\
longtake plan --seconds 5
longtake plan --frames 145 --sampling vanilla --size 640x608
longtake plan --seconds 5 --last-image --json
"""
FIELDS = ("frames", "fps", "sampling", "window", "reference")
"""The fields of a job that decide its plan, besides the pictures."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a job that decide its plan."""
    add_job_options(parser, FIELDS)
    parser.add_argument(
        "--last-image",
        dest="anchors",
        action="append_const",
        const=Anchor("end", "a picture"),
        help="as with a picture to end with",
    )
    parser.add_argument(
        "--size", type=size, default=(64, 64), metavar="WxH", help="pixels, for the token counts (default: 64x64)"
    )
    parser.add_argument("--json", action="store_true", help="print the plan as one JSON object")


def run(args: argparse.Namespace) -> None:
    """Print the plan."""
    job = job_of(args)
    print(json.dumps(as_json(job)) if args.json else as_text(job))
