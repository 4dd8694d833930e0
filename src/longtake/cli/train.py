"""`longtake train`: train the embedded model on toyworld, from scratch or from its last checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from longtake.cli.options import add_machine, number
from longtake.errors import JobError

USAGE = "STAGE [options]"
EXAMPLES = """\
longtake train all
longtake train autoencoder --minutes 40
longtake train transformer --folder runs/second --no-resume --seed 1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options: the stage, the folder and the length of the training."""
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
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes",
        type=number,
        metavar="X",
        help="how long each stage takes by the clock (default: 40, 20 and 120)",
    )
    length.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="how long each stage takes in steps: the same result however often it is stopped",
    )
    parser.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, help="go on from the last checkpoint (the default)"
    )
    parser.set_defaults(resume=True)  # apart, since Python 3.10 would say it in the help again
    add_machine(parser, ("device",))
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Train."""
    if args.minutes is not None and args.minutes <= 0:
        raise JobError(f"The minutes must be more than 0; {args.minutes:g} was asked for.")
    if args.steps is not None and args.steps < 1:
        raise JobError(f"The steps must be at least 1; {args.steps} were asked for.")
    if args.threads is not None and args.threads < 1:
        raise JobError(f"The threads must be at least 1; {args.threads} was asked for.")
    if args.seed < 0:
        raise JobError(f"The seed must not be negative; {args.seed} was asked for.")
    if args.folder.exists() and not args.folder.is_dir():
        raise JobError(f"{args.folder} is a file; training needs a folder.")
    from longtake.toy.judge import judge
    from longtake.toy.recipe import train
    from longtake.training.loop import Length

    given = args.steps is not None or args.minutes is not None
    train(
        args.stage,
        args.folder,
        judge,
        length=Length(args.steps, args.minutes) if given else None,
        resume=args.resume,
        threads=args.threads,
        seed=args.seed,
        device=args.device or "auto",
    )
