"""`longtake plan`: the sections of a video, in the order of generation, and what each of them sees."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from longtake.cli.options import add_length, add_plan, frames_of, size


def add_parser(verbs: Any) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "plan",
        help="print the sections of a video and what each sees",
        description=__doc__,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    add_length(parser)
    add_plan(parser)
    parser.add_argument("--last-image", action="store_true", help="as with a picture to end with")
    parser.add_argument(
        "--size", type=size, default=(64, 64), metavar="WxH", help="pixels, for the token counts"
    )
    parser.add_argument("--json", action="store_true", help="print the plan as one JSON object")


def run(args: argparse.Namespace) -> None:
    """Print the plan."""
    from longtake.job import Job
    from longtake.plan.plans import plan_of, table, video_frames

    width, height = args.size
    job = Job(
        prompt="",
        frames=frames_of(args),
        fps=args.fps,
        width=width,
        height=height,
        sampling=args.sampling,
        window=args.window,
        last_picture="a picture" if args.last_image else None,
        reference=args.reference,
    )
    job.check()
    sections, planned = plan_of(job, args.last_image)
    made = video_frames(planned.sections, job.window)
    if args.json:
        plan = [dataclasses.asdict(section) for section in sections]
        print(
            json.dumps({"sampling": job.sampling, "frames": planned.frames, "made": made, "sections": plan})
        )
        return
    kept = f"{made} frames" if made == planned.frames else f"{made} frames, cut to {planned.frames}"
    plural = "s" if planned.sections != 1 else ""
    print(f"{job.sampling}: {planned.sections} section{plural} of {job.window} latent frames make {kept}")
    if planned.notice:
        print(f"note: {planned.notice}")
    print(f"tokens at {width} x {height} pixels; latent frame 0 is the picture")
    print()
    print(table(sections, height, width))
