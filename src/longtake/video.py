"""Videos as files: written, also while they grow, and read; the only user of PyAV.

Frames are (T, H, W, 3) uint8. Every error about a file is a PictureError that names the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av
import av.error
import numpy as np

from longtake.errors import JobError, PictureError
from longtake.job import Job
from longtake.picture import enlarged, frames_of, reason

CRF = 17
"""Default quality of a video: x264's constant rate factor, from 1 (best) to 51; 17 looks lossless."""

LONGEST_SIDE = 16384
"""Pixels; x264 opens no larger one."""

LARGEST_FRAME = 139_264 * 16 * 16
"""Pixels of one frame in H.264's highest level, 6.2 (its table A-1): 8192 x 4352."""

# Numbers of ISO/IEC 23091-2, which every container stores.
_BT709 = 1
_LIMITED = 1


# ---------------------------------------------------------------------------------------------- writing


class VideoWriter:
    """An MP4 that grows frame by frame and takes its name when it is whole: H.264, 4:2:0, playable while it loads.

    Used in a `with` block; where that ends with an error nothing is left behind. `crf` as in CRF; `zoom` enlarges
    every pixel so many times; `job` is stored as JSON in the file's comment. A size that is odd grows by one pixel,
    since 4:2:0 has no odd sizes. Raises PictureError where the file cannot be written.

    With `growing`, what is there so far can be played at any moment, from `partial`: NAME.partial.mp4 beside it, a
    fragmented MP4 with a fragment for each frame, about five frames behind. It goes when the whole file is in place,
    and stays where that never comes: after an error, or when the process is killed.
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
        self._hidden = self.path.with_name(f".{self.path.stem[:100]}.{secrets.token_hex(4)}.part")
        self._fragments: _Fragments | None = None
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
                self._container = _new_mp4(str(self._hidden), self._job)
            else:
                self._fragments = _Fragments(self.partial)
                self._container = _new_mp4(self._fragments, self._job)
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
                _remux(self._fragments.file, self._hidden, self._job)
            _to_disk(self._hidden)
            os.replace(self._hidden, self.path)
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


class _Fragments:
    """The file that a fragmented MP4 grows in: each fragment is in it wholly, or not at all.

    PyAV writes through it. It offers no `seek`, so that nothing behind is touched again.
    """

    def __init__(self, path: Path) -> None:
        # A new file and not the old one emptied: another process may still be at work on that.
        path.unlink(missing_ok=True)
        self.path = path
        self.file = path.open("x+b", buffering=0)
        self.size = self.count = 0
        self._error: OSError | None = None

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
        self.count += data[4:8] == b"moof"  # the header comes first, alone
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


def _new_mp4(place: str | _Fragments, job: Job | Mapping[str, Any] | None) -> Any:
    """An MP4 to write: whole, with its index in front, or fragment by fragment."""
    if isinstance(place, str):
        container = av.open(place, "w", format="mp4", options={"movflags": "+faststart"})
    else:
        # delay_moov: the index waits for the first frame, to say that it is shown at 0 although B-frames come later.
        flags = "+delay_moov+default_base_moof+frag_every_frame+skip_trailer"
        options = {"movflags": flags, "flush_packets": "1"}
        # The buffer holds what is written at once; a fragment that is larger is cut where the process is killed.
        container = av.open(place, "w", format="mp4", options=options, buffer_size=2**20)
    if job is not None:
        container.metadata["comment"] = job.to_json() if isinstance(job, Job) else json.dumps(job)
    return container


def _remux(fragments: BinaryIO, path: Path, job: Job | Mapping[str, Any] | None) -> None:
    """Write the packets of a fragmented MP4, as they are and one at a time, to an ordinary one."""
    fragments.seek(0)
    with av.open(fragments, "r", format="mp4") as grown, _new_mp4(str(path), job) as whole:
        stream = whole.add_stream_from_template(grown.streams.video[0])
        for packet in grown.demux(video=0):
            if packet.dts is not None:  # the last one is empty: it flushes decoders
                packet.stream = stream
                whole.mux(packet)


def _to_disk(path: Path) -> None:
    # Before it takes its name: a machine that stops may keep the new name and lose the bytes.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def export_to_video(
    video_frames: Any,
    output_video_path: str | os.PathLike[str] | None = None,
    fps: float = 30,
    quality: float | None = None,
    *,
    crf: float = CRF,
    zoom: int = 1,
    job: Job | Mapping[str, Any] | None = None,
) -> str:
    """Write frames to an MP4 and return its path; without a path, to a new temporary file.

    Takes what diffusers' function of this name takes (a list of PIL pictures, or arrays of uint8 or of floats in
    [0, 1]), also (T, H, W, 3) at once. `quality` from 0 to 10 (best), where given, takes the place of `crf`.
    """
    if quality is not None:
        if not 0 <= quality <= 10:
            raise JobError(f"The quality lies between 0 and 10 (best); {quality:g} was asked for.")
        crf = max(1.0, 51 * (1 - quality / 10))  # imageio's scale, which diffusers uses
    if output_video_path is None:
        handle, output_video_path = tempfile.mkstemp(suffix=".mp4")
        os.close(handle)
    with VideoWriter(output_video_path, fps, crf=crf, zoom=zoom, job=job) as writer:
        writer.write(video_frames)
    return os.fspath(output_video_path)


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


# ---------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Metadata:
    """What a video file says of itself; `job` is the one that made it, where the comment holds one."""

    width: int
    height: int
    frames: int
    fps: float
    codec: str
    pixel_format: str
    comment: str
    job: Job | None


def read_video(path: str | os.PathLike[str]) -> tuple[np.ndarray, float]:
    """All frames of a video (T, H, W, 3) uint8 and its frame rate. Raises PictureError where it is none."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        frames = [_pixels(frame) for frame in container.decode(stream)]
        rate = stream.average_rate
    if not frames:
        raise PictureError(f"{path} holds no frames.")
    return np.stack(frames), float(rate or 0)


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """What the video file says of itself, without decoding it. Raises PictureError where it is none."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        comment = container.metadata.get("comment", "")
        job = None
        with contextlib.suppress(JobError):
            job = Job.from_json(comment)
        return Metadata(
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            frames=stream.frames or _count_packets(container),
            fps=float(stream.average_rate or 0),
            codec=stream.codec_context.name,
            pixel_format=stream.codec_context.pix_fmt or "",
            comment=comment,
            job=job,
        )


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    if not Path(path).exists():
        raise PictureError(f"There is no file {path}.")
    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise PictureError(f"{path} has no video in it.")
            yield container
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise PictureError(f"{path} cannot be read as a video: {reason(error)}.") from None


def _count_packets(container: Any) -> int:
    """The frames of a video whose index does not count them: one that is made of fragments."""
    return sum(packet.dts is not None for packet in container.demux(video=0))


def _pixels(frame: av.VideoFrame) -> np.ndarray:
    # Chroma first to full size, smoothly: the direct way repeats it over four pixels.
    return frame.reformat(format="yuv444p", interpolation="BICUBIC").to_ndarray(format="rgb24")
