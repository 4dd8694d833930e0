"""Pathwise correction: late in a section, the picture alone says what the latents should be; then noise again, and on.

Test-Time Correction (arXiv 2602.05871): once the structure stands, a state of the sampling path is denoised with the
first frame as its only reference, and comes back to its level by fresh noise, so that it stays on the path. Unlike
there, where a distilled model has four steps: of 25 a few late ones are corrected, whatever the solver, which then
starts anew. Each correction takes one more velocity, and goes around step caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from longtake.backend import ops, runtime
from longtake.pipeline.noise import beside
from longtake.pipeline.predict import Predictor
from longtake.pipeline.prepare import Request
from longtake.pipeline.voices import Voice
from longtake.plan.history import History
from longtake.plan.plans import Plan, Section


class Correcting:
    """The corrections of one run: `steps` of them in each section, from the noise level `level` on.

    `predict` is a predictor of their own, which sees but the picture (and the last picture, where a section does).
    """

    def __init__(self, predict: Predictor, plan: Plan, steps: int, level: float) -> None:
        self.predict, self.plan = predict, plan
        self.steps, self.level = steps, level
        self._number = 0
        self._seeds: Sequence[int] = ()

    def begin(self, section: Section, history: History, seeds: Sequence[int]) -> None:
        """Read what is given of what the section sees."""
        self._number, self._seeds = section.number, seeds
        self.predict.begin(given_alone(section, self.plan), history)

    def is_due(self, step: int, levels: Sequence[float]) -> bool:
        """Tell if what step `step` is about to see is corrected; `levels` are those of all steps."""
        return step in corrected(levels, self.steps, self.level)

    def __call__(
        self, voices: Sequence[Voice], request: Request, latents: Any, step: int, levels: Sequence[float]
    ) -> Any:
        """Latents at the noise level of a step: denoised by the picture's velocity, with fresh noise, float32."""
        sigma = levels[step]
        velocity = self.predict.mixed(voices, request.negative, latents, sigma)
        denoised = runtime.place(latents, dtype="float32") - sigma * velocity
        shape = (1, *(int(length) for length in denoised.shape[1:]))
        drawn = [beside(seed, self._number, 1 + step).standard_normal(shape) for seed in self._seeds]
        noise = runtime.place(ops.from_numpy(np.concatenate(drawn).astype(np.float32)), denoised.device)
        return (1.0 - sigma) * denoised + sigma * noise


def corrected(levels: Sequence[float], steps: int, level: float) -> range:
    """The steps that are corrected: the first `steps` whose level is at most `level`, else the last one.

    >>> corrected([1.0, 0.9, 0.5, 0.3, 0.1], 2, 0.5), corrected([1.0, 0.9, 0.8], 2, 0.5)
    (range(2, 4), range(2, 3))
    """
    levels = [sigma for sigma in levels if sigma > 0]
    late = (step for step, sigma in enumerate(levels) if step and sigma <= level)
    first = next(late, len(levels) - 1)
    return range(max(first, 1), min(first + steps, len(levels)))


def given_alone(section: Section, plan: Plan) -> Section:
    """The section with blank frames in the place of all that was made.

    >>> from longtake.plan.plans import vanilla
    >>> plan = vanilla(2)
    >>> given_alone(plan[1], plan).slots[1].frames
    (0, None)
    """
    slots = {
        scale: replace(
            slot,
            frames=tuple(
                frame if frame is not None and plan.maker(frame) is None else None for frame in slot.frames
            ),
        )
        for scale, slot in section.slots.items()
    }
    return replace(section, slots=slots)
