"""The beginning, the end or one frame of a video of any length: by a jump, in constant memory.

Frames come at a rate of ours: of each of its intervals, the frame that is shown near that end of it which lies at the
edge, so that the edge is the video's own first or last frame whatever its rate.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from longtake import picture
from longtake.errors import PictureError
from longtake.plan.layout import LATENT_FRAMES
from longtake.video.reading import opened
from longtake.video.timed import Outline, frames, main_stream, outline, outlined, shows

NEAR_EDGE = 0.25
"""Part of an interval, from the edge, at which it is looked for the frame: rates that are equal but for rounding of
times give every frame once, and the frame at the edge is always seen."""

REACH = (1, 4, 16)
"""Jumps go so many times as far back as is wanted, for videos whose sound, and so whose file, ends much later."""

STILL = re.compile(r"(?P<video>.+)@(?:(?P<seconds>\d+(?:\.\d*)?|\.\d+)s?|(?P<end>end))", re.DOTALL)
"""`clip.mp4@3.2s`, `clip.mp4@end`."""


def read_edge(
    path: str | os.PathLike[str],
    count: int,
    fps: float,
    end: bool,
    fitted: Callable[[np.ndarray], np.ndarray] = lambda frame: frame,
) -> np.ndarray:
    """The last (`end`) or first frames (T, H, W, 3) uint8 of a video, `fps` a second, each passed through `fitted`.

    T is `count`, or the most of 1, 5, 9 … that a shorter video has. Raises PictureError if there is no such video, or
    if it is damaged there.
    """
    known = ending(path, count / fps + 1) if end else beginning(path, count / fps + 1)
    numbers = numbers_at(known, count, fps, end)
    return np.stack([fitted(frame) for frame in frames(path, known, numbers)])


def numbers_at(known: Outline, count: int, fps: float, end: bool) -> list[int]:
    """The numbers of the frames that are shown at the edge at a rate of `fps`, at most `count`.

    >>> known = Outline(8, 8, np.arange(6) / 60, 1 / 60, None)
    >>> numbers_at(known, 5, 60, True), numbers_at(known, 1, 30, True), numbers_at(known, 9, 240, False)
    ([1, 2, 3, 4, 5], [5], [0, 0, 0, 0, 1, 1, 1, 1, 2])
    """
    there = max(1, int(known.seconds * fps + NEAR_EDGE))
    count = min(count, 1 + (there - 1) // LATENT_FRAMES * LATENT_FRAMES)
    begin = known.seconds - (count - 1 + NEAR_EDGE) / fps if end else NEAR_EDGE / fps
    wanted = begin + np.arange(count) / fps
    return np.maximum(0, np.searchsorted(known.times, wanted, "right") - 1).tolist()


def ending(path: str | os.PathLike[str], seconds: float) -> Outline:
    """The outline of the last seconds of a video, or of all of it if it is not much longer."""
    with opened(path) as container:
        stream = main_stream(container)
        length, base = _length(container, stream), stream.time_base
        for reach in REACH:
            if length is None or length <= reach * seconds:
                break
            start = (stream.start_time or 0) * base + length - reach * seconds
            packets = list(_packets(container, stream, float(start)))
            if packets and (packets[-1][0] - packets[0][0]) * base >= seconds:
                last = max(mark for mark, _ in packets)
                packets = [each for each in packets if (last - each[0]) * base <= seconds]
                return outlined(path, packets, base, stream.average_rate, partial=True)
    return outline(path)


def beginning(path: str | os.PathLike[str], seconds: float) -> Outline:
    """The outline of the first seconds of a video, or of all of it if it does not count its times."""
    with opened(path) as container:
        stream = main_stream(container)
        packets, base = [], stream.time_base
        for packet in container.demux(stream):
            if shows(packet):
                if packet.pts is None or base is None:
                    return outline(path)
                packets.append((packet.pts, packet.duration))
                # Frames come in the order of decoding, which runs ahead of the order in which they are shown.
                if packet.dts is not None and (packet.dts - packets[0][0]) * base > seconds:
                    break
    # Those behind the last packet in time may be missing, which is why there is a second more.
    return outlined(path, packets, base, stream.average_rate)


def still(path: str | os.PathLike[str], seconds: float | None) -> np.ndarray:
    """The frame (H, W, 3) uint8 that is shown at a second of a video, or its last one (None)."""
    if seconds is None:
        return read_edge(path, 1, 1000, True)[0]
    known, begin = _around(path, seconds)
    if seconds >= begin + known.seconds:
        raise PictureError(
            f"{path} is {begin + known.seconds:.2f} s long; there is no frame at {seconds:g} s."
        )
    number = max(0, int(np.searchsorted(known.times, seconds - begin + 1e-6, "right")) - 1)
    return next(frames(path, known, [number]))


def _around(path: str | os.PathLike[str], seconds: float) -> tuple[Outline, float]:
    """The outline of a stretch with this second in it, and the second at which it begins."""
    with opened(path) as container:
        stream = main_stream(container)
        length, base = _length(container, stream), stream.time_base
        if length is not None and base is not None and seconds < length:
            begin = float((stream.start_time or 0) * base)
            packets = list(_packets(container, stream, begin + seconds, begin + seconds + 1))
            if packets and min(packets)[0] * base <= begin + seconds + 1e-6:
                known = outlined(path, packets, base, stream.average_rate, partial=True)
                return known, float(min(packets)[0] * base) - begin
    return outline(path), 0.0


def _length(container: Any, stream: Any) -> float | None:
    """The seconds that a video says it has; None if it does not say."""
    if stream.time_base is None:
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _packets(
    container: Any, stream: Any, start: float, stop: float | None = None
) -> Iterator[tuple[int, int | None]]:
    """(mark, duration) of each frame from the key frame before `start` on, to `stop`; none if one has no mark."""
    container.seek(int(start / stream.time_base), stream=stream, backward=True)
    first = None
    for packet in container.demux(stream):
        if not shows(packet):
            continue
        if packet.pts is None:
            return
        first = packet.pts if first is None else first
        # Frames before the key frame lack what they were made from.
        if packet.pts >= first:
            yield packet.pts, packet.duration
        if stop is not None and packet.dts is not None and packet.dts * stream.time_base > stop:
            return


def load_picture(source: Any) -> Image.Image:
    """A picture from whatever `load_image` takes, or a frame of a video: `clip.mp4@3.2s`, `clip.mp4@end`.

    A file whose own name is so is a picture. Raises PictureError if there is none.
    """
    found = named_still(source)
    return picture.load_image(source) if found is None else Image.fromarray(still(*found))


def named_still(source: Any) -> tuple[str, float | None] | None:
    """The video and the second that a picture's name says, None for its last frame; None for another name."""
    if not isinstance(source, str | os.PathLike):
        return None
    name = os.fsdecode(source)
    found = STILL.fullmatch(name)
    if found is None or name.lower().startswith(("http://", "https://")) or Path(name).exists():
        return None
    return found["video"], None if found["end"] else float(found["seconds"])
