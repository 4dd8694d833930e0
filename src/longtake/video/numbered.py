"""A video as numbered PNGs in a folder of their own: NAME/00000.png and so on, each with the job in it.

A name is `NAME/`, or `NAME/shot-%05d.png`, or `NAME/shot-####.png`: so many digits. The number is the frame's, 0 first.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from longtake import disk
from longtake.errors import JobError, PictureError
from longtake.job import Job
from longtake.picture import FORMATS, MAX_PIXELS, enlarged, reason
from longtake.video.writer import Writer, comment_of, try_name

DEFAULT = "%05d.png"
KEY = "Comment"
"""The keyword of the text that carries the job."""

NUMBER = re.compile(r"%(?:0(\d{1,2}))?d|(#+)")


class PictureWriter(Writer):
    """Numbered PNGs: their folder takes its name when all are there; a folder of earlier ones is replaced.

    With `growing` they can be seen in `partial`, NAME.partial beside it, from the first one on.
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
        check(crf)
        super().__init__(check_pattern(path), fps, zoom)
        self._folder = self.path.parent
        self._part = disk.part_of(self._folder)
        if growing:
            self.partial = self._part = self._folder.with_name(f"{self._folder.name[:100]}.partial")
        self._told = PngImagePlugin.PngInfo()
        comment = comment_of(job)
        if comment is not None:
            self._told.add_itxt(KEY, comment, zip=True)

    def _open(self, width: int, height: int) -> None:
        check_size(width, height, self._zoom)
        with self._sentence():
            if self.partial is not None and self.partial.exists():
                check_pattern(self.partial / self.path.name)
                shutil.rmtree(self.partial)
            self._part.mkdir()

    def _append(self, pixels: np.ndarray) -> None:
        with self._sentence(), disk.replacing(self._part / (self.path.name % self.frames)) as file:
            enlarged(pixels, self._zoom).save(file, "png", pnginfo=self._told, compress_level=4)

    def _finish(self) -> None:
        check_pattern(self.path)
        with self._sentence():
            disk.publish_folder(self._part, self._folder)

    def _abandon(self) -> None:
        if self.partial is None:
            shutil.rmtree(self._part, ignore_errors=True)

    def _is_partly_there(self) -> bool:
        return self.partial is not None and self.frames > 0


def is_numbered(name: str | os.PathLike[str]) -> bool:
    """Tell if a name is one of numbered pictures: a folder, or PNGs with a place for the number.

    >>> is_numbered("frames/"), is_numbered("frames/%04d.png"), is_numbered("a.png"), is_numbered("a#b.mp4")
    (True, True, False, False)
    """
    text = os.fspath(name)
    if text.endswith(("/", os.sep)) or Path(text).is_dir():
        return Path(text).suffix.lower() not in (".mp4", ".webm", ".mov", ".gif")
    return text.lower().endswith(".png") and NUMBER.search(Path(text).name) is not None


def check_pattern(name: str | os.PathLike[str]) -> Path:
    """The pattern of the PNGs, as `FOLDER/%05d.png`, absolute; PictureError if they cannot be written there."""
    path = check_name(name)
    try:
        _check_folder(path)
    except PictureError:
        raise
    except (OSError, ValueError) as error:
        raise PictureError(f"{path.parent} cannot be written: {reason(error)}.") from None
    return path.resolve()


def check_name(name: str | os.PathLike[str]) -> Path:
    """The pattern of the PNGs, as `FOLDER/%05d.png`, absolute; PictureError for a name that is none."""
    text = os.fspath(name)
    path = Path(text)
    if text.endswith(("/", os.sep)) or path.is_dir():
        path = path / DEFAULT
    path = path.absolute()
    found = list(NUMBER.finditer(path.name))
    if len(found) != 1 or path.suffix.lower() != ".png" or path.name.count("%") > ("%" in found[0][0]):
        raise PictureError(
            f"The name of numbered PNGs has one place for the number, as %05d.png or #####.png; {path.name} was given."
        )
    digits = len(found[0][2] or "") or int(found[0][1] or 1)
    return path.with_name(f"{path.name[: found[0].start()]}%0{digits}d{path.name[found[0].end() :]}")


def _check_folder(path: Path) -> None:
    """Raise an error unless the pattern's folder can be made, or holds numbered PNGs of this pattern alone."""
    folder = path.parent
    if folder.is_file():
        raise PictureError(f"{folder} is a file; numbered PNGs need a folder of their own.")
    found = os.listdir(folder) if folder.is_dir() else []
    # What a process left that was killed while it wrote there is nobody's.
    found = [name for name in found if not fnmatch(name, disk.PARTS)]
    others = sorted(set(found) - set(_ours(path)))
    if others:
        raise PictureError(
            f"Numbered PNGs need a folder of their own, and {folder} has others in it ({others[0]}); name a new one."
        )
    if not folder.parent.is_dir():
        raise PictureError(f"There is no folder {folder.parent} to make {folder.name} in.")
    try_name(folder.parent, f".{folder.name}")


def check(crf: float | None) -> None:
    """Raise JobError for what PNGs do not have: a quality."""
    if crf is not None:
        raise JobError("PNGs have no quality to choose; leave quality and crf out, or name an .mp4.")


def check_size(width: int, height: int, zoom: int = 1) -> None:
    """Raise JobError if frames of this size, enlarged, are larger than what is read."""
    across, down = width * zoom, height * zoom
    if across * down > MAX_PIXELS:
        raise JobError(f"A PNG has at most {MAX_PIXELS} pixels here; {across} x {down} was asked for.")


def numbered(path: str | os.PathLike[str]) -> list[Path]:
    """The numbered PNGs of a folder, or of a pattern, in the order of their numbers; none if there are none."""
    at = Path(path)
    if at.is_dir():
        names = [name for name in os.listdir(at) if re.search(r"\d.*\.png$", name, re.IGNORECASE)]
        return sorted((at / name for name in names), key=lambda each: (_numbers(each.name), each.name))
    at = check_name(path)
    return sorted((at.parent / name for name in _ours(at)), key=lambda each: _numbers(each.name))


def read_text(path: str | os.PathLike[str]) -> tuple[str, int, int]:
    """The text of a PNG that carries the job, "" if there is none, and the picture's width and height."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise PictureError(
                    f"{path} has {width} x {height} pixels; the most that is opened is {MAX_PIXELS}."
                )
            said = getattr(picture, "text", picture.info).get(KEY, "")
            return str(said), width, height
    except PictureError:
        raise
    except FileNotFoundError:
        raise PictureError(f"There is no file {path}.") from None
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        raise PictureError(f"{path} is no picture of a kind that is opened: {reason(error)}.") from None


def _ours(pattern: Path) -> list[str]:
    """The names in the pattern's folder that it could have given."""
    if not pattern.parent.is_dir():
        return []
    before, place, after = re.split(r"(%0\d+d)", pattern.name, maxsplit=1)
    name = re.compile(re.escape(before) + rf"\d{{{int(place[2:-1])},}}" + re.escape(after))
    return [each for each in os.listdir(pattern.parent) if name.fullmatch(each)]


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]
