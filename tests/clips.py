"""Videos made on the spot, of every awkward kind, whose frames tell their own number."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT = 96, 64


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame that tells its number by its grey, with a red corner at the top left."""
    frame = np.full((height, width, 3), 8 + number % 60 * 4, np.uint8)
    frame[: height // 4, : width // 4] = (255, 0, 0)
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number (modulo 60) that a frame tells, by its middle."""
    height, width = frame.shape[:2]
    middle = frame[height * 2 // 5 : height * 3 // 5, width * 2 // 5 : width * 3 // 5]
    return round((float(middle.mean()) - 8) / 4)


def clip(
    path: Path, frames: int = 40, rate: Any = 30, marks: Any = None, turn: Any = None, **kind: Any
) -> Path:
    """Write a video; `marks` are times in thousandths of a second, `turn` (degrees, mirrored), `kind` the codec's.

    `sound` is the codec of a tone that it has, as long as `lasts` says (by default, as the video).
    """
    sound, lasts = kind.pop("sound", None), kind.pop("lasts", None)
    size = kind.pop("size", (WIDTH, HEIGHT))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(kind.pop("codec", "libx264"), rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = kind.pop("pix_fmt", "yuv420p")
        stream.options = {"crf": "12", **kind.pop("options", {})}
        if marks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if "shape" in kind:
            stream.sample_aspect_ratio = kind.pop("shape")
        if turn is not None:
            stream.set_display_rotation(turn[0], hflip=turn[1])
        assert not kind, kind
        heard: Any = container.add_stream(sound, rate=48000, layout="mono") if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), "rgb24")
            if marks is not None:
                frame.pts, frame.time_base = int(marks[number]), Fraction(1, 1000)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
        if heard is not None:
            for packet in tone(heard, lasts or frames / float(rate)):
                container.mux(packet)
    return path


def tone(stream: Any, seconds: float) -> Iterator[Any]:
    """The packets of a tone whose pitch goes up."""
    size = 1024
    for begin in range(0, round(seconds * 48000), size):
        times = np.arange(begin, begin + size) / 48000
        wave = np.sin(2 * np.pi * (300 + 20 * times) * times) / 2
        frame = av.AudioFrame.from_ndarray((wave * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, begin, Fraction(1, 48000)
        yield from stream.encode(frame)
    yield from stream.encode(None)
