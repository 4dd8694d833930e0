"""Clean latents by frame number: all of them, or those that a plan still has use for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from longtake.errors import LongtakeError
from longtake.plan.layout import Slot
from longtake.plan.plans import Plan
from longtake.plan.table import ranges


class History:
    """Clean latents, written in any order and read back by frame number; None reads as zeros.

    With a plan, frames go that no section will read any more, so that the size does not depend on the plan's length.

    >>> history = History()
    >>> history.write(0, np.ones((1, 16, 1, 8, 8), np.float32))
    >>> history.read((None, 0)).mean(axis=(0, 1, 3, 4))
    array([0., 1.], dtype=float32)
    """

    def __init__(self, plan: Plan | None = None) -> None:
        self._frames: dict[int, np.ndarray] = {}
        self._blank: np.ndarray | None = None
        self._plan = plan
        # Sections of the order of generation: so many from the first on are there, and these further on.
        self._done = 0
        self._ahead: set[int] = set()

    def __contains__(self, frame: object) -> bool:
        return frame in self._frames

    def __len__(self) -> int:
        return len(self._frames)

    def write(self, frames: int | Sequence[int], latents: np.ndarray) -> None:
        """Keep `latents` (B, C, T, H, W) as these frames, or as those from a first one on."""
        count = latents.shape[2]
        numbers = range(frames, frames + count) if isinstance(frames, int) else frames
        shape = latents.shape[:2] + latents.shape[3:]
        if self._blank is None:
            self._blank = np.zeros(shape, latents.dtype)
        if shape != self._blank.shape or len(numbers) != count:
            raise LongtakeError(
                f"The history holds frames of shape {self._blank.shape}; it was given {count} of {shape} for the "
                f"latent frames [{ranges(numbers)}]."
            )
        # A copy: the caller goes on denoising in his own buffer, and a view would keep the whole section alive.
        self._frames.update((number, latents[:, :, t].copy()) for t, number in enumerate(numbers))
        if self._plan is not None:
            self._note(self._plan, numbers)
            self._prune(self._plan)

    def _note(self, plan: Plan, written: Iterable[int]) -> None:
        """Count the sections that are whole now."""
        makers = {plan.maker(frame) for frame in written} - {None}
        for made in {plan.made_at(number) for number in makers if number is not None}:
            if made >= self._done and all(frame in self._frames for frame in plan[made].frames):
                self._ahead.add(made)
        while self._done in self._ahead:
            self._ahead.remove(self._done)
            self._done += 1

    def _prune(self, plan: Plan) -> None:
        """Let go of what the next section to be made, and all after it, will not read."""
        if self._done == len(plan):
            self._frames.clear()
        for frame in [*self._frames]:
            number = plan.maker(frame)
            # What is given is there before the first section.
            made = -1 if number is None else plan.made_at(number)
            if made + plan.horizon < self._done and frame not in plan.lasting:
                del self._frames[frame]

    def read(self, frames: Slot | Iterable[int | None]) -> np.ndarray:
        """Latents (B, C, T, H, W) of a slot or of frame numbers. Raises LongtakeError for a frame that is not there."""
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
