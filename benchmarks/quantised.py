"""Cost and likeness of each form of quantisation: memory, time, whole videos against float32, the toy's figures.

    python benchmarks/quantised.py [--scenes 4] [--frames 73] [--steps 8] [--threads N] [--only FORM ...]

For each form of the embedded model's transformer: bytes of its weights, seconds a video, PSNR of the videos against
those of float32 (all frames, the first second, the last), and what the toy's judge measures: the median error of size
and colour, the mean error of the background, the share of videos with the motion that was asked for. Then one layer of
the published size, 3072 -> 12288, in milliseconds for 512 tokens. Libraries that are not installed are left out. Last
one line of JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from longtake import FramesReady, Inputs, Job, generate
from longtake.backend import eight
from longtake.errors import LongtakeError
from longtake.evaluation.scenes import frame_psnr
from longtake.evaluation.summaries import pooled_psnr
from longtake.models import forms
from longtake.models.quantised import EightBitConfig, EightBitLinear
from longtake.pipeline.loading import load_networks
from longtake.pipeline.networks import Networks
from longtake.toy import judge as toy
from longtake.toyworld import Scene, prompt, render

FPS = 24


def main() -> None:
    """Make, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--frames", type=int, default=73)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--sampling", default="vanilla", help="vanilla drifts most (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", help="names of forms, as the table has them")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")  # bitsandbytes tells at each layer that it computes in float16
    logging.disable(logging.WARNING)
    known = known_forms()
    chosen = {name: known[name] for name in ("float32", *(args.only or known))}
    print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}")
    print(f"{args.scenes} held-out scenes, {args.frames} frames, {args.steps} steps, {args.sampling}")
    print(
        f"{'':22}{'MB':>7}{'s':>7}{'PSNR':>7}{'first':>7}{'last':>7}{'size':>8}{'colour':>8}{'place':>8}{'motion':>8}"
    )
    scenes, results, exact = toy.held_out_scenes(args.scenes), {}, None
    for name, (dtype, config) in chosen.items():
        try:
            networks = load_networks(dtype=dtype, quantize=config)
        except LongtakeError as error:
            print(f"{name:22} {error}")
            continue
        began = time.perf_counter()
        videos = made(networks, scenes, args)
        seconds = (time.perf_counter() - began) / args.scenes
        exact = videos if exact is None else exact
        results[name] = found = {
            "megabytes": weight_bytes(networks.transformer) / 1e6,
            "seconds": seconds,
            **apart(exact, videos),
            **toy.figures_of(videos, scenes),
        }
        mb, s, *psnr = list(found.values())[:5]
        print(
            f"{name:22}{mb:7.1f}{s:7.1f}" + "".join(f"{value:7.1f}" for value in psnr)
            + "".join(f"{value:8.3f}" for value in list(found.values())[5:]), flush=True,
        )  # fmt: skip
    layer = {} if args.only else layers()
    print(json.dumps({"forms": results, "layer_ms": layer, **vars(args)}))


