"""The same checkpoint through stock diffusers' pipeline and through ours, in turn, each time in a fresh process.

    python benchmarks/against_diffusers.py [--sections 4] [--steps 25] [--runs 3] [--sampling inverted]
    python benchmarks/against_diffusers.py --middle --sections 3 --size 256 --steps 2 --runs 1
    python benchmarks/against_diffusers.py --dtype bfloat16 --decoding causal --compile
    python benchmarks/against_diffusers.py --reference 1 --runs 1

Both make the same number of frames with the same steps and solver (Euler); stock works in float32, ours in `--dtype`,
with `--decoding` and `--compile` as asked; `--reference 1` decodes as stock does, which shows how equal the rest is.
`--middle` takes random weights of a middle geometry (8 heads of 64, 4 double and 8 single blocks; autoencoder of 32,
64, 128, 128 channels) in place of the embedded model.

Prints, for each figure, both medians and the ratio ours / stock (the median of the ratios pair by pair), how far the
frames are apart, the arithmetic of a step and of our decoding as a share of the machine's own matrix product in the
same run, and last one line of JSON. Figures: seconds of the whole call, of one transformer step and of all decoding;
the process's peak memory. With another number of steps than 25, "call of 25 steps" follows from the time of a step.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PASSED = ("model", "size", "sections", "steps", "sampling", "dtype", "decoding", "threads", "reference")
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


def pipeline_of(who: str, args: argparse.Namespace) -> Any:
    """Stock diffusers' pipeline, or ours, over the folder."""
    if who == "stock":
        from diffusers import HunyuanVideoFramepackPipeline
    else:
        from longtake import HunyuanVideoFramepackPipeline
    import torch

    dtype = torch.float32 if who == "stock" else getattr(torch, args.dtype)
    return HunyuanVideoFramepackPipeline.from_pretrained(args.model, torch_dtype=dtype)


def middle_model(folder: Path) -> None:
    """Write a model of the middle geometry: random weights, the embedded model's encoders."""
    import dataclasses

    import torch
    from middle import AUTOENCODER, TRANSFORMER

    from longtake import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel, load_networks
    from longtake.pipeline.networks import save_networks

    torch.manual_seed(0)
    embedded = load_networks("embedded")
    c = embedded.transformer.config
    transformer = HunyuanVideoFramepackTransformer3DModel(
        **TRANSFORMER,
        text_embed_dim=c.text_embed_dim,
        pooled_projection_dim=c.pooled_projection_dim,
        image_proj_dim=c.image_proj_dim,
    )
    vae = AutoencoderKLHunyuanVideo(**AUTOENCODER)
    networks = dataclasses.replace(embedded, transformer=transformer, vae=vae)
    save_networks(networks, folder, "HunyuanVideoFramepackPipeline")


def timers(who: str, pipe: Any, reference: bool) -> tuple[Timer, Timer]:
    """What counts the transformer's steps, and what decodes."""
    if who == "stock":
        pipe.transformer.forward = step = Timer(pipe.transformer.forward)
        pipe.vae.decode = decode = Timer(pipe.vae.decode)
        return step, decode
    from longtake.models.vae.streaming import StreamingDecoder
    from longtake.pipeline.predict import Predictor

    step = Timer(Predictor.__call__)
    Predictor.__call__ = lambda self, *given: step(self, *given)  # type: ignore[method-assign]
    if reference:
        pipe.vae.decode = decode = Timer(pipe.vae.decode)
        return step, decode
    decode = Timer(StreamingDecoder.push)
    finish = StreamingDecoder.finish
    StreamingDecoder.push = lambda self, latents: decode(self, latents)  # type: ignore[method-assign]

    def finished(self: Any) -> Any:
        began = time.perf_counter()
        try:
            return finish(self)
        finally:
            decode.seconds += time.perf_counter() - began

    StreamingDecoder.finish = finished  # type: ignore[method-assign]
    return step, decode


