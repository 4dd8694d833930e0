"""A LoRA that learns: the layers that get it, its first values, and the file that it becomes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from longtake.backend import nn, ops, runtime
from longtake.errors import JobError
from longtake.models import adapters
from longtake.training.settings import Settings
from longtake.weights import saving
from longtake.weights.lora import DIFFUSERS_FILE, METADATA, LowRank, kohya_keys, peft_keys, peft_settings

NAME = "longtake:training"
"""The adapter that learns; no other may be called so."""
KOHYA_FILE = "lora.safetensors"
Shapes = Mapping[str, tuple[int, ...]]


def targets(shapes: Shapes, asked: str) -> list[str]:
    """The modules that get a LoRA: PEFT's rule, by whole last parts of names, or one expression for whole names.

    By default it is every linear layer of the blocks but the modulations, as musubi-tuner chooses them for FramePack.
    Patch projections, which are convolutions, can be asked for.

    >>> shapes = {name: (4, 4) for name in ("x_embedder.proj", "transformer_blocks.0.attn.to_q", "norm_out.linear")}
    >>> targets(shapes, ""), targets(shapes, "linear,proj"), targets(shapes, r".*embedder.*")
    (['transformer_blocks.0.attn.to_q'], ['x_embedder.proj', 'norm_out.linear'], ['x_embedder.proj'])

    Raises JobError for what names no layer.
    """
    linear = [name for name, shape in shapes.items() if len(shape) in (2, 5)]
    if not asked:
        blocks = ("transformer_blocks.", "single_transformer_blocks.")
        return [name for name in linear if name.startswith(blocks) and "norm" not in name]
    if re.fullmatch(r"[\w.,\s]+", asked):
        words = [word.strip() for word in asked.split(",")]
        by_word = {word: [n for n in linear if n == word or n.endswith(f".{word}")] for word in words}
        missing = [word for word, found in by_word.items() if not found]
        found = [name for name in linear if any(name in names for names in by_word.values())]
    else:
        try:
            found = [name for name in linear if re.fullmatch(asked, name)]
        except re.error as error:
            raise JobError(f"--targets {asked!r} is no regular expression: {error}.") from None
        missing = [] if found else [asked]
    if missing:
        raise JobError(
            f"--targets {missing[0]!r} names no linear layer of this transformer; there are, for example, "
            f"{', '.join(map(repr, linear[:3]))}."
        )
    return found


def begin(transformer: Any, settings: Settings) -> dict[str, Any]:
    """Attach a LoRA that changes nothing yet, and give its parameters, by name: float32, on the network's device.

    As in PEFT, `down` is drawn uniformly within 1 / sqrt(its inputs), and `up` is zero.
    """
    shapes = adapters.shapes(transformer)
    changes = {}
    for number, module in enumerate(targets(shapes, settings.targets)):
        out, wide = shapes[module][0], math.prod(shapes[module][1:])
        rng = np.random.default_rng((settings.seed, 3, number))
        down = rng.uniform(-1, 1, (settings.rank, wide)).astype(np.float32) / np.float32(wide**0.5)
        up = np.zeros((out, settings.rank), np.float32)
        changes[module] = LowRank(down, up, settings.strength)
    adapters.attach(transformer, NAME, changes, dtype="float32")
    return adapters.weights_of(transformer, NAME)


def numbers(transformer: Any, settings: Settings) -> int:
    """The count of numbers that will learn; JobError if the targets name nothing."""
    shapes = adapters.shapes(transformer)
    if settings.whole:
        return sum(math.prod(weight.shape) for weight in adapters.published_weights(transformer).values())
    chosen = (shapes[module] for module in targets(shapes, settings.targets))
    return settings.rank * sum(shape[0] + math.prod(shape[1:]) for shape in chosen)


def parts(transformer: Any) -> list[Any]:
    """The modules of the LoRA that learns, in the network's order."""
    layers = adapters.adapted(transformer).values()
    return [part for layer in layers for part in layer.adapters if part.label == NAME]


def file_name(settings: Settings) -> str:
    """The name of the file that the LoRA becomes; as diffusers has it, so that the folder can be loaded."""
    return DIFFUSERS_FILE if settings.format == "peft" else KOHYA_FILE


def write(transformer: Any, settings: Settings, file: Path, about: Mapping[str, str]) -> None:
    """Write the LoRA as it is now; `about` goes into the file's header, beside rank and alpha."""
    factors = {
        module: (_stored(down, settings), _stored(up, settings))
        for module, (down, up) in adapters.tensors_of(transformer, NAME).items()
    }
    changes = adapters.changes_of(transformer, NAME)
    metadata = {METADATA: json.dumps(peft_settings(changes), sort_keys=True), **about}
    if settings.format == "peft":
        tensors = peft_keys(factors)
    else:
        alphas = {module: _stored(_number(change.alpha), settings) for module, change in changes.items()}
        tensors = kohya_keys(factors, alphas)
        del metadata[METADATA]  # PEFT's names of modules, which this file has not
    saving.write_file(file, tensors, metadata)


def about(
    settings: Settings, steps: int, epoch: int, sampling: str, shift: float, examples: int
) -> dict[str, str]:
    """The facts of a LoRA's training that the field's tools read, under kohya's keys (`ss_…`), all as text."""
    values = {
        "ss_network_module": "networks.lora_framepack",
        "ss_network_dim": settings.rank,
        "ss_network_alpha": settings.strength,
        "ss_network_dropout": settings.dropout,
        "ss_learning_rate": settings.lr,
        "ss_lr_scheduler": settings.schedule,
        "ss_lr_warmup_steps": settings.warmup,
        "ss_optimizer": settings.optimiser,
        "ss_max_grad_norm": settings.clip,
        "ss_total_batch_size": settings.rows,
        "ss_gradient_accumulation_steps": settings.accumulate,
        "ss_timestep_sampling": settings.timestep_sampling,
        "ss_discrete_flow_shift": shift,
        "ss_guidance_scale": settings.guidance,
        "ss_num_train_items": examples,
        "ss_steps": steps,
        "ss_epoch": epoch,
        "ss_seed": settings.seed,
        "ss_base_model_version": "framepack",
        "longtake_sampling": sampling,
    }
    return {name: str(value) for name, value in values.items()}


def _stored(tensor: Any, settings: Settings) -> Any:
    return runtime.place(tensor.detach(), dtype=settings.save_dtype)


def _number(value: float) -> Any:
    return nn.Parameter(ops.from_numpy(np.array(value, np.float32)), requires_grad=False)
