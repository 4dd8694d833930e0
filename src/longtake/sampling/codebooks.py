"""A codebook over latent pixels: K vectors of C channels, of which each pixel of a discrete history is the nearest.

The paper's history discretisation (+D, arXiv 2504.12626 v3): K-means over the latent pixels of a data set, and all
history replaced by its nearest codes. Errors smaller than half a cell vanish then; only jumps to another code remain.

Shapes: N latent pixels, C channels, K codes. Latents are scaled, as the transformer sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from longtake.errors import ModelError
from longtake.sampling.ways import MOST

AT_ONCE = 2**22
"""Most distances that are in memory at once: 16 MB of them, whatever the size of the latents."""

SPREAD = 16
"""Vectors that the first codes are chosen among, for each code."""


@dataclass(frozen=True)
class Codebook:
    """Codes (K, C) float32 by their number K, and what is left without them.

    `residuals` are the shares of the latents' variance that K codes leave, measured on latents that they were not
    fitted to: the figure to choose K by. `facts` say what they were made of.
    """

    codes: Mapping[int, np.ndarray]
    residuals: Mapping[int, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def of(self, count: int) -> np.ndarray:
        """The codes (K, C) of this number. Raises ModelError if the codebook has no such number."""
        if count not in self.codes:
            there = ", ".join(map(str, sorted(self.codes))) or "none"
            raise ModelError(
                f"The model's codebook has no {count} codes; it has: {there}. Fit it by: longtake codebook MODEL DATA "
                f"-k {count}"
            )
        return self.codes[count]


def nearest(vectors: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each vector (N, C) the number of its nearest code (K, C), and its squared distance from it.

    >>> nearest(np.array([[0.1], [0.9], [4.0]], np.float32), np.array([[0.0], [1.0]], np.float32))[0]
    array([0, 1, 1])
    """
    found = np.empty(len(vectors), np.int64)
    distances = np.empty(len(vectors), np.float32)
    lengths = (codes**2).sum(1)
    rows = max(1, AT_ONCE // len(codes))
    for start in range(0, len(vectors), rows):
        some = vectors[start : start + rows]
        # |x - c|^2 without |x|^2, which is the same for all codes.
        apart = some @ (-2 * codes.T)
        apart += lengths
        best = apart.argmin(1)
        found[start : start + rows] = best
        least = np.take_along_axis(apart, best[:, None], 1)[:, 0] + (some**2).sum(1)
        distances[start : start + rows] = np.maximum(least, 0)
    return found, distances


def quantised(latents: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Latents (B, C, T, h, w) with the nearest code in each pixel's place. Raises ModelError for other channels."""
    channels = latents.shape[1]
    if channels != codes.shape[1]:
        raise ModelError(
            f"The codebook is one of {codes.shape[1]} channels and the latents have {channels}; fit one for this "
            "model: longtake codebook."
        )
    pixels = np.moveaxis(latents, 1, -1)
    found, _ = nearest(pixels.reshape(-1, channels).astype(np.float32), codes)
    return np.moveaxis(codes[found].reshape(pixels.shape), -1, 1).astype(latents.dtype)


def residual(vectors: np.ndarray, codes: np.ndarray, mean: np.ndarray | None = None) -> float:
    """The share of the variance of vectors (N, C) around `mean` (theirs) that is left when each becomes its code."""
    centre = vectors.mean(0, dtype=np.float64) if mean is None else mean
    spread = float(((vectors - centre) ** 2).sum(1, dtype=np.float64).mean())
    return float(nearest(vectors, codes)[1].astype(np.float64).mean()) / spread if spread else 0.0


# Fitting --------------------------------------------------------------------------------------------------------------


def fit(
    vectors: np.ndarray, count: int, rng: np.random.Generator, passes: int = 6, batch: int = 8192
) -> np.ndarray:
    """Codes (K, C) of vectors (N, C): k-means++, mini-batch k-means over so many passes, two exact passes.

    One code is the mean. k-means++ is Arthur and Vassilvitskii 2007, mini-batches are Sculley 2010 (WWW). Raises
    ModelError if there are not as many different vectors as codes.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    if not 1 <= count <= min(len(vectors), MOST):
        raise ModelError(
            f"{count} codes cannot be fitted to {len(vectors)} latent pixels; give more videos, or ask for fewer codes "
            f"(1 to {min(len(vectors), MOST)})."
        )
    if count == 1:
        return vectors.mean(0, dtype=np.float64).astype(np.float32)[None]
    codes = _spread(vectors, count, rng)
    seen = np.zeros(count)
    for some in _batches(vectors, passes, batch, rng):
        numbers, sums = _gathered(some, nearest(some, codes)[0], count)
        seen += numbers
        hit = numbers > 0
        step = (sums[hit] - numbers[hit, None] * codes[hit]) / seen[hit, None]
        codes[hit] += step.astype(np.float32)
    for _ in range(2):
        codes = _exact(vectors, codes)
    return codes


def _spread(vectors: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The first codes: each one a vector, drawn the more likely the farther it is from those before (k-means++)."""
    size = min(len(vectors), max(4096, SPREAD * count))
    some = vectors[rng.choice(len(vectors), size, replace=False)]
    codes = np.empty((count, vectors.shape[1]), np.float32)
    codes[0] = some[rng.integers(size)]
    apart = ((some - codes[0]) ** 2).sum(1, dtype=np.float64)
    for number in range(1, count):
        if not apart.sum() > 0:
            raise ModelError(
                f"There are only {number} different latent pixels for {count} codes; give other videos, or ask for "
                "fewer codes."
            )
        codes[number] = some[rng.choice(size, p=apart / apart.sum())]
        apart = np.minimum(apart, ((some - codes[number]) ** 2).sum(1, dtype=np.float64))
    return codes


def _batches(vectors: np.ndarray, passes: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for _ in range(passes):
        order = rng.permutation(len(vectors))
        for start in range(0, len(order), batch):
            yield vectors[order[start : start + batch]]


def _gathered(vectors: np.ndarray, found: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """How many vectors each code has (K,), and their sums (K, C)."""
    numbers = np.bincount(found, minlength=count).astype(np.float64)
    columns = [np.bincount(found, vectors[:, c], count) for c in range(vectors.shape[1])]
    return numbers, np.stack(columns, 1)


def _exact(vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Each code at the mean of its vectors; a code that has none at a vector that is far from its own."""
    found, apart = nearest(vectors, codes)
    numbers, sums = _gathered(vectors, found, len(codes))
    moved = (sums / np.maximum(numbers, 1)[:, None]).astype(np.float32)
    empty = np.flatnonzero(numbers == 0)
    moved[empty] = vectors[np.argsort(apart, kind="stable")[::-1][: len(empty)]]
    return moved