def one(who: str, args: argparse.Namespace) -> dict[str, float]:
    """One whole call, timed."""
    import numpy as np
    import torch
    from PIL import Image

    from longtake import toyworld

    torch.set_num_threads(args.threads)
    pipe = pipeline_of(who, args)
    pipe.set_progress_bar_config(disable=True)
    step, decode = timers(who, pipe, args.reference)
    scene = toyworld.scene_from_text("a penguin dances in the snow")
    picture = Image.fromarray(toyworld.render(scene, range(1), args.size, args.size)[0])
    # Stock, and ours with the reference switch, count 33 frames to a section and make 36: 33 S give 36 S + 1.
    counts_as_stock = who == "stock" or args.reference
    frames = 33 * args.sections if counts_as_stock else 36 * args.sections + 1
    ours = {} if who == "stock" else {"decoding": args.decoding, "reference": bool(args.reference)}
    began = time.perf_counter()
    videos = pipe(
        image=picture,
        prompt="A penguin dances in the snow.",
        height=args.size,
        width=args.size,
        num_frames=frames,
        num_inference_steps=args.steps,
        guidance_scale=9.0,
        # Drawn on the CPU by both, in the same order.
        generator=torch.Generator().manual_seed(0),
        sampling_type="vanilla" if args.sampling == "vanilla" else "inverted_anti_drifting",
        output_type="np",
        return_dict=False,
        **ours,
    )[0]
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    video = np.asarray(videos)[0]
    if len(video) != 36 * args.sections + 1:
        raise SystemExit(f"{who} made {len(video)} frames, not {36 * args.sections + 1}.")
    np.save(args.frames, np.rint(video * 255).astype(np.uint8))
    return {
        "call_seconds": seconds,
        "step_seconds": step.seconds / step.calls,
        "decode_seconds": decode.seconds,
        "peak_mb": peak,
    }


