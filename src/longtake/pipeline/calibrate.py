"""The measuring of MagCache's ratios on whole runs of a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from longtake.backend import ops
from longtake.pipeline.between import Between, Head
from longtake.pipeline.caching import StepCache, check_blocks
from longtake.pipeline.change import lengths
from longtake.sampling.caching import Cache, Decisions
from longtake.sampling.ratios import Ratios
from longtake.sampling.solvers import Velocity

NOTHING = Cache("mag", (0.0, 0, 0.0, 0), ((1.0,),))
"""Skips nothing."""


class Calibration(StepCache):
    """A `Wrap` that measures, at each step, the size of what the blocks add against that of the step before.

    The size is that of each token of the window, and the ratio the mean over them, as MagCache's authors take it.
    """

    def __init__(self, transformer: Any, steps: int, branches: int = 1) -> None:
        check_blocks(transformer, "The measuring of ratios", "the cache easy needs none")
        super().__init__(NOTHING, transformer, steps, branches)
        self.branches = branches
        self.runs: list[Measured] = []

    def __call__(self, velocity: Velocity) -> Velocity:
        self.runs.append(Measured(self, velocity, Decisions(NOTHING, self.steps, (1.0,)), Head))
        return self.runs[-1]

    @property
    def ratios(self) -> Ratios:
        """The mean ratios of all sections that are finished, a list for each branch of guidance."""
        lists = []
        for branch in range(self.branches):
            runs = [each.ratios for each in self.runs[branch :: self.branches]]
            whole = np.mean([ratios for ratios in runs if len(ratios) == self.steps], axis=0)
            lists.append(tuple(float(ratio) for ratio in whole))
        return tuple(lists)


class Measured(Between):
    """One branch of one section, all of it computed."""

    before: Any = None

    def __call__(self, latents: Any, sigma: float) -> Any:
        velocity = super().__call__(latents, sigma)
        now = lengths(self.added)
        ratio = 1.0 if self.before is None else float(ops.to_numpy((now / (self.before + 1e-8)).mean()))
        self.before = now
        self.ratios.append(ratio)
        return velocity

    def __init__(self, cache: StepCache, velocity: Velocity, decisions: Decisions, head: type[Head]) -> None:
        super().__init__(cache, velocity, decisions, head)
        self.ratios: list[float] = []
