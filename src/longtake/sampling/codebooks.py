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
from longtake.sampling.ways import MOST, name_of

AT_ONCE = 2**22
"""Most distances that are in memory at once: 16 MB of them, whatever the size of the latents."""

SPREAD = 16
"""Vectors that the first codes are chosen among, for each code."""


@dataclass(frozen=True)
class Codebook:
    """Codes (K, C) float32 by their number K, and what is left without them.

    `residuals` are the shares of the latents' variance that K codes leave, measured on latents that they were not
    fitted to: the figure to choose K by. `facts` say what they were made of. `split` are the same by (K, GROUPS): of
    these codes (K, C) each of so many equal groups of channels has K of its own, and `shares` are their residuals.
    """

    codes: Mapping[int, np.ndarray]
    residuals: Mapping[int, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[tuple[int, int], np.ndarray] = field(default_factory=dict)
    shares: Mapping[tuple[int, int], float] = field(default_factory=dict)

    @classmethod
    def of_pairs(
        cls,
        codes: Mapping[tuple[int, int], np.ndarray],
        shares: Mapping[tuple[int, int], float],
        facts: Mapping[str, Any],
    ) -> Codebook:
        """The codebook of codes and residuals that are all by (K, GROUPS)."""
        return cls(
            {count: own for (count, groups), own in codes.items() if groups == 1},
            {count: share for (count, groups), share in shares.items() if groups == 1},
            facts,
            {each: own for each, own in codes.items() if each[1] > 1},
            {each: share for each, share in shares.items() if each[1] > 1},
        )

    @property
    def pairs(self) -> dict[tuple[int, int], np.ndarray]:
        """All codes by (K, GROUPS)."""
        return {**{(count, 1): own for count, own in self.codes.items()}, **self.split}

    @property
    def left(self) -> dict[tuple[int, int], float]:
        """All residuals by (K, GROUPS)."""
        return {**{(count, 1): share for count, share in self.residuals.items()}, **self.shares}

    def of(self, count: int, groups: int = 1) -> np.ndarray:
        """The codes (K, C) of this number, for so many groups. Raises ModelError if the codebook has none such."""
        found = self.pairs
        if (count, groups) not in found:
            there, name = ", ".join(name_of(*each) for each in sorted(found)), name_of(count, groups)
            raise ModelError(
                f"The model's codebook has no {name} codes; it has: {there or 'none'}. Fit it by: longtake codebook "
                f"MODEL DATA -k {name}"
            )
        return found[count, groups]


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


def quantised(latents: np.ndarray, codes: np.ndarray, groups: int = 1) -> np.ndarray:
    """Latents (B, C, T, h, w) with the nearest code in each pixel's place, in each group of channels.

    Raises ModelError for other channels than the codes have.
    """
    channels = latents.shape[1]
    if channels != codes.shape[1]:
        raise ModelError(
            f"The codebook is one of {codes.shape[1]} channels and the latents have {channels}; fit one for this "
            "model: longtake codebook."
        )
    pixels = np.moveaxis(latents, 1, -1)
    vectors = pixels.reshape(-1, channels).astype(np.float32)
    parts = [own[nearest(some, own)[0]] for some, own in _grouped(vectors, codes, groups)]
    return np.moveaxis(np.concatenate(parts, 1).reshape(pixels.shape), -1, 1).astype(latents.dtype)


def _grouped(vectors: np.ndarray, codes: np.ndarray, groups: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Vectors and codes of each group of channels."""
    for some, own in zip(np.split(vectors, groups, 1), np.split(codes, groups, 1), strict=True):
        yield np.ascontiguousarray(some), np.ascontiguousarray(own)


def residual(
    vectors: np.ndarray, codes: np.ndarray, mean: np.ndarray | None = None, groups: int = 1
) -> float:
    """The share of the variance of vectors (N, C) around `mean` (theirs) that is left when each becomes its code."""
    centre = vectors.mean(0, dtype=np.float64) if mean is None else mean
    spread = float(((vectors - centre) ** 2).sum(1, dtype=np.float64).mean())
    left = sum(float(nearest(*each)[1].mean(dtype=np.float64)) for each in _grouped(vectors, codes, groups))
    return left / spread if spread else 0.0


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


def fit_groups(vectors: np.ndarray, count: int, groups: int, rng: np.random.Generator) -> np.ndarray:
    """Codes (K, C) of which each of so many equal groups of channels has K of its own (product quantisation).

    With many channels no number of codes for all of them leaves little; K of each of G groups are K^G. Jegou et al.
    2011 (IEEE TPAMI). Raises ModelError if the channels cannot be cut into so many groups.
    """
    if vectors.shape[1] % groups:
        raise ModelError(
            f"{vectors.shape[1]} channels cannot be cut into {groups} equal groups; ask for a number that divides them."
        )
    return np.concatenate([fit(each, count, rng) for each in np.split(vectors, groups, 1)], 1)


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
    """The count of each code's vectors (K,), and their sums (K, C)."""
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
