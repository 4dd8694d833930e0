"""Reading a video file: its frames, or only what it says of itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from longtake.errors import JobError, PictureError
from longtake.job import Job
from longtake.picture import MAX_PIXELS, reason
from longtake.video.gif import read_comment
from longtake.video.numbered import is_numbered, numbered, read_text

MAX_BYTES = 2**34
"""Most bytes of all frames that are read at once: 16 GiB are eight minutes at 640 x 608 and 30 frames a second."""

SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif")
"""Names of videos that can be read."""

CONTAINERS = "MP4, QuickTime, WebM, Matroska, AVI or GIF"


@dataclass(frozen=True)
class Metadata:
    """The facts that a video file states; `job` is the one that made it, if the comment holds one."""

    width: int
    height: int
    frames: int
    fps: float
    codec: str
    pixel_format: str
    comment: str
    job: Job | None


def read_video(path: str | os.PathLike[str]) -> tuple[np.ndarray, float]:
    """All frames of a video (T, H, W, 3) uint8 and its frame rate. Raises PictureError if it is none."""
    frames: list[np.ndarray] = []
    for frame in stream_video(path):
        frames.append(frame)
        if len(frames) * frame.nbytes > MAX_BYTES:
            raise PictureError(f"{path} has more frames than are read at once ({MAX_BYTES >> 30} GiB).")
    with opened(path) as container:
        rate = container.streams.video[0].average_rate
    return np.stack(frames), float(rate or 0)


def stream_video(path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) uint8 of a video, one by one. Raises PictureError, also on the way, if it is none."""
    shape: tuple[int, ...] = ()
    with opened(path) as container:
        for frame in container.decode(container.streams.video[0]):
            # What the header says is no bound: a frame may have another size, and there may be more of them.
            if frame.width * frame.height > MAX_PIXELS:
                raise PictureError(_too_large(path, frame.width, frame.height))
            values = pixels(frame)
            if shape and values.shape != shape:
                raise PictureError(f"{path} has frames of more than one size.")
            shape = values.shape
            yield values
    if not shape:
        raise PictureError(f"{path} holds no frames.")


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """The facts that a video states, without decoding it: a file, a PNG, or a folder of numbered PNGs.

    Raises PictureError if it is none.
    """
    if Path(path).is_dir() or is_numbered(path) or Path(path).suffix.lower() == ".png":
        return _of_pictures(path)
    with opened(path) as container:
        stream = container.streams.video[0]
        comment = _comment(container, path)
        frames, fps = stream.frames, float(stream.average_rate or 0)
        is_gif = container.format.name == "gif"
        if not frames or is_gif:
            frames, seconds = _count_packets(container)
            # FFmpeg guesses a GIF's rate by one of its times.
            fps = frames / seconds if is_gif and seconds else fps
        return Metadata(
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            frames=frames,
            fps=fps,
            codec=stream.codec_context.name,
            pixel_format=stream.codec_context.pix_fmt or "",
            comment=comment,
            job=_job(comment),
        )


def _of_pictures(path: str | os.PathLike[str]) -> Metadata:
    """The facts of numbered PNGs, by the first one, or of a single one."""
    numbers = is_numbered(path)
    files = numbered(path) if numbers else [Path(path)]
    if not files:
        raise PictureError(f"{path} holds no numbered PNGs.")
    comment, width, height = read_text(files[0])
    job = _job(comment)
    fps = float(job.fps) if job is not None and numbers else 0.0
    return Metadata(width, height, len(files), fps, "png", "rgb24", comment, job)


def _comment(container: Any, path: str | os.PathLike[str]) -> str:
    if container.format.name == "gif":
        return read_comment(path)
    # Matroska shouts.
    return str(container.metadata.get("comment") or container.metadata.get("COMMENT", ""))


def _job(comment: str) -> Job | None:
    """The job of a comment, if it is one."""
    with contextlib.suppress(JobError):
        return Job.from_json(comment)
    return None


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Inside, the container of a video file, opened as what it is; PictureError for anything that goes wrong."""
    if not Path(path).exists():
        raise PictureError(f"There is no file {path}.")
    try:
        # The container is named and not guessed: playlists and others that FFmpeg would guess name files and addresses
        # of their own, which it would open. "file:", since a name may look like an address, too.
        with av.open(
            f"file:{os.fspath(path)}",
            format=_container_of(path),
            container_options={"protocol_whitelist": "file"},
        ) as container:
            if not container.streams.video:
                raise PictureError(f"{path} has no video in it.")
            context = container.streams.video[0].codec_context
            if context.width * context.height > MAX_PIXELS:
                raise PictureError(_too_large(path, context.width, context.height))
            yield container
    except PictureError:
        raise
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise PictureError(f"{path} cannot be read as a video: {reason(error)}.") from None


def _container_of(path: str | os.PathLike[str]) -> str:
    """FFmpeg's name of the container, by the file's first bytes and not by its name."""
    with open(path, "rb") as file:
        head = file.read(12)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:] == b"AVI ":
        return "avi"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    raise PictureError(f"{path} cannot be read as a video: it is no {CONTAINERS}.")


def _too_large(path: object, width: int, height: int) -> str:
    return f"{path} has frames of {width} x {height} pixels; the most that is read is {MAX_PIXELS // 10**6} million."


def _count_packets(container: Any) -> tuple[int, float]:
    """The frames of a video whose index does not count them, such as one that is made of fragments; and its seconds."""
    count, seconds = 0, 0.0
    for packet in container.demux(video=0):
        if packet.dts is not None:
            count += 1
            seconds += float((packet.duration or 0) * packet.time_base)
    return count, seconds


def pixels(frame: av.VideoFrame, width: int | None = None, height: int | None = None) -> np.ndarray:
    """A decoded frame as (H, W, 3) uint8, in its own size or in another one."""
    # Chroma first to full size, smoothly: the direct way repeats it over four pixels.
    return frame.reformat(width, height, format="yuv444p", interpolation="BICUBIC").to_ndarray(format="rgb24")
