"""Noise levels: how they are drawn, and the shift that moves them towards noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from longtake.sampling.schedule import Schedule

PUBLISHED_SHIFT = 3.0
"""Of the published recipe for a LoRA on FramePack (musubi-tuner: discrete_flow_shift 3)."""


def drawn(kind: str, shift: float, rng: np.random.Generator) -> float:
    """A level in (0, 1) from one of `settings.LEVELS`.

    "shift" is musubi-tuner's: the logistic of a normal number, then shifted; "logit-normal" is the same without the
    shift (Esser et al., arXiv 2403.03206), "uniform" is Lipman et al.'s.
    """
    if kind == "uniform":
        return float(rng.random())
    level = 1 / (1 + math.exp(-float(rng.standard_normal())))
    return shifted(level, shift) if kind == "shift" else level


def shifted(level: Any, shift: float) -> Any:
    """A level, or an array of them, moved towards noise.

    >>> shifted(0.5, 3.0)
    0.75
    """
    return shift * level / (1 + (shift - 1) * level)


def shift_of(scheduler: Any, published: bool) -> float:
    """The shift that a model is trained with if nothing was asked: the recipe's for a published one, else its own."""
    own = isinstance(scheduler, Schedule) and not scheduler.use_dynamic_shifting
    return PUBLISHED_SHIFT if published or not own else float(scheduler.static)
