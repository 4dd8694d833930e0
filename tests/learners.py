"""A transformer and examples in miniature, the same in every process; as a script, a fine-tuning that is killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from longtake.training.course import Learnt
from longtake.training.examples import Example, Told
from longtake.training.settings import Settings

WINDOW = 2
TINY: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 10,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "text_embed_dim": 16,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (2, 4, 4),
    "image_proj_dim": 16,
}
SETTINGS = Settings(
    rank=4, window=WINDOW, steps=4, lr=1e-2, log_every=2, save_every=100, sampling="inverted,vanilla"
)


class Clips(list):  # type: ignore[type-arg]
    """Examples in memory."""

    def shape(self, number: int) -> tuple[int, int, int]:
        return self[number].latents.shape[1:]


def learner() -> Any:
    """Networks that are a transformer alone."""
    import torch

    from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
    from longtake.pipeline.networks import Networks

    torch.manual_seed(0)
    transformer = HunyuanVideoFramepackTransformer3DModel(**TINY)
    for parameter in transformer.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return Networks(transformer=transformer.eval())


def clips(count: int = 2, sections: int = 3) -> Clips:
    """So many clips of so many sections, and prompts of different lengths."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return Clips(
        Example(
            f"clip {n}", drawn(4, 1 + WINDOW * sections, 4, 6),
            Told(f"prompt {n}", drawn(5 + n, 16), np.ones(5 + n, np.int64), drawn(8)), drawn(4, 16),
        )
        for n in range(count)
    )  # fmt: skip


if __name__ == "__main__":
    from longtake.training.finetune import finetune

    settings = Settings(**{**SETTINGS.values(), "save_every": 2, "average": 0.9, "dropout": 0.2})
    for event in finetune(learner(), clips(), Path(sys.argv[1]), settings):
        if isinstance(event, Learnt) and event.step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
