"""The files that a verb writes: a video, perhaps a contact sheet and a preview; checked before anything runs."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from longtake import disk
from longtake.cli.clip import add_new_only, check_joined, check_there, is_joined
from longtake.cli.options import number
from longtake.cli.preview import PreviewFile, add_options, preview_file
from longtake.errors import JobError, PictureError

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.jobs.folder import JobFolder

SHOWN = 256
"""Pixels of the shorter side that a video is enlarged to; players show smaller videos as a stamp."""

SHEET_FRAMES = 24
CRF = 17
"""The default of longtake.video, which imports FFmpeg."""

QUALITY = "between 1 (best) and 51"


@dataclass(frozen=True)
class Outputs:
    """The files, by absolute paths; each pixel of the video becomes `zoom` (None: as many as are well seen).

    The kind of the `video` follows from its name; numbered PNGs are FOLDER/%05d.png. `crf` None is its kind's default.
    """

    video: Path
    sheet: Path | None = None
    zoom: int | None = None
    crf: float | None = None
    preview: PreviewFile | None = None
    new_only: bool = False
    """True if a clip that the video goes on from is left out."""

    def sized(self, job: Job) -> Outputs:
        """The same with its zoom, for a job that has its size; JobError if that is more than a video can hold."""
        from longtake.video import check_size

        if is_joined(job, self):
            check_joined(job, self)
            return replace(self, zoom=1)  # the clip's size is the video's
        width, height = job.width or SHOWN, job.height or SHOWN
        zoom = self.zoom or max(1, -(-SHOWN // min(width, height)))
        check_size(width, height, zoom, self.video)
        return replace(self, zoom=zoom)

    def kept_in(self, folder: Path) -> dict[str, Any]:
        """The files as a job's folder remembers them; a video in the folder moves with it."""
        inside = self.video.is_relative_to(folder)
        return {
            "file": str(self.video.relative_to(folder) if inside else self.video),
            "sheet": str(self.sheet) if self.sheet else None,
            "zoom": self.zoom,
            "crf": self.crf,
            **({"new_only": True} if self.new_only else {}),
        }


def outputs_in(folder: JobFolder, output: str | None) -> Outputs:
    """The files of a job's folder, by its own settings and a new name for the video."""
    from longtake.jobs.clip import check_clip
    from longtake.jobs.stored import VIDEO
    from longtake.video import check_kind, check_output, check_writable

    kept = folder.made.video
    before = kept.get("file") or VIDEO
    video = check_output(output or folder.path / before)
    # Another kind of video has a quality of its own.
    crf = kept.get("crf") if video.suffix.lower() == Path(before).suffix.lower() else None
    check_kind(video, folder.job.fps, crf)
    sheet = check_writable(kept["sheet"], ".png") if kept.get("sheet") else None
    _check_apart(video, sheet)
    outputs = Outputs(video, sheet, kept.get("zoom"), crf, new_only=bool(kept.get("new_only")))
    if is_joined(folder.job, outputs):
        assert folder.job.clip is not None
        check_clip(folder.path, folder.job.clip.video)
    return outputs.sized(folder.job)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Which files are written, and how."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT.mp4",
        help="the video: .mp4, .webm (VP9), .mov (ProRes) or .gif; FRAMES/ or FRAMES/%%05d.png are numbered PNGs "
        "(default: an MP4 named after the picture)",
    )
    files = parser.add_argument_group("the files")
    files.add_argument(
        "--crf",
        type=number,
        metavar="X",
        help=f"quality of an MP4 or a WebM, {QUALITY} (default: {CRF})",
    )
    files.add_argument(
        "--zoom",
        type=int,
        metavar="N",
        help=f"enlarge N times (default: until the shorter side has {SHOWN} pixels)",
    )
    add_new_only(files)
    files.add_argument(
        "--job",
        metavar="DIR",
        help="keep the job and every finished section in this new folder, and the video if -o names no place: "
        "whatever happens, longtake resume DIR goes on",
    )
    files.add_argument(
        "--sheet", metavar="FILE.png", help=f"also write a contact sheet of {SHEET_FRAMES} frames"
    )
    add_options(files)


@contextlib.contextmanager
def outputs_of(args: argparse.Namespace, job: Job) -> Iterator[Outputs]:
    """The files that the options ask for; a name that was chosen for the video is free again if nothing came of it."""
    from longtake.video import check_kind, check_output, check_writable

    _check_zoom(args.zoom)
    check_there(job)
    with contextlib.ExitStack() as stack:
        if args.output:
            video = check_output(args.output)
        elif args.job is not None:
            video = _video_in(args.job)
        else:
            named = args.clip.video if args.clip is not None else args.picture
            video = stack.enter_context(_claimed(named or args.like or "video"))
        check_kind(video, job.fps, args.crf)
        pictures = (job.picture, job.last_picture)
        sheet = None if args.sheet is None else check_writable(args.sheet, ".png")
        if sheet in {Path(picture).resolve() for picture in pictures if picture}:
            raise PictureError(
                f"The contact sheet would take the place of the picture {args.sheet}; name another file."
            )
        shown = preview_file(args.preview, args.preview_decode, video, *pictures, sheet)
        _check_apart(video, sheet, None if shown is None else shown.path)
        outputs = Outputs(video, sheet, args.zoom, args.crf, shown, args.new_only)
        check_joined(job, outputs)
        # Without a size, the model knows it.
        yield outputs.sized(job) if job.width and job.height else outputs


def _check_apart(video: Path, *others: Path | None) -> None:
    """Raise PictureError for a file among numbered PNGs, which have a folder of their own."""
    for other in others:
        if "%" in video.name and other is not None and other.parent == video.parent:
            raise PictureError(
                f"The numbered PNGs have the folder {video.parent} to themselves; name another place for {other.name}."
            )


def _check_zoom(zoom: int | None) -> None:
    from longtake.video import LONGEST_SIDE

    if zoom is not None and zoom < 1:
        raise JobError(f"The zoom must be at least 1; {zoom} was asked for.")
    if zoom is not None and zoom > LONGEST_SIDE // 16:
        raise JobError(
            f"The zoom must be at most {LONGEST_SIDE // 16}, since videos have {LONGEST_SIDE} pixels on a side; "
            f"{zoom} was asked for."
        )


def _video_in(folder: str) -> Path:
    """The file for the video of a new job; JobError if its folder cannot be new."""
    from longtake.jobs.beginning import check_new
    from longtake.jobs.stored import VIDEO

    return check_new(folder) / VIDEO


@contextlib.contextmanager
def _claimed(picture: str) -> Iterator[Path]:
    """A free name for the video in the current folder: videos cost too much to overwrite."""
    from longtake.video import check_writable

    check_writable(next(free_names(picture)))
    video = disk.claim(free_names(picture)).resolve()
    try:
        yield video
    finally:
        disk.unclaim(video)


def free_names(picture: str) -> Iterator[str]:
    """Names for the video of a picture, or of one that it shall be like, the first one best."""
    web = picture.lower().startswith(("http://", "https://"))
    picture = re.sub(r"(\.\w+)@[\w.]+$", r"\1", picture)  # a frame of a clip, CLIP@SECONDS
    stem = Path(urlsplit(picture).path if web else picture).stem or "video"
    return itertools.chain([f"{stem}.mp4"], (f"{stem}-{count}.mp4" for count in itertools.count(2)))
