"""A clip to which new frames are joined: how they must be encoded so that its own packets stay as they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from longtake.video.containers import CONTAINERS
from longtake.video.edges import beginning, ending
from longtake.video.parameters import ParameterSets, parameter_sets
from longtake.video.reading import opened, pixels
from longtake.video.timed import UNTURNED, Outline, frames, main_stream

PIXEL_FORMATS = (
    "yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv420p10le", "yuv422p10le",
    "yuv444p10le", "gray", "gray10le",
)  # fmt: skip
"""Those that x264 writes."""

BT601, BT709, LIMITED, FULL, UNKNOWN = 5, 1, 1, 2, 2
"""Numbers of ISO/IEC 23091-2, which every container stores (ranges: FFmpeg's)."""

MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)
"""Kinds of colours that pixels are converted to and from."""


@dataclass(frozen=True)
class Form:
    """The form of frames that stand beside a clip's: as it stores them, before they are turned.

    `shape` is a pixel's (width : height), `colours` are range, matrix, primaries and transfer by their numbers, `seen`
    is its outline, turn and all; `sets` are the clip's parameter sets, None if its frames are encoded anew, for the
    `reason` said.
    """

    width: int
    height: int
    seen: Outline
    pixel_format: str = "yuv420p"
    shape: Fraction = Fraction(1)
    colours: tuple[int, int, int, int] = (LIMITED, BT709, BT709, BT709)
    sets: ParameterSets | None = None
    reason: str = ""

    @property
    def number(self) -> int:
        """The number of our parameter sets."""
        free = None if self.sets is None else self.sets.free_id()
        return 1 if free is None else free

    def shaped(self, frame: np.ndarray) -> np.ndarray:
        """A frame (H, W, 3) of any size, upright, as the clip stores its own."""
        # Encoded anew, frames are upright.
        a, b, c, d = UNTURNED if self.sets is None else self.seen.turn
        rows, columns = (d, a) if a else (b, c)
        frame = frame[:: rows or 1, :: columns or 1]
        if not a:
            frame = frame.swapaxes(0, 1)
        if frame.shape[:2] == (self.height, self.width):
            return np.ascontiguousarray(frame)
        picture = Image.fromarray(np.ascontiguousarray(frame))
        return np.asarray(picture.resize((self.width, self.height), Image.Resampling.LANCZOS))

    def encodable(self, frame: np.ndarray) -> av.VideoFrame:
        """A shaped frame in the clip's kind of pixels and colours."""
        span, matrix = self.colours[:2]
        found = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        # What is not said is read as BT.601, here and by players that look at nothing else.
        return found.reformat(
            format=self.pixel_format,
            dst_colorspace=BT601 if matrix in (UNKNOWN, 0) else matrix,
            dst_color_range=FULL if span == FULL or "j" in self.pixel_format else LIMITED,
            interpolation="AREA",
        )

    def prepare(self, stream: Any, quality: Mapping[str, str], number: int | None = None) -> None:
        """Set up a stream of x264 to encode such frames; `number` is that of its parameter sets, by default ours."""
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, self.pixel_format
        told = CONTAINERS[".mp4"].told["x264-params"]
        # The number keeps our parameter sets apart from the clip's.
        stream.options = {**quality, "preset": "medium"}
        stream.options |= {"x264-params": f"{told}:sps-id={self.number if number is None else number}"}
        context = stream.codec_context
        context.color_range, context.colorspace = self.colours[:2]
        context.color_primaries, context.color_trc = self.colours[2:]
        context.sample_aspect_ratio = self.shape
        context.thread_count = 1


def form_of(path: str | os.PathLike[str]) -> Form:
    """The form of frames that go on from this clip, or before it; PictureError if it is no video."""
    seen = ending(path, 1.0)
    reason = _why_anew(path)
    if reason is not None:
        width, height = seen.width + seen.width % 2, seen.height + seen.height % 2
        CONTAINERS[".mp4"].check_size(width, height, 1)
        return Form(width, height, seen, reason=reason)
    with opened(path) as container:
        stream = main_stream(container)
        context = stream.codec_context
        colours = (
            int(context.color_range), int(context.colorspace), int(context.color_primaries), int(context.color_trc)
        )  # fmt: skip
        return Form(
            context.width, context.height, seen, context.pix_fmt, Fraction(stream.sample_aspect_ratio or 1), colours,
            parameter_sets(context.extradata),
        )  # fmt: skip


def _why_anew(path: str | os.PathLike[str]) -> str | None:
    """The reason why a clip's own packets cannot stand before or behind ours in one MP4; None if they can."""
    with opened(path) as container:
        stream = main_stream(container)
        context = stream.codec_context
        name = context.codec.canonical_name
        if name != "h264":
            return f"it is {name} and not H.264"
        if context.pix_fmt not in PIXEL_FORMATS:
            return f"x264 writes no {context.pix_fmt}"
        sets = parameter_sets(context.extradata)
        if sets is None or sets.free_id() is None:
            return "its parameter sets are not stored as an MP4 stores them"
        if int(context.colorspace) not in MATRICES:
            return "its colours are of a rare kind"
    return None


def at_edge(path: str | os.PathLike[str], form: Form, end: bool) -> np.ndarray:
    """The clip's last (`end`) or first two frames as it stores them, or will: (2, H, W, 3) uint8, not yet turned.

    They stand in the order of time; one that is alone comes twice.
    """
    known = ending(path, 1.0) if end else beginning(path, 1.0)
    last = len(known.times) - 1
    numbers = [max(0, last - 1), last] if end else [0, min(1, last)]
    if form.sets is None:
        return np.stack([form.shaped(frame) for frame in frames(path, known, numbers)])
    return np.stack(list(frames(path, known, numbers, lambda frame, _: pixels(frame))))
