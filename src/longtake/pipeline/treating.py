"""The treatment of the history in one run: told of each finished section, asked what the next one sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from longtake.errors import JobError
from longtake.job import Job
from longtake.pipeline.networks import Networks
from longtake.pipeline.noise import beside
from longtake.pipeline.predict import Readable
from longtake.plan.history import History
from longtake.plan.layout import Far, Slot
from longtake.plan.plans import Plan, Section
from longtake.sampling.treatments import Drift, over_scales, treatment_of
from longtake.sampling.ways import discrete_of, wanted_of
from longtake.weights.codebook import codes_digest


class Seen:
    """The latents (B, C, T, h, w) that one section sees, by scale, read already."""

    def __init__(self, clean: dict[int, np.ndarray], history: History) -> None:
        self.clean, self._history = clean, history

    def read(self, frames: Slot) -> np.ndarray:
        """The latents of one of the section's slots."""
        return self.clean[frames.scale]

    def far(self, far: Far) -> np.ndarray:
        """The far end of the history, to which nothing is done (a job that asks for both is refused)."""
        return self._history.far(far)


class Treating:
    """The treatment that a job's `history` asks for, and what it knows of the sections so far.

    `picture` (B, C, 1, h, w) is None if the video has none.
    """

    def __init__(self, job: Job, networks: Networks, plan: Plan, picture: np.ndarray | None) -> None:
        adaptive = wanted_of(job.history, "adaptive")
        self._plan = plan
        self._drift = Drift(*adaptive.numbers[1:]) if adaptive is not None else None
        self._treatment = treatment_of(job.history, networks.codes, picture, self._drift or Drift())

    def add(self, latents: np.ndarray) -> None:
        """Note a finished section, made now or kept from before: in the order of generation."""
        if self._drift is not None:
            self._drift.add(latents)

    def seen(self, section: Section, history: History, seeds: Sequence[int]) -> Readable:
        """The history as the section sees it; one of `seeds` is that of each row."""
        if self._treatment is None:
            return history
        clean = {scale: history.read(slot) for scale, slot in section.slots.items()}
        made = {scale: self._made(slot.frames, len(seeds)) for scale, slot in section.slots.items()}
        rngs = [beside(seed, section.number) for seed in seeds]
        return Seen(over_scales(self._treatment, clean, made, rngs), history)

    def _made(self, frames: Iterable[int | None], rows: int) -> np.ndarray:
        """True for frames that are neither given nor blank (B, T)."""
        made = [frame is not None and self._plan.maker(frame) is not None for frame in frames]
        return np.tile(made, (rows, 1))


def check(job: Job, networks: Networks, plan: Plan) -> None:
    """Raise JobError or ModelError if the job's history cannot be treated as it says with these networks."""
    discrete = discrete_of(job.history)
    if discrete is not None:
        codes, channels = networks.codes(*discrete), networks.part("transformer").config.in_channels
        if codes.shape[1] != channels:
            raise JobError(
                f"The codebook is one of {codes.shape[1]} channels and the latents have {channels}; fit one for this "
                "model: longtake codebook."
            )
    if wanted_of(job.history, "statistics") is not None and 0 not in plan.anchors:
        raise JobError("The history's 'statistics' needs a picture to match; the video has none.")


def form_of(job: Job, networks: Networks) -> str:
    """The form of the networks as far as it decides the job's sections: with the codes, if the history is discrete."""
    discrete = discrete_of(job.history)
    if discrete is None:
        return networks.form
    return f"{networks.form},codes={codes_digest(networks.codes(*discrete))}"
