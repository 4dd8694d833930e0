"""The base of all writers of videos: frames of one size come in, and a name is taken when everything is there."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import av.error

from longtake.errors import JobError, LongtakeError, PictureError
from longtake.job import Job
from longtake.picture import frames_of, reason


class NotWritten(LongtakeError):
    """A failure to write, whose cause is the reason: told apart from a file that cannot be read."""


class VideoFile:
    """A video file that takes its name when it is whole.

    Used in a `with` block; if that ends with an error, nothing is left behind but what `partial` names, if anything
    does: what is finished so far, to be seen at any moment.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial: Path | None = None
        self.frames = 0

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if not self.frames:
                    raise PictureError(f"There are no frames to write to {self.path}.")
                self._finish()
        finally:
            self._abandon()

    def _finish(self) -> None:
        """Make it whole and give it its name."""
        raise NotImplementedError

    def _abandon(self) -> None:
        """Leave what `partial` names and nothing else; after `_finish` there is nothing to do."""
        raise NotImplementedError

    def _is_partly_there(self) -> bool:
        """Tell if `partial` has anything to be seen."""
        return False

    @contextlib.contextmanager
    def _sentence(self) -> Iterator[None]:
        """Inside, an error of the system or of FFmpeg is one sentence about the file."""
        try:
            yield
        except (OSError, NotWritten, av.error.FFmpegError) as error:
            kept = f"; what is finished of it is in {self.partial}" if self._is_partly_there() else ""
            raise PictureError(f"{self.path} cannot be written: {reason(error)}{kept}.") from error


class Writer(VideoFile):
    """A video that grows frame by frame, all of one size."""

    def __init__(self, path: Path, fps: float, zoom: int, most_fps: float = 1000) -> None:
        if zoom < 1:
            raise JobError(f"The zoom must be at least 1; {zoom} was asked for.")
        if not 0 < fps <= most_fps:
            raise JobError(
                f"The frame rate lies above 0 and up to {most_fps:g} a second; {fps:g} was asked for."
            )
        super().__init__(path)
        self.size: tuple[int, int] | None = None
        self._fps, self._zoom = fps, zoom

    def write(self, frames: Any) -> None:
        """Append frames: (T, H, W, 3), a list of pictures or arrays, or a generator of them; all of one size."""
        for pixels in frames_of(frames):
            height, width = pixels.shape[:2]
            if self.size is None:
                self._open(width, height)
                self.size = (width, height)
            if (width, height) != self.size:
                raise PictureError(
                    f"All frames of a video have one size; {width} x {height} came after {self.size}."
                )
            self._append(pixels)
            self.frames += 1

    def _open(self, width: int, height: int) -> None:
        """Begin, now that the size is known."""
        raise NotImplementedError

    def _append(self, pixels: Any) -> None:
        """Add one frame (H, W, 3)."""
        raise NotImplementedError


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
        try_name(target.parent, f".{target.name[:-4]}")
    except (OSError, ValueError) as error:
        raise PictureError(f"{target} cannot be written: {reason(error)}.") from None
    return target.resolve()


def try_name(folder: Path, name: str) -> None:
    """Raise OSError or ValueError unless a file of such a name, four characters longer, can be made in the folder."""
    # Permissions do not tell (network drives, containers, root), a trial does; so does the length of the name.
    trial = folder / f"{name}{secrets.token_hex(2)}"
    trial.open("xb").close()
    trial.unlink()


def comment_of(job: Job | Mapping[str, Any] | None, ascii: bool = False) -> str | None:
    """The text by which a file carries its job."""
    if job is None:
        return None
    return json.dumps(job.values() if isinstance(job, Job) else job, ensure_ascii=ascii)
