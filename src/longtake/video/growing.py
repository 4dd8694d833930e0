"""The file that a growing video can be played from, piece by piece, and the ordinary one made of it in the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error

from longtake import disk
from longtake.job import Job
from longtake.video.containers import Container
from longtake.video.writer import check_writable, comment_of

PIECE = 2**23
"""Bytes that are written at once; a larger piece is cut if the process is killed. 4K in ProRes has 4 MB a frame."""


class Fragments:
    """The file that a video grows in: each piece of it (an MP4's fragment, a WebM's cluster) wholly, or not at all.

    PyAV writes through it. It offers no `seek`, so that nothing behind is touched again.
    """

    def __init__(self, path: Path, kind: Container) -> None:
        # A new file and not the old one emptied: another process may still be at work on that.
        path.unlink(missing_ok=True)
        self.path = path
        self.file = path.open("x+b", buffering=0)
        self.size = self.count = 0
        self._error: OSError | None = None
        self._piece, self._at = kind.piece, kind.at

    def write(self, data: bytes) -> int:
        """Append one fragment, or raise OSError and stay as it was, from then on."""
        if self._error is not None:
            raise self._error
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            self._error = error
            self.file.truncate(self.size)
            raise
        self.size += len(data)
        self.count += data[self._at : self._at + 4] == self._piece  # the header comes first, alone
        return len(data)

    def remove(self) -> None:
        """Take the file away, unless another one has its name by now."""
        with contextlib.suppress(OSError):
            mine = os.path.samestat(os.fstat(self.file.fileno()), self.path.stat())
            self.file.close()
            if mine:
                self.path.unlink()

    def close(self) -> None:
        """Leave the file as it is; one without a fragment goes."""
        if not self.file.closed:
            self.file.close()
            if not self.count:
                self.path.unlink(missing_ok=True)


class Grown:
    """A video file on its way: hidden, or growing in `partial` where it can be played from; `open` it, then fill it.

    `publish` makes it whole and gives it its name, `abandon` leaves the pieces that are finished, if it grows, and
    nothing else.
    """

    def __init__(
        self, path: Path, kind: Container, job: Job | Mapping[str, Any] | None, partial: Path | None
    ) -> None:
        self._path, self._kind, self._job, self._partial = path, kind, job, partial
        self._hidden = disk.part_of(path)
        self._fragments: Fragments | None = None
        self._container: Any = None

    @property
    def is_open(self) -> bool:
        """Tell if there is a container to fill."""
        return self._container is not None

    @property
    def count(self) -> int:
        """The pieces that can be played by now."""
        return 0 if self._fragments is None else self._fragments.count

    def open(self) -> Any:
        """PyAV's container, to which streams and packets are added."""
        if self._partial is None:
            self._container = new_file(str(self._hidden), self._kind, self._job)
        else:
            self._fragments = Fragments(self._partial, self._kind)
            self._container = new_file(self._fragments, self._kind, self._job)
        return self._container

    def publish(self) -> None:
        """Close the container, put the index of a file that grew in front, and give the file its name."""
        self._close()
        if self._fragments is not None:
            remux(self._fragments.file, self._hidden, self._kind, self._job)
        disk.publish(self._hidden, self._path)
        if self._fragments is not None:
            self._fragments.remove()

    def abandon(self, flush: Callable[[], None] | None = None) -> None:
        """Let go of the file; `flush` first brings what an encoder still holds. Nothing to do after `publish`."""
        with contextlib.suppress(OSError, av.error.FFmpegError):
            if flush is not None and self._fragments is not None and self.is_open:
                flush()
        with contextlib.suppress(OSError, av.error.FFmpegError):
            self._close()
        self._hidden.unlink(missing_ok=True)
        if self._fragments is not None:
            self._fragments.close()

    def _close(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()


def partial_of(path: Path) -> Path:
    """The name of the file in which a video of this name grows, when it can be made."""
    return check_writable(path.with_name(f"{path.stem[:100]}.partial{path.suffix}"))


def new_file(place: str | Fragments, kind: Container, job: Job | Mapping[str, Any] | None) -> Any:
    """A video file to write: whole, with its index in front, or piece by piece."""
    if isinstance(place, str):
        container = av.open(place, "w", format=kind.format, options=dict(kind.whole))
    else:
        container = av.open(place, "w", format=kind.format, options=dict(kind.growing), buffer_size=PIECE)
    comment = comment_of(job)
    if comment is not None:
        container.metadata["comment"] = comment
    return container


def remux(fragments: BinaryIO, path: Path, kind: Container, job: Job | Mapping[str, Any] | None) -> None:
    """Write the packets of a video that grew, as they are and one at a time, to an ordinary one."""
    fragments.seek(0)
    with av.open(fragments, "r", format=reader_of(kind)) as grown, new_file(str(path), kind, job) as whole:
        stream = whole.add_stream_from_template(grown.streams.video[0])
        for packet in grown.demux(video=0):
            if packet.dts is not None:  # the last one is empty: it flushes decoders
                packet.stream = stream
                whole.mux(packet)


def reader_of(kind: Container) -> str:
    """FFmpeg's name for what reads a kind of file."""
    return "matroska" if kind.format == "webm" else "mp4"
