"""Writing a video file frame by frame: whole or not at all, and playable while it grows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np

from longtake.job import Job
from longtake.picture import enlarged
from longtake.video.containers import CONTAINERS, Container, even
from longtake.video.growing import Grown, partial_of
from longtake.video.writer import Writer, check_writable

# Numbers of ISO/IEC 23091-2, which every container stores.
_BT709 = 1
_LIMITED = 1


class VideoWriter(Writer):
    """An MP4, a WebM or a MOV, by its name, that grows frame by frame and takes its name when it is whole.

    H.264 and VP9 in 4:2:0, ProRes 422 HQ in 10 bits; an MP4 plays while it loads. Used in a `with` block; if that ends
    with an error, nothing is left behind. `crf` is the quality, from 1 (best) to 51; ProRes has none to choose; `zoom`
    enlarges every pixel so many times; `job` is stored as JSON in the file's comment. A size that is odd grows by one
    pixel. Raises PictureError if the file cannot be written.

    With `growing`, what is there so far can be played at any moment, from `partial`: NAME.partial.mp4 beside it, in
    pieces of a frame each, about five frames behind (WebM: nine). It goes when the whole file is in place, and stays if
    that never comes: after an error, or when the process is killed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float = 30,
        *,
        crf: float | None = None,
        zoom: int = 1,
        job: Job | Mapping[str, Any] | None = None,
        growing: bool = False,
    ) -> None:
        name = check_writable(path, *CONTAINERS)
        self._kind: Container = CONTAINERS[name.suffix.lower()]
        self._quality = self._kind.quality(crf)
        super().__init__(name, fps, zoom)
        if growing:
            self.partial = partial_of(name)
        self._rate = Fraction(fps).limit_denominator(1001)
        self._file = Grown(name, self._kind, job, self.partial)
        self._stream: Any = None

    def _open(self, width: int, height: int) -> None:
        kind = self._kind
        kind.check_size(width, height, self._zoom)
        with self._sentence():
            stream = self._file.open().add_stream(kind.codec, rate=self._rate)
            stream.width, stream.height = even(width * self._zoom), even(height * self._zoom)
            stream.pix_fmt = kind.pixels
            stream.options = {**self._quality, **kind.told}
            # Colours are tagged as they are converted; untagged small videos are guessed to be BT.601.
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED
            # The same frames make the same file, whatever the number of cores; one still writes 50 frames of
            # 640 x 608 a second.
            context.thread_count = 1
            self._stream = stream

    def _append(self, pixels: np.ndarray) -> None:
        self._encode(_video_frame(pixels, self._zoom, self._kind.pixels))

    def _encode(self, frame: av.VideoFrame | None) -> None:
        with self._sentence():
            self._put(frame)

    def _put(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._stream.container.mux(packet)

    def _finish(self) -> None:
        self._encode(None)
        with self._sentence():
            self._file.publish()

    def _abandon(self) -> None:
        self._file.abandon(lambda: self._put(None))

    def _is_partly_there(self) -> bool:
        return self._file.count > 0


def _video_frame(pixels: np.ndarray, zoom: int, form: str) -> av.VideoFrame:
    if zoom != 1:
        pixels = np.asarray(enlarged(pixels, zoom))
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    # AREA averages the chroma of four pixels; the default takes that of every second column as it is.
    return frame.reformat(format=form, dst_colorspace="ITU709", interpolation="AREA")
