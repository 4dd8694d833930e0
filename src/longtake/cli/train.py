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
longtake train transformer --folder runs/on --start embedded --batch 48 --rate 1.5e-3 --scenes 500
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
    parser.add_argument(
        "--start",
        metavar="MODEL",
        help='begin a new run from the weights of this model ("embedded", a folder)',
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help="clips or sections to a step (default: the stage's)"
    )
    parser.add_argument(
        "--rate", type=number, metavar="X", help="the highest learning rate (default: the stage's)"
    )
    parser.add_argument(
        "--scenes", type=int, metavar="N", help="scenes in the transformer's pool (default: 1500)"
    )
    add_machine(parser, ("device",))
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Train."""
    _check(args)
    from longtake.pipeline.loading import load_networks
    from longtake.toy.judge import judge
    from longtake.toy.recipe import SCENES, train
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
        scenes=args.scenes or SCENES,
        device=args.device or "auto",
        start=None if args.start is None else load_networks(args.start),
        batch=args.batch,
        rate=args.rate,
    )


def _check(args: argparse.Namespace) -> None:
    if args.minutes is not None and args.minutes <= 0:
        raise JobError(f"The minutes must be more than 0; {args.minutes:g} was asked for.")
    for name, least in (("steps", 1), ("threads", 1), ("batch", 3), ("scenes", 1), ("seed", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            be = "must not be negative" if not least else f"must be at least {least}"
            was = "was" if name in ("threads", "seed") else "were"
            raise JobError(f"The {name} {be}; {value} {was} asked for.")
    if args.rate is not None and not 0 < args.rate < 1:
        raise JobError(f"The rate lies between 0 and 1; {args.rate:g} was asked for.")
    if args.scenes is not None and args.stage in ("autoencoder", "decoder"):
        raise JobError(f"The stage {args.stage!r} has no pool of scenes; leave --scenes out.")
    if args.rate is not None and args.stage == "all":
        raise JobError("Each stage has a rate of its own; ask for --rate with one stage.")
    if args.batch is not None and args.stage == "all":
        raise JobError("Each stage has a batch of its own; ask for --batch with one stage.")
    if args.folder.exists() and not args.folder.is_dir():
        raise JobError(f"{args.folder} is a file; training needs a folder.")
