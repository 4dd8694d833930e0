"""The drift study of docs/study.md: groups of arms on the toy world, measured, with a table and a JSON file for each.

    python benchmarks/study.py plans [--model embedded] [--scenes 64] [--seeds 3] [--seconds 60] [--world plain]
    python benchmarks/study.py all --world plain panning

Videos that were measured before are not made again: a run that was stopped goes on. Hardware and command are printed
with each table.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from longtake import toyworld
from longtake.backend import training
from longtake.evaluation.making import Arm, Progressed, evaluate_videos, floor_records, sized, true_records
from longtake.evaluation.records import Keep, Record
from longtake.evaluation.results import arm_of, differences, write_results
from longtake.evaluation.table import table
from longtake.job import Job
from longtake.pipeline.loading import load_networks
from longtake.toy.judge import HELD_OUT, through_autoencoder

Changes = dict[str, Any]

PLANS: dict[str, Changes] = {
    name: {"sampling": name}
    for name in ("vanilla", "inverted", "endpoint", "planned", "unanchored", "sliding", "repeat")
}
DISCRETE: dict[str, Changes] = {
    f"{sampling}+{codes}": {"sampling": sampling, "history": f"discrete:{codes}" if codes != "0" else ""}
    for sampling in ("unanchored", "vanilla")
    for codes in ("1", "16", "256", "4096", "256,4", "256,8", "256,16", "0")
}
TRICKS: dict[str, Changes] = {
    f"{sampling}, {history or 'plain'}": {"sampling": sampling, "history": history}
    for sampling in ("unanchored", "vanilla")
    for history in ("", "noise:0.1", "adaptive", "statistics", "correct:2", "sink:4")
}
GROUPS: dict[str, dict[str, Changes]] = {"plans": PLANS, "discrete": DISCRETE, "tricks": TRICKS}
BASE = {"plans": "vanilla", "discrete": "unanchored+0", "tricks": "unanchored, plain"}
WORLDS: dict[str, Changes] = {"plain": {}}
"""What all scenes of a world have in common, beside what is drawn."""
SHOWN = ("background", "colour", "size", "look", "lost", "speed", "prompted", "seam", "luma", "sharpness")


def scenes_of(world: str, count: int) -> dict[int, toyworld.Scene]:
    """Scenes of a world that no training saw, the motions in turn, by number."""
    motions = toyworld.MOTIONS
    return {
        number: toyworld.random_scene(
            np.random.default_rng((HELD_OUT, 1, number)),
            motion=motions[number % len(motions)],
            **WORLDS[world],
        )
        for number in range(count)
    }


def study(group: str, world: str, args: argparse.Namespace) -> None:
    """Make and measure one group of arms in one world, and print its table."""
    began = time.perf_counter()
    folder = args.folder / f"{group}-{world}"
    keep, scenes = Keep(folder / "videos"), scenes_of(world, args.scenes)
    networks = load_networks(args.model, dtype=args.dtype)
    exact = load_networks(args.model, dtype="float32").vae
    frames = 1 + 36 * round(args.seconds * toyworld.FPS / 36)
    jobs = {
        name: Job("", model=args.model, frames=frames, steps=args.steps, dtype=args.dtype, **changes)
        for name, changes in GROUPS[group].items()
    }
    first = sized(next(iter(jobs.values())), networks)
    size = (first.width or 0, first.height or 0)
    told = [
        true_records(scenes, frames, size, keep=keep, stills=10),
        floor_records(scenes, frames, size, lambda true: through_autoencoder(exact, true)),
        evaluate_videos(
            [Arm(name, job) for name, job in jobs.items()], lambda _: networks, scenes, range(args.seeds),
            batch=args.batch, keep=keep, stills=10,
        ),
    ]  # fmt: skip
    records: dict[str, list[Record]] = {}
    for events in told:
        for event in events:
            if isinstance(event, Progressed):
                print(f"\r{event.arm}: {event.done:.1f} of {event.total}   ", end="", file=sys.stderr)
            else:
                records.setdefault(event.arm, []).append(event)
    results = {name: arm_of(found, {"job": GROUPS[group].get(name, {})}) for name, found in records.items()}
    base = BASE[group]
    write_results(folder / "results.json", results, base)
    minutes = (time.perf_counter() - began) / 60
    print(f"\n## {group}, {world}\n")
    print(
        f"{args.scenes} scenes, {args.seeds} seeds, {frames} frames, {args.steps} steps, {args.dtype}; ",
        end="",
    )
    print(f"{platform.machine()}, {args.threads} threads, {minutes:.0f} minutes of this run\n")
    print(table(results, SHOWN, differences(results, base), base))


def main() -> None:
    """Run the groups that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("group", choices=(*GROUPS, "all"))
    parser.add_argument("--world", nargs="+", choices=list(WORLDS), default=["plain"])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=Path("runs/study"))
    args = parser.parse_args()
    training.set_threads(args.threads)
    for group in GROUPS if args.group == "all" else (args.group,):
        for world in args.world:
            study(group, world, args)


if __name__ == "__main__":
    main()
