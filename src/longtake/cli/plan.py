"""`longtake plan`: the sections of a video, in the order of generation, and what each of them sees."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from longtake.cli.directing import add_directing
from longtake.cli.options import add_job_options, job_of, size
from longtake.job import Anchor, Clip, Job
from longtake.plan import told
from longtake.plan.layout import LATENT_FRAMES
from longtake.plan.plans import kind_named, plan_of
from longtake.plan.sections import Plan
from longtake.plan.table import table

USAGE = "[PROMPT] [options]"
EXAMPLES = """\
longtake plan --seconds 5
longtake plan "A penguin [0s-2s: walks] [2s: jumps]" --keyframe 2=b.png --blend 1
longtake plan "0:A penguin walks;;;2:it jumps" --sampling vanilla
longtake plan --frames 145 --sampling vanilla --size 640x608
longtake plan --seconds 5 --last-image --json
"""
FIELDS = (
    "frames", "fps", "seed", "loras", "blend", "loop", "unforeseen", "sampling", "window", "history", "reference"
)  # fmt: skip
"""The fields of a job that decide its plan and what its sections are told, besides the prompts and the pictures."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a job that decide its plan."""
    parser.add_argument(
        "prompt", nargs="?", metavar="PROMPT", help="what happens; in time as for longtake generate"
    )
    add_job_options(parser, FIELDS)
    pictures = parser.add_argument_group("what stands in time")
    add_directing(pictures)
    pictures.add_argument(
        "--from-text",
        action="store_true",
        default=None,
        help="as without a picture to begin with, for a model that was trained so",
    )
    pictures.add_argument(
        "--clip",
        action="store_const",
        const=Clip("a clip"),
        help="as with a video to go on from, or to lead to",
    )
    pictures.add_argument(
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
    plan, directed = plan_of(job), told.in_time(job)
    values: dict[str, Any] = {"sampling": job.sampling, "frames": plan.frames, "made": plan.made}
    if directed:
        values["times"] = [
            {"what": each.what, "asked": each.asked / job.fps, "came": each.came / job.fps}
            for each in told.moves(job, plan)
        ]
    head = json.dumps({**values, "sections": []})
    yield head.removesuffix("]}")
    for place, section in enumerate(plan):
        values = dataclasses.asdict(section)
        if values["far"] is None:
            del values["far"]
        else:
            values["far"]["frames"] = [section.far.frames.start, section.far.frames.stop]  # type: ignore[union-attr]
        if directed:
            values["told"] = told.values_of(job, plan, section.number)
        yield (", " if place else "") + json.dumps(values)
    yield "]}"


def as_text(job: Job) -> Iterator[str]:
    """The plan of a job as a table under two sentences, in pieces."""
    plan, width, height = plan_of(job), job.width or 0, job.height or 0
    kept = f"{plan.made} frames" if plan.made == plan.frames else f"{plan.made} frames, cut to {plan.frames}"
    plural = "s" if plan.count != 1 else ""
    most = "" if even(plan) else "up to "
    yield f"{job.sampling}: {plan.count} section{plural} of {most}{plan.window} latent frames make {kept}\n"
    yield f"{traits(job, plan)}\n"
    if plan.notice:
        yield f"note: {plan.notice}\n"
    if told.in_time(job):
        yield f"\n{told.moved_table(job, plan)}\n\n{told.said_table(job, plan)}\n\n"
    yield f"tokens at {width} x {height} pixels; {_begun(job, plan)}\n\n"
    yield table(plan, height, width)


def even(plan: Plan) -> bool:
    """Tell if all sections are of one length."""
    return plan.made in (
        plan.count * plan.window * LATENT_FRAMES + 1,
        plan.count * plan.window * LATENT_FRAMES,
    )


def _begun(job: Job, plan: Plan) -> str:
    """The given pictures, by their latent frames."""
    lasting = "latent frame 0 is the picture"
    if plan.lead:
        lasting = f"latent frames 0-{plan.lead - 1} are the end of the clip"
    elif job.from_text:
        lasting = "latent frame 0 is made from the prompt"
    elif job.clip:
        lasting += f", {plan.anchors[1]}-{plan.anchors[-1]} are the beginning of the clip"
    keys = plan.starts[1:]
    if not keys:
        return lasting
    return (
        f"{lasting}, {', '.join(map(str, keys))} {'is a key frame' if len(keys) == 1 else 'are key frames'}"
    )


def traits(job: Job, plan: Plan) -> str:
    """One line of facts about the plan as a whole.

    >>> traits(Job("", sampling="endpoint"), plan_of(Job("", sampling="endpoint")))
    'f1k1_x_f16k4f2k2f1k1_g9_x_f1k1: the end first, then onwards to it; first frames after 2 sections'
    """
    kind, count = kind_named(job.sampling), plan.made_at(0) + 1
    shown = f"first frames after {count} section{'s' if count != 1 else ''}"
    return f"{kind.structure}: {kind.help}; {shown}{', can be extended' if plan.extendable else ''}"
