"""Plain HunyuanVideo's transformer made into FramePack's: the first values of what it does not have.

What packs clean frames begins as the patch projection of the noisy ones: a frame by itself by a copy of it, frames
packed by k as their mean over k x k x k and then that projection (FramePack, arXiv 2504.12626, and the released code's
`initialize_weight_from_another_conv3d`: the kernel repeated k times on each axis, over k^3, the bias copied).

What reads the picture begins with an output of zero. Unlike the reference: the released code leaves it as PyTorch makes
a linear layer, at random, and the paper does not say. Its tokens still stand in the sequence, all alike: attention
spreads a part of itself over them until they are trained. A network that is given no picture has none of them, nor has
one whose config.json was given `"has_image_proj": false`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

KERNELS = {1: "proj", 2: "proj_2x", 4: "proj_4x"}
"""The projections of clean frames, by scale."""
PATCH = "x_embedder.proj"
CLEAN, PICTURE = "clean_x_embedder", "image_projection"
SEED = 0
"""The picture's first layer is random, and the same everywhere: a LoRA is for one network."""


def made_names(expected: Iterable[str]) -> set[str]:
    """The weights that plain HunyuanVideo does not have, among those of a FramePack transformer."""
    return {name for name in expected if name.startswith((f"{CLEAN}.", f"{PICTURE}."))}


def first_values(
    expected: Mapping[str, tuple[int, ...]], kernel: np.ndarray, bias: np.ndarray
) -> dict[str, np.ndarray]:
    """Their first values by name, from the patch projection's kernel (D, C, t, h, w) and bias (D,)."""
    found: dict[str, np.ndarray] = {}
    for scale, name in KERNELS.items():
        found[f"{CLEAN}.{name}.weight"] = spread(kernel, scale)
        found[f"{CLEAN}.{name}.bias"] = bias
    for name in (f"{PICTURE}.{layer}.{part}" for layer in ("up", "down") for part in ("weight", "bias")):
        if name in expected:
            found[name] = np.zeros(expected[name], np.float32)
    if f"{PICTURE}.up.weight" in expected:
        # Not zero too: of two layers of zeros neither ever gets a gradient.
        shape = expected[f"{PICTURE}.up.weight"]
        drawn = np.random.default_rng(SEED).random(shape, np.float32)
        found[f"{PICTURE}.up.weight"] = (2 * drawn - 1) / np.float32(shape[1] ** 0.5)
    return {name: found[name] for name in made_names(expected)}


def spread(kernel: np.ndarray, scale: int) -> np.ndarray:
    """A kernel (D, C, t, h, w) for blocks `scale` times as long, high and wide: their mean, then `kernel`.

    >>> spread(np.ones((1, 1, 1, 2, 2)), 2).shape, float(spread(np.ones((1, 1, 1, 2, 2)), 2).sum())
    ((1, 1, 2, 4, 4), 4.0)
    """
    for axis in (2, 3, 4):
        kernel = kernel.repeat(scale, axis)
    return kernel / kernel.dtype.type(scale**3)
