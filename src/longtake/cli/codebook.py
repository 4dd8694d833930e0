"""`longtake codebook`: fit the codes of a discrete history to a model's latents, and say what they leave."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.cli.bars import Row
from longtake.cli.options import add_json, add_machine, add_option, machine_of, parts_of, size
from longtake.errors import JobError, ModelError
from longtake.named import named
from longtake.option import check_number
from longtake.sampling.ways import MOST, MOST_GROUPS, name_of, numbers_of

if TYPE_CHECKING:
    import numpy as np

    from longtake.cli.progress import Progress
    from longtake.pipeline.fitting import Clip

CODEBOOK = "codebook"
USAGE = "MODEL DATA [-k K ...] [-o DIR] [options]"
EXAMPLES = """\
longtake codebook embedded toyworld -k 64 -k 256 -k 1024
longtake codebook models/mine clips/ -k 256 -k 256x4 -k 256x8
longtake codebook framepack clips/ -k 256 -k 2048 -o codes --size 640x608
longtake generate a.png "He waves." --model framepack --part codebook=codes --history discrete:256
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the videos, the numbers of codes, and where they go."""
    parser.add_argument(
        "model", metavar="MODEL", help="a folder, owner/name on the hub, a short name, or embedded"
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a folder of videos or pictures, a file, or toyworld: scenes that are drawn",
    )
    parser.add_argument(
        "-k",
        "--codes",
        metavar="K[xGROUPS]",
        type=codes,
        action="append",
        help="so many codes, or so many for each of so many groups of channels; may be given several times (default: "
        "256)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="a folder of their own (default: the folder codebook in the model's)",
    )
    parser.add_argument("--overwrite", action="store_true", help="in the place of a codebook that is there")
    parser.add_argument("--size", type=size, metavar="WxH", help="size in pixels (default: the model's own)")
    for name, value, help in (
        ("frames", 145, "most frames of a video"),
        ("scenes", 100, "so many scenes of the toy world"),
        ("pixels", 2**20, "most latent pixels that are held, a sample of all"),
        ("seed", 0, "of the sample and of where the codes begin"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=value, metavar="N", help=f"{help} (default: %(default)s)"
        )
    add_option(
        parser, "parts", "where one part of the model is, if it is elsewhere; may be given several times"
    )
    add_machine(parser, ("device",))
    add_json(parser, "one JSON object on standard output")


def run(args: argparse.Namespace) -> None:
    """Encode, fit, write, and print what each number of codes leaves."""
    counts = sorted(set(args.codes or [(256, 1)]), key=lambda each: each[::-1])
    for count, groups in counts:
        check_number("The number of codes (-k)", count, int, 1, MOST)
        check_number("The number of groups (-k)", groups, int, 1, MOST_GROUPS)
    for name, least in (("frames", 1), ("scenes", 1), ("pixels", 10), ("seed", 0)):
        check_number(f"--{name}", getattr(args, name), int, least)
    output, machine = _output(args), machine_of(args)
    parts = {name: place for name, place in parts_of(args.parts or ()).items() if name == "vae"}
    from longtake.cli.progress import progress_for

    progress = progress_for(args.json)
    from longtake.pipeline.fitting import clips_of, fitted, size_of
    from longtake.weights.codebook import write_codebook

    clips_of(args.data, args.frames, args.scenes)  # refused before a model loads
    from longtake.pipeline.loading import load_networks
    from longtake.pipeline.networks import COMPONENTS

    left_out = {name: None for name in COMPONENTS if name != "vae"}
    networks = load_networks(args.model, given=left_out, parts=parts, machine=machine, placed=False)
    size = args.size or size_of(networks, args.data, args.frames)
    clips = clips_of(args.data, args.frames, args.scenes, size)
    say = _silent if args.json else _say
    say(f"{len(clips)} videos at {size[0]} x {size[1]} pixels")
    books = fitted(_latents(networks.vae, clips, size, progress), counts, args.seed, args.pixels)
    for count, book in zip(counts, books, strict=True):
        if count == counts[0]:
            say(f"{book.facts['pixels']} latent pixels of {book.facts['videos']} videos")
            say("   codes  variance left")
        say(f"{name_of(*count):>8}  {book.left[count]:.4f}")
    facts = {**book.facts, "size": list(size), "data": args.data}
    write_codebook(output, replace(book, facts=facts))
    if args.json:
        residuals = {name_of(*count): share for count, share in book.left.items()}
        print(json.dumps({"event": "done", "folder": str(output), "residuals": residuals, **facts}))
        return
    named_part = f" --part {CODEBOOK}={args.output}" if args.output else ""
    asked = ",".join(map(str, counts[-1][: 1 + (counts[-1][1] > 1)]))
    say(f"{output}: use it by --history discrete:{asked}{named_part}")


def codes(text: str) -> tuple[int, int]:
    """A number of codes, and the groups of channels that they are for, from "256" or "256x4".

    >>> codes("256x4")
    (256, 4)
    """
    try:
        return numbers_of(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"a number of codes looks like 256, or like 256x4 for 4 groups of channels; {text!r} was given"
        ) from None


def _output(args: argparse.Namespace) -> Path:
    """The codebook's folder. Raises an error if it cannot be there, or if one is there already."""
    from longtake.weights.folder import embedded_model

    if args.output:
        output = Path(args.output).absolute()
    else:
        model = embedded_model() if args.model == "embedded" else Path(args.model).expanduser()
        if named(args.model) is not None or not model.is_dir():
            raise ModelError(
                f"{args.model} is no folder into which a codebook could be written; say where it shall be: -o DIR."
            )
        output = (model / CODEBOOK).absolute()
    if output.is_file():
        raise JobError(f"{output} is a file; a codebook is a folder.")
    there = [entry.name for entry in output.iterdir()] if output.is_dir() else []
    if there and not (args.overwrite and set(there) <= {"config.json", "model.safetensors"}):
        what = "is a codebook there already" if "model.safetensors" in there else "are other files"
        raise JobError(
            f"In {output} {what}; name another folder with -o, or put it in its place: --overwrite."
        )
    return output


def _latents(
    vae: Any, clips: Sequence[Clip], size: tuple[int, int], progress: Progress
) -> Iterator[np.ndarray]:
    """The latents of the clips that can be read; the others are named."""
    from longtake.pipeline.fitting import latents_of

    for number, (clip, found) in enumerate(latents_of(vae, clips, size), 1):
        if isinstance(found, str):
            progress.clear()
            print(f"{clip.name} is skipped: {found}", file=sys.stderr)
            continue
        progress.show(Row(f"{number} of {len(clips)} videos are encoded", number, len(clips)))
        yield found
    progress.clear()


def _say(sentence: str) -> None:
    print(sentence, flush=True)


def _silent(sentence: str) -> None:
    pass
