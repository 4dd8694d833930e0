"""The training loop: evaluate, save, stop?, step, log.

A run is defined by its stage, its seed and its length. Step number n draws its random numbers from the seed and n
alone, so a run in steps that was stopped, at whatever moment, and goes on from its checkpoint is bit for bit the run
that was never stopped. A run in minutes goes on too, but its learning rate follows the clock, which no two runs share.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from longtake.backend import training
from longtake.training.records import Records

LOGGED_EVERY = 50
"""Steps to a line of means in the log."""


class Stage(Protocol):
    """All that the loop needs to know of what is trained.

    `networks` are on the device that they are trained on. `loss` takes every random number from `rng`. `state` gives
    what else decides the steps to come, as JSON holds it, and `load_state` takes it back (or raises ModelError).
    """

    name: str
    rate: float
    average: float
    plain: tuple[str, ...]
    networks: dict[str, Any]

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Any, dict[str, float]]: ...

    def report(self, sheets: Path) -> dict[str, float]: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Length:
    """How long a training is: in steps, or in minutes (those of earlier runs count in either way)."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(
                "A training is so many steps or so many minutes long; exactly one of them is given."
            )

    def progress(self, steps: int, seconds: float) -> float:
        """The part that is done, in [0, 1].

        >>> Length(steps=8).progress(2, 1e9), Length(minutes=2).progress(7, 30.0)
        (0.25, 0.25)
        """
        if self.steps is not None:
            return min(1.0, steps / self.steps)
        assert self.minutes is not None
        return min(1.0, seconds / (60 * self.minutes))


def learning_rate(peak: float, step: int, progress: float, warmup: int = 100, cooldown: float = 0.4) -> float:
    """Linear warm-up, a plateau, then a linear descent to zero over the last `cooldown` of the length."""
    return peak * min(1.0, (step + 1) / warmup, max(1e-3, (1 - progress) / cooldown))


def run(
    stage: Stage, folder: Path, length: Length, seed: int = 0, resume: bool = True, report_every: float = 10.0
) -> dict[str, float]:
    """Train `stage` for `length` and return the last report; there is one every `report_every` minutes.

    Writes under `folder`: NAME.safetensors (all state), NAME.jsonl (the log), NAME-*.png (sample sheets).
    Raises RunError for a gradient that is not finite, before it is used, and ModelError for a checkpoint of another
    run (other networks, another seed).
    """
    optimiser = training.Optimiser(trained(stage), average=stage.average, plain=stage.plain)
    records = Records(folder, stage.name)
    records.begin(optimiser, stage, seed, resume)
    reported = records.seconds
    began = time.monotonic() - records.seconds
    while True:
        records.seconds = time.monotonic() - began
        progress = length.progress(optimiser.steps, records.seconds)
        if progress == 1.0 or records.seconds - reported > 60 * report_every:
            reported = records.seconds
            records.save(optimiser, stage, seed)
            with optimiser.averaged():
                figures = stage.report(folder / f"{stage.name}-{optimiser.steps:06d}.png")
            records.write(optimiser.steps, figures)
            if progress == 1.0:
                optimiser.keep_averages()
                return figures
        loss, parts = stage.loss(np.random.default_rng((seed, optimiser.steps)), progress)
        rate = learning_rate(stage.rate, optimiser.steps, progress)
        norm = optimiser.step(loss, rate)
        records.add({"loss": float(loss.detach()), "gradient": norm, **parts})
        if records.counted == LOGGED_EVERY:
            records.write(optimiser.steps, {"rate": rate, **records.means()})


def trained(stage: Stage) -> dict[str, Any]:
    """The parameters of the stage that learn, by network and name."""
    return {
        f"{key}/{name}": parameter
        for key, network in stage.networks.items()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
