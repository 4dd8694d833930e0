"""`longtake generate`: a picture and a sentence become a video."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from longtake.cli.clip import SUFFIXES, clip_of
from longtake.cli.like import add_like, filled
from longtake.cli.options import add_job_options, add_json, add_machine, job_of, machine_of
from longtake.cli.outputs import add_output_options, outputs_of
from longtake.errors import JobError

USAGE = "[PICTURE] PROMPT [options]"
INTERMIXED = True
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""As in longtake.picture, which imports Pillow."""
EXAMPLES = """\
longtake generate penguin.png "A penguin dances in the snow." -o penguin.mp4
longtake generate penguin.png "A penguin dances." --seconds 20 --sampling vanilla --job penguin
longtake generate first.png "A bird lands." --last-image last.png --seed 7 --preview
longtake generate a.png "A penguin [0s-2s: walks] [2s: jumps]" --keyframe 2=b.png --blend 1
longtake generate penguin.png "A penguin dances." --loop
longtake generate clip.mp4 "The penguin jumps." --sampling vanilla -o longer.mp4
longtake generate clip.mp4@3.2s "The penguin jumps."
longtake generate penguin.png "A penguin dances." --negative "blur" --cfg 3 --lora walk.safetensors:0.8
longtake generate penguin.png "A penguin dances." -o penguin.webm --preset fast.json
longtake generate --like penguin.mp4 --seed 8 --seconds 10
longtake generate penguin.png "A penguin dances." --model framepack --job penguin
longtake generate penguin.png "A penguin dances." --model framepack-f1 --part transformer=F1_fp8.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The picture, the sentence, an option for each field of a job, and the files."""
    parser.add_argument(
        "words",
        metavar="PICTURE PROMPT",
        nargs="*",
        help="the first frame (a file, an http(s) address, or CLIP@SECONDS), or a clip to go on from; and what "
        "happens, in one sentence",
    )
    add_job_options(parser)
    add_like(parser)
    add_output_options(parser)
    add_machine(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Check what is asked, and make it."""
    args.picture, args.prompt = named(args.words)
    args.clip = None if args.picture is None else clip_of(args.picture)
    args.picture = args.picture if args.clip is None else None
    args.typed = args.prompt is not None
    if not filled(args):
        print(f"{args.save_preset}: a preset; use it by --preset {args.save_preset}")
        return
    if args.prompt is None:
        raise JobError("A video needs a PROMPT: longtake generate PICTURE PROMPT, or --like VIDEO.")
    job, machine = job_of(args), machine_of(args)
    with outputs_of(args, job) as outputs:
        from longtake.cli.make import make
        from longtake.cli.progress import progress_for

        place = None if args.job is None else Path(args.job).resolve()
        make(job, outputs, place, machine, progress_for(args.json))


def named(words: Sequence[str]) -> tuple[str | None, str | None]:
    """The picture and the prompt among the words; one word is the prompt.

    >>> named(["a.png", "It moves."]), named(["It moves."]), named([])
    (('a.png', 'It moves.'), (None, 'It moves.'), (None, None))
    """
    if len(words) > 2:
        raise JobError(
            f"A picture and a prompt are two words; there are {len(words)}: put the prompt in quotes."
        )
    for kind, suffixes in (("picture", PICTURES), ("clip", SUFFIXES)):
        if len(words) == 1 and words[0].lower().endswith(suffixes):
            raise JobError(
                f"{words[0]} is a {kind}; what happens is missing: longtake generate {words[0]} PROMPT."
            )
    picture, prompt = (None, None, *words)[-2:]
    return picture, prompt
