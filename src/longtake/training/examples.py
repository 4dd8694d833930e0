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
class Span:
    """A prompt that is told for a part of a video: from the latent frame `first` on, to the one before `stop`.

    Both may lie between two latent frames; `stop` None is the video's end.
    """

    first: float
    stop: float | None
    told: Told


@dataclass(frozen=True)
class Example:
    """One encoded stretch of a video, or one picture.

    `latents` (C, T, h, w), scaled: frame 0 is the picture that the video begins with; T is 1 for a picture alone, else
    1 + a whole number of windows. `image_states` (M, E) are SigLIP's of that picture. `name` says where it came from,
    `repeats` how often an epoch takes it. `told` is said of the whole, and in its `spans` what they tell in its place.
    """

    name: str
    latents: np.ndarray
    told: Told
    image_states: np.ndarray
    repeats: int = 1
    spans: tuple[Span, ...] = ()

    def read(self, frames: Iterable[int | None]) -> np.ndarray:
        """Latents (C, T, h, w) float32 by frame number, for the objective; None reads as zeros."""
        blank = np.zeros(self.latents[:, 0].shape, np.float32)
        shown = (blank if frame is None else self.latents[:, frame] for frame in frames)
        return np.stack([np.asarray(frame, np.float32) for frame in shown], 1)

    def told_in(self, frames: Sequence[int]) -> Told:
        """The prompt of a section of these latent frames: as in sampling, that of the span that holds its middle."""
        middle = (min(frames) + max(frames)) / 2
        for span in self.spans:
            if span.first <= middle and (span.stop is None or middle < span.stop):
                return span.told
        return self.told


class Examples(Protocol):
    """A set of examples: an in-memory list is one, and so is a cache on disk that reads each when it is asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int) -> Example: ...
    def shape(self, number: int) -> tuple[int, int, int]:
        """Latent frames, rows and columns of an example, without reading it: examples of one batch have one shape."""
        ...
