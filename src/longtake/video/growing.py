"""The file that a growing video can be played from, piece by piece, and the ordinary one made of it in the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import av

from longtake.job import Job
from longtake.video.containers import Container
from longtake.video.writer import comment_of

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
