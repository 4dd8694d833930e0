"""`longtake finetune`: train a LoRA, or the whole transformer, on your own videos."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from longtake.cli.company import speaking
from longtake.cli.follow import quiet
from longtake.cli.options import (
    SIZE,
    add_json,
    add_machine,
    add_option,
    add_settings,
    machine_of,
    parts_of,
    size,
)
from longtake.launched import launched
from longtake.training.settings import Settings

USAGE = "MODEL DATA -o OUT [options]"
EXAMPLES = """\
longtake finetune framepack clips -o walk --steps 2000
longtake finetune embedded clips -o cartoon --rank 8 --lr 1e-3 --sample-prompts prompts.txt
longtake finetune framepack-f1 dataset.toml -o walk --sampling vanilla --batch 2 --accumulate 4 --average 0.999
longtake finetune framepack clips -o walk --gradient-checkpointing --quantize int8
longtake generate me.png "He walks." --model framepack --lora walk
"""
GROUPS = {
    "learns": "what learns",
    "data": "the data",
    "sections": "the sections that are learnt",
    "steps": "the steps",
    "files": "what is written",
}
"""Titles of the groups of options in the help, in their order."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the data, the folder, and an option for each setting."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a folder, a name on the hub, or a short name such as framepack",
    )
    parser.add_argument(
        "data", metavar="DATA", help="a folder of videos, or musubi-tuner's dataset TOML (docs/data.md)"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="the folder of this run; a stopped one goes on"
    )
    add_settings(parser, Settings, GROUPS)
    parser.add_argument(
        "--size", type=size, metavar="WxH", help=f"{SIZE} of what is learnt (default: the model's own)"
    )
    more = parser.add_argument_group("while it learns")
    more.add_argument(
        "--sample-prompts",
        metavar="FILE",
        help="make a sheet of each of its lines: text --w --h --f --d --s --g --i picture",
    )
    more.add_argument(
        "--log",
        metavar="NAMES",
        default="",
        help="logs beside log.jsonl: tensorboard, trackio, or both with a comma between",
    )
    for name in ("parts", "quantize"):
        add_option(parser, name)
    add_machine(parser)
    add_json(parser)


def run(args: argparse.Namespace, told: Callable[[Any], None] = lambda company: None) -> None:
    """Train, and tell how far it is; of several processes the first one tells it. `told` is given those that met."""
    settings = settings_of(args)
    settings.check()
    from longtake.cli.progress import progress_for
    from longtake.cli.telling import follow

    progress = progress_for(args.json)
    logs = [name.strip() for name in args.log.split(",") if name.strip()]
    if launched()[1] > 1:
        quiet()
    from longtake.training.company import met
    from longtake.training.finetune import finetune

    machine = machine_of(args)
    company = met(machine.device)
    told(company)
    with speaking(company if company is not None and company.first else None):
        events = finetune(
            args.model,
            args.data,
            args.output,
            settings,
            parts=parts_of(args.parts or ()),
            quantize=args.quantize or "none",
            machine=machine if company is None else replace(machine, device=company.device),
            samples=args.sample_prompts,
            logs=logs,
            company=company,
        )
        if company is None or company.first:
            again = shlex.join(["longtake", *sys.argv[1:]])
            follow(events, progress, again)
        else:
            for _ in events:
                pass
    if company is not None:
        company.close()


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that the options ask for."""
    known = Settings().values()
    given = {name: value for name, value in vars(args).items() if name in known and value is not None}
    if args.size is not None:
        given["width"], given["height"] = args.size
    return Settings(**given)
