"""Step caches: speed against likeness, on whole videos of the embedded model and on the middle geometry.

    python benchmarks/caches.py [--sampling vanilla] [--count 7] [--frames 73] [--steps 25] [--threads 1]
    python benchmarks/caches.py --middle [--size 128] [--rounds 3]

Embedded: for each of `--count` held-out scenes, one video without a cache, then one with each cache and one with each
of some smaller numbers of steps, which a cache must beat. Told: the share of velocities that were computed; how many
times faster the sampling was than that of the same scene without (median, each ratio within one run); PSNR of all
frames against it (median and worst); what the toy judge measures. Seconds are the process's own (CPU
seconds, with one thread), since neighbours on the machine would show in any other.

`--middle`: random weights, one section, latents instead of frames. Random velocities change from step to step as no
trained network's do, so its likeness says little; it shows what a computed and a skipped step cost.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longtake import FramesReady, Inputs, Job, SectionDone, Stepped, generate, load_networks, toyworld
from longtake.evaluation.scenes import frame_psnr
from longtake.evaluation.summaries import pooled_psnr
from longtake.events import Encoded
from longtake.toy.judge import figures_of, held_out_scenes

CACHES = (
    "easy:0.02", "easy:0.03", "easy:0.05", "easy:0.1", "easy:0.2", "easy:0.05,0.1,0", "easy:0.1,0.1,0",
    "mag:0.1,2,0.25", "mag:0.2,4,0.2", "mag:0.4,6,0.2", "mag:0.2,4,0.2,0",
    "tea:0.1", "tea:0.15", "tea:0.3", "first:0.05", "first:0.1", "first:0.2",
)  # fmt: skip
FEWER = (12, 10, 8, 6)
MIDDLE = ("easy:100", "mag:100,1000,0.12;1,1", "tea:100", "first:100")


@dataclass(frozen=True)
class Made:
    """One video, or its latents; the seconds of its steps, and how many velocities they had and computed."""

    frames: np.ndarray
    seconds: tuple[float, ...]
    computed: tuple[int, ...]

    @property
    def sampling(self) -> float:
        return sum(self.seconds)


def made(job: Job, networks: Any, picture: Any, decoded: bool = True) -> Made:
    """The video of a job, with a clock at each step."""
    frames, seconds, computed = [], [], []
    options: dict[str, Any] = {} if decoded else {"convert": None}
    begun = time.process_time()
    for event in generate(job, networks, Inputs(picture=picture), **options):
        now = time.process_time()
        if isinstance(event, Stepped):
            seconds.append(now - begun)
            computed.append(event.computed)
        elif isinstance(event, FramesReady):
            frames.append(event.frames)
        elif isinstance(event, SectionDone) and not decoded:
            frames.append(event.latents)
        if isinstance(event, Encoded | Stepped | SectionDone | FramesReady):
            begun = time.process_time()
    return Made(np.concatenate(frames, 1 if decoded else 2)[0], tuple(seconds), tuple(computed))


def embedded(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each cache, and for each smaller number of steps."""
    networks = load_networks("embedded", "float32", "cpu")
    scenes = held_out_scenes(args.count)
    jobs = {"none": {}, **{cache: {"cache": cache} for cache in args.caches}}
    jobs |= {f"{steps} steps": {"steps": steps} for steps in args.fewer}
    found: dict[str, list[Made]] = {name: [] for name in jobs}
    for number, scene in enumerate(scenes):
        picture = toyworld.render(scene, [0], *networks.default_size[::-1])[0]
        job = Job(
            toyworld.prompt(scene), frames=args.frames, sampling=args.sampling, steps=args.steps, seed=number,
            solver=args.solver,
        )  # fmt: skip
        for name, changes in jobs.items():
            found[name].append(made(replace(job, **changes), networks, picture))
    plain = found["none"]
    print(f"how much a velocity changes: {changes_of(scenes[0], networks, args)}")
    return [row(name, runs, plain, scenes) for name, runs in found.items()]


