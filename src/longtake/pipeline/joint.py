"""The joint of a clip and the frames that are made beside it: no flash where one ends and the other begins.

An autoencoder loses a little of every frame, and a model does not always meet what it was given; the clip's own frames
lose nothing. So at the joint there is a step beside that of the motion, even where nothing moves. How large it is, the
frames on both sides tell: it is what their own steps do not explain. It is given back to the frames that are made, and
faded out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from longtake.backend import ops
from longtake.video.fading import FADE


class Joint:
    """Frames made beside a clip, of which `pair` (2, H, W, 3) uint8 are the two frames at the joint, in order of time.

    `before` is the number of all frames that come before the clip; with None, frame 0 is the one behind it.
    """

    def __init__(self, pair: np.ndarray, before: int | None = None) -> None:
        self._pair = pair.astype(np.float32).transpose(0, 3, 1, 2)[:, None] / 127.5 - 1
        self._before = before
        self._step: Any = None
        self._held: list[tuple[int, Any]] = []

    def passed(self, piece: Any, start: int) -> Iterator[tuple[int, Any]]:
        """(number, frames (B, 3, T, H, W), about [-1, 1]) of those that are final with this piece from `start` on.

        Those just before a clip are held until the last of them is there.
        """
        if self._before is None:
            if start == 0:
                self._step = self._found(piece, 0, 1)
            yield start, self._given_back(piece, np.arange(start, start + piece.shape[2]) + 1)
            return
        stop = start + piece.shape[2]
        free = min(max(0, self._before - FADE - start), piece.shape[2])
        if free:
            yield start, piece[:, :, :free]
        if free < piece.shape[2]:
            self._held.append((start + free, piece[:, :, free:]))
        if stop == self._before and self._held:
            first = self._held[0][0]
            near = ops.cat([each for _, each in self._held], 2)
            self._step = self._found(near, -1, -2)
            self._held = []
            yield first, self._given_back(near, self._before - np.arange(first, stop))

    def rest(self) -> Iterator[tuple[int, Any]]:
        """What is held of a video that was stopped before its end."""
        held, self._held = self._held, []
        yield from held

    def _found(self, piece: Any, nearest: int, following: int) -> Any:
        """What the made frame nearest to the clip lacks of being one step of the motion away from it.

        The motion is the mean of the steps on both sides, away from the joint.
        """
        own, beyond = (ops.from_numpy(each, like=piece) for each in self._pair[:: 1 if self._before else -1])
        made = piece[:, :, nearest]
        steps = [own - beyond]
        if piece.shape[2] > 1:
            steps.append(piece[:, :, following] - made)
        return own + sum(steps[1:], steps[0]) / len(steps) - made

    def _given_back(self, piece: Any, distances: np.ndarray) -> Any:
        """The frames with what is left of the step so far from the joint."""
        weights = np.where(distances <= FADE, 1 - distances / (FADE + 1), 0).astype(np.float32)
        if self._step is None or not weights.any():
            return piece
        return piece + ops.from_numpy(weights.reshape(1, 1, -1, 1, 1), like=piece) * self._step[:, :, None]