def known_forms() -> dict[str, tuple[str, Any]]:
    """(dtype, quantization_config) by name."""
    found: dict[str, tuple[str, Any]] = {"float32": ("float32", "none"), "bfloat16": ("bfloat16", "none")}
    for form in ("int8", "fp8", "int8-dynamic", "fp8-dynamic"):
        found[form] = ("float32", form)
    found["int8, ends kept"] = ("float32", EightBitConfig("int8", 1, 1))
    found["int8-dynamic, ends kept"] = ("float32", EightBitConfig("int8-dynamic", 1, 1))
    if importlib.util.find_spec("torchao"):
        from torchao import quantization as ao

        found["torchao int8"] = ("float32", ao.Int8WeightOnlyConfig(version=2))
        found["torchao int8 dynamic"] = ("float32", ao.Int8DynamicActivationInt8WeightConfig())
        found["torchao fp8"] = ("float32", ao.Float8WeightOnlyConfig())
    if importlib.util.find_spec("bitsandbytes"):
        found["bitsandbytes int8"] = ("float32", {"load_in_8bit": True})
        found["bitsandbytes nf4"] = ("float32", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"})
    return found


def weight_bytes(network: Any) -> int:
    """The bytes of a network's weights, whatever holds them."""
    seen: dict[int, int] = {}

    def add(tensor: torch.Tensor) -> None:
        inner = getattr(tensor, "__tensor_flatten__", None)
        if inner is not None:
            for name in inner()[0]:
                add(getattr(tensor, name))
        else:
            seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()

    for value in network.state_dict().values():
        if isinstance(value, torch.Tensor):
            add(value)
    return sum(seen.values())


def apart(exact: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """PSNR in dB: all frames, the first second, the last; 99 for equal ones."""
    pairs = {"psnr": slice(None), "psnr_first": slice(None, FPS), "psnr_last": slice(-FPS, None)}
    if np.array_equal(exact, found):
        return dict.fromkeys(pairs, 99.0)
    return {
        name: pooled_psnr([frame_psnr(*pair) for pair in zip(found[:, part], exact[:, part], strict=True)])
        for name, part in pairs.items()
    }


def made(networks: Networks, scenes: list[Scene], args: argparse.Namespace) -> np.ndarray:
    """The videos (N, T, H, W, 3) of the scenes' first frames and prompts."""
    width, height = networks.default_size
    inputs = Inputs(
        picture=[render(scene, [0], height, width)[0] for scene in scenes],
        prompts=[prompt(scene) for scene in scenes],
    )
    job = Job("", frames=args.frames, sampling=args.sampling, steps=args.steps)
    events = generate(job, networks, inputs)
    return np.concatenate([event.frames for event in events if isinstance(event, FramesReady)], axis=1)


def layers(rows: int = 512) -> dict[str, float]:
    """Milliseconds of one layer of the published size, in each form, in float32 and bfloat16."""
    print(f"\none layer, 3072 -> 12288, {rows} tokens: milliseconds, relative error")
    torch.manual_seed(0)
    plain = torch.nn.Linear(3072, 12288)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(rows, 3072).to(dtype)
        exact = torch.nn.functional.linear(x.float(), plain.weight, plain.bias)
        word = str(dtype).removeprefix("torch.")
        for name, layer in layer_forms(plain, dtype).items():
            with torch.no_grad():
                error = float((layer(x).float() - exact).norm() / exact.norm())
                found[f"{word} {name}"] = timed(lambda layer=layer, x=x: layer(x))
            print(f"{word:9} {name:14}{found[f'{word} {name}']:8.1f}{error:9.4f}", flush=True)
    return found


def layer_forms(plain: Any, dtype: torch.dtype) -> dict[str, Callable[..., Any]]:
    """The layer as it is, and in our forms."""
    made: dict[str, Callable[..., Any]] = {"plain": torch.nn.Linear(3072, 12288).to(dtype)}
    made["plain"].load_state_dict(plain.state_dict())  # type: ignore[attr-defined]
    for form in ("int8", "fp8", "int8-dynamic", "fp8-dynamic"):
        config: Any = forms.asked(EightBitConfig(form))
        step = eight.steps(plain.weight.detach(), config.kind)
        code = eight.codes(plain.weight.detach(), step, config.kind)
        bias = plain.bias.detach().to(dtype)
        made[form] = EightBitLinear(code, step.to(dtype), bias, config.kind, config.dynamic)
    return made


def timed(call: Callable[[], Any], runs: int = 8) -> float:
    """The least of some runs, in milliseconds: other work on the machine only adds to it."""
    taken = []
    with torch.no_grad():
        for _ in range(runs + 1):
            began = time.perf_counter()
            call()
            taken.append(1000 * (time.perf_counter() - began))
    return min(taken[1:])


if __name__ == "__main__":
    main()
