"""`longtake encode`: encode videos and pictures once, for training, or say what there is and what is skipped."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from longtake.cli.bars import Row
from longtake.cli.options import (
    SIZE,
    add_json,
    add_machine,
    add_one,
    add_option,
    add_settings,
    machine_of,
    parts_of,
    size,
)
from longtake.cli.pace import Pace, time_left
from longtake.option import options
from longtake.training.settings import Settings

if TYPE_CHECKING:
    from longtake.cli.progress import Progress
    from longtake.training.data import Encoded, Plan

USAGE = "MODEL DATA [options]"
EXAMPLES = """\
longtake encode embedded clips --dry-run
longtake encode framepack clips --vram 12
longtake encode framepack dataset.toml --cache /big/cache
"""
OPTIONS = options(Settings)
DATA = tuple(name for name, option in OPTIONS.items() if option.group == "data")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the data, and how they are cut: as in finetune, which takes the same cache for the same options."""
    parser.add_argument(
        "model", metavar="MODEL", help="a folder, a name on the hub, or a short name such as framepack"
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a folder of videos and pictures, or musubi-tuner's dataset TOML (docs/data.md)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what there is and what it takes; load no network, write nothing",
    )
    add_settings(parser, Settings, {"data": "the data"})
    add_one(parser, "window", OPTIONS["window"], f"{OPTIONS['window'].help} (default: {Settings().window})")
    parser.add_argument(
        "--size", type=size, metavar="WxH", help=f"{SIZE} (default: the model's own, else buckets)"
    )
    for name in ("parts", "dtype"):
        add_option(parser, name)
    add_machine(parser, ("device", "vram", "memory"))
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Say what there is, and encode what is missing."""
    given = {name: getattr(args, name) for name in (*DATA, "window") if getattr(args, name) is not None}
    if args.size is not None:
        given["width"], given["height"] = args.size
    settings = Settings(**given)
    settings.check()
    from longtake.cli.progress import progress_for

    progress, machine = progress_for(args.json), machine_of(args)
    from longtake.training.data import encode, encoders, plan, reading

    made = encoders(
        args.model, parts_of(args.parts or ()), args.dtype or "auto", machine, progress.downloading
    )
    planned, tell = plan(args.data, made, reading(settings)), telling(progress)
    progress.emit("data", **values_of(planned))
    for line in planned.lines():
        progress.say(line)
    if args.dry_run:
        return
    for event in encode(planned, made):
        tell(event)
    progress.clear()
    caches = sorted({str(item.dataset.cache) for item in planned.survey.items})
    progress.emit("done", caches=caches)
    progress.say(f"the cache is whole: {', '.join(caches)}")


def telling(progress: Progress, clock: Callable[[], float] = time.perf_counter) -> Callable[[Encoded], None]:
    """A function that tells people and machines what is encoded, with the time left."""
    paces: dict[str, Pace] = {}

    def tell(event: Encoded) -> None:
        pace = paces.setdefault(event.kind, Pace(event.total, event.done, clock))
        pace.at(event.done)
        left = None if pace.left is None else round(pace.left, 1)
        progress.emit("encoded", **vars(event), seconds_left=left)
        told = f"encoding {event.kind} {event.done}/{event.total}  {time_left(left)}"
        progress.show(Row(told, event.done, event.total))
        if event.note:
            progress.say(f"note: {event.note}")

    return tell


def values_of(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values."""
    found = plan.survey
    return {
        "examples": len(found.items),
        "frames": sum(item.frames for item in found.items),
        "to_encode": len(plan.items),
        "prompts_to_encode": len(plan.prompts),
        "bytes": plan.bytes,
        "skipped": {each.name: each.why for each in (*found.skipped, *plan.skipped)},
        "notes": [str(note) for note in found.notes],
        "orphans": [str(path) for path in plan.orphans],
        "caches": [str(dataset.cache) for dataset in found.datasets],
    }
