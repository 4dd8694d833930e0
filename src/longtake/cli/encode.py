"""`longtake encode`: encode videos and pictures once, for training, or say what there is and what is skipped."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.cli.options import add_json, add_machine, add_option, machine_of, number, parts_of, size
from longtake.errors import JobError

if TYPE_CHECKING:
    from longtake.cli.progress import Progress
    from longtake.training.data import Encoded, Plan, Settings

USAGE = "MODEL DATA [options]"
EXAMPLES = """\
longtake encode embedded clips --dry-run
longtake encode framepack clips --vram 12
longtake encode framepack dataset.toml -o cache
"""
WINDOW = 9
"""Latent frames of a section in the released models."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the data, and how they are cut."""
    parser.add_argument(
        "model", metavar="MODEL", help="a folder, owner/name on the hub, or a short name such as framepack"
    )
    parser.add_argument("data", metavar="DATA", help=DATA)
    add_data_options(parser, cache=("-o", "--output"))
    parser.add_argument(
        "--dry-run", action="store_true", help="say what there is and what it takes, and load nothing"
    )
    model = parser.add_argument_group("the model")
    add_option(
        model, "parts", "where one part of the model is, if it is elsewhere; may be given several times"
    )
    add_option(model, "dtype")
    add_machine(parser, ("device", "vram", "memory"))
    add_json(parser)


DATA = "a folder of videos and pictures with .txt beside them or a metadata.jsonl, or musubi-tuner's dataset.toml"


def add_data_options(parser: Any, cache: tuple[str, ...] = ("--cache",)) -> None:
    """How a folder of data is read; for every verb that learns from one."""
    group = parser.add_argument_group(
        "the data", "What a dataset.toml says of these goes before, but for the cache."
    )
    group.add_argument(
        *cache,
        dest="data_cache",
        type=Path,
        metavar="DIR",
        help="where encodings are kept (default: beside the data)",
    )
    group.add_argument(
        "--size",
        type=size,
        metavar="WxH",
        help="size in pixels (default: the model's own, else FramePack's buckets)",
    )
    group.add_argument(
        "--data-fps", type=_rate, default=30.0, metavar="X",
        help="frames a second that a video is brought to, by its own times; all: every frame as it is (default: 30)",
    )  # fmt: skip
    group.add_argument(
        "--max-frames",
        type=int,
        metavar="N",
        help="learn from so many frames of each video at most (default: all)",
    )
    group.add_argument("--caption", metavar="TEXT", help="what is said of files that have no caption")
    add_option(group, "window")


def settings_of(args: argparse.Namespace) -> Settings:
    """What the options of `add_data_options` ask for; JobError if it cannot be."""
    from longtake.training.data import Settings

    window = WINDOW if args.window is None else args.window
    if window < 1:
        raise JobError(f"A section has at least one latent frame; a window of {window} was asked for.")
    return Settings(window, args.data_fps, args.max_frames, args.size, args.caption, args.data_cache)


def telling(
    progress: Progress, clock: Callable[[], float] = time.perf_counter
) -> Callable[[Plan | Encoded], None]:
    """A listener for `open_data` that tells people and machines what it hears, with the time left."""
    from longtake.training.data import Plan

    begun: dict[str, float] = {}

    def tell(event: Plan | Encoded) -> None:
        if isinstance(event, Plan):
            progress.emit("data", **values_of(event))
            for line in event.lines():
                progress.say(line)
            return
        first = begun.setdefault(event.kind, clock())
        left = (clock() - first) / max(event.done - 1, 1) * (event.total - event.done)
        known = event.done > 1
        progress.emit(
            "encoded", kind=event.kind, done=event.done, total=event.total, note=event.note or None,
            seconds_left=round(left, 1) if known else None,
        )  # fmt: skip
        progress.show(
            f"{event.kind}s encoded: {event.done} of {event.total}"
            + (f"  {left:.0f} s left" if known else "")
        )
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


def _rate(text: str) -> float | None:
    if text == "all":
        return None
    rate = number(text)
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text} frames a second are not between 0 and 1000")
    return rate


def run(args: argparse.Namespace) -> None:
    """Say what there is, and encode what is missing."""
    from longtake.cli.progress import progress_for

    progress = progress_for(args.json)
    settings, tell = settings_of(args), telling(progress)
    machine = machine_of(args)
    from longtake.training.data import encode, encoders, plan

    made = encoders(
        args.model, parts_of(args.parts or ()), args.dtype or "auto", machine, progress.downloading
    )
    planned = plan(args.data, made, settings)
    tell(planned)
    if args.dry_run:
        return
    for event in encode(planned, made):
        tell(event)
    progress.clear()
    progress.emit("done", examples=len(planned.survey.items))
    progress.say(f"encoded: {', '.join(sorted({str(item.dataset.cache) for item in planned.survey.items}))}")
