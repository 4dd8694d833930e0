"""The events of making a video; `longtake.generate` yields these in their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Planned:
    """The plan is known: `sections` to make, `frames` that will come out; `notice` tells of any difference."""

    sections: int
    frames: int
    steps: int
    notice: str | None = None


@dataclass(frozen=True)
class Moved:
    """The networks lie otherwise than whole where they run, or otherwise than before: `notice` says how."""

    notice: str


@dataclass(frozen=True)
class Encoded:
    """Prompts and pictures are encoded, so that their encoders are not needed again.

    `anchors` are the pictures' latents (B, C, 1, h, w), scaled, by latent frame number; `text` is the job's own.
    """

    anchors: Mapping[int, np.ndarray] = field(repr=False)
    text: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Stepped:
    """One solver step is done; `section` counts in the order of generation, `step` from 0.

    It took `velocities`, one for each branch of guidance, of which the whole network `computed` so many; a step cache
    gave the others.
    """

    section: int
    step: int
    steps: int
    sigma: float
    latents: Any = field(repr=False)
    denoised: Any = field(repr=False)
    velocities: int = 1
    computed: int = 1


@dataclass(frozen=True)
class SectionDone:
    """A section's latents (B, C, T, h, w) are final; `number` is its place in the video.

    `frame` is its first latent frame.
    """

    section: int
    number: int
    latents: np.ndarray = field(repr=False)
    frame: int = 0


@dataclass(frozen=True)
class FramesReady:
    """Final frames of every video, in order: `frames` (B, T, H, W, 3) uint8, the first at number `start`.

    If `generate` was given another conversion, `frames` is its result.
    """

    start: int
    frames: Any = field(repr=False)


@dataclass(frozen=True)
class FramesUnwanted:
    """So many frames in their place among those of `FramesReady`, the first at number `start`, which nobody wants."""

    start: int
    count: int


@dataclass(frozen=True)
class Preview:
    """An early look at a section: `frames` (B, T, H, W, 3) uint8 of the section at place `number` in the video.

    They are rough or made of this section alone, and may be smaller than the video.
    """

    number: int
    frames: np.ndarray = field(repr=False)


Event = Planned | Moved | Encoded | Stepped | SectionDone | Preview | FramesReady | FramesUnwanted
