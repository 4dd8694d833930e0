"""A video file put together from pieces that were encoded apart, without decoding any of them.

Each piece is a video file of its own, of the same kind and with the same settings: it begins with a frame that needs no
other, so that the packets of all, one piece after the other, are the whole video.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error

from longtake import disk
from longtake.errors import PictureError
from longtake.job import Job
from longtake.picture import reason
from longtake.video.containers import CONTAINERS
from longtake.video.growing import Fragments, new_file, reader_of, remux
from longtake.video.writer import check_writable


class PiecesWriter:
    """A video file that grows piece by piece and takes its name when it is whole.

    Used in a `with` block, as `VideoWriter`; `partial` is what can be played so far.
    """

    def __init__(
        self, path: str | os.PathLike[str], fps: float = 30, job: Job | Mapping[str, Any] | None = None
    ) -> None:
        self.path = check_writable(path, *CONTAINERS)
        self.partial = check_writable(
            self.path.with_name(f"{self.path.stem[:100]}.partial{self.path.suffix}")
        )
        self.frames = 0
        self._kind = CONTAINERS[self.path.suffix.lower()]
        self._rate, self._job = Fraction(fps).limit_denominator(1001), job
        self._hidden = disk.part_of(self.path)
        self._fragments: Fragments | None = None
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> PiecesWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._abandon()

    def append(self, piece: Path) -> int:
        """Append the packets of a piece; returns how many frames it has."""
        with self._sentence(), av.open(str(piece), "r", format=reader_of(self._kind)) as source:
            given = source.streams.video[0]
            if self._container is None:
                self._fragments = Fragments(self.partial, self._kind)
                self._container = new_file(self._fragments, self._kind, self._job)
                self._stream = self._container.add_stream_from_template(given)
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
                self._container.mux(packet)
                self.frames += 1
        return self.frames - before

    def _finish(self) -> None:
        if self._fragments is None:
            raise PictureError(f"There are no frames to write to {self.path}.")
        with self._sentence():
            self._close()
            remux(self._fragments.file, self._hidden, self._kind, self._job)
            disk.publish(self._hidden, self.path)
            self._fragments.remove()

    def _close(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def _abandon(self) -> None:
        """Leave the pieces that are there and nothing else; after `_finish` there is nothing to do."""
        with contextlib.suppress(OSError, av.error.FFmpegError):
            self._close()
        self._hidden.unlink(missing_ok=True)
        if self._fragments is not None:
            self._fragments.close()

    @contextlib.contextmanager
    def _sentence(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.error.FFmpegError) as error:
            kept = ""
            if self._fragments is not None and self._fragments.count:
                kept = f"; what is finished of it is in {self.partial}"
            raise PictureError(f"{self.path} cannot be written: {reason(error)}{kept}.") from error


def encoder_version() -> str:
    """The version of what encodes: pieces of another one are not joined with today's."""
    return f"av {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
