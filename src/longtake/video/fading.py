"""A step at a joint, taken off: what a frame differs by from its stand-in, faded out over the frames beside it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

FADE = 15
"""Frames on which the difference fades: half a second at 30 a second, and a step of a 16th of it in each."""


@dataclass(frozen=True)
class Fading:
    """A difference (H, W, 3) of a clip's frame at the joint from what stands for it among the new frames.

    An autoencoder and a change of size lose a little of every frame. The clip's own frames lose nothing, so that there
    would be a flash at the joint; the same little, given back to the frames beside it and faded out, leaves none.
    """

    difference: np.ndarray = field(repr=False)
    count: int = FADE

    @classmethod
    def between(cls, own: np.ndarray, stand_in: np.ndarray) -> Fading:
        """The fading from one frame (H, W, 3) uint8 to another."""
        return cls(own.astype(np.float32) - stand_in)

    def added(self, frame: np.ndarray, distance: int) -> np.ndarray:
        """A frame uint8 with what is left of the difference so many frames (1 is the next) from the joint.

        >>> fading = Fading(np.full((1, 1, 3), 16, np.float32))
        >>> [int(fading.added(np.zeros((1, 1, 3), np.uint8), distance)[0, 0, 0]) for distance in (1, 2, 15, 16)]
        [15, 14, 1, 0]
        """
        if not 0 <= distance <= self.count:
            return frame
        left = self.difference * np.float32(1 - distance / (self.count + 1))
        return np.rint(frame + left).clip(0, 255).astype(np.uint8)
