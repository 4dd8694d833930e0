"""Writing an MP4 frame by frame: whole or not at all, and playable while it grows."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error
import numpy as np

from longtake import disk
from longtake.errors import JobError, PictureError
from longtake.job import Job
from longtake.picture import enlarged, frames_of, reason
from longtake.video.growing import Fragments, new_mp4, remux

CRF = 17
"""Default quality of a video: x264's constant rate factor, from 1 (best) to 51; 17 looks lossless."""

LONGEST_SIDE = 16384
"""Pixels; x264 opens no larger one."""

LARGEST_FRAME = 139_264 * 16 * 16
"""Pixels of one frame in H.264's highest level, 6.2 (its table A-1): 8192 x 4352."""

# Numbers of ISO/IEC 23091-2, which every container stores.
_BT709 = 1
_LIMITED = 1


class VideoWriter:
    """An MP4 that grows frame by frame and takes its name when it is whole: H.264, 4:2:0, playable while it loads.

    Used in a `with` block; if that ends with an error, nothing is left behind. `crf` as in CRF; `zoom` enlarges
    every pixel so many times; `job` is stored as JSON in the file's comment. A size that is odd grows by one pixel,
    since 4:2:0 has no odd sizes. Raises PictureError if the file cannot be written.

    With `growing`, what is there so far can be played at any moment, from `partial`: NAME.partial.mp4 beside it, a
    fragmented MP4 with a fragment for each frame, about five frames behind. It goes when the whole file is in place,
    and stays if that never comes: after an error, or when the process is killed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float = 30,
        *,
        crf: float = CRF,
        zoom: int = 1,
        job: Job | Mapping[str, Any] | None = None,
        growing: bool = False,
    ) -> None:
        # Unlike the reference: 0 is refused. It makes x264 write a lossless profile that browsers show as black.
        if not 1 <= crf <= 51:
            raise JobError(f"The quality (crf) lies between 1 (best) and 51; {crf:g} was asked for.")
        if zoom < 1:
            raise JobError(f"The zoom must be at least 1; {zoom} was asked for.")
        if not 0 < fps <= 1000:
            raise JobError(f"The frame rate lies above 0 and up to 1000 a second; {fps:g} was asked for.")
        self.path = check_writable(path, ".mp4")
        self.partial: Path | None = None
        if growing:
            self.partial = check_writable(self.path.with_name(f"{self.path.stem[:100]}.partial.mp4"))
        self.size: tuple[int, int] | None = None
        self.frames = 0
        self._rate = Fraction(fps).limit_denominator(1001)
        self._crf, self._zoom, self._job = crf, zoom, job
        self._hidden = disk.part_of(self.path)
        self._fragments: Fragments | None = None
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._abandon()

    def write(self, frames: Any) -> None:
        """Append frames: (T, H, W, 3), a list of pictures or arrays, or a generator of them; all of one size."""
        for pixels in frames_of(frames):
            height, width = pixels.shape[:2]
            if self.size is None:
                self._open(width, height)
            if (width, height) != self.size:
                raise PictureError(
                    f"All frames of a video have one size; {width} x {height} came after {self.size}."
                )
            self._encode(_video_frame(pixels, self._zoom))
            self.frames += 1

    def _open(self, width: int, height: int) -> None:
        check_size(width, height, self._zoom)
        with self._sentence():
            if self.partial is None:
                self._container = new_mp4(str(self._hidden), self._job)
            else:
                self._fragments = Fragments(self.partial)
                self._container = new_mp4(self._fragments, self._job)
            stream = self._container.add_stream("libx264", rate=self._rate)
            stream.width, stream.height = _even(width * self._zoom), _even(height * self._zoom)
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": f"{self._crf:g}", "profile": "high", "preset": "medium"}
            # x264's macroblock tree reads memory that it never wrote (AVX-512, seen in PyAV 18.1): one file in about
            # a hundred differed, and MALLOC_PERTURB_ decided how. Without it files are larger, and a little better;
            # and the encoder keeps 5 frames back instead of 40.
            stream.options |= {"x264-params": "mbtree=0"}
            # Colours are tagged as they are converted; untagged small videos are guessed to be BT.601.
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED
            # The same frames make the same file, whatever the number of cores; one still writes 50 frames of
            # 640 x 608 a second.
            context.thread_count = 1
            self._stream = stream
        self.size = (width, height)

    def _encode(self, frame: av.VideoFrame | None) -> None:
        with self._sentence():
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    def _finish(self) -> None:
        if self.size is None:
            raise PictureError(f"There are no frames to write to {self.path}.")
        self._encode(None)
        with self._sentence():
            self._close()
            if self._fragments is not None:
                remux(self._fragments.file, self._hidden, self._job)
            disk.publish(self._hidden, self.path)
            if self._fragments is not None:
                self._fragments.remove()

    def _close(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def _abandon(self) -> None:
        """Leave the fragments that are finished and nothing else; after `_finish` there is nothing to do."""
        with contextlib.suppress(OSError, av.error.FFmpegError):
            if self._fragments is not None and self._container is not None:
                for packet in self._stream.encode(None):
                    self._container.mux(packet)
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


def check_writable(path: str | os.PathLike[str], *suffixes: str) -> Path:
    """The path, made absolute, when a file can be created there and its name ends in one of `suffixes`."""
    target = Path(path)
    if suffixes and target.suffix.lower() not in suffixes:
        raise PictureError(f"The output's name must end in {' or '.join(suffixes)}; {target} was given.")
    try:
        if target.is_dir():
            raise PictureError(f"{target} is a folder; name a file in it.")
        if not target.parent.is_dir():
            raise PictureError(f"There is no folder {target.parent} to write {target.name} to.")
        # Permissions do not tell (network drives, containers, root), a trial does; so does the length of the name.
        trial = target.with_name(f".{target.name[:-4]}{secrets.token_hex(2)}")
        trial.open("xb").close()
        trial.unlink()
    except (OSError, ValueError) as error:
        raise PictureError(f"{target} cannot be written: {reason(error)}.") from None
    return target.resolve()


def check_size(width: int, height: int, zoom: int = 1) -> None:
    """Raise JobError if frames of this size, enlarged, are larger than H.264 takes."""
    across, down = _even(width * zoom), _even(height * zoom)
    if max(across, down) > LONGEST_SIDE or across * down > LARGEST_FRAME:
        enlarged = f", enlarged {zoom} times, is {across} x {down}" if zoom > 1 else " was asked for"
        raise JobError(
            f"An MP4 (H.264) has frames of at most {LONGEST_SIDE} pixels on a side and {LARGEST_FRAME} in all; "
            f"{width} x {height}{enlarged}."
        )


def _even(size: int) -> int:
    return size + size % 2


def _video_frame(pixels: np.ndarray, zoom: int) -> av.VideoFrame:
    if zoom != 1:
        pixels = np.asarray(enlarged(pixels, zoom))
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    # AREA averages the chroma of four pixels; the default takes that of every second column as it is.
    return frame.reformat(format="yuv420p", dst_colorspace="ITU709", interpolation="AREA")
