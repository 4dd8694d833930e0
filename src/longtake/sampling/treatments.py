"""The treatments of the values that a section sees of its history: the same for sampling and for training.

Anchors, which are given and not made, are never treated, and blank frames stay blank: `made` says which frames are
neither. Shapes: B rows, C channels, T latent frames, h w rows and columns of latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from longtake.errors import JobError
from longtake.sampling.codebooks import quantised
from longtake.sampling.ways import check_training, parse


class Random(Protocol):
    """The random numbers of a treatment: numpy's generator, or one for each row."""

    def random(self, size: Any) -> Any: ...
    def standard_normal(self, size: Any) -> Any: ...


class EachRow:
    """Random numbers whose first axis is rows, each row's from a generator of its own."""

    def __init__(self, rngs: Sequence[np.random.Generator]) -> None:
        self._rngs = rngs

    def random(self, size: Sequence[int]) -> np.ndarray:
        """Numbers in [0, 1)."""
        return np.stack([rng.random(size[1:]) for rng in self._rngs])

    def standard_normal(self, size: Sequence[int]) -> np.ndarray:
        """Normal numbers."""
        return np.stack([rng.standard_normal(size[1:]) for rng in self._rngs])


Treatment = Callable[[np.ndarray, np.ndarray, Any], np.ndarray]
"""Changes what is seen of the past: (latents (B, C, T, h, w), which frames are neither given nor blank (B, T), random
numbers as of `Random`) -> latents. The same function serves training and sampling."""


def over_scales(
    treatment: Treatment,
    clean: Mapping[int, np.ndarray],
    made: Mapping[int, np.ndarray],
    rng: np.random.Generator | Sequence[np.random.Generator],
) -> dict[int, np.ndarray]:
    """Latents (B, C, T, h, w) and `made` (B, T) of all scales, treated as one.

    `rng` may be one for each row; then a row gets the same whatever is beside it.
    """
    if not clean:
        return {}
    latents = np.concatenate(list(clean.values()), 2)
    where = np.concatenate([made[scale] for scale in clean], 1)
    done = treatment(latents, where, rng if isinstance(rng, np.random.Generator) else EachRow(rng))
    ends = np.cumsum([array.shape[2] for array in clean.values()])[:-1]
    return dict(zip(clean, np.split(done, ends, 2), strict=True))


def chain(treatments: Iterable[Treatment]) -> Treatment:
    """One treatment after the other."""
    several = tuple(treatments)

    def treat(latents: np.ndarray, made: np.ndarray, rng: Random) -> np.ndarray:
        for treatment in several:
            latents = treatment(latents, made, rng)
        return latents

    return treat


def sometimes(treatment: Treatment, share: float) -> Treatment:
    """The treatment for this share of the rows, the others as they are: for a network that is to know both."""

    def treat(latents: np.ndarray, made: np.ndarray, rng: Random) -> np.ndarray:
        chosen = rng.random((len(latents),)) < share
        return treatment(latents, made & chosen[:, None], rng)

    return treat


def discrete(codes: np.ndarray, groups: int = 1) -> Treatment:
    """The nearest of the codes (K, C) in the place of each latent pixel (+D, arXiv 2504.12626 v3, section 3).

    Unlike the paper, which replaces all history: anchors stay as they are, since no error can come in through them.
    The paper has one group of channels.
    """

    def treat(latents: np.ndarray, made: np.ndarray, rng: Random) -> np.ndarray:
        return _where(made, lambda frames: quantised(frames, codes, groups), latents)

    return treat


def noise(level: float) -> Treatment:
    """A mixture with fresh noise of this level, as Diffusion Forcing has at test time (the paper's Table 2)."""

    def treat(latents: np.ndarray, made: np.ndarray, rng: Random) -> np.ndarray:
        return _only(made, mixed(latents, level, _normal(rng, latents)), latents)

    return treat


def added(strength: float) -> Treatment:
    """So much fresh noise on top, as in Helios' `apply_frame_aware_corruption`."""

    def treat(latents: np.ndarray, made: np.ndarray, rng: Random) -> np.ndarray:
        return _only(made, latents + np.float32(strength) * _normal(rng, latents), latents)

    return treat


def matched(picture: np.ndarray, share: float = 1.0) -> Treatment:
    """Each frame's channels with the mean and the spread of the picture's (B, C, 1, h, w), to this share.

    No source has it; it is the affine form of histogram matching. A light that really changes is undone by it, too.
    """
    axes = (3, 4)
    mean, spread = (np.asarray(f(picture, axis=axes, keepdims=True)) for f in (np.mean, np.std))

    def treat(latents: np.ndarray, made: np.ndarray, rng: Random) -> np.ndarray:
        own, width = latents.mean(axes, keepdims=True), latents.std(axes, keepdims=True)
        # A channel that is flat stays flat.
        there = np.divide(spread, width, out=np.ones_like(width), where=width > 1e-6)
        wanted = (latents - own) * there + mean
        return _only(made, latents + np.float32(share) * (wanted - latents), latents)

    return treat


def corruption(level: float = 1 / 3, noised: float = 0.9, clean: float = 0.1) -> Treatment:
    """Each frame on its own: clean, mixed with noise of a level from 0 to `level`, or made smaller and larger again.

    Helios' (arXiv 2603.04379) for training; smaller is 0.9 to 1 times. Unlike Helios, which also changes the saturation
    of pixels in some samples: latents have none, and decoding them for it would cost more than the step.
    """

    def treat(latents: np.ndarray, made: np.ndarray, rng: Random) -> np.ndarray:
        rows, frames = made.shape
        drawn, kind, size, part = np.moveaxis(rng.random((rows, 4, frames)), 1, 0)
        levels = (level * part).astype(np.float32)
        result = mixed(latents, levels[:, None, :, None, None], _normal(rng, latents))
        for row, frame in zip(*np.nonzero(made & (kind >= noised)), strict=True):
            result[row, :, frame] = _blurred(latents[row, :, frame], 0.9 + 0.1 * size[row, frame])
        return _only(made & (drawn >= clean), result, latents)

    return treat


