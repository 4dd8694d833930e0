"""One of several processes that learn together: `python two_learn.py WAY FOLDER`; run by test_company.py.

WAY is how: "alone" with twice the batch, or "plain" and "shared" as one of two.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.pipeline.networks import Networks
from longtake.training.company import met
from longtake.training.course import Learnt
from longtake.training.examples import Example, Told
from longtake.training.finetune import finetune
from longtake.training.settings import Settings

STOPPED, STEPS = 2, 4
BOTH = Settings(
    rank=4, window=2, steps=STEPS, lr=1e-2, log_every=1, save_every=100, sampling="inverted,vanilla", batch=2,
    accumulate=2, average=0.9, gradient_checkpointing=True,
)  # fmt: skip


class Clips(list):  # type: ignore[type-arg]
    """Examples in memory."""

    def shape(self, number: int) -> tuple[int, int, int]:
        return self[number].latents.shape[1:]


def clips() -> Clips:
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    told = [Told(f"words {n}", some(3 + n, 16), np.ones(3 + n, np.int64), some(8)) for n in range(3)]
    return Clips(Example(f"clip {n}", some(4, 7, 4, 6), told[n], some(4, 16)) for n in range(3))


def networks(whole: bool) -> Networks:
    transformer = Transformer(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, text_embed_dim=16, pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4), image_proj_dim=16,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    import torch

    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape), np.float32) / 4))
    return Networks(transformer=transformer.eval())


def run(way: str, folder: Path, settings: Settings, company: Any) -> None:
    """All steps, in two runs of which the second goes on where the first was stopped; alone in one."""
    stops = [STOPPED, STEPS] if way != "alone" else [STEPS]
    for stop in stops:
        kept = replace(settings, save_every=STOPPED)
        events = finetune(networks(settings.whole), clips(), folder, kept, company=company)
        for event in events:
            if isinstance(event, Learnt) and event.step == stop < STEPS:
                next(events)  # what is shared out is saved by all together, or not at all
                events.close()


def main(way: str, folder: Path) -> None:
    if way == "shared":
        os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    company = met("cpu")
    batch = BOTH.batch * (2 if company is None else 1)
    for whole in (False, True):
        # A LoRA's options and its rank are none of the whole's.
        settings = replace(BOTH, batch=batch, whole=whole, rank=32 if whole else 4)
        run(way, folder / ("whole" if whole else "lora"), settings, company)
    if company is not None:
        company.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
