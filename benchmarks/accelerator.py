"""One command for one accelerator: what a step, a section and a frame of the published model take on it, each way.

    python benchmarks/accelerator.py            # an accelerator: the published shape, under nine minutes
    python benchmarks/accelerator.py --small    # a tiny shape; taken by itself where there is no accelerator

Weights are random and made on the device, so that nothing is downloaded or read from a disk. For 640 x 608 and
480 x 832: stock diffusers' class, ours on each attention kernel, compiled, in 8 bits, with step caches, and within
allowances of memory. A section is 9 latent frames, 36 frames of video; the table's sections and frames are computed
from the step (25 of them) and the decoding that were measured, but for "section", which is one as the loop makes it.

Each measurement has a time limit of its own, and fails alone: its row says why. Tables, then one line of JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import platform
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from longtake import HunyuanVideoFramepackTransformer3DModel as Ours
from longtake.backend import kernels, modules, runtime
from longtake.backend.torch.kernels import found
from longtake.config import PUBLISHED, TransformerConfig
from longtake.events import FramesReady, SectionDone, Stepped
from longtake.job import Job
from longtake.models import adapters
from longtake.models.quantised import EightBitConfig
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.pipeline.encode import Text
from longtake.pipeline.loading import load_networks
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.pipeline.place import place, unplace
from longtake.pipeline.prepare import Inputs
from longtake.weights.header import Weight

SLOTS = {1: ("latents_clean", 2), 2: ("latents_history_2x", 2), 4: ("latents_history_4x", 16)}
FRAMES, WINDOW, STEPS = 36, 9, 25
WORDS, PADDED = 60, 256
ALLOWANCES = (6, 12, 24, 80)
CACHES = ("easy:0.05", "easy:0.1")
QUANTISED = ("int8", "fp8", "int8-dynamic", "fp8-dynamic")
ALL = 520.0
"""Seconds for everything: what is not measured then is told so, and the tables come in any case."""


class TooLong(Exception):
    """A measurement that is over its limit."""


@dataclass
class Scale:
    """How large everything is."""

    transformer: TransformerConfig
    vae: dict[str, Any]
    sizes: tuple[tuple[int, int], ...]
    """(width, height)."""
    rounds: int
    square: int
    """The side of the matrix product that the machine's rate is measured with."""
    device: str
    dtype: torch.dtype
    small: bool

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.transformer.num_attention_heads * self.transformer.attention_head_dim


def scale_of(small: bool, device: str) -> Scale:
    """The published shape in bfloat16, or a tiny one."""
    published = PUBLISHED["framepack"]
    assert isinstance(published, TransformerConfig)
    if not small:
        sizes = ((640, 608), (480, 832))
        return Scale(published, {}, sizes, 3, 8192, device, torch.bfloat16, False)
    tiny = dataclasses.replace(
        published, num_attention_heads=4, attention_head_dim=16, num_layers=1, num_single_layers=2,
        rope_axes_dim=(4, 6, 6), text_embed_dim=32, pooled_projection_dim=16, image_proj_dim=16, num_refiner_layers=1,
    )  # fmt: skip
    vae = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return Scale(tiny, vae, ((64, 64), (48, 80)), 1, 256, device, dtype, True)


