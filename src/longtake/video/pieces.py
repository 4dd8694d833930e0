"""A video file put together from pieces that were encoded apart, without decoding any of them.

Each piece is a video file of its own, of the same kind and with the same settings: it begins with a frame that needs no
other, so that the packets of all, one piece after the other, are the whole video.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from longtake.errors import PictureError
from longtake.job import Job
from longtake.video.containers import CONTAINERS
from longtake.video.growing import Grown, partial_of, reader_of
from longtake.video.writer import VideoFile, check_writable


class PiecesWriter(VideoFile):
    """A video file that grows piece by piece and takes its name when it is whole; `partial` can be played so far."""

    def __init__(
        self, path: str | os.PathLike[str], fps: float = 30, job: Job | Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(check_writable(path, *CONTAINERS))
        self.partial = partial_of(self.path)
        self._kind = CONTAINERS[self.path.suffix.lower()]
        self._rate = Fraction(fps).limit_denominator(1001)
        self._file = Grown(self.path, self._kind, job, self.partial)
        self._stream: Any = None
        self._told: bytes | None = None

    def append(self, piece: Path) -> int:
        """Append the packets of a piece; returns how many frames it has."""
        with self._sentence(), av.open(str(piece), "r", format=reader_of(self._kind)) as source:
            given = source.streams.video[0]
            if not self._file.is_open:
                self._stream = self._file.open().add_stream_from_template(given)
                self._told = given.codec_context.extradata
            if given.codec_context.extradata != self._told:
                raise PictureError(f"{piece} was encoded with other settings than the pieces before it.")
            base = given.time_base or Fraction(1)  # containers have one
            return self._copy(source, round(self.frames / (self._rate * base)))

    def _copy(self, source: Any, later: int) -> int:
        before = self.frames
        for packet in source.demux(video=0):
            if packet.dts is not None:  # the last one is empty: it flushes decoders
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
                packet.stream = self._stream
                self._stream.container.mux(packet)
                self.frames += 1
        return self.frames - before

    def _finish(self) -> None:
        with self._sentence():
            self._file.publish()

    def _abandon(self) -> None:
        self._file.abandon()

    def _is_partly_there(self) -> bool:
        return self._file.count > 0


def encoder_version() -> str:
    """The version of what encodes: pieces of another one are not joined with today's."""
    return f"av {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
