"""The memory of training the 13B model, counted; and the counting, held against PyTorch's for smaller networks.

    python benchmarks/training_memory.py [--vram 80] [--rank 32]
    python benchmarks/training_memory.py --measure

Without `--measure` nothing is loaded and nothing runs: the table says what a LoRA's training needs by the sums of
`longtake.training.memory`, and how many sections fit at once on a device, with the history packed (16 frames by 4, 2 by
2 and the last one by itself) and with the same 19 frames unpacked. With `--measure` networks of a few million numbers
run two steps each on the CPU, the second under PyTorch's memory profiler; the table has its peak beside the count.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from longtake.config import PUBLISHED
from longtake.pipeline.budget import GB
from longtake.pipeline.working import Work
from longtake.training import lora, memory
from longtake.training.memory import Run
from longtake.training.settings import Settings
from longtake.training.shapes import shapes_of

PACKED, PLAIN = {1: 1, 2: 2, 4: 16}, {1: 19}
SIZES = {"480p": (832, 480), "640": (640, 608)}
WINDOWS = (2, 3, 4, 9)
SMALL: dict[str, Any] = {
    "num_refiner_layers": 1, "text_embed_dim": 64, "pooled_projection_dim": 32, "image_proj_dim": 32,
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "6 blocks of 256": {
        "num_attention_heads": 4, "attention_head_dim": 64, "num_layers": 2, "num_single_layers": 4,
        "rope_axes_dim": (16, 24, 24),
    },
    "12 blocks of 256": {
        "num_attention_heads": 2, "attention_head_dim": 128, "num_layers": 3, "num_single_layers": 9,
        "rope_axes_dim": (16, 56, 56),
    },
}  # fmt: skip
WORKS = {
    "6 blocks of 256": Work(192, 160, 3, text=60),
    "12 blocks of 256": Work(320, 192, 4, rows=2, text=60),
}


def learns(config: Any, rank: int) -> int:
    """The count of numbers of a LoRA on the usual layers."""
    modules = {name.removesuffix(".weight"): shape for name, shape in shapes_of(config).items()}
    return rank * sum(sum(modules[name]) for name in lora.targets(modules, ""))


# Counted --------------------------------------------------------------------------------------------------------------


def counted(vram: float, rank: int) -> Iterator[dict[str, Any]]:
    """The batches that fit, by size, window, form of the base and history."""
    config = PUBLISHED["framepack"]
    for name, size in SIZES.items():
        for window in WINDOWS:
            for quantize in ("none", "int8"):
                row: dict[str, Any] = {"size": name, "window": window, "base": quantize}
                for history, clean in (("packed", PACKED), ("unpacked", PLAIN)):
                    run = Run(
                        Work(*size, window, clean), quantize=quantize, learns=learns(config, rank), rank=rank
                    )
                    one = memory.needs(config, run)
                    row |= {
                        f"{history} tokens": memory.tokens_of(config, run.work),
                        f"{history} GB": round(one.activations / GB, 1),
                        f"{history} batch": memory.most_rows(config, run, vram * GB),
                        f"{history} batch, all kept": memory.most_rows(
                            config, replace(run, recomputes=False), vram * GB
                        ),
                    }
                yield row


# Measured -------------------------------------------------------------------------------------------------------------


def measured() -> Iterator[dict[str, Any]]:
    """PyTorch's peak of a step beside what is counted for it."""
    for name, fields in NETWORKS.items():
        for dtype in ("float32", "bfloat16"):
            for rank in (8, 0):
                for recomputes in (False, True):
                    yield compared(name, fields, WORKS[name], dtype, rank, recomputes)


def compared(
    name: str, fields: dict[str, Any], work: Work, dtype: str, rank: int, recomputes: bool
) -> dict[str, Any]:
    """One network: its step, once to begin with and once under the profiler."""
    import torch

    from longtake.backend import training
    from longtake.models.pretrained import walking
    from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
    from longtake.training.finetune import begun
    from longtake.training.recomputing import recomputing

    torch.manual_seed(0)
    model = HunyuanVideoFramepackTransformer3DModel(**SMALL, **fields)
    model.to(dtype=torch.float32 if rank == 0 else getattr(torch, dtype))
    settings = Settings(rank=rank) if rank else Settings(whole=True)
    with ExitStack() as stack:
        parameters = stack.enter_context(begun(model, settings))
        if recomputes:
            stack.enter_context(walking(model, recomputing))
        inputs = given(work)

        def step() -> None:
            with training.autocast("float32" if rank else dtype, "cpu"):
                loss = model(**inputs, return_dict=False)[0].float().square().mean()
            loss.backward()

        step()  # gradients are there from now on, as in accumulation
        peak = peak_of(step)
    count = sum(each.numel() for each in parameters.values())
    run = Run(work, dtype, "none", count, rank, dtype, recomputes=recomputes, on_cpu=True)
    found = memory.activations(model.config, run)
    what = f"LoRA of rank {rank}" if rank else "all"
    return {
        "network": name, "learns": what, "dtype": dtype, "twice": recomputes, "measured MB": round(peak / 1e6, 1),
        "counted MB": round(found / 1e6, 1), "ratio": round(found / peak, 2),
    }  # fmt: skip


def given(work: Work) -> dict[str, Any]:
    """Inputs of a step of this work."""
    import torch

    rows, sides = work.rows, (work.height // 8, work.width // 8)
    names = {1: "latents_clean", 2: "latents_history_2x", 4: "latents_history_4x"}
    clean: dict[str, Any] = {}
    for scale, count in work.clean.items():
        clean |= {
            names[scale]: torch.randn(rows, 16, count, *sides),
            f"indices_{names[scale]}": list(range(count)),
        }
    return {
        "hidden_states": torch.randn(rows, 16, work.window, *sides), "timestep": torch.full((rows,), 500.0),
        "encoder_hidden_states": torch.randn(rows, work.text, 64), "pooled_projections": torch.randn(rows, 32),
        "image_embeds": torch.randn(rows, 729, 32), "guidance": torch.full((rows,), 6000.0), **clean,
    }  # fmt: skip


def peak_of(step: Callable[[], None]) -> int:
    """The most bytes that PyTorch's CPU allocator gave out at once during a step, above what it had at the start."""
    import torch

    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True) as profile:
        step()
    events = [each for each in profile.profiler.kineto_results.events() if each.name() == "[memory]"]
    sums = np.cumsum([each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())])
    return int(sums.max())


def table(rows: list[dict[str, Any]]) -> None:
    """Rows of equal keys, as Markdown."""
    print(f"| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(str(value) for value in row.values())} |")


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vram", type=float, default=80, help="gigabytes of the device")
    parser.add_argument("--rank", type=int, default=32, help="of the LoRA")
    parser.add_argument("--measure", action="store_true", help="measure smaller networks")
    options = parser.parse_args()
    rows = list(measured() if options.measure else counted(options.vram, options.rank))
    table(rows)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