# The report -----------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What was measured so far, and what could not be."""

    device: str
    began: float = field(default_factory=time.perf_counter)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def run(self, name: str, limit: float, measure: Callable[[], Any], **about: Any) -> Any:
        """The result of a measurement, whose figures become a row; None and a reason if it failed."""
        row: dict[str, Any] = {"name": name, **about}
        self.rows.append(row)
        left = ALL - (time.perf_counter() - self.began)
        try:
            if left < 5:
                raise TooLong("the time for everything was over")
            _reset_peak(self.device)
            with limited(min(limit, left)):
                value = measure()
            if isinstance(value, dict):
                row.update(value)
            row.setdefault("peak_gb", _peak(self.device))
            return value
        except (Exception, TooLong) as error:
            row["reason"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return None
        finally:
            gc.collect()
            _empty(self.device)
            told = row.get("reason") or {k: v for k, v in row.items() if isinstance(v, float)}
            print(
                f"{time.perf_counter() - self.began:6.1f} s  {about.get('size', '')} {name}: {told}",
                flush=True,
            )


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Inside, a measurement that takes longer ends with `TooLong`, between two operations."""

    def over(*_: Any) -> None:
        raise TooLong(f"it took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def wait(device: str) -> None:
    """Until the device has done all."""
    if device != "cpu":
        torch.accelerator.synchronize()


def _reset_peak(device: str) -> None:
    if device != "cpu":
        torch.accelerator.reset_peak_memory_stats()


def _peak(device: str) -> float | None:
    return None if device == "cpu" else torch.accelerator.max_memory_allocated() / 1e9


def _empty(device: str) -> None:
    if device != "cpu":
        torch.accelerator.empty_cache()


def timed(step: Callable[[], Any], scale: Scale, warm: int = 1) -> float:
    """The median of some rounds' seconds."""
    spent = []
    for number in range(warm + scale.rounds):
        began = time.perf_counter()
        step()
        wait(scale.device)
        if number >= warm:
            spent.append(time.perf_counter() - began)
    return statistics.median(spent)


# The machine ----------------------------------------------------------------------------------------------------------


def rates(scale: Scale) -> dict[str, float]:
    """Operations a second of a large matrix product, by dtype, and bytes a second to the device."""
    side, device = scale.square, scale.device
    a, b = (torch.randn(side, side, device=device).to(scale.dtype) for _ in range(2))
    work = 2 * side**3
    made = {"product_tflops": work / timed(lambda: a @ b, scale, warm=3) / 1e12}
    ints = [torch.randint(-9, 9, (side, side), device=device, dtype=torch.int8) for _ in range(2)]
    made["int8_tflops"] = work / timed(lambda: torch._int_mm(ints[0], ints[1].T), scale) / 1e12
    if device != "cpu":
        host = torch.empty(2**28, dtype=torch.uint8, pin_memory=True)
        made["upload_gb"] = host.nbytes / timed(lambda: host.to(device, non_blocking=True), scale) / 1e9
        try:
            eight = [x.to(torch.float8_e4m3fn) for x in (a, b)]
            one = torch.ones((), device=device)
            made["fp8_tflops"] = work / 1e12 / timed(
                lambda: torch._scaled_mm(eight[0], eight[1].T, one, one, out_dtype=torch.bfloat16), scale
            )  # fmt: skip
        except RuntimeError as error:  # no such units
            print(f"fp8: {str(error).splitlines()[0]}")
    return made


def flops(scale: Scale, tokens: int) -> float:
    """Operations of a step over so many tokens: each block has 12 D² weights for a token, and attention."""
    c = scale.transformer
    blocks = c.num_layers + c.num_single_layers
    return blocks * (2 * 12 * scale.width**2 * tokens + 4 * scale.width * tokens**2)


# The networks ---------------------------------------------------------------------------------------------------------


def filled(make: Callable[[], nn.Module], scale: Scale) -> Any:
    """A network whose weights are drawn on the device: matrices small, norms 1, biases 0."""
    with torch.device("meta"):
        network = make()
    network.to(scale.dtype)
    network.to_empty(device=scale.device)
    generator = torch.Generator(scale.device).manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.02, generator=generator)
            else:
                weight.fill_(float(name.endswith("weight")))
    return network.eval()


def ours_of(scale: Scale) -> Any:
    """Our transformer."""
    return filled(lambda: Ours(scale.transformer), scale)


@dataclass
class Held:
    """A weight on the device, in the place of one in a file (`models.pretrained.Stored`)."""

    name: str
    tensor: torch.Tensor

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the network computes in."""
        return self.tensor.dtype

    @property
    def weight(self) -> Weight:
        """What its file would say of it."""
        kind = runtime.dtype_name(self.tensor.dtype)
        return Weight(Path("made on the device"), kind, tuple(self.tensor.shape), self.tensor.nbytes)

    def as_stored(self) -> torch.Tensor:
        """Its values."""
        return self.tensor

    read = as_stored


def eight_of(scale: Scale, form: str) -> Any:
    """Our transformer with its blocks in 8 bits, layer by layer."""
    model = ours_of(scale)
    config = EightBitConfig(form)
    config.check(scale.device)
    replace = config.making(model)
    for name, module in modules.leaves(model).items():
        held = {key: Held(f"{name}.{key}", weight.detach()) for key, weight in module.named_parameters()}
        other = replace(name, module, held)
        if other is not None:
            adapters.put(model, name, other)
    return model


def stock_of(scale: Scale) -> Any:
    """Stock diffusers' transformer of the same shape."""
    from diffusers import HunyuanVideoFramepackTransformer3DModel as Stock

    return filled(lambda: Stock(**dataclasses.asdict(scale.transformer)), scale)


