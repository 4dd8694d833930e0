"""The voices of a section: what one velocity is told, and how several of them are mixed.

A prompt that fades into another, and a picture that counts for more or less than one, are mixtures of velocities, not
of states and not a latent times a number: each part of the mixture is something that the network was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longtake.plan.layout import Far, Slot

EVERYTHING: frozenset[int] = frozenset()
"""The frames that are hidden where all is seen."""


@dataclass(frozen=True)
class Voice:
    """One part of a mixture: its `weight`, what it is told, and which given latent frames are `hidden` from it."""

    weight: float
    text: Any
    image_states: Any
    hidden: frozenset[int] = EVERYTHING


class Without:
    """A source of clean latents (`predict.Readable`) that gives zeros for some frames, as for those not there."""

    def __init__(self, source: Any, hidden: frozenset[int]) -> None:
        self._source, self._hidden = source, hidden

    def read(self, frames: Slot) -> np.ndarray:
        """The latents (B, C, T, h, w) of a slot."""
        blank = [place for place, frame in enumerate(frames.frames) if frame in self._hidden]
        found: np.ndarray = self._source.read(frames)
        if blank:
            found = found.copy()
            found[:, :, blank] = 0
        return found

    def far(self, far: Far) -> np.ndarray:
        """The far end of the history, from which nothing is hidden: a job that asks for both is refused."""
        found: np.ndarray = self._source.far(far)
        return found


def mixed(voices: Sequence[Voice], velocity: Callable[[int, Voice], Any]) -> Any:
    """The sum of the voices' velocities by their weights; one alone, which has the weight 1, stays as it is."""
    first, *others = (velocity(place, voice) for place, voice in enumerate(voices))
    if not others:
        return first
    total = voices[0].weight * first
    for voice, other in zip(voices[1:], others, strict=True):
        total = total + voice.weight * other
    return total
