"""`longtake train`: train the embedded model on toyworld, from scratch or from its last checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from longtake.cli.options import number
from longtake.errors import JobError

USAGE = "STAGE [options]"
EXAMPLES = """\
longtake train all
longtake train autoencoder --minutes 40
longtake train transformer --folder runs/second --no-resume --seed 1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The stage, and where and how long."""
    parser.add_argument(
        "stage", metavar="STAGE", choices=("autoencoder", "decoder", "transformer", "all"), help="%(choices)s"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        default=Path("runs/train"),
        help="checkpoints, log and sheets (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes", type=number, metavar="X", help="stop after so long (default: when the recipe ends)"
    )
    parser.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True, help="go on from the last checkpoint"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Train."""
    if args.minutes is not None and args.minutes <= 0:
        raise JobError(f"The minutes must be more than 0; {args.minutes:g} was asked for.")
    if args.threads is not None and args.threads < 1:
        raise JobError(f"The threads must be at least 1; {args.threads} was asked for.")
    if args.seed < 0:
        raise JobError(f"The seed must not be negative; {args.seed} was asked for.")
    if args.folder.exists() and not args.folder.is_dir():
        raise JobError(f"{args.folder} is a file; training needs a folder.")
    from longtake.toy.judge import judge
    from longtake.toy.recipe import train

    train(
        args.stage,
        args.folder,
        judge,
        minutes=args.minutes,
        resume=args.resume,
        threads=args.threads,
        seed=args.seed,
    )
