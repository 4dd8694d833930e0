"""The joint of frames that are made with given ones, a clip's or a picture's: no flash between the two.

An autoencoder loses a little of every frame, and a model does not always meet what it was given; the clip's own frames
lose nothing. So at the joint there is a step beside that of the motion, even where nothing moves. How large it is, the
frames on both sides tell: it is what their own steps do not explain. It is given back to the frames that are made, and
faded out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from longtake.backend import ops
from longtake.models.vae.tiles import Wanted
from longtake.plan.sections import Seam
from longtake.video.fading import FADE, LONGEST, fade_of


class Seams:
    """Frames that were made to lead to given ones (`plan.seams`): what the step there has too much is given back.

    They come in their order, but for those just before a seam, which are held until what they lead to is there.
    """

    def __init__(self, seams: Iterable[Seam]) -> None:
        self._seams = deque(seams)
        self._wanted = {frame for seam in self._seams for frame in seam.own}
        self._known: dict[int, Any] = {}
        self._held: list[tuple[int, Any]] = []
        self._stop = 0

    def passed(self, piece: Any, start: int) -> Iterator[tuple[int, Any]]:
        """(number, frames (B, 3, T, H, W), about [-1, 1]) of those that are final with this piece from `start` on.

        A number of frames in the place of a piece are frames that nobody wants.
        """
        count = piece if isinstance(piece, int) else piece.shape[2]
        self._held.append((start, piece))
        self._stop = start + count
        if not isinstance(piece, int):
            for frame in self._wanted & {*range(start, self._stop)}:
                # A copy, since a view would keep all of the piece.
                self._known[frame] = piece[:, :, frame - start] + 0
        while self._seams:
            seam = self._seams[0]
            first = seam.at - min(seam.span, FADE)
            yield from self._free(first)
            if self._stop <= max(seam.at - 1, *(frame for frame in seam.own if frame >= seam.at), 0):
                return
            self._seams.popleft()
            self._give_back(seam, first)
        yield from self.rest()

    def rest(self) -> Iterator[tuple[int, Any]]:
        """The frames that are held, of a video that was stopped before its end."""
        held, self._held = self._held, []
        yield from held

    def _free(self, stop: int) -> Iterator[tuple[int, Any]]:
        """The frames that are held before one."""
        held, self._held = self._held, []
        for start, piece in held:
            for begin, part in _cut(start, piece, stop):
                if begin < stop:
                    yield begin, part
                else:
                    self._held.append((begin, part))

    def _give_back(self, seam: Seam, first: int) -> None:
        """Give the step at a seam to what is held before it, where it is known."""
        held = [each for start, piece in self._held for each in _cut(start, piece, seam.at)]
        near = [(start, piece) for start, piece in held if start < seam.at and not isinstance(piece, int)]
        own = [self._known.get(frame) for frame in seam.own]
        if near and all(each is not None for each in own) and near[-1][0] + near[-1][1].shape[2] == seam.at:
            before = near[-1][1]
            step = _lacking(
                before[:, :, -1], before[:, :, -2] if before.shape[2] > 1 else None, own[0], own[-1]
            )
            fade = seam.at - first
            for place, (start, piece) in enumerate(held):
                if start < seam.at and not isinstance(piece, int):
                    distances = seam.at - np.arange(start, start + piece.shape[2])
                    held[place] = start, _faded(piece, step, distances, fade)
        self._held = held


def also(wanted: Wanted, seams: Iterable[Seam]) -> Wanted:
    """The wanted frames, and those that decide them: the frames behind a seam, if some before it are wanted."""
    near = [(seam.own[0], seam.own[-1] + 1, seam.at - min(seam.span, FADE), seam.at) for seam in seams]

    def asked(first: int, stop: int) -> bool:
        return wanted(first, stop) or any(
            begin < stop and first < end and wanted(before, at) for begin, end, before, at in near
        )

    return asked


def _cut(start: int, piece: Any, at: int) -> list[tuple[int, Any]]:
    """A piece from `start` on in two, where it reaches over a frame."""
    count = piece if isinstance(piece, int) else piece.shape[2]
    if not start < at < start + count:
        return [(start, piece)]
    here = at - start
    if isinstance(piece, int):
        return [(start, here), (at, count - here)]
    return [(start, piece[:, :, :here]), (at, piece[:, :, here:])]


def _lacking(made: Any, before: Any, own: Any, beyond: Any) -> Any:
    """The difference of a made frame from being one step of the motion away from the given one next to it, `own`.

    The motion is the mean of the steps on both sides, away from the joint: to the frame `before` it, if there is one,
    and from `own` to the one `beyond`.
    """
    steps = [own - beyond] + ([] if before is None else [before - made])
    return own + sum(steps[1:], steps[0]) / len(steps) - made


def _faded(piece: Any, step: Any, distances: np.ndarray, count: int) -> Any:
    """The frames with what is left of the step so far from the joint, fading over `count` frames."""
    weights = np.where(distances <= count, 1 - distances / (count + 1), 0).astype(np.float32)
    if not weights.any():
        return piece
    return piece + ops.from_numpy(weights.reshape(1, 1, -1, 1, 1), like=piece) * step[:, :, None]


def _size(difference: Any) -> float:
    return float(np.abs(ops.to_numpy(difference).astype(np.float32)).mean())


class Joint:
    """Frames made beside a clip, of which `pair` (2, H, W, 3) uint8 are the two frames at the joint, in order of time.

    `before` is the number of all frames that come before the clip; with None, frame 0 is the one behind it.
    """

    def __init__(self, pair: np.ndarray, before: int | None = None) -> None:
        self._pair = pair.astype(np.float32).transpose(0, 3, 1, 2)[:, None] / 127.5 - 1
        self._before = before
        self._step: Any = None
        self._fade = FADE
        self._held: list[tuple[int, Any]] = []

    def passed(self, piece: Any, start: int) -> Iterator[tuple[int, Any]]:
        """(number, frames (B, 3, T, H, W), about [-1, 1]) of those that are final with this piece from `start` on.

        Those just before a clip are held until the last of them is there.
        """
        if self._before is None:
            if start == 0:
                self._find(piece, 0, 1)
            yield start, self._given_back(piece, np.arange(start, start + piece.shape[2]) + 1)
            return
        stop = start + piece.shape[2]
        free = min(max(0, self._before - LONGEST - start), piece.shape[2])
        if free:
            yield start, piece[:, :, :free]
        if free < piece.shape[2]:
            self._held.append((start + free, piece[:, :, free:]))
        if stop == self._before and self._held:
            first = self._held[0][0]
            near = ops.cat([each for _, each in self._held], 2)
            self._find(near, -1, -2)
            self._held = []
            yield first, self._given_back(near, self._before - np.arange(first, stop))

    def rest(self) -> Iterator[tuple[int, Any]]:
        """The frames that are held, of a video that was stopped before its end."""
        held, self._held = self._held, []
        yield from held

    def _find(self, piece: Any, nearest: int, following: int) -> None:
        """Find what the made frame nearest to the clip lacks of being one step of the motion away from it."""
        own, beyond = (ops.from_numpy(each, like=piece) for each in self._pair[:: 1 if self._before else -1])
        made, before = piece[:, :, nearest], piece[:, :, following] if piece.shape[2] > 1 else None
        self._step = _lacking(made, before, own, beyond)
        moved = [_size(own - beyond)] + ([] if before is None else [_size(before - made)])
        self._fade = fade_of(_size(self._step), sum(moved) / len(moved))

    def _given_back(self, piece: Any, distances: np.ndarray) -> Any:
        """The frames with what is left of the step so far from the joint."""
        return piece if self._step is None else _faded(piece, self._step, distances, self._fade)
