"""`longtake plan`: the sections of a video, in the order of generation, and what each of them sees."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator

from longtake.cli.options import add_job_options, job_of, size
from longtake.job import Anchor, Job
from longtake.plan.plans import kind_named, plan_of
from longtake.plan.sections import Plan
from longtake.plan.table import table

USAGE = "[options]"
EXAMPLES = """\
longtake plan --seconds 5
longtake plan --frames 145 --sampling vanilla --size 640x608
longtake plan --seconds 5 --last-image --json
"""
FIELDS = ("frames", "fps", "sampling", "window", "history", "reference")
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
        "--size",
        type=size,
        default=(64, 64),
        metavar="WxH",
        help="pixels, for the token counts (default: 64x64)",
    )
    parser.add_argument("--json", action="store_true", help="print the plan as one JSON object")


def run(args: argparse.Namespace) -> None:
    """Print the plan, section by section: it may be long."""
    job = job_of(args)
    for piece in as_json(job) if args.json else as_text(job):
        print(piece, end="")
    print()


def as_json(job: Job) -> Iterator[str]:
    """The plan of a job as one object of JSON, in pieces."""
    plan = plan_of(job)
    head = json.dumps({"sampling": job.sampling, "frames": plan.frames, "made": plan.made, "sections": []})
    yield head.removesuffix("]}")
    for place, section in enumerate(plan):
        values = dataclasses.asdict(section)
        if values["far"] is None:
            del values["far"]
        else:
            values["far"]["frames"] = [section.far.frames.start, section.far.frames.stop]  # type: ignore[union-attr]
        yield (", " if place else "") + json.dumps(values)
    yield "]}"


def as_text(job: Job) -> Iterator[str]:
    """The plan of a job as a table under two sentences, in pieces."""
    plan, width, height = plan_of(job), job.width or 0, job.height or 0
    kept = f"{plan.made} frames" if plan.made == plan.frames else f"{plan.made} frames, cut to {plan.frames}"
    plural = "s" if plan.count != 1 else ""
    yield f"{job.sampling}: {plan.count} section{plural} of {plan.window} latent frames make {kept}\n"
    yield f"{traits(job, plan)}\n"
    if plan.notice:
        yield f"note: {plan.notice}\n"
    yield f"tokens at {width} x {height} pixels; latent frame 0 is the picture\n\n"
    yield table(plan, height, width)


def traits(job: Job, plan: Plan) -> str:
    """One line of facts about the plan as a whole.

    >>> traits(Job("", sampling="endpoint"), plan_of(Job("", sampling="endpoint")))
    'f1k1_x_f16k4f2k2f1k1_g9_x_f1k1: the end first, then onwards to it; first frames after 2 sections'
    """
    kind, count = kind_named(job.sampling), plan.made_at(0) + 1
    shown = f"first frames after {count} section{'s' if count != 1 else ''}"
    return f"{kind.structure}: {kind.help}; {shown}{', can be extended' if plan.extendable else ''}"
