"""Decoding alone: stock diffusers' way, ours exactly, ours causally, in turn in one process, of the same latents.

    python benchmarks/decode.py [--frames 145] [--runs 3] [--dtype float32 bfloat16] [--threads 2]
    python benchmarks/decode.py --middle --frames 109 --runs 1

Stock decodes for each section two windows of latents (inverted sampling: a window first, one latent more last); ours
decodes the video once. The embedded model is given the latents of a video of the toy world; `--middle` (channels 32,
64, 128, 128, two layers, 256 pixels) has random weights and latents.

Prints seconds (medians) and ratios to stock in the same dtype (medians of the ratios run by run); how far exact frames
are from stock's decoder over the whole video at once, and causal ones from exact ones; the arithmetic counted from the
shapes, and its speed as a share of that of a matrix product in the same run. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo as Stock
from middle import AUTOENCODER
from torch.utils.flop_counter import FlopCounterMode

from longtake import toyworld
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.models.vae.streaming import StreamingDecoder
from longtake.pipeline.decode import from_frames

WINDOW = 9
EMBEDDED = Path(__file__).parents[1] / "src" / "longtake" / "embedded" / "vae"


def networks(middle: bool) -> tuple[Any, Any]:
    """Stock diffusers' autoencoder and ours with the same weights, float32."""
    if not middle:
        return Stock.from_pretrained(EMBEDDED, torch_dtype=torch.float32).eval(), (
            AutoencoderKLHunyuanVideo.from_pretrained(EMBEDDED, dtype="float32")
        )
    torch.manual_seed(0)
    stock, ours = Stock(**AUTOENCODER).eval(), AutoencoderKLHunyuanVideo(**AUTOENCODER).eval()
    ours.load_state_dict(stock.state_dict())
    return stock, ours


def latents_of(vae: Any, middle: bool, frames: int) -> torch.Tensor:
    """Unscaled latents (1, C, t, h, w) of so many frames."""
    if middle:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(1, 16, 1 + (frames - 1) // 4, 32, 32, generator=generator)
    video = toyworld.render(toyworld.scene_from_text("a penguin dances in the snow"), range(frames), 64, 64)
    return vae.encode(torch.from_numpy(from_frames(video[None]))).latent_dist.mode()


def by_sections(vae: Any, z: torch.Tensor) -> None:
    """What stock's pipeline decodes for an inverted video, last section first."""
    sections = (z.shape[2] - 1) // WINDOW
    for section in reversed(range(sections)):
        start = 0 if section == 0 else 1 + WINDOW * section
        count = 2 * WINDOW + 1 if section == 0 else 2 * WINDOW
        vae.decode(z[:, :, start : start + count])


def streamed(vae: Any, z: torch.Tensor, mode: str) -> torch.Tensor:
    """Our frames, section by section."""
    stream = StreamingDecoder(vae, mode)
    done = [frames for piece in z.split(WINDOW, 2) for frames in stream.push(piece)]
    return torch.cat([*done, *stream.finish()], 2)


def seconds_of(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def counted(function: Callable[[], Any]) -> tuple[float, Any]:
    """Floating-point operations of one call, from the shapes, and what it returns."""

    def convolution(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return int(2 * np.prod(out_shape) * np.prod(weight[1:]))

    known = {torch.ops.aten.mkldnn_convolution: convolution}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        found = function()
    return float(counter.get_total_flops()), found


def matrix_rate(dtype: torch.dtype) -> float:
    """Operations a second of a product of two matrices of 2048 x 2048."""
    a = torch.randn(2048, 2048).to(dtype)
    return 2 * 2048**3 / min(seconds_of(lambda: a @ a) for _ in range(8))


def psnr(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Of frames in [-1, 1], in dB."""
    squared = ((found.float().clamp(-1, 1) - truth.float().clamp(-1, 1)) ** 2).mean()
    return float(-10 * torch.log10(squared / 4))


def measured(stock: Any, ours: Any, z: torch.Tensor, runs: int, exact32: torch.Tensor) -> dict[str, Any]:
    """All figures in one dtype, that of the networks."""
    dtype = z.dtype
    ways: dict[str, Callable[[], Any]] = {
        "stock": lambda: by_sections(stock, z),
        "exact": lambda: streamed(ours, z, "exact"),
        "causal": lambda: streamed(ours, z, "causal"),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    flops, frames, rates = {}, {}, []
    for name in ("exact", "causal"):  # outside the timing, where counting would weigh; and a warm start
        flops[name], frames[name] = counted(ways[name])
    for run in range(runs):
        for name, way in ways.items():
            if name == "stock" and run == 0:
                began = time.perf_counter()
                flops[name], _ = counted(way)
                times[name].append(time.perf_counter() - began)
            else:
                times[name].append(seconds_of(way))
        rates.append(matrix_rate(dtype))
    rate = statistics.median(rates)
    figures: dict[str, Any] = {"matrix_gflops": rate / 1e9}
    for name in ways:
        seconds = statistics.median(times[name])
        ratio = statistics.median(a / b for a, b in zip(times[name], times["stock"], strict=True))
        figures[name] = {
            "seconds": seconds,
            "ratio": ratio,
            "tflop": flops[name] / 1e12,
            "of_matrix_rate": flops[name] / seconds / rate,
        }
    whole = stock.decode(z).sample
    figures["exact"]["max_from_stock"] = float((frames["exact"].float() - whole.float()).abs().max())
    figures["exact"]["psnr_from_float32"] = psnr(frames["exact"], exact32)
    figures["causal"]["psnr_from_exact"] = psnr(frames["causal"], frames["exact"])
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--middle", action="store_true")
    parser.add_argument("--frames", type=int, default=145)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stock, ours = networks(args.middle)
    results = {}
    with torch.no_grad():
        z = latents_of(ours, args.middle, args.frames)
        exact32 = streamed(ours, z, "exact")
        for name in args.dtype:
            dtype = getattr(torch, name)
            found = measured(stock.to(dtype), ours.to(dtype), z.to(dtype), args.runs, exact32)
            results[name] = found
            print(f"{name}, matrix product {found['matrix_gflops']:.0f} GFLOP/s")
            print(f"{'':8}{'seconds':>9}{'ratio':>7}{'TFLOP':>8}{'of matrix rate':>16}")
            for way in ("stock", "exact", "causal"):
                row = found[way]
                print(
                    f"{way:8}{row['seconds']:9.2f}{row['ratio']:7.2f}{row['tflop']:8.2f}{row['of_matrix_rate']:16.0%}"
                )
            print(
                f"exact: at most {found['exact']['max_from_stock']:.1e} from stock over the whole video, "
                f"{found['exact']['psnr_from_float32']:.1f} dB from exact float32; "
                f"causal: {found['causal']['psnr_from_exact']:.1f} dB from exact",
                flush=True,
            )
    print(json.dumps({"middle": args.middle, "frames": args.frames, "threads": args.threads, **results}))


if __name__ == "__main__":
    main()