def floor(args: argparse.Namespace, dtype: str) -> dict[str, float]:
    """FLOPs of a step and of a decode, counted from the shapes, and what a large matrix product reaches per second."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    from longtake import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel
    from longtake.models.vae.streaming import StreamingDecoder

    torch.set_num_threads(args.threads)
    side = 2048
    a, b = (torch.randn(side, side, dtype=getattr(torch, dtype)) for _ in range(2))
    spent = []
    for _ in range(12):
        began = time.perf_counter()
        a @ b
        spent.append(time.perf_counter() - began)

    def convolution(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * math.prod(out_shape) * math.prod(weight[1:])

    def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    # What the counter does not know by itself: oneDNN's convolution, and attention on CPUs.
    aten = torch.ops.aten
    known = {
        aten.mkldnn_convolution: convolution,
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
    }
    transformer = HunyuanVideoFramepackTransformer3DModel.from_pretrained(args.model, subfolder="transformer")
    vae = AutoencoderKLHunyuanVideo.from_pretrained(args.model, subfolder="vae", dtype="float32")
    c, size = transformer.config, args.size // 8
    transformer.to(torch.float32)
    slots: dict[str, Any] = {}
    for name, frames in (("latents_clean", 2), ("latents_history_2x", 2), ("latents_history_4x", 16)):
        slots[name] = torch.randn(1, c.in_channels, frames, size, size)
        slots[f"indices_{name}"] = list(range(frames))
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=known) as counted:
        transformer(
            torch.randn(1, c.in_channels, 9, size, size),
            torch.full((1,), 500.0),
            torch.randn(1, 24, c.text_embed_dim),
            pooled_projections=torch.randn(1, c.pooled_projection_dim),
            image_embeds=torch.randn(1, 16, c.image_proj_dim),
            **slots,
        )
    step = counted.get_total_flops()
    decoder, latents = StreamingDecoder(vae, args.decoding), 9 * args.sections + 1
    tile = torch.randn(1, vae.config.latent_channels, 14, size, size)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=known) as counted:
        decoder.push(tile[:, :, :5])
        before = counted.get_total_flops()
        decoder.push(tile[:, :, 5:])
        decode = before + (counted.get_total_flops() - before) / 9 * (latents - 5)
    return {
        "step_flops": step,
        "decode_flops": decode,
        "flops_per_second": 2 * side**3 / statistics.median(spent[2:]),
    }


def in_process(what: str, args: argparse.Namespace, frames: Path) -> dict[str, float]:
    """`one` or `floor`, in a process of its own."""
    given = [f"--{name}={value}" for name, value in vars(args).items() if name in PASSED]
    environment = {**os.environ, "LONGTAKE_BACKEND": "torch", "LONGTAKE_GRAPH": "1" if args.compile else "0"}
    done = subprocess.run(
        [sys.executable, __file__, *given, f"--one={what}", f"--frames={frames}"],
        check=True, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


def psnr(one: Path, other: Path) -> float:
    """Of all frames together, dB."""
    import numpy as np

    a, b = (np.load(file).astype(np.float64) for file in (one, other))
    return float(10 * np.log10(255**2 / max(float(((a - b) ** 2).mean()), 1e-9)))


def main() -> None:
    """Run both in turn and print the table."""
    embedded = Path(__file__).parents[1] / "src" / "longtake" / "embedded"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(embedded))
    parser.add_argument("--middle", action="store_true")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--sections", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sampling", choices=("inverted", "vanilla"), default="inverted")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--decoding", choices=("exact", "causal"), default="exact")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--reference", type=int, default=0, help="1: ours takes the reference's noise and decode"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--one", choices=("stock", "ours", "floor"), help=argparse.SUPPRESS)
    parser.add_argument("--frames", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(floor(args, args.dtype) if args.one == "floor" else one(args.one, args)))
        return
    with tempfile.TemporaryDirectory() as place:
        if args.middle:
            args.model = str(Path(place, "middle"))
            middle_model(Path(args.model))
        compare(args, Path(place))


def compare(args: argparse.Namespace, place: Path) -> None:
    """The runs, the table, the line of JSON."""
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "stock": []}
    made = {who: place / f"{who}.npy" for who in runs}
    for number in range(args.runs):
        for who, found in runs.items():
            found.append(in_process(who, args, made[who]))
            shown = {name: round(value, 3) for name, value in found[-1].items()}
            print(f"run {number + 1} {who}: {json.dumps(shown)}", flush=True)
    counted = in_process("floor", args, place)
    for found in runs.values():
        for run in found:
            rest = run["call_seconds"] - args.steps * args.sections * run["step_seconds"]
            run["call of 25 steps"] = rest + 25 * args.sections * run["step_seconds"]
    figures = (*FIGURES, *(("call of 25 steps",) if args.steps != 25 else ()))
    ratios = {
        name: statistics.median(o[name] / s[name] for o, s in zip(runs["ours"], runs["stock"], strict=True))
        for name in figures
    }
    middle = {
        who: {name: statistics.median(run[name] for run in found) for name in figures}
        for who, found in runs.items()
    }
    print(
        f"\n{platform.machine()}, {args.threads} threads, {36 * args.sections + 1} frames of {args.size} pixels, ",
        end="",
    )
    print(
        f"{args.steps} steps, {args.sampling}; ours: {args.dtype}, {args.decoding}{', compiled' * args.compile}"
    )
    print(f"{'':18}{'ours':>10}{'stock':>10}{'ratio':>8}")
    for name in figures:
        print(f"{name:18}{middle['ours'][name]:10.3f}{middle['stock'][name]:10.3f}{ratios[name]:8.3f}")
    apart = psnr(made["ours"], made["stock"])
    rate = counted["flops_per_second"]
    shares = {
        what: counted[f"{what}_flops"] / middle["ours"][f"{what}_seconds"] / rate
        for what in ("step", "decode")
    }
    print(f"PSNR between the two videos: {apart:.1f} dB")
    print(
        f"matrix product, {args.dtype}: {rate / 1e9:.0f} GFLOP/s; step {counted['step_flops'] / 1e9:.2f} GFLOP, "
        f"{shares['step']:.0%} of it; decoding {counted['decode_flops'] / 1e9:.1f} GFLOP, {shares['decode']:.0%} of it"
    )
    report = {"ratios": ratios, "psnr": apart, "shares": shares, "floor": counted, "runs": runs}
    print(json.dumps({"frames": 36 * args.sections + 1, "steps": args.steps, **report}))


if __name__ == "__main__":
    main()
