"""Clean latents by frame number: all of them, or those that a plan still has use for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from longtake.errors import LongtakeError
from longtake.plan.layout import Far, Slot, divided, far_tokens
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
        self._beyond = Beyond()

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
            # Whether it was made now or read from a store: so the far end is the same after a pause.
            if self._done < len(plan):
                self._beyond.take(plan[self._done].far, self._frames)

    def _prune(self, plan: Plan) -> None:
        """Let go of what the next section to be made, and all after it, will not read."""
        if self._done == len(plan):
            self._frames.clear()
            self._beyond = Beyond()
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

    def far(self, far: Far) -> np.ndarray:
        """The far end of the history, (B, C, T, h, w): appended frames by their cells, or the mean of all in one frame.

        Raises LongtakeError for another far end than that of the next section, if there is a plan.
        """
        if self._blank is None:
            raise LongtakeError("The history is asked for its far end; it holds nothing.")
        beyond = self._beyond
        if self._plan is None:
            beyond = Beyond()
            beyond.take(far, self._frames)
        if (len(beyond.known) or len(far.frames)) and beyond.known != far.frames:
            raise LongtakeError(
                f"The history is asked for all of the latent frames [{ranges(far.frames)}]; it knows "
                f"[{ranges(beyond.known)}]."
            )
        return beyond.read(far, self._blank)


class Beyond:
    """The knowledge of frames that lie beyond: their sum, or each of them by its cells."""

    def __init__(self) -> None:
        self.known = range(0)
        self._sum: np.ndarray | None = None
        self._cells: dict[int, np.ndarray] = {}

    def take(self, far: Far | None, frames: Mapping[int, np.ndarray]) -> None:
        """Add the frames (B, C, h, w) by which the far end has grown, on either side."""
        if far is None:
            return
        known, wanted = self.known, far.frames
        grown = (range(wanted.start, known.start), range(known.stop, wanted.stop)) if known else (wanted,)
        new = [frame for side in grown for frame in side]
        missing = [frame for frame in new if frame not in frames]
        if missing:
            raise LongtakeError(
                f"The history's far end wants the latent frames [{ranges(missing)}]; they are gone."
            )
        for frame in new:
            if far.appended:
                self._cells[frame] = cells(frames[frame])
            else:
                # In float64, so that a mean of many is as good as one of few.
                self._sum = frames[frame] + (0.0 if self._sum is None else self._sum)
                self._sum = self._sum.astype(np.float64)
        self.known = wanted

    def read(self, far: Far, blank: np.ndarray) -> np.ndarray:
        """The far end (B, C, T, h, w)."""
        if far.appended:
            found = [self._cells[frame] for frame in far.frames]
            return np.stack(found, axis=2) if found else cells(blank)[:, :, None][:, :, :0]
        if self._sum is None:
            return blank[:, :, None]
        return (self._sum / len(far.frames)).astype(blank.dtype)[:, :, None]


def cells(frame: np.ndarray) -> np.ndarray:
    """A frame (…, h, w) pooled to about 32 x 32 latent pixels a cell, two cells to a token on each axis.

    Unlike the paper, whose pooling is by (1, 32, 32): parts are even, so that no edge is left out, and none is padded.

    >>> cells(np.arange(16.0).reshape(1, 4, 4))
    array([[[ 2.5,  4.5],
            [10.5, 12.5]]])
    """
    for axis, tokens in zip((-2, -1), far_tokens(*frame.shape[-2:]), strict=True):
        edges = divided(frame.shape[axis], 2 * tokens)
        sizes = np.diff(edges).reshape(-1, 1) if axis == -2 else np.diff(edges)
        frame = np.add.reduceat(frame, edges[:-1], axis=axis) / sizes.astype(frame.dtype)
    return frame
