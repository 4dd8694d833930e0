"""Examples: videos as a transformer learns from them, encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Told:
    """A prompt as the text encoders read it: states (N, D), mask (N,) and the pooled state (P,), float32 in memory."""

    prompt: str
    states: np.ndarray
    mask: np.ndarray
    pooled: np.ndarray


@dataclass(frozen=True)
class Example:
    """One encoded stretch of a video, or one picture.

    `latents` (C, T, h, w), scaled: frame 0 is the picture that the video begins with; T is 1 for a picture alone, else
    1 + a whole number of windows. `image_states` (M, E) are SigLIP's of that picture. `name` says where it came from,
    `repeats` how often an epoch takes it. `told` is said in the whole video, or until the first of `changes`: (latent
    frame, what is said from there on), in the order of time.
    """

    name: str
    latents: np.ndarray
    told: Told
    image_states: np.ndarray
    repeats: int = 1
    changes: tuple[tuple[int, Told], ...] = ()

    def told_in(self, frames: Sequence[int]) -> Told:
        """What is said in a section that makes these frames: in its middle, as in a job with several prompts."""
        middle = (min(frames) + max(frames) + 1) / 2
        said = [told for first, told in self.changes if first <= middle]
        return said[-1] if said else self.told

    def read(self, frames: Iterable[int | None]) -> np.ndarray:
        """Latents (C, T, h, w) by frame number, for the objective; None reads as zeros."""
        blank = np.zeros_like(self.latents[:, 0])
        return np.stack([blank if frame is None else self.latents[:, frame] for frame in frames], 1)


class Examples(Protocol):
    """A set of examples: an in-memory list is one, and so is a cache on disk that reads each when it is asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int) -> Example: ...
    def shape(self, number: int) -> tuple[int, int, int]:
        """Latent frames, rows and columns of an example, without reading it: examples of one batch have one shape."""
        ...
