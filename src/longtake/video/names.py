"""Which kind of video a name asks for: what is checked before anything runs, and the writer of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longtake.errors import PictureError
from longtake.job import Job
from longtake.video import gif, numbered
from longtake.video.containers import CONTAINERS
from longtake.video.gif import GifWriter
from longtake.video.numbered import PictureWriter, check_pattern, is_numbered
from longtake.video.writer import Writer, check_writable
from longtake.video.writing import VideoWriter

KINDS = (*CONTAINERS, ".gif")
"""The ends of names of videos that are written; a folder, or a pattern of numbers, asks for PNGs."""

TOLD = f"{', '.join(KINDS)}, or a folder of PNGs: NAME/, NAME/%05d.png"


def check_output(name: str | os.PathLike[str]) -> Path:
    """The place of a video of any kind, made absolute; PictureError if it cannot be written there.

    Numbered PNGs are `FOLDER/%05d.png`.
    """
    if is_numbered(name):
        return check_pattern(name)
    if Path(name).suffix.lower() not in KINDS:
        raise PictureError(f"The name of a video must end in {TOLD}; {os.fspath(name)} was given.")
    return check_writable(name)


def check_kind(path: Path, fps: float, crf: float | None = None) -> None:
    """Raise JobError if a video of this kind cannot have this frame rate or quality."""
    kind = CONTAINERS.get(path.suffix.lower())
    if kind is not None:
        kind.quality(crf)
    elif path.suffix.lower() == ".gif":
        gif.check(fps, crf)
    else:
        numbered.check(crf)


def check_size(width: int, height: int, zoom: int = 1, path: Path | None = None) -> None:
    """Raise JobError if frames of this size, enlarged, are larger than a video of this kind takes."""
    suffix = ".mp4" if path is None else path.suffix.lower()
    if suffix in CONTAINERS:
        CONTAINERS[suffix].check_size(width, height, zoom)
    else:
        (gif if suffix == ".gif" else numbered).check_size(width, height, zoom)


def writer_for(
    path: str | os.PathLike[str],
    fps: float = 30,
    *,
    crf: float | None = None,
    zoom: int = 1,
    job: Job | Mapping[str, Any] | None = None,
    growing: bool = False,
) -> Writer:
    """The writer of the kind of video that the name asks for; a GIF cannot be seen while it grows."""
    if is_numbered(path):
        return PictureWriter(path, fps, crf=crf, zoom=zoom, job=job, growing=growing)
    if Path(path).suffix.lower() == ".gif":
        return GifWriter(path, fps, crf=crf, zoom=zoom, job=job)
    return VideoWriter(check_output(path), fps, crf=crf, zoom=zoom, job=job, growing=growing)
