"""Job: what is asked, as JSON-able data; events: what happens while it is made."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from longtake.errors import JobError
from longtake.sampling.solvers import SOLVERS

SAMPLINGS = ("inverted", "vanilla")


@dataclass(frozen=True)
class Job:
    """What is asked: everything that decides the video but the pictures' pixels and the model.

    Sizes are pixels, `frames` counts video frames, `guidance` is the distilled (embedded) one, `cfg_scale` the
    real classifier-free one (1 = off). `shift` None takes the shift that the model's scheduler asks for.
    """

    prompt: str
    negative_prompt: str = ""
    picture: str | None = None
    last_picture: str | None = None
    model: str = "embedded"
    frames: int = 145
    fps: int = 30
    width: int | None = None
    height: int | None = None
    sampling: str = "inverted"
    window: int = 9
    steps: int = 25
    solver: str | None = None
    guidance: float = 10.0
    cfg_scale: float = 1.0
    cfg_rescale: float = 0.0
    shift: float | None = None
    seed: int = 0
    dtype: str = "float32"
    reference: bool = False

    def check(self) -> None:
        """Raise JobError for the first thing that cannot be done, in one sentence."""
        for name in ("width", "height"):
            size = getattr(self, name)
            if size is not None and (size < 16 or size % 16):
                raise JobError(f"The {name} must be a positive multiple of 16; {size} was asked for.")
        for name in ("frames", "fps", "steps", "window"):
            if getattr(self, name) < 1:
                raise JobError(f"{name} must be at least 1; {getattr(self, name)} was asked for.")
        if self.sampling not in SAMPLINGS:
            raise JobError(f"No sampling {self.sampling!r}; there are: {', '.join(SAMPLINGS)}.")
        if self.solver is not None and self.solver not in SOLVERS:
            raise JobError(f"No solver {self.solver!r}; there are: {', '.join(SOLVERS)}.")
        if self.last_picture is not None and self.sampling != "inverted":
            raise JobError("A last picture needs inverted sampling: vanilla never looks ahead.")
        if self.seed < 0:
            raise JobError(f"The seed must not be negative; {self.seed} was asked for.")

    def to_json(self) -> str:
        """The job as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that `to_json` wrote; JobError for anything else."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise JobError(f"This is not a job: {error}.") from None


@dataclass(frozen=True)
class Planned:
    """The plan is known: `sections` to make, `frames` that will come out; `notice` tells of any difference."""

    sections: int
    frames: int
    steps: int
    notice: str | None = None


@dataclass(frozen=True)
class Stepped:
    """One solver step is done; `section` counts in the order of generation, `step` from 0."""

    section: int
    step: int
    steps: int
    sigma: float
    latents: Any = field(repr=False)
    denoised: Any = field(repr=False)


@dataclass(frozen=True)
class SectionDone:
    """A section's latents (B, C, T, H, W) are final; `number` is its place in the video."""

    section: int
    number: int
    latents: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class FramesReady:
    """Final frames of every video, in order: `frames` (B, T, H, W, 3) uint8, the first at number `start`."""

    start: int
    frames: np.ndarray = field(repr=False)


Event = Planned | Stepped | SectionDone | FramesReady
