"""Clean latents by frame number: all of them, or those that a plan still has use for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from longtake.errors import LongtakeError
from longtake.plan.layout import Slot
from longtake.plan.plans import Section, ranges


class History:
    """Clean latents, written in any order and read back by frame number; None reads as zeros.

    With a plan, a frame goes as soon as the last section that reads it is written, so that the size does not depend
    on the plan's length.

    >>> history = History()
    >>> history.write(0, np.ones((1, 16, 1, 8, 8), np.float32))
    >>> history.read((None, 0)).mean(axis=(0, 1, 3, 4))
    array([0., 1.], dtype=float32)
    """

    def __init__(self, plan: Sequence[Section] | None = None) -> None:
        self._frames: dict[int, np.ndarray] = {}
        self._blank: np.ndarray | None = None
        # The sections still to be made by their first frame, and how many of them read each frame.
        self._unmade = None if plan is None else {section.frames[0]: section for section in plan}
        self._readers = Counter(frame for section in plan or () for frame in _read_by(section))

    def __contains__(self, frame: object) -> bool:
        return frame in self._frames

    def __len__(self) -> int:
        return len(self._frames)

    def write(self, first_frame: int, latents: np.ndarray) -> None:
        """Keep `latents` (B, C, T, H, W) as frames `first_frame` ... `first_frame + T - 1`."""
        shape = latents.shape[:2] + latents.shape[3:]
        if self._blank is None:
            self._blank = np.zeros(shape, latents.dtype)
        if shape != self._blank.shape:
            raise LongtakeError(
                f"The history holds frames of shape {self._blank.shape}; frame {first_frame} has {shape}."
            )
        # A copy: the caller goes on denoising in his own buffer, and a view would keep the whole section alive.
        self._frames.update((first_frame + t, latents[:, :, t].copy()) for t in range(latents.shape[2]))
        if self._unmade is not None:
            self._prune(
                self._unmade.pop(first_frame, None), range(first_frame, first_frame + latents.shape[2])
            )

    def _prune(self, made: Section | None, written: Iterable[int]) -> None:
        """Let go of what was read for the last time, now that `made` is made, and of what nobody will read."""
        read = _read_by(made) if made else set()
        self._readers.subtract(read)
        for frame in {*read, *written}:
            if self._readers[frame] <= 0:
                del self._readers[frame]
                self._frames.pop(frame, None)

    def read(self, frames: Slot | Iterable[int | None]) -> np.ndarray:
        """Latents (B, C, T, H, W) of a slot or of frame numbers. Raises LongtakeError for a frame not written yet."""
        numbers = tuple(frames.frames if isinstance(frames, Slot) else frames)
        missing = [number for number in numbers if number is not None and number not in self._frames]
        if missing or self._blank is None or not numbers:
            raise LongtakeError(
                f"The history is asked for the latent frames [{ranges(numbers)}]; "
                f"it holds [{ranges(sorted(self._frames))}]."
            )
        return np.stack(
            [self._blank if number is None else self._frames[number] for number in numbers], axis=2
        )


def _read_by(section: Section) -> set[int]:
    return {frame for slot in section.slots for frame in slot.frames if frame is not None}
