"""The same checkpoint through stock diffusers' pipeline and through ours, in turn, each time in a fresh process.

    python benchmarks/against_diffusers.py [--sections 4] [--steps 25] [--runs 3] [--sampling inverted] [--model FOLDER]

Both make the same number of frames with the same steps, solver (Euler) and dtype. Prints, for each figure, both
medians and the ratio ours / stock (the median of the ratios pair by pair), and last one line of JSON. Figures: seconds
of the whole call, of one transformer step and of all decoding; the process's peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FIGURES = ("call_seconds", "step_seconds", "decode_seconds", "peak_mb")


class Timer:
    """Counts the calls of a function and the seconds that they take."""

    def __init__(self, function: Any) -> None:
        self.function, self.calls, self.seconds = function, 0, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.calls += 1
            self.seconds += time.perf_counter() - began


def pipeline_of(who: str, model: str) -> Any:
    """Stock diffusers' pipeline, or ours, over the folder."""
    if who == "stock":
        from diffusers import HunyuanVideoFramepackPipeline
    else:
        from longtake import HunyuanVideoFramepackPipeline
    import torch

    return HunyuanVideoFramepackPipeline.from_pretrained(model, torch_dtype=torch.float32)


def one(who: str, args: argparse.Namespace) -> dict[str, float]:
    """One whole call, timed."""
    import numpy as np
    import torch
    from PIL import Image

    from longtake import toyworld

    torch.set_num_threads(args.threads)
    pipe = pipeline_of(who, args.model)
    pipe.set_progress_bar_config(disable=True)
    pipe.transformer.forward = step = Timer(pipe.transformer.forward)
    pipe.vae.decode = decode = Timer(pipe.vae.decode)
    scene = toyworld.scene_from_text("a penguin dances in the snow")
    picture = Image.fromarray(toyworld.render(scene, range(1), args.size, args.size)[0])
    # Stock counts 33 frames to a section and makes 36: asking for 33 S makes 36 S + 1, as ours does when told so.
    frames = 33 * args.sections if who == "stock" else 36 * args.sections + 1
    began = time.perf_counter()
    videos = pipe(
        image=picture,
        prompt="A penguin dances in the snow.",
        height=args.size,
        width=args.size,
        num_frames=frames,
        num_inference_steps=args.steps,
        guidance_scale=9.0,
        generator=torch.Generator().manual_seed(0),
        sampling_type="vanilla" if args.sampling == "vanilla" else "inverted_anti_drifting",
        output_type="np",
        return_dict=False,
    )[0]
    seconds = time.perf_counter() - began
    made = int(np.asarray(videos).shape[1])
    if made != 36 * args.sections + 1:
        raise SystemExit(f"{who} made {made} frames, not {36 * args.sections + 1}.")
    return {
        "call_seconds": seconds,
        "step_seconds": step.seconds / step.calls,
        "decode_seconds": decode.seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def in_process(who: str, argv: list[str]) -> dict[str, float]:
    """`one`, in a process of its own."""
    command = [sys.executable, __file__, *argv, "--one", who]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Run both in turn and print the table."""
    embedded = Path(__file__).parents[1] / "src" / "longtake" / "embedded"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(embedded))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--sections", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sampling", choices=("inverted", "vanilla"), default="inverted")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--one", choices=("stock", "ours"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one, args)))
        return
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "stock": []}
    for number in range(args.runs):
        for who, found in runs.items():
            found.append(in_process(who, sys.argv[1:]))
            print(
                f"run {number + 1} {who}: {json.dumps({k: round(v, 3) for k, v in found[-1].items()})}",
                flush=True,
            )
    ratios = {
        name: statistics.median(o[name] / s[name] for o, s in zip(runs["ours"], runs["stock"], strict=True))
        for name in FIGURES
    }
    print(
        f"\n{platform.processor() or platform.machine()}, {args.threads} threads, {36 * args.sections + 1} frames"
    )
    print(f"{'':16}{'ours':>10}{'stock':>10}{'ratio':>8}")
    for name in FIGURES:
        ours, stock = (statistics.median(run[name] for run in runs[who]) for who in ("ours", "stock"))
        print(f"{name:16}{ours:10.3f}{stock:10.3f}{ratios[name]:8.3f}")
    print(json.dumps({"frames": 36 * args.sections + 1, "steps": args.steps, "ratios": ratios, "runs": runs}))


if __name__ == "__main__":
    main()
