"""MindSpore against PyTorch: one transformer step and one decode of the embedded model, as ratios in one run.

    python benchmarks/backends.py

Each framework measures in a process of its own (two thread pools in one process disturb each other), the processes
take turns, and medians over all rounds are compared. "first" is the first call: on MindSpore it compiles the graph.
Both networks are given the same inputs; how far their results are apart is printed beside the times.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDES = {
    "torch": {"LONGTAKE_BACKEND": "torch"},
    "mindspore, graph": {"LONGTAKE_BACKEND": "mindspore", "LONGTAKE_GRAPH": "1"},
    "mindspore, eager": {"LONGTAKE_BACKEND": "mindspore", "LONGTAKE_GRAPH": "0"},
}


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side (default: 3)")
    parser.add_argument("--calls", type=int, default=5, help="timed calls a turn (default: 5)")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        measure(args.calls, Path(args.out))
        return
    times: dict[str, dict[str, list[float]]] = {side: {} for side in SIDES}
    first: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for side, setting in SIDES.items():
                out = Path(folder, f"{side}.npz")
                command = [
                    sys.executable,
                    __file__,
                    "--calls",
                    str(args.calls),
                    "--side",
                    side,
                    "--out",
                    str(out),
                ]
                done = subprocess.run(
                    command, env={**os.environ, **setting}, check=True, capture_output=True, text=True
                )
                found = json.loads(done.stdout.splitlines()[-1])
                first.setdefault(side, {what: each["first"] for what, each in found.items()})
                for what, each in found.items():
                    times[side].setdefault(what, []).extend(each["times"])
        results = {side: dict(np.load(Path(folder, f"{side}.npz"))) for side in SIDES}
    print(f"{os.cpu_count()} cores, float32, embedded model, medians of {args.rounds} x {args.calls} calls\n")
    print("| what | side | median | against torch | first call | largest deviation |")
    print("| --- | --- | --- | --- | --- | --- |")
    for what in times["torch"]:
        floor = statistics.median(times["torch"][what])
        scale = np.abs(results["torch"][what]).max()
        for side in SIDES:
            median = statistics.median(times[side][what])
            apart = np.abs(results[side][what] - results["torch"][what]).max() / scale
            print(
                f"| {what} | {side} | {1000 * median:.0f} ms | {median / floor:.2f}x "
                f"| {first[side][what]:.2f} s | {apart:.1e} |"
            )


def measure(calls: int, out: Path) -> None:
    """Time this process's framework; a line of JSON, and the results in `out`."""
    from longtake.backend import ops, runtime
    from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
    from longtake.models.vae import AutoencoderKLHunyuanVideo

    transformer = HunyuanVideoFramepackTransformer3DModel.from_pretrained(
        "embedded", subfolder="transformer", dtype="float32"
    )
    vae = AutoencoderKLHunyuanVideo.from_pretrained("embedded", subfolder="vae", dtype="float32")
    c, rng = transformer.config, np.random.default_rng(0)

    def normal(*shape: int) -> object:
        return ops.from_numpy(rng.standard_normal(shape).astype(np.float32))

    prompted = transformer.prompted(
        normal(1, 24, c.text_embed_dim),
        None,
        normal(1, c.pooled_projection_dim),
        normal(1, 16, c.image_proj_dim),
    )
    slots = {1: [0, 19], 2: [17, 18], 4: list(range(1, 17))}
    clean = {scale: (normal(1, c.in_channels, len(times), 8, 8), times) for scale, times in slots.items()}
    latents, tile = normal(1, c.in_channels, 9, 8, 8), normal(1, vae.config.latent_channels, 5, 8, 8)
    level = (ops.from_numpy(np.full(1, value, np.float32)) for value in (500.0, 10000.0))
    with runtime.no_grad():
        context = transformer.context((1, c.in_channels, 9, 8, 8), list(range(20, 29)), clean)
        sight = transformer.sight(context, prompted)
        moment = transformer.moment(prompted, *level, keep=True)

        def step() -> object:
            tokens = transformer.tokens(latents, moment, context, sight)
            return transformer.head(transformer.run_blocks(tokens), tokens)

        work = {"transformer step": step, "decode of 5 latents": lambda: vae.decode_tile(tile)}
        found, results = {}, {}
        for what, function in work.items():
            spent = []
            for _ in range(calls + 2):
                begin = time.perf_counter()
                # Into numpy inside the timing: eager MindSpore returns before it has computed.
                results[what] = ops.to_numpy(function())
                spent.append(time.perf_counter() - begin)
            found[what] = {"first": spent[0], "times": spent[2:]}
    np.savez(out, **results)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
