"""A clip encoded anew, frame by frame at its own times: for one whose packets cannot stand beside ours."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from longtake.errors import PictureError
from longtake.video.continued import Form
from longtake.video.reading import opened
from longtake.video.timed import main_stream, upright

TICKS = 90_000
"""To a second at least, so that frames in the order of decoding find room between those that are shown."""

LARGEST = 2**31 - 1
"""Ticks to a second that an MP4 can count."""


def ticks_for(base: Fraction, rate: Fraction = Fraction(1)) -> int:
    """Ticks to a second in which times in units of `base` seconds are whole, and frames at `rate` where there is room.

    >>> ticks_for(Fraction(1, 12800), Fraction(30)), ticks_for(Fraction(1001, 30000), Fraction(30))
    (115200, 90000)
    """
    both = math.lcm(base.denominator, rate.numerator)
    ticks = both if both <= LARGEST else base.denominator
    return min(ticks * max(1, -(-TICKS // ticks)), max(LARGEST // ticks, 1) * ticks)


def encoded_anew(
    path: str | os.PathLike[str], target: Path, form: Form, quality: Mapping[str, str]
) -> Fraction:
    """Write a clip's frames to an MP4 of H.264 in this form, from 0 on, and return the second at which they begin.

    Frames keep their distances in time. What is damaged is passed over, as players do.
    """
    start = None
    with opened(path) as container, av.open(str(target), "w", format="mp4") as made:
        source = main_stream(container)
        ticks = ticks_for(Fraction(source.time_base or Fraction(1, TICKS)))
        stream: Any = made.add_stream("libx264", rate=Fraction(source.average_rate or 30))
        form.prepare(stream, quality, number=0 if form.number else 1)
        stream.codec_context.time_base = Fraction(1, ticks)
        made.options["video_track_timescale"] = str(ticks)
        for second, frame in _decoded(container, source):
            start = second if start is None else start
            shown = _formed(frame, form)
            shown.pts, shown.time_base = round((second - start) * ticks), Fraction(1, ticks)
            for packet in stream.encode(shown):
                made.mux(packet)
        for packet in stream.encode(None):
            made.mux(packet)
    if start is None:
        raise PictureError(f"{path} cannot be read as a video: none of its frames can be decoded.")
    return start


def _formed(frame: Any, form: Form) -> av.VideoFrame:
    """A decoded frame in this form, whose own kind of pixels need no way through red, green and blue."""
    if form.sets is not None:
        return frame.reformat(form.width, form.height, format=form.pixel_format)
    return form.encodable(form.shaped(upright(frame, form.seen)))


def _decoded(container: Any, stream: Any) -> Iterator[tuple[Fraction, Any]]:
    """(second, frame) of all frames that can be decoded, each later than the one before."""
    base, last = Fraction(stream.time_base), None
    for packet in container.demux(stream):
        try:
            found = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in found:
            mark = frame.pts
            if mark is None:
                mark = 0 if last is None else last + round(1 / (base * Fraction(stream.average_rate or 30)))
            if last is None or mark > last:
                yield mark * base, frame
                last = mark
