"""`longtake generate`: a picture and a sentence become a video."""

from __future__ import annotations

import argparse
from pathlib import Path

from longtake.cli.options import OPTIONS, add_job_options, add_json, add_machine, job_of, machine_of
from longtake.cli.outputs import add_output_options, outputs_of

USAGE = "PICTURE PROMPT [options]"
EXAMPLES = """\
longtake generate penguin.png "A penguin dances in the snow." -o penguin.mp4
longtake generate penguin.png "A penguin dances." --seconds 20 --sampling vanilla --job penguin
longtake generate first.png "A bird lands." --last-image last.png --seed 7 --preview
longtake generate penguin.png "A penguin dances." --negative "blur" --cfg 3 --lora walk.safetensors:0.8
longtake generate penguin.png "A penguin dances." --model framepack --job penguin
longtake generate penguin.png "A penguin dances." --model framepack-f1 --part transformer=F1_fp8.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The picture, the sentence, an option for each field of a job, and the files."""
    parser.add_argument("picture", metavar="PICTURE", help="the first frame: a file or an http(s) address")
    parser.add_argument("prompt", metavar="PROMPT", help=OPTIONS["prompt"].help)
    add_job_options(parser)
    add_output_options(parser)
    add_machine(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Check what is asked, and make it."""
    job, machine = job_of(args), machine_of(args)
    with outputs_of(args, job) as outputs:
        from longtake.cli.make import make
        from longtake.cli.progress import progress_for

        place = None if args.job is None else Path(args.job).resolve()
        make(job, outputs, place, machine, progress_for(args.json))
