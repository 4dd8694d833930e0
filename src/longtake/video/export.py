"""export_to_video, by the field's name: frames of any kind become an MP4 or a GIF."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from longtake import disk
from longtake.errors import JobError, LongtakeWarning, PictureError
from longtake.job import Job
from longtake.picture import enlarged, frames_of, reason
from longtake.video.writing import CRF, VideoWriter, check_writable


def export_to_video(
    video_frames: Any,
    output_video_path: str | os.PathLike[str] | None = None,
    fps: float = 10,
    quality: float | None = None,
    bitrate: int | None = None,
    macro_block_size: int | None = None,
    *,
    crf: float | None = None,
    zoom: int = 1,
    job: Job | Mapping[str, Any] | None = None,
) -> str:
    """Write frames to an MP4, or to a GIF if the name ends so, and return its path; without a path, a temporary file.

    Takes what diffusers' function of this name takes (a list of PIL pictures, or arrays of uint8 or of floats in
    [0, 1]), also tensors, and (T, H, W, 3) at once; `fps` is by default what it is there. `quality` from 0 to 10
    (best), if given, takes the place of `crf`. No frame is scaled to a multiple of `macro_block_size`.
    """
    if bitrate is not None:
        raise JobError(
            f"The quality of a video is set by quality or crf, and no bitrate is kept; {bitrate!r} was asked for."
        )
    if quality is not None and crf is not None:
        raise JobError("The quality of a video is set by quality or by crf; both were given.")
    if output_video_path is None:
        with _temporary() as path:
            return export_to_video(
                video_frames, path, fps, quality, None, macro_block_size, crf=crf, zoom=zoom, job=job
            )
    if quality is not None:
        if not 0 <= quality <= 10:
            raise JobError(f"The quality lies between 0 and 10 (best); {quality:g} was asked for.")
        crf = max(1.0, 51 * (1 - quality / 10))  # imageio's scale, which diffusers uses
    if Path(output_video_path).suffix.lower() == ".gif":
        if crf is not None:
            raise JobError("A GIF has no quality to choose; leave quality and crf out, or name an .mp4.")
        _write_gif(check_writable(output_video_path, ".gif"), video_frames, fps, zoom, job)
        return os.fspath(output_video_path)
    with VideoWriter(output_video_path, fps, crf=CRF if crf is None else crf, zoom=zoom, job=job) as writer:
        writer.write(video_frames)
    if macro_block_size and writer.size and any(edge % macro_block_size for edge in writer.size):
        warnings.warn(
            f"The video has {writer.size[0]} x {writer.size[1]} pixels, which are no multiples of macro_block_size="
            f"{macro_block_size}: frames are not scaled, which would blur them.",
            LongtakeWarning,
            stacklevel=2,
        )
    return os.fspath(output_video_path)


@contextlib.contextmanager
def _temporary() -> Iterator[str]:
    """A new temporary file, which goes if nothing comes of it."""
    handle, path = tempfile.mkstemp(suffix=".mp4")
    os.close(handle)
    try:
        yield path
    except BaseException:
        disk.unclaim(Path(path))
        raise


def _write_gif(path: Path, frames: Any, fps: float, zoom: int, job: Job | Mapping[str, Any] | None) -> None:
    """Write a GIF that repeats, whole or not at all: 256 colours a frame, and times in hundredths of a second."""
    if not 0 < fps <= 50:
        raise JobError(f"A GIF shows up to 50 frames a second; {fps:g} was asked for. Name an .mp4 for more.")
    if zoom < 1:
        raise JobError(f"The zoom must be at least 1; {zoom} was asked for.")
    if job is not None:
        raise JobError("A GIF does not carry its job; leave job out, or name an .mp4.")
    pictures = [enlarged(pixels, zoom) for pixels in frames_of(frames)]
    if not pictures:
        raise PictureError(f"There are no frames to write to {path}.")
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        raise PictureError(f"All frames of a video have one size; there are {sizes[0]} and {sizes[1]}.")
    # Each frame begins at the hundredth that is nearest to its time, so that the whole is as long as it should be.
    begins = [round(100 * number / fps) for number in range(len(pictures) + 1)]
    durations = [10 * (end - begin) for begin, end in pairwise(begins)]
    try:
        with disk.replacing(path) as file:
            pictures[0].save(
                file, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0
            )
    except OSError as error:
        raise PictureError(f"{path} cannot be written: {reason(error)}.") from None