class Inside:
    """The inputs of a section of one size: latents, clean frames, text, picture."""

    def __init__(self, scale: Scale, width: int, height: int) -> None:
        self.scale, self.size = scale, (width, height)
        c, side = scale.transformer, (height // 8, width // 8)
        draw = np.random.default_rng(0)

        def noise(*shape: int) -> torch.Tensor:
            values = torch.from_numpy(draw.standard_normal(shape, dtype=np.float32))
            return values.to(scale.device, scale.dtype)

        self.window = noise(1, c.in_channels, WINDOW, *side)
        self.text, self.pooled = noise(1, PADDED, c.text_embed_dim), noise(1, c.pooled_projection_dim)
        self.mask = (torch.arange(PADDED) < WORDS)[None].to(scale.device)
        self.picture = noise(1, 729 if not scale.small else 9, c.image_proj_dim)
        self.clean = {key: (noise(1, c.in_channels, n, *side), range(n)) for key, (_, n) in SLOTS.items()}
        self.levels = [torch.full((1,), value, device=scale.device) for value in (500.0, 9000.0)]

    def of_stock(self, model: Any) -> Callable[[], Any]:
        """A step of stock diffusers' class."""
        slots = {name: self.clean[key][0] for key, (name, _) in SLOTS.items()}
        slots |= {f"indices_{name}": torch.arange(count) for name, count in SLOTS.values()}
        return lambda: model(
            hidden_states=self.window,
            timestep=self.levels[0],
            encoder_hidden_states=self.text,
            encoder_attention_mask=self.mask,
            pooled_projections=self.pooled,
            image_embeds=self.picture,
            indices_latents=torch.arange(WINDOW),
            guidance=self.levels[1],
            return_dict=False,
            **slots,
        )

    def of_ours(self, model: Any) -> tuple[Callable[[], Any], int]:
        """A step of ours as the loop asks for it, and its tokens."""
        prompted = model.prompted(self.text, self.mask, self.pooled, self.picture)
        context = model.context(tuple(self.window.shape), range(WINDOW), self.clean)
        sight = model.sight(context, prompted)
        moment = model.moment(prompted, *self.levels, keep=True)

        def step() -> Any:
            tokens = model.tokens(self.window, moment, context, sight)
            return model.head(model.run_blocks(tokens), tokens)

        return step, int(sight.rotary[0].shape[1])

    def section(self, networks: Networks, cache: str = "", steps: int = STEPS) -> dict[str, float]:
        """One section as the loop makes it, without its encoders: its steps and its decoding."""
        width, height = self.size
        steps = min(steps, 3) if self.scale.small else steps
        job = Job(
            "", frames=FRAMES + 1, width=width, height=height, steps=steps, sampling="vanilla", cache=cache
        )
        inputs = Inputs(
            latents=self.clean[1][0][:, :, :1].float().cpu().numpy(),
            text=Text(self.text, self.mask.long(), self.pooled),
            image_states=self.picture,
        )
        times: dict[str, float] = {}
        began = time.perf_counter()
        for event in generate(job, networks, inputs):
            wait(self.scale.device)
            now = time.perf_counter()
            if isinstance(event, Stepped) and event.step == 0:
                times["first"] = now
            if isinstance(event, SectionDone):
                times["sampled"] = now
            if isinstance(event, FramesReady):
                times["decoded"] = now
        step = (times["sampled"] - times["first"]) / (steps - 1)
        made = {"step_s": step, "decode_s": times["decoded"] - times["sampled"]}
        if steps == STEPS or self.scale.small:
            made |= {"section_s": times["decoded"] - began, "frame_s": (times["decoded"] - began) / FRAMES}
        return made


# The measurements -----------------------------------------------------------------------------------------------------


def step_row(inside: Inside, model: Any, rate: float | None) -> dict[str, float]:
    """The seconds of a step of ours, and its share of the matrix product's rate."""
    with torch.no_grad():
        step, tokens = inside.of_ours(model)
        seconds = timed(step, inside.scale)
    row = {"step_s": seconds, "tflops": flops(inside.scale, tokens) / seconds / 1e12, "tokens": tokens}
    return row if rate is None else {**row, "share": row["tflops"] / rate}


def stock_rows(report: Report, scale: Scale, insides: list[Inside]) -> None:
    """Stock diffusers' class, which is gone afterwards."""
    model = report.run("stock: made", 60, lambda: stock_of(scale))
    for inside in insides if model is not None else ():

        def measure(inside: Inside = inside) -> dict[str, float]:
            with torch.no_grad():
                return {"step_s": timed(inside.of_stock(model), scale)}

        report.run("stock diffusers", 40, measure, size=shown(inside))


def exact_rows(report: Report, model: Any, insides: list[Inside], rate: float | None) -> None:
    """As one gets it without a word, and compiled; on a tiny shape by the compiler's front, which takes no minute."""
    scale = insides[0].scale
    chosen = kernels.chosen("auto", scale.device)
    for inside in insides:
        report.run(f"attention {chosen}", 30, lambda i=inside: step_row(i, model, rate), size=shown(inside))
    compiled_rows(report, model, insides, rate)


def compiled_rows(
    report: Report, model: Any, insides: list[Inside], rate: float | None, form: str = "", **options: Any
) -> None:
    """Compiled block by block."""
    small = insides[0].scale.small
    model.compile_repeated_blocks(**{**({"backend": "eager"} if small else {}), **options})
    told = ", ".join(str(value) for value in options.values())
    name = f"{form}compiled{' (front)' * small}{f', {told}' * bool(told)}"
    for inside in insides[:1] if small else insides:
        report.run(name, 80, lambda i=inside: step_row(i, model, rate), size=shown(inside))
    model.compile_repeated_blocks(disable=True)


def attention_rows(report: Report, model: Any, insides: list[Inside], rate: float | None) -> None:
    """The other kernels; the one that holds all scores at once only where they are few."""
    scale = insides[0].scale
    best = kernels.chosen("auto", scale.device).removesuffix(" first")
    others = [name for name in found(scale.device) if name != best and (scale.small or name != "math")]
    for inside in insides:
        for name in others:

            def measure(name: str = name, inside: Inside = inside) -> dict[str, float]:
                model.use_kernel(name)
                return step_row(inside, model, rate)

            report.run(f"attention {name}", 30, measure, size=shown(inside))
    model.use_kernel("auto")


def section_rows(
    report: Report, networks: Networks, insides: list[Inside], caches: tuple[str, ...] = ("",)
) -> None:
    """Whole sections by the loop: exact, and with caches."""
    for inside in insides:
        for cache in caches:
            name = f"section, cache {cache}" if cache else "section"
            report.run(name, 60, lambda i=inside, c=cache: i.section(networks, c), size=shown(inside))


def placed_rows(report: Report, networks: Networks, insides: list[Inside]) -> None:
    """Within allowances of the device's memory, or on a CPU of main memory: five steps of a section by the loop."""
    scale = insides[0].scale
    what = "memory_gb" if scale.device == "cpu" else "vram_gb"
    for allowed in (1,) if scale.device == "cpu" else ALLOWANCES:

        def measure(allowed: float = allowed) -> dict[str, float]:
            placed = place(networks, **{what: float(allowed)}, device=scale.device)
            try:
                return insides[0].section(placed, steps=5)
            finally:
                unplace(placed)

        report.run(f"placed, {what} {allowed}", 60, measure, size=shown(insides[0]))


def quantised_rows(report: Report, scale: Scale, insides: list[Inside], rate: float | None) -> None:
    """Each form of 8 bits, as the loop runs it and compiled; each is made of a network of its own."""
    for form in QUANTISED:
        model = report.run(f"{form}: made", 40, lambda form=form: eight_of(scale, form))
        if model is None:
            continue
        for inside in insides:
            report.run(form, 30, lambda i=inside, m=model: step_row(i, m, rate), size=shown(inside))
        if not scale.small and form.endswith("dynamic"):
            compiled_rows(report, model, insides[:1], rate, f"{form}, ")


def shown(inside: Inside) -> str:
    """The size in words."""
    return f"{inside.size[0]}x{inside.size[1]}"


def measure_all(report: Report, scale: Scale) -> None:
    """Everything, the most wanted first."""
    rate = (report.run("machine", 40, lambda: rates(scale)) or {}).get("product_tflops")
    insides = [Inside(scale, *size) for size in scale.sizes]
    stock_rows(report, scale, insides)
    ours_rows(report, scale, insides, rate)
    quantised_rows(report, scale, insides, rate)


def ours_rows(report: Report, scale: Scale, insides: list[Inside], rate: float | None) -> None:
    """Ours, each way."""
    model = report.run("ours: made", 60, lambda: ours_of(scale))
    if model is None:
        return
    exact_rows(report, model, insides, rate)
    networks = report.run("autoencoder: made", 30, lambda: networks_of(scale, model))
    if networks is not None:
        section_rows(report, networks, insides)
        section_rows(report, networks, insides, CACHES)
    attention_rows(report, model, insides, rate)
    if scale.device != "cpu":
        compiled_rows(report, model, insides[:1], rate, mode="reduce-overhead")
    if networks is not None:
        # Last, since it leaves the networks in main memory.
        placed_rows(report, networks, insides)


def networks_of(scale: Scale, model: Any) -> Networks:
    """Transformer and autoencoder, and the embedded model's schedule."""
    vae = filled(lambda: AutoencoderKLHunyuanVideo(**scale.vae), scale)
    scheduler = load_networks("embedded", device="cpu", placed=False).scheduler
    return Networks(transformer=model, vae=vae, scheduler=scheduler)


# The end --------------------------------------------------------------------------------------------------------------


def tables(report: Report) -> str:
    """All rows by size."""
    decoding = {
        row["size"]: row["decode_s"] for row in report.rows if row["name"] == "section" and "decode_s" in row
    }
    heads = ("step s", "section s", "frame s", "TFLOP/s", "share", "peak GB")
    lines = [f"{'size':9} {'what':38}" + "".join(f"{head:>11}" for head in heads)]
    for row in report.rows:
        if "step_s" in row and "section_s" not in row and row.get("size") in decoding:
            row["section_s"] = STEPS * row["step_s"] + decoding[row["size"]]
            row["frame_s"] = row["section_s"] / FRAMES
        if "reason" in row:
            lines.append(f"{row.get('size', ''):9} {row['name']:38} {row['reason']}")
        elif "step_s" in row:
            cells = {"step_s": 3, "section_s": 2, "frame_s": 3, "tflops": 1, "share": 2, "peak_gb": 1}
            said = (f"{row[n]:11.{d}f}" if row.get(n) is not None else " " * 11 for n, d in cells.items())
            lines.append(f"{row['size']:9} {row['name']:38}{''.join(said).rstrip()}")
    return "\n".join(lines)


def tell(report: Report, scale: Scale) -> None:
    """The tables, and the line of JSON."""
    where = platform.processor() or platform.machine()
    if scale.device.startswith("cuda"):
        where = torch.cuda.get_device_name()
    print(
        f"\n{where}, torch {torch.__version__}, {str(scale.dtype).removeprefix('torch.')}{', small' * scale.small}"
    )
    print(tables(report))
    done = {"device": where, "torch": torch.__version__, "small": scale.small, "rows": report.rows}
    print(json.dumps({**done, "seconds": round(time.perf_counter() - report.began, 1)}), flush=True)


def main() -> None:
    """Measure, and tell whatever there is at the end of the time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--small", action="store_true", help="a tiny shape (the default without an accelerator)"
    )
    parser.add_argument(
        "--device", default=runtime.best_device(), help="default: the accelerator, else the CPU"
    )
    args = parser.parse_args()
    scale = scale_of(args.small or args.device == "cpu", args.device)
    report = Report(scale.device)

    def late() -> None:
        # A kernel that never returns cannot be interrupted: what is there is told all the same.
        tell(report, scale)
        os._exit(1)

    watch = threading.Timer(ALL + 15, late)
    watch.daemon = True
    watch.start()
    measure_all(report, scale)
    watch.cancel()
    tell(report, scale)
    sys.exit(0)


if __name__ == "__main__":
    main()
