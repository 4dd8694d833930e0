"""A video frame by frame at the times at which it shows them, in the memory of one frame: how data sets are read.

Frames come upright and with square pixels, whatever the file says of its turn and of its pixels' shape.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from longtake.errors import PictureError
from longtake.picture import MAX_PIXELS
from longtake.video.reading import opened, pixels

NEAR = 60
"""Frames: up to here a video is decoded from its beginning, later ones are reached by a jump to a key frame."""

UNTURNED = (1, 0, 0, 1)

HIGH_RANGE = {16: "PQ", 18: "HLG"}
"""Transfer functions of ISO/IEC 23091-2 that a screen of usual range does not show as they are."""


@dataclass(frozen=True)
class Outline:
    """The outline of a video without its pixels: times, and (`width`, `height`) as it is seen, in square pixels.

    `times` (T,) are the seconds, from the first frame on, at which frames are shown, in that order; the last one lasts
    `lasting` seconds. `marks` are the same as the file counts them, None if it does not. `turn` (a, b, c, d) says where
    a pixel is shown: (a x + c y, b x + d y). `note` says what is unusual, or is empty. `partial` is true of the outline
    of one stretch, whose first frame need not be the file's.
    """

    width: int
    height: int
    times: np.ndarray = field(repr=False)
    lasting: float
    marks: np.ndarray | None = field(repr=False)
    turn: tuple[int, int, int, int] = UNTURNED
    note: str = ""
    partial: bool = False

    @property
    def seconds(self) -> float:
        """The length of the video."""
        return float(self.times[-1]) + self.lasting

    @property
    def rate(self) -> float:
        """Frames a second, on the average."""
        return len(self.times) / self.seconds


def outline(path: str | os.PathLike[str]) -> Outline:
    """The outline of a video by its packets and first frame. Raises PictureError if it is none, or damaged there."""
    with opened(path) as container:
        stream = main_stream(container)
        packets = [(packet.pts, packet.duration) for packet in container.demux(stream) if shows(packet)]
        base, rate = stream.time_base, stream.average_rate
    return outlined(path, packets, base, rate)


def shows(packet: Any) -> bool:
    """Tell if a packet holds a frame that is shown."""
    return bool(packet.size) and not packet.is_discard


def outlined(
    path: str | os.PathLike[str], packets: list[tuple[Any, Any]], base: Any, rate: Any, partial: bool = False
) -> Outline:
    """The outline of these packets (mark, duration), in units of `base` seconds."""
    if not packets:
        raise PictureError(f"{path} holds no frames.")
    usual = 1 / float(rate or 30)
    marks = None
    times, lasting = np.arange(len(packets)) * usual, usual
    if base is not None and all(mark is not None for mark, _ in packets):
        packets = sorted(packets)
        marks = np.array([mark for mark, _ in packets], np.int64)
        times = (marks - marks[0]) * float(base)
        lasting = float((packets[-1][1] or 0) * base) or usual
    width, height, turn, note = look(path)
    return Outline(width, height, times, lasting, marks, turn, note, partial)


def look(path: str | os.PathLike[str]) -> tuple[int, int, tuple[int, int, int, int], str]:
    """The width and height as a video is seen, its turn and what is unusual, by its first frame."""
    with opened(path) as container:
        stream = main_stream(container)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise PictureError(f"{path} cannot be read as a video: none of its frames can be decoded.")
        width, height = _square(frame, stream)
        kind = HIGH_RANGE.get(int(frame.color_trc or 0))
    turn = _turn(frame)
    if turn[0] == 0:
        width, height = height, width
    note = (
        f"it is of high dynamic range ({kind}), and its colours are taken as they are stored" if kind else ""
    )
    return width, height, turn, note


def frames(
    path: str | os.PathLike[str],
    known: Outline,
    wanted: Sequence[int],
    taken: Callable[[Any, Outline], np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) uint8 with these numbers, which do not descend and may repeat; upright unless `taken` says.

    Raises PictureError at the first one that is missing or damaged: those before it have come.
    """
    if not len(wanted):
        return
    place = 0
    # Some key frames give nothing whole without what lies before them, and some indices lead behind.
    for jump in (True, False) if _jumps(known, wanted) else (False,):
        for number, shown in _numbered(path, known, int(wanted[place]) if jump else None):
            if number > wanted[place]:
                break
            if number == wanted[place]:
                picture = (taken or upright)(shown, known)
                while number == wanted[place]:
                    yield picture
                    place += 1
                    if place == len(wanted):
                        return
    which = "one of the frames that are wanted of it" if known.partial else f"its frame {int(wanted[place])}"
    raise PictureError(f"{path} is damaged: {which} cannot be decoded.")


def _jumps(known: Outline, wanted: Sequence[int]) -> bool:
    return known.marks is not None and bool(known.partial or wanted[0] > NEAR)


def _numbered(path: str | os.PathLike[str], known: Outline, first: int | None) -> Iterator[tuple[int, Any]]:
    """Decoded frames with their numbers, to the first damaged one: from `first` or before it, or from the start."""
    with opened(path) as container:
        stream = main_stream(container)
        places = None if known.marks is None else {int(mark): n for n, mark in enumerate(known.marks)}
        if first is not None and known.marks is not None:
            # Old x264 said in its first frame alone that it is old, and its frames are decoded otherwise.
            next(container.decode(stream), None)
            container.seek(int(known.marks[first]), stream=stream, backward=True)
        begun = False
        for count, frame in enumerate(container.decode(stream)):
            number = count if places is None else places.get(frame.pts)
            # Behind a jump, frames that are shown before the key frame lack what they were made from.
            begun = begun or bool(frame.key_frame)
            if number is None or not begun:
                continue
            if frame.is_corrupt:
                return
            yield number, frame


def main_stream(container: Any) -> Any:
    """The stream that players show, which a picture for the cover is not."""
    return container.streams.best("video") or container.streams.video[0]


def _square(frame: Any, stream: Any) -> tuple[int, int]:
    """The frame's size in square pixels, before it is turned."""
    shape = float(stream.sample_aspect_ratio or 1) or 1.0
    width, height = max(1, round(frame.width * shape)), frame.height
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"The video has frames of {width} x {height} pixels; the most that is read is "
            f"{MAX_PIXELS // 10**6} million."
        )
    return width, height


def _turn(frame: Any) -> tuple[int, int, int, int]:
    """The display matrix of a frame, as signs: by a quarter, a half, mirrored; other angles are left."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), "<i4")[:5].tolist()
            signs = tuple(int(np.sign(value)) for value in (a, b, c, d))
            if (a and d and not b and not c) or (b and c and not a and not d):
                return signs  # type: ignore[return-value]
    return UNTURNED


def upright(frame: Any, known: Outline) -> np.ndarray:
    """A decoded frame as it is shown."""
    a, b, c, d = known.turn
    across, down = (known.width, known.height) if a else (known.height, known.width)
    own = (frame.width, frame.height) == (across, down)
    picture = pixels(frame) if own else pixels(frame, across, down)
    if not a:
        picture = picture.swapaxes(0, 1)
    rows, columns = (d, a) if a else (b, c)
    return np.ascontiguousarray(picture[:: rows or 1, :: columns or 1])
