"""A GIF written frame by frame, as it repeats; and the comment of one, read.

Of each frame what differs from the one before is stored, in 256 colours of its own. Times are hundredths of a second.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import GifImagePlugin, Image

from longtake import disk
from longtake.errors import JobError, PictureError
from longtake.job import Job
from longtake.picture import MAX_PIXELS, enlarged, reason
from longtake.video.writer import Writer, check_writable, comment_of

MOST_FPS = 50
"""Frames a second; browsers show faster ones slowly."""

LONGEST_SIDE = 2**16 - 1
MOST_COMMENT = 2**24
"""Bytes of a comment that is read."""

EXTENSION, COMMENT, PICTURE, END = b"!", b"\xfe", b",", b";"
REPEATS = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


class GifWriter(Writer):
    """A GIF that repeats, whole or not at all; `job` is its comment, in ASCII."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float = 30,
        *,
        crf: float | None = None,
        zoom: int = 1,
        job: Job | Mapping[str, Any] | None = None,
    ) -> None:
        check(fps, crf)
        super().__init__(check_writable(path, ".gif"), fps, zoom)
        self._comment = comment_of(job, ascii=True)
        self._hidden = disk.part_of(self.path)
        self._file: IO[bytes] | None = None
        self._before: np.ndarray | None = None

    def _open(self, width: int, height: int) -> None:
        check_size(width, height, self._zoom)
        with self._sentence():
            self._file = self._hidden.open("xb")
            across, down = width * self._zoom, height * self._zoom
            self._file.write(
                b"GIF89a" + across.to_bytes(2, "little") + down.to_bytes(2, "little") + b"\0\0\0"
            )
            self._file.write(REPEATS)
            if self._comment is not None:
                self._file.write(b"".join(_blocks(self._comment.encode("ascii"))))

    def _append(self, pixels: np.ndarray) -> None:
        # Each frame begins at the hundredth that is nearest to its time, so that the whole is as long as it should be.
        begin, end = (round(100 * number / self._fps) for number in (self.frames, self.frames + 1))
        pixels = np.asarray(enlarged(pixels, self._zoom))
        left, top, new = _changed(self._before, pixels)
        self._before = pixels
        picture = Image.fromarray(new).quantize(256)
        told = {"duration": 10 * (end - begin), "disposal": 1, "include_color_table": True}
        with self._sentence():
            assert self._file is not None
            self._file.writelines(GifImagePlugin.getdata(picture, (left, top), **told))

    def _finish(self) -> None:
        with self._sentence():
            assert self._file is not None
            self._file.write(END)
            self._file.close()
            disk.publish(self._hidden, self.path)

    def _abandon(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._hidden.unlink(missing_ok=True)


def check(fps: float, crf: float | None = None) -> None:
    """Raise JobError for what a GIF does not have: more than MOST_FPS, or a quality."""
    if crf is not None:
        raise JobError("A GIF has no quality to choose; leave quality and crf out, or name an .mp4.")
    if fps > MOST_FPS:
        raise JobError(
            f"A GIF shows up to {MOST_FPS} frames a second; {fps:g} was asked for. Name an .mp4 for more."
        )


def check_size(width: int, height: int, zoom: int = 1) -> None:
    """Raise JobError if frames of this size, enlarged, are larger than a GIF's, or than what is read."""
    across, down = width * zoom, height * zoom
    if max(across, down) > LONGEST_SIDE or across * down > MAX_PIXELS:
        raise JobError(
            f"A GIF has frames of at most {LONGEST_SIDE} pixels on a side and {MAX_PIXELS} in all; "
            f"{across} x {down} was asked for."
        )


def read_comment(path: str | os.PathLike[str]) -> str:
    """The comment of a GIF, "" if it has none before its first picture; PictureError if it is no GIF."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(13)
            if head[:6] not in (b"GIF87a", b"GIF89a") or len(head) < 13:
                raise PictureError(f"{path} is no GIF.")
            if head[10] & 128:
                file.seek(3 << (head[10] & 7) + 1, os.SEEK_CUR)
            comment = b""
            while file.read(1) == EXTENSION and len(comment) < MOST_COMMENT:
                kind = file.read(1)
                found = b"".join(_read_blocks(file))
                comment += found if kind == COMMENT else b""
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {reason(error)}.") from None
    return comment.decode("utf-8", "replace")


def _read_blocks(file: IO[bytes]) -> Iterator[bytes]:
    most = MOST_COMMENT
    while most > 0 and (size := file.read(1)) not in (b"", b"\0"):
        most -= size[0]
        yield file.read(size[0])


def _blocks(text: bytes) -> Iterator[bytes]:
    """A comment as a GIF has it: in pieces of up to 255 bytes, each behind its length."""
    yield EXTENSION + COMMENT
    for start in range(0, len(text), 255):
        piece = text[start : start + 255]
        yield bytes([len(piece)]) + piece
    yield b"\0"


def _changed(before: np.ndarray | None, pixels: np.ndarray) -> tuple[int, int, np.ndarray]:
    """The place and the pixels of the smallest box outside of which nothing changed; one pixel if nothing did."""
    if before is None:
        return 0, 0, pixels
    differs = (before != pixels).any(-1)
    rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
    if not len(rows):
        return 0, 0, pixels[:1, :1]
    top, left = rows[0], columns[0]
    return int(left), int(top), pixels[top : rows[-1] + 1, left : columns[-1] + 1]
