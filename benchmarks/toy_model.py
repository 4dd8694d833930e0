"""How well a toy model keeps and moves its cartoons: held-out scenes with both sampling types, measured.

    python benchmarks/toy_model.py [--model embedded] [--scenes 70] [--frames 145] [--steps 25] [--sheet FILE.png]

Prints the autoencoder's PSNR, then for true videos, true videos through the autoencoder, and made videos: the median
relative error of size and colour, the mean absolute error of the background, and the share of videos whose measured
motion is the prompted one (chance: one in seven); last one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time

import numpy as np
import torch

from longtake.picture import contact_sheet
from longtake.pipeline.loading import load_networks
from longtake.plan.plans import PLANS
from longtake.toy import judge as toy


def main() -> None:
    """Make, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--scenes", type=int, default=70)
    parser.add_argument("--frames", type=int, default=145)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--samplings", nargs="+", default=list(PLANS), choices=list(PLANS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sheet", help="write frames of the first seven scenes of each kind here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    networks = load_networks(args.model)
    width, _ = networks.default_size
    scenes = toy.held_out_scenes(args.scenes)
    true = toy.true_videos(scenes, args.frames, width)
    again = toy.through_autoencoder(networks.vae, true)
    videos = {"true": true, "autoencoder": again}
    seconds = {}
    for sampling in args.samplings:
        began = time.perf_counter()
        videos[sampling] = toy.make_videos(
            networks, scenes, sampling, args.frames, args.steps, cfg_scale=args.cfg
        )
        seconds[sampling] = (time.perf_counter() - began) / len(scenes)
    print(
        f"{platform.machine()}, {args.threads} threads; {args.scenes} held-out scenes of {args.frames} frames"
    )
    print(f"autoencoder PSNR {toy.psnr(true, again):.2f} dB; chance of a right motion {toy.CHANCE:.3f}")
    print(f"{'':14}{'size':>8}{'colour':>8}{'place':>8}{'motion':>8}   by motion")
    results = {}
    for name, made in videos.items():
        figures = toy.figures_of(made, scenes)
        results[name] = found = figures.summary()
        by_motion = ", ".join(f"{motion} {share:.2f}" for motion, share in figures.by_motion().items())
        print(f"{name:14}" + "".join(f"{value:8.3f}" for value in found.values()) + f"   {by_motion}")
    if args.sheet:
        rows = [made[n][:: args.frames // 12][:12] for n in range(7) for made in videos.values()]
        contact_sheet(np.concatenate(rows), columns=12).save(args.sheet)
    print(
        json.dumps({"psnr": toy.psnr(true, again), "figures": results, "seconds_each": seconds, **vars(args)})
    )


if __name__ == "__main__":
    main()
