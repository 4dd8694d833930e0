"""The start of the transformer's training: a network whose blocks do nothing yet.

As in DiT (arXiv 2212.09748): adaptive norms and the last layer are zero, so every block begins as the identity and
the first velocity is zero. As in FramePack (arXiv 2504.12626): the kernels of packed clean frames begin as the
mean over the packed block followed by the 1x patch projection.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from longtake.backend import training
from longtake.weights.unpacked import KERNELS, spread

SMALL = 0.02
"""Standard deviation of embeddings, as in DiT and before it in GPT-2."""


def initialise(model: Any, rng_seed: int) -> None:
    """Give every weight of the transformer its first value; the same seed gives the same values everywhere."""
    rng = np.random.default_rng(rng_seed)
    parameters = dict(model.named_parameters())
    first = {name: first_value(name, tuple(parameters[name].shape), rng) for name in sorted(parameters)}
    first.update(clean_kernels(first))
    for name, value in first.items():
        training.fill(parameters[name], value)


def first_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """One weight's first value, float32, by its published name.

    >>> rng = np.random.default_rng(0)
    >>> bool(first_value("norm_out.linear.weight", (2, 3), rng).any())
    False
    >>> first_value("transformer_blocks.0.attn.norm_q.weight", (2,), rng)
    array([1., 1.], dtype=float32)
    """
    if re.search(r"norm\w*\.linear\.|^proj_out\.", name):
        return np.zeros(shape, np.float32)
    if re.search(r"x_embedder\.\w+\.bias$", name):
        # Noisy and clean frames share a projection at first: small random biases tell the kinds apart.
        return normal(shape, SMALL, rng)
    if len(shape) == 1:
        return np.full(shape, float(name.endswith(".weight")), np.float32)
    if re.search(r"(timestep|guidance)_embedder\.", name):
        return normal(shape, SMALL, rng)
    # Xavier, with convolutions seen as linear layers over a patch.
    return normal(shape, (2 / (shape[0] + math.prod(shape[1:]))) ** 0.5, rng)


def clean_kernels(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The clean frames' projections at each scale, made of the noisy window's; none if the model has none."""
    patch = weights["x_embedder.proj.weight"]
    return {
        f"clean_x_embedder.{name}.weight": spread(patch, scale)
        for scale, name in KERNELS.items()
        if f"clean_x_embedder.{name}.weight" in weights
    }


def normal(shape: tuple[int, ...], std: float, rng: np.random.Generator) -> np.ndarray:
    """Normal values without those beyond two standard deviations (drawn again), of deviation `std`, float32."""
    values = rng.standard_normal(shape)
    while (far := np.abs(values) > 2).any():
        values[far] = rng.standard_normal(int(far.sum()))
    # The cut leaves a deviation of 0.8796.
    return (values * (std / 0.8796)).astype(np.float32)
