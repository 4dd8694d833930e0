"""export_to_video, by the field's name: frames of any kind become a video of any kind."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from longtake import disk
from longtake.errors import JobError, LongtakeWarning
from longtake.job import Job
from longtake.video.names import writer_for


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
    """Write frames to a video and return its path: an MP4, WebM, MOV or GIF, by its name, or numbered PNGs.

    Without a path it is a temporary MP4. Takes what diffusers' function of this name takes (a list of PIL pictures, or
    arrays of uint8 or of floats in [0, 1]), also tensors, and (T, H, W, 3) at once; `fps` is by default what it is
    there. `quality` from 0 to 10 (best), if given, takes the place of `crf`. No frame is scaled to a multiple of
    `macro_block_size`.
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
    with writer_for(output_video_path, fps, crf=crf, zoom=zoom, job=job) as writer:
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
