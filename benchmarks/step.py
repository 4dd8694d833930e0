"""One transformer step, ours and stock diffusers', the same weights and inputs, taking turns in one process.

    python benchmarks/step.py [--size 256] [--dtype float32] [--rounds 9]
    LONGTAKE_GRAPH=1 python benchmarks/step.py      # ours by torch.compile

The middle geometry (8 heads of 64, 4 double and 8 single blocks), random weights. Ours is timed as the loop asks for
it: refined text, modulations, packed history and rotary tables are there from the steps before.
Prints medians, the median of the ratios pair by pair, user and system seconds, page faults, and how far the two
velocities are apart; turns in one process see the same clock and neighbours, and share one heap.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel as Stock
from middle import TRANSFORMER

from longtake import HunyuanVideoFramepackTransformer3DModel as Ours

CONFIG: dict[str, Any] = {
    **TRANSFORMER,
    "text_embed_dim": 64,
    "pooled_projection_dim": 64,
    "image_proj_dim": 64,
    "has_image_proj": True,
    "has_clean_x_embedder": True,
    "guidance_embeds": True,
}
SLOTS = {"latents_clean": 2, "latents_history_2x": 2, "latents_history_4x": 16}
WORDS, PADDED = 24, 256


def steps(size: int, dtype: torch.dtype) -> dict[str, Callable[[], torch.Tensor]]:
    """A step of each, by name."""
    torch.manual_seed(0)
    stock, ours = Stock(**CONFIG).eval(), Ours(**CONFIG).eval()
    ours.load_state_dict(stock.state_dict())
    stock.to(dtype)
    ours.to(dtype)
    side = size // 8

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype)

    window, text, pooled, picture = (
        noise(1, 16, 9, side, side),
        noise(1, PADDED, 64),
        noise(1, 64),
        noise(1, 16, 64),
    )
    clean = {name: noise(1, 16, frames, side, side) for name, frames in SLOTS.items()}
    times = {f"indices_{name}": torch.arange(frames) for name, frames in SLOTS.items()}
    mask = (torch.arange(PADDED) < WORDS)[None]
    timestep, guidance = torch.full((1,), 500.0), torch.full((1,), 9000.0)

    def step_of_stock() -> torch.Tensor:
        return stock(
            hidden_states=window,
            timestep=timestep,
            encoder_hidden_states=text,
            encoder_attention_mask=mask,
            pooled_projections=pooled,
            image_embeds=picture,
            indices_latents=torch.arange(9),
            guidance=guidance,
            **clean,
            **times,
            return_dict=False,
        )[0]

    prompted = ours.prompted(text, mask, pooled, picture)
    scales = zip((1, 2, 4), SLOTS.items(), strict=True)
    slots = {scale: (clean[name], range(frames)) for scale, (name, frames) in scales}
    context = ours.context(tuple(window.shape), range(9), slots)
    sight = ours.sight(context, prompted)
    moment = ours.moment(prompted, timestep, guidance, keep=True)

    def step_of_ours() -> torch.Tensor:
        tokens = ours.tokens(window, moment, context, sight)
        return ours.head(ours.run_blocks(tokens), tokens)

    return {"ours": step_of_ours, "stock": step_of_stock}


def cost(step: Callable[[], torch.Tensor]) -> tuple[float, float, float, float]:
    """Seconds of one step: passed, of user and of system time; and its page faults."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    step()
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return seconds, user, system, after.ru_minflt - before.ru_minflt


def main() -> None:
    """Take turns and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256, help="pixels (default: 256)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=9, help="pairs (default: 9)")
    args = parser.parse_args()
    with torch.no_grad():
        both = steps(args.size, getattr(torch, args.dtype))
        apart = (both["ours"]() - both["stock"]()).abs().max().item()
        found = {name: [] for name in both}
        for _ in range(args.rounds):
            for name, step in both.items():
                found[name].append(cost(step))
    print(f"{args.size} pixels, {args.dtype}, {torch.get_num_threads()} threads; {apart:.1e} apart at most")
    print(f"{'':8}{'seconds':>10}{'user':>10}{'system':>10}{'faults':>10}")
    for name, runs in found.items():
        seconds, user, system, faults = (statistics.median(run[i] for run in runs) for i in range(4))
        print(f"{name:8}{seconds:10.3f}{user:10.3f}{system:10.3f}{faults:10.0f}")
    ratios = [ours[0] / stock[0] for ours, stock in zip(found["ours"], found["stock"], strict=True)]
    print(f"ratio {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