def mixed(latents: np.ndarray, level: np.ndarray | float, with_noise: np.ndarray) -> np.ndarray:
    """Latents at a noise level: what flow matching trains on."""
    part = np.float32(level) if isinstance(level, float | int) else level
    return (1 - part) * latents + part * with_noise


def _normal(rng: Random, latents: np.ndarray) -> np.ndarray:
    return rng.standard_normal(latents.shape).astype(np.float32)


def _only(made: np.ndarray, treated: np.ndarray, latents: np.ndarray) -> np.ndarray:
    return np.where(made[:, None, :, None, None], treated, latents).astype(latents.dtype)


def _where(
    made: np.ndarray,
    function: Callable[[np.ndarray], np.ndarray],
    latents: np.ndarray,
) -> np.ndarray:
    """The function's result for the frames that were made, and no work for the others."""
    result = latents.copy()
    rows, frames = np.nonzero(made)
    if len(rows):
        chosen = latents[rows, :, frames][:, :, None]
        result[rows, :, frames] = function(chosen)[:, :, 0]
    return result


def _blurred(frame: np.ndarray, size: float) -> np.ndarray:
    """A frame (C, h, w) that was made smaller and larger again, linearly; down to whole pixels, so it is smaller."""
    rows, columns = (_resampling(edge, max(1, int(edge * size))) for edge in frame.shape[1:])
    return np.asarray(rows @ frame @ columns.T, np.float32)


@lru_cache(maxsize=256)
def _resampling(length: int, smaller: int) -> np.ndarray:
    """The matrix (length, length) of going to fewer samples and back."""
    return _linear(smaller, length) @ _linear(length, smaller)


def _linear(source: int, target: int) -> np.ndarray:
    """The matrix (target, source) of linear interpolation, pixels lying in the middle of their cells."""
    at = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    first = np.minimum(at.astype(int), source - 1)
    part = (at - first).astype(np.float32)
    matrix = np.zeros((target, source), np.float32)
    matrix[np.arange(target), first] = 1 - part
    matrix[np.arange(target), np.minimum(first + 1, source - 1)] += part
    return matrix


class Drift:
    """The running mean of the finished sections' statistics, and whether the last one left it (Helios).

    Means and variances (B, C) over a section's frames and pixels. A function of the finished sections in the order of
    generation, so that a job that goes on has the same.
    """

    def __init__(self, threshold: float = 0.15, rho: float = 0.9) -> None:
        self.threshold, self.rho = threshold, rho
        self._known: tuple[np.ndarray, np.ndarray] | None = None
        self.left: np.ndarray | None = None
        """The rows that left the mean of the sections before (B,); None before the first section."""

    def add(self, latents: np.ndarray) -> None:
        """Note a finished section (B, C, T, h, w).

        Unlike Helios, which decides for all videos of a batch together: each row by itself.
        """
        new = (latents.mean((2, 3, 4)), latents.var((2, 3, 4), ddof=1))
        if self._known is None:
            self._known, self.left = new, np.zeros(len(latents), bool)
            return
        apart = [np.linalg.norm(now - before, axis=1) for now, before in zip(new, self._known, strict=True)]
        self.left = (apart[0] > self.threshold) & (apart[1] > self.threshold)
        rest = 1 - self.rho
        self._known = (
            self.rho * self._known[0] + rest * new[0],
            self.rho * self._known[1] + rest * new[1],
        )


def adaptive(strength: float, drift: Drift) -> Treatment:
    """Noise on the history of the rows whose last section left the mean (arXiv 2603.04379, `AdaptiveAntiDrifting`).

    Unlike Helios' code, which adds it to the finished section, so that it is seen in the video: to the history alone.
    """
    noisy = added(strength)

    def treat(latents: np.ndarray, made: np.ndarray, rng: Random) -> np.ndarray:
        return latents if drift.left is None else noisy(latents, made & drift.left[:, None], rng)

    return treat


def treatment_of(
    text: str,
    codes: Callable[[int, int], np.ndarray],
    picture: np.ndarray | None = None,
    drift: Drift | None = None,
) -> Treatment | None:
    """The treatment of values that a text asks for, in its order; None if it says nothing of them.

    `codes` gives the codes (K, C) of a number for so many groups. Without `drift`, which sampling alone has, this is
    for training: what needs more than the frames seen is refused.
    """
    done: list[Treatment] = []
    if drift is None:
        check_training(text)
    for name, numbers in ((wanted.name, wanted.numbers) for wanted in parse(text)):
        if name == "discrete":
            count, groups = int(numbers[0]), int(numbers[1])
            done.append(discrete(codes(count, groups), groups))
        elif name == "noise":
            done.append(noise(numbers[0]))
        elif name == "corrupt":
            done.append(corruption(*numbers))
        elif name == "adaptive" and drift is not None:
            done.append(adaptive(numbers[0], drift))
        elif name == "statistics":
            if picture is None:
                raise JobError("The history's 'statistics' needs a picture to match; the video has none.")
            done.append(matched(picture, numbers[0]))
    return chain(done) if done else None
