"""A clip and the new frames that go on from it, or that come before it, as one MP4.

The clip's own frames and its sound are not decoded: their packets are copied, where an MP4 can hold them beside ours.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from longtake import disk
from longtake.job import Job
from longtake.video.containers import CONTAINERS
from longtake.video.continued import at_edge, form_of
from longtake.video.fading import LONGEST, Fading
from longtake.video.growing import Fragments, new_file, partial_of
from longtake.video.muxing import Joint, NotCopied, join
from longtake.video.transcoding import encoded_anew
from longtake.video.writer import Writer, check_writable


class JoinedWriter(Writer):
    """An MP4 of a clip with new frames behind it, or `before` it, that takes its name when it is whole.

    Used as `VideoWriter` is. New frames, of any one size and upright, are written as large as the clip's, at `fps` a
    second, in the clip's kind of H.264; the clip's own packets and its sound are copied. If they cannot be, the clip is
    encoded anew at `crf`, and `reason` says why. `edge` (H, W, 3) is what the new frames take for the clip's frame at
    the joint: what it lacks of that frame is given to them and faded out.

    With `growing`, what is there of the new frames can be played from `partial`, as in `VideoWriter`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        clip: str | os.PathLike[str],
        fps: float = 30,
        *,
        before: bool = False,
        edge: np.ndarray | None = None,
        crf: float | None = None,
        job: Job | Mapping[str, Any] | None = None,
        growing: bool = False,
    ) -> None:
        kind = CONTAINERS[".mp4"]
        super().__init__(check_writable(path, ".mp4"), fps, 1)
        self.clip = Path(clip)
        self.form = form_of(clip)
        self.reason = self.form.reason
        if growing:
            self.partial = partial_of(self.path)
        self._rate = Fraction(fps).limit_denominator(1001)
        self._before, self._job = before, job
        self._quality = kind.quality(crf)
        self._fading = None if edge is None else self._difference(edge)
        self._waiting: deque[np.ndarray] = deque()
        self._hidden = disk.part_of(self.path)
        self._fragments = Fragments(self.partial or disk.part_of(self._hidden), kind)
        self._container = new_file(self._fragments, kind, job)
        self._stream = self._container.add_stream("libx264", rate=self._rate)
        self.form.prepare(self._stream, self._quality)

    def _open(self, width: int, height: int) -> None:
        """Frames of any size are written in the clip's, which is known."""

    def _append(self, pixels: np.ndarray) -> None:
        if not self._before:
            self._encode(pixels, self.frames + 1)
            return
        # Those beside the clip, which comes behind them, are known as such when there are no more.
        self._waiting.append(pixels)
        if len(self._waiting) > LONGEST:
            self._encode(self._waiting.popleft())

    def _difference(self, edge: np.ndarray) -> Fading:
        pair = at_edge(self.clip, self.form, end=not self._before)
        motion = float(np.abs(pair[1].astype(np.float32) - pair[0]).mean())
        return Fading.between(pair[0 if self._before else 1], self.form.shaped(edge), motion)

    def _encode(self, pixels: np.ndarray, distance: int = 0) -> None:
        """Encode one frame, which lies so many from the clip; 0 is far."""
        frame = self.form.shaped(pixels)
        if self._fading is not None and distance:
            frame = self._fading.added(frame, distance)
        self._mux(self.form.encodable(frame))

    def _mux(self, frame: av.VideoFrame | None) -> None:
        with self._sentence():
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    def _finish(self) -> None:
        while self._waiting:
            self._encode(self._waiting.popleft(), len(self._waiting) + 1)
        self._mux(None)
        with self._sentence():
            self._container.close()
            self._join()
            disk.publish(self._hidden, self.path)
            self._fragments.remove()

    def _join(self) -> None:
        """Write the whole file: the clip's own packets, or, where these cannot be copied, others of the same frames."""
        joint = Joint(self.clip, self.clip, self.clip, self.frames / self._rate, self._rate, self._before)
        if not self.reason:
            try:
                join(joint, self._fragments.file, self._hidden, self._job)
                return
            except NotCopied as error:
                self.reason = str(error)
        anew = disk.part_of(self._hidden)
        try:
            start = encoded_anew(self.clip, anew, self.form, self._quality)
            like = anew if self.form.sets is None else self.clip
            joint = replace(joint, shown=anew, like=like, start=start)
            join(joint, self._fragments.file, self._hidden, self._job)
        finally:
            anew.unlink(missing_ok=True)

    def _abandon(self) -> None:
        """Leave the fragments of a growing file that are finished, and nothing else; after `_finish`, nothing."""
        with contextlib.suppress(OSError, ValueError, av.error.FFmpegError):
            for packet in self._stream.encode(None):
                self._container.mux(packet)
        with contextlib.suppress(OSError, ValueError, av.error.FFmpegError):
            self._container.close()
        self._hidden.unlink(missing_ok=True)
        if self.partial is None and not self._fragments.file.closed:
            self._fragments.remove()
        self._fragments.close()

    def _is_partly_there(self) -> bool:
        return self.partial is not None and self._fragments.count > 0
