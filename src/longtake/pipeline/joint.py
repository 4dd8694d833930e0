"""The joint of a clip and the frames that are made beside it: no flash where one ends and the other begins.

An autoencoder loses a little of every frame, and the clip's own frames lose nothing. So the first frame that is made
would differ from the clip's last one by what is lost, even if nothing moves. What the decoder makes of the clip's frame
at the joint tells how much that is; it is given back to the frames beside it, and faded out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from longtake.backend import ops
from longtake.video.fading import FADE


class Joint:
    """The frames beside a clip's frame `edge` (H, W, 3) uint8; `before` is the number of all frames that come before it.

    With None the clip comes first, and frame 0 is the one behind it.
    """

    def __init__(self, edge: np.ndarray, before: int | None = None) -> None:
        self._edge = edge.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
        self._before = before
        self._lost: Any = None

    def learn(self, decoded: Any) -> None:
        """Take what the decoder makes (B, 3, H, W), about [-1, 1], of the clip's frame."""
        self._lost = ops.from_numpy(self._edge[None], like=decoded) - decoded

    def given_back(self, piece: Any, start: int) -> Any:
        """Decoded frames (B, 3, T, H, W), the first of which has the number `start`, with what they lack."""
        numbers = np.arange(start, start + piece.shape[2])
        distances = numbers + 1 if self._before is None else self._before - numbers
        weights = np.where(distances <= FADE, 1 - distances / (FADE + 1), 0)
        if self._lost is None or not weights.any():
            return piece
        shape = (1, 1, len(weights), 1, 1)
        return (
            piece
            + ops.from_numpy(weights.astype(np.float32).reshape(shape), like=piece) * self._lost[:, :, None]
        )
