"""`longtake quantize`: write a model anew with the weights of its blocks in 8 bits: half the disk, half the memory."""

from __future__ import annotations

import argparse

from longtake.cli.options import add_option, mute_hub, parts_of

USAGE = "MODEL -o DIR [options]"
EXAMPLES = """\
longtake quantize framepack -o framepack-int8 --bits 8
longtake quantize embedded -o small --form fp8 --keep-first 1 --keep-last 1
longtake quantize framepack -o framepack-int8 --networks transformer,text_encoder
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the new folder, and the form."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a folder, a file, a name on the hub, or a short name such as framepack",
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the new folder")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--form",
        choices=("int8", "fp8"),
        default="int8",
        help="int8 is more exact; fp8 is what some devices multiply (default: %(default)s)",
    )
    form.add_argument(
        "--bits",
        type=int,
        choices=(8,),
        metavar="8",
        help="8 bits a weight, the only number that is made here",
    )
    parser.add_argument(
        "--networks",
        metavar="NAMES",
        default="transformer",
        help="transformer, text_encoder, or both with a comma between (default: %(default)s)",
    )
    for name, words in (("--keep-first", "first"), ("--keep-last", "last")):
        help = f"so many of the {words} blocks stay as they are (default: %(default)s)"
        parser.add_argument(name, type=int, default=0, metavar="N", help=help)
    add_option(
        parser, "parts", "where one part of the model is, if it is elsewhere; may be given several times"
    )
    parser.add_argument(
        "--max-shard-size", metavar="SIZE", default="10GB", help="of one file (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the folder and say what it holds."""
    mute_hub()
    from longtake.models.quantised import EightBitConfig
    from longtake.pipeline.quantising import quantise

    config = EightBitConfig(args.form, args.keep_first, args.keep_last)
    names = tuple(name.strip() for name in args.networks.split(","))
    folder = quantise(args.model, args.output, config, names, parts_of(args.parts or ()), args.max_shard_size)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 1e6:,.1f} MB; {', '.join(names)} in {config.word}")
