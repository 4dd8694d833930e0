"""All clean latents so far, by frame number."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from longtake.errors import LongtakeError
from longtake.plan.layout import Slot
from longtake.plan.sections import ranges


class History:
    """Clean latents, written in any order and read back by frame number; None reads as zeros.

    >>> history = History()
    >>> history.write(0, np.ones((1, 16, 1, 8, 8), np.float32))
    >>> history.read((None, 0)).mean(axis=(0, 1, 3, 4))
    array([0., 1.], dtype=float32)
    """

    def __init__(self) -> None:
        self._frames: dict[int, np.ndarray] = {}

    def __contains__(self, frame: object) -> bool:
        return frame in self._frames

    def __len__(self) -> int:
        return len(self._frames)

    def write(self, first_frame: int, latents: np.ndarray) -> None:
        """Keep `latents` (B, C, T, H, W) as frames `first_frame` ... `first_frame + T - 1`."""
        known = next(iter(self._frames.values()), None)
        shape = latents.shape[:2] + latents.shape[3:]
        if known is not None and shape != known.shape:
            raise LongtakeError(
                f"The history holds frames of shape {known.shape}; frame {first_frame} has {shape}."
            )
        # A copy: the caller goes on denoising in his own buffer, and a view would keep the whole section alive.
        self._frames.update((first_frame + t, latents[:, :, t].copy()) for t in range(latents.shape[2]))

    def read(self, frames: Slot | Iterable[int | None]) -> np.ndarray:
        """Latents (B, C, T, H, W) of a slot or of frame numbers. Raises LongtakeError for a frame not written yet."""
        numbers = tuple(frames.frames if isinstance(frames, Slot) else frames)
        missing = [number for number in numbers if number is not None and number not in self._frames]
        if missing or not self._frames or not numbers:
            raise LongtakeError(
                f"The history is asked for the latent frames [{ranges(numbers)}]; "
                f"it holds [{ranges(sorted(self._frames))}]."
            )
        blank = np.zeros_like(next(iter(self._frames.values())))
        return np.stack([blank if number is None else self._frames[number] for number in numbers], axis=2)