def row(name: str, runs: Sequence[Made], plain: Sequence[Made], scenes: Sequence[Any]) -> dict[str, Any]:
    """The figures of one cache."""
    likeness = [
        pooled_psnr(frame_psnr(other.frames, one.frames))
        if (one.frames != other.frames).any()
        else float("inf")
        for one, other in zip(plain, runs, strict=True)
    ]
    faster = [one.sampling / other.sampling for one, other in zip(plain, runs, strict=True)]
    judged = figures_of(np.stack([each.frames for each in runs]), scenes)
    return {
        "cache": name,
        "computed": sum(sum(each.computed) for each in runs) / sum(len(each.computed) for each in plain),
        "faster": statistics.median(faster),
        "psnr": statistics.median(likeness),
        "worst": min(likeness),
        **judged,
    }


def changes_of(scene: Any, networks: Any, args: argparse.Namespace) -> str:
    """The mean change of the velocity from step to step as a share of it, step by step, in the first section."""
    seen: list[Any] = []
    sections = 0

    def wrap(velocity: Any) -> Any:
        nonlocal sections
        sections += 1
        kept = seen if sections == 1 else []
        return lambda latents, sigma: (kept.append(velocity(latents, sigma)), kept[-1])[1]

    picture = toyworld.render(scene, [0], *networks.default_size[::-1])[0]
    job = Job(toyworld.prompt(scene), frames=37, sampling=args.sampling, steps=args.steps, solver=args.solver)
    for _ in generate(job, networks, Inputs(picture=picture), convert=None, wrap=wrap):
        pass
    shares = [float((now - before).abs().mean() / before.abs().mean()) for before, now in pairwise(seen)]
    return " ".join(f"{share:.3f}" for share in shares)


def middle(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each cache: how much faster, and the seconds of a computed and of a skipped step."""
    from against_diffusers import middle_model

    found: dict[str, list[Made]] = {name: [] for name in ("none", *MIDDLE)}
    with tempfile.TemporaryDirectory() as place:
        middle_model(Path(place))
        networks = load_networks(place, "float32", "cpu")
        picture = np.random.default_rng(0).integers(0, 256, (args.size, args.size, 3), np.uint8)
        job = Job("A penguin dances.", frames=37, width=args.size, height=args.size, steps=args.steps,
                  sampling="vanilla")  # fmt: skip
        for _ in range(args.rounds):
            for name, runs in found.items():
                one = replace(job, cache="" if name == "none" else name)
                runs.append(made(one, networks, picture, decoded=False))
    plain = found["none"]
    return [
        {
            "cache": name,
            "computed": statistics.mean(np.mean(each.computed) for each in runs),
            "faster": statistics.median(a.sampling / b.sampling for a, b in zip(plain, runs, strict=True)),
            "psnr": snr(plain[0].frames, runs[0].frames),
            "step computed": of_steps(runs, 1),
            "step skipped": of_steps(runs, 0),
        }
        for name, runs in found.items()
    ]


def of_steps(runs: Sequence[Made], computed: int) -> float | None:
    """The median seconds of the steps that were computed, or of the others; without the first, which is the longest."""
    seconds = [
        second
        for each in runs
        for second, done in list(zip(each.seconds, each.computed, strict=True))[1:]
        if done == computed
    ]
    return statistics.median(seconds) if seconds else None


def snr(truth: np.ndarray, found: np.ndarray) -> float:
    """The likeness of latents in dB of their own power."""
    error = float(np.mean((truth - found) ** 2))
    return float(10 * np.log10(np.mean(truth**2) / error)) if error else float("inf")


def tell(rows: Sequence[dict[str, Any]]) -> None:
    """The rows as a table of Markdown, and as JSON."""
    names = list(rows[0])
    print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for one in rows:
        cells = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in one.values()]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--middle", action="store_true")
    parser.add_argument("--sampling", default="vanilla")
    parser.add_argument("--solver")
    parser.add_argument("--caches", nargs="*", default=CACHES)
    parser.add_argument(
        "--fewer", nargs="*", type=int, default=FEWER, help="numbers of steps to compare with"
    )
    parser.add_argument("--count", type=int, default=7, help="scenes (default: 7, one for each motion)")
    parser.add_argument("--frames", type=int, default=73)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--size", type=int, default=128, help="pixels of --middle")
    parser.add_argument("--rounds", type=int, default=3, help="of --middle")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = middle(args) if args.middle else embedded(args)
    tell(rows)
    finite = [
        {
            name: None if isinstance(cell, float) and not np.isfinite(cell) else cell
            for name, cell in one.items()
        }
        for one in rows
    ]
    print(json.dumps({"arguments": vars(args), "rows": finite}))


if __name__ == "__main__":
    main()
