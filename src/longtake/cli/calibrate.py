"""`longtake calibrate`: measure the ratios that the cache mag needs, for a model, a size and a number of steps."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from longtake.cli.options import add_job_options, add_json, add_machine, job_of, machine_of
from longtake.errors import JobError
from longtake.job import Anchor, Job

if TYPE_CHECKING:
    from longtake.cli.progress import Progress
    from longtake.pipeline.networks import Networks
    from longtake.sampling.ratios import Ratios

USAGE = "MODEL PICTURE PROMPT [PICTURE PROMPT ...] [options]"
EXAMPLES = """\
longtake calibrate embedded penguin.png "A penguin dances in the snow." -o ratios.json
longtake calibrate models/framepack a.png "He waves." b.png "It rains." --size 640x608 -o ratios.json
longtake generate penguin.png "A penguin dances in the snow." --cache "mag:0.1,2,0.25;ratios.json"
"""
FIELDS = (
    "negative_prompt", "parts", "frames", "width", "sampling", "window", "steps", "solver", "guidance", "cfg_scale",
    "cfg_rescale", "shift", "seed", "dtype", "quantize",
)  # fmt: skip
"""The fields that decide the ratios; one section is enough of a video."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, what its videos begin with, and how they are sampled."""
    parser.add_argument("model", metavar="MODEL", help="a folder, owner/name on the hub, or embedded")
    parser.add_argument("picture", metavar="PICTURE", help="the first frame of a video")
    parser.add_argument("prompt", metavar="PROMPT", help="what happens in it")
    parser.add_argument("more", nargs="*", metavar="PICTURE PROMPT", help="further videos")
    parser.add_argument(
        "-o", "--output", metavar="OUT.json", default="ratios.json", help="default: %(default)s"
    )
    add_job_options(parser, FIELDS)
    add_machine(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Make the videos without decoding them, measure, and write the ratios."""
    from longtake.cli.make import load
    from longtake.cli.progress import progress_for
    from longtake.launched import launched
    from longtake.sampling.ratios import write_ratios
    from longtake.video import check_writable

    if launched()[1] > 1:
        raise JobError("Ratios are measured by one process; start it alone.")
    jobs = jobs_of(job_of(args), args.more)
    output, progress = check_writable(args.output, ".json"), progress_for(args.json)
    networks = load(jobs[0], machine_of(args), progress)
    ratios, made = measured(jobs, networks, progress)
    facts = {
        "model": made.model, "sampling": made.sampling, "steps": made.steps, "width": made.width,
        "height": made.height, "cfg_scale": made.cfg_scale, "videos": len(jobs),
    }  # fmt: skip
    write_ratios(Path(output), ratios, facts)
    progress.emit("done", file=str(output), ratios=ratios, **facts)
    if progress.style != "json":
        branches = "1 branch" if len(ratios) == 1 else f"{len(ratios)} branches"
        print(
            f"{output}: {made.steps} ratios of {branches} of guidance; use them by --cache mag:{args.output}"
        )


def jobs_of(job: Job, more: Sequence[str]) -> list[Job]:
    """The job, and one for each further pair of a picture and a prompt."""
    if len(more) % 2:
        raise JobError(f"Pictures and prompts come in pairs; {more[-1]!r} has no prompt.")
    pairs = zip(more[::2], more[1::2], strict=True)
    return [job, *(replace(job, anchors=(Anchor(0, at),), prompt=prompt) for at, prompt in pairs)]


def measured(jobs: Sequence[Job], networks: Networks, progress: Progress) -> tuple[Ratios, Job]:
    """The ratios of all these videos, and the last job as it was made."""
    from longtake.pipeline.calibrate import Calibration
    from longtake.pipeline.loop import generate
    from longtake.pipeline.prepare import Inputs, settled
    from longtake.video.edges import load_picture

    measure = Calibration(networks.transformer, jobs[0].steps, 2 if jobs[0].cfg_scale > 1 else 1)
    pictures = [load_picture(job.picture) for job in jobs]
    for job, picture in zip(jobs, pictures, strict=True):
        # All in the first one's size.
        job = made = settled(replace(job, width=jobs[0].width, height=jobs[0].height), networks, picture)
        progress.loaded(job)
        events = generate(job, networks, Inputs(picture), convert=None, wrap=measure)
        with contextlib.closing(events), contextlib.closing(progress.follow(events)) as told:
            for _ in told:
                pass
    return measure.ratios, made
