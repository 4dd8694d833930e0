"""The result of a fine-tuning as files: the LoRA as it is now, or a folder of the whole model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from longtake.backend import runtime, training
from longtake.models import adapters
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.pipeline.networks import Networks, save_networks
from longtake.training import lora
from longtake.training.learning import Learning
from longtake.training.output import MODEL


def copied(transformer: Any, dtype: str, keep: bool = True) -> Any:
    """A transformer of the same weights in another dtype, with nothing of a training about it."""
    with runtime.empty_weights():
        made = HunyuanVideoFramepackTransformer3DModel(transformer.config)
    for name, weight in adapters.published_weights(transformer).items():
        found = training.whole(weight, keep)
        if keep:
            runtime.assign_weights(made, {name: runtime.place(found.detach(), dtype=dtype)})
    made.eval()
    return made


def written(networks: Networks, learning: Learning, optimiser: Any, folder: Path) -> Path:
    """Write the result as it is now into a folder; gives its file, or the folder of a whole model.

    Of several processes the first one writes, and all come here.
    """
    settings, writes = learning.settings, learning.company is None or learning.company.first
    if settings.whole:
        place = folder / MODEL
        # The copy is let go before the next step.
        stored = copied(networks.transformer, settings.save_dtype, writes)
        if writes:
            parts = dataclasses.replace(networks, transformer=stored)
            save_networks(parts, place, "HunyuanVideoFramepackPipeline")
        return place
    steps, lap = optimiser.steps, learning.order.lap
    about = lora.about(
        settings, steps, steps // lap, ",".join(learning.samplings), learning.shift, len(learning.examples)
    )
    file = folder / lora.file_name(settings)
    with training.gathered(lora.parts(networks.transformer)):
        if writes:
            lora.write(networks.transformer, settings, file, about)
    return file
