"""Noise sources: who draws the start of each section and the autoencoder's sample of each picture.

A source is a function of what the noise is for, its shape and its dtype. From an int it is keyed: the same section
of the same seed starts from the same noise whatever was drawn before it. From a generator it is a stream, drawn in
the order in which diffusers and mindone draw: first picture, last picture, then the sections as they are made. (Key
frames, which they do not know, come between the two.)
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from longtake.backend import ops, runtime
from longtake.errors import JobError

PICTURE = "picture"
LAST_PICTURE = "last picture"
# Branches of the seed: what kind of noise, then which.
KINDS = {PICTURE: (0, 0), LAST_PICTURE: (0, 1)}
SECTIONS, BESIDE = 1, 2

What: TypeAlias = "str | int | tuple[int, int]"
"""The use of noise: PICTURE, LAST_PICTURE, a `key_frame`, or a section by its number."""

Noise: TypeAlias = "Callable[[What, tuple[int, ...], str], np.ndarray]"
"""noise(what it is for, shape (B, C, T, H, W), dtype name): values of that dtype."""


def key_frame(frame: int) -> tuple[int, int]:
    """The use of the noise of a picture that stands at a latent frame within the video, above 0."""
    return 0, 1 + frame


def noise_source(generator: Any, videos: int = 1) -> Noise:
    """The noise of `videos` videos from what a caller gives as `generator`.

    An int (video b is the one that the seed + b makes alone), a numpy `Generator` or anything else with
    `standard_normal`, the framework's generator, None (the framework's own state), or a list with one per video.
    Raises JobError for anything else.

    >>> noise_source(7)(0, (1, 4, 9, 2, 2), "float32").shape
    (1, 4, 9, 2, 2)
    """
    if isinstance(generator, list | tuple):
        if len(generator) == 1:
            return noise_source(generator[0], videos)
        if len(generator) != videos:
            raise JobError(
                f"There are {len(generator)} generators for {videos} videos; give one, or one per video."
            )
        return _by_video([_one(single) for single in generator])
    if _is_seed(generator):
        return _by_video([keyed(int(generator) + video) for video in range(videos)])
    return _one(generator)


def seeds_of(generator: Any, videos: int, otherwise: int) -> tuple[int, ...]:
    """The seed of each of `videos` videos for what is drawn beside their noise; `otherwise` for a stream's.

    >>> seeds_of(7, 2, 0), seeds_of([3, 9], 2, 0), seeds_of(np.random.default_rng(1), 2, 5)
    ((7, 8), (3, 9), (5, 6))
    """
    several = generator if isinstance(generator, list | tuple) else [generator]
    if len(several) == 1:
        first = int(several[0]) if _is_seed(several[0]) else otherwise
        return tuple(first + video for video in range(videos))
    return tuple(int(one) if _is_seed(one) else otherwise + video for video, one in enumerate(several))


def beside(seed: int, section: int, what: int = 0) -> np.random.Generator:
    """Random numbers of one section of one video for what is no noise to start from: 0 is what is done to its history,
    1 and more its corrections by their step."""
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence(seed, spawn_key=(BESIDE, section, what)))
    )


def fresh_seed() -> int:
    """A new random seed."""
    return secrets.randbelow(2**32)


def keyed(seed: int) -> Noise:
    """Noise that depends on the seed and on what it is for, and on nothing else."""
    if seed < 0:
        raise JobError(f"The seed must not be negative; {seed} was asked for.")

    def draw(what: What, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        branch = (
            what if isinstance(what, tuple) else KINDS[what] if isinstance(what, str) else (SECTIONS, what)
        )
        bits = np.random.Philox(np.random.SeedSequence(seed, spawn_key=branch))
        return _normal(np.random.Generator(bits), shape, dtype)

    return draw


def _one(generator: Any) -> Noise:
    """The noise of one generator, whatever its kind."""
    if _is_seed(generator):
        return keyed(int(generator))
    if hasattr(generator, "standard_normal"):
        return partial(_numpy_normal, generator)
    if generator is None or isinstance(generator, runtime.Generator):
        return partial(_framework_normal, generator)
    raise JobError(
        f"A generator is an int, a numpy Generator or the framework's own; {type(generator).__name__} was given."
    )


def _by_video(sources: Sequence[Noise]) -> Noise:
    def draw(what: What, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        return np.concatenate([source(what, (1, *shape[1:]), dtype) for source in sources])

    return draw


def _framework_normal(
    generator: Any, what: What, shape: tuple[int, ...], dtype: str = "float32"
) -> np.ndarray:
    return np.asarray(ops.to_numpy(runtime.randn(shape, generator, dtype)), dtype=np.float32)


def _numpy_normal(generator: Any, what: What, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    return _normal(generator, shape, dtype)


def _normal(generator: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Drawn in float64 and then rounded, as mindone does, so that a seed gives one noise in every dtype."""
    # numpy has no bfloat16; the cast to it happens when the array becomes a tensor.
    rounded = generator.standard_normal(shape).astype(np.float16 if dtype == "float16" else np.float32)
    return np.asarray(rounded, dtype=np.float32)


def _is_seed(generator: Any) -> bool:
    return isinstance(generator, int | np.integer) and not isinstance(generator, bool)
