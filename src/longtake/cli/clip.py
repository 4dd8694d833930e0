"""A clip that a video goes on from or leads to, at the command line: told from a picture, checked, joined."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.errors import JobError, LongtakeWarning, PictureError
from longtake.spans import Clip

if TYPE_CHECKING:
    from longtake.cli.outputs import Outputs
    from longtake.job import Job
    from longtake.video import Writer
    from longtake.video.footage import Footage

SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi")
"""As in longtake.video, which imports FFmpeg; a GIF is a picture, as it always was: its first one."""

NEW_ONLY = "--new-only"


def add_new_only(group: Any) -> None:
    """The option that leaves the clip out of the video."""
    group.add_argument(
        NEW_ONLY,
        action="store_true",
        help="write the new frames alone, not joined to the clip that they go on from",
    )


def clip_of(word: str) -> Clip | None:
    """The clip that a word names, by how it ends; None if it is a picture, or a frame of a clip (CLIP@SECONDS).

    >>> clip_of("walk.mp4"), clip_of("walk.mp4@3.2s"), clip_of("penguin.png")
    (Clip(video='walk.mp4', latents=None), None, None)
    """
    if not word.lower().endswith(SUFFIXES):
        return None
    if word.lower().startswith(("http://", "https://")):
        raise JobError(
            f"A clip is a file here, and no address is fetched for it; get {word}, and name the file."
        )
    return Clip(word)


def check_there(job: Job) -> None:
    """Raise PictureError for a clip, or one that a picture is a frame of, that is no file.

    Before a name is chosen for the video: it might be that of the missing clip.
    """
    from longtake.video.edges import named_still

    stills = (named_still(anchor.image) for anchor in job.anchors)
    for name in (*([] if job.clip is None else [job.clip.video]), *(still[0] for still in stills if still)):
        if not Path(name).is_file():
            what = f"{name} is a folder, not a clip." if Path(name).is_dir() else f"There is no file {name}."
            raise PictureError(what)


def is_joined(job: Job, outputs: Outputs) -> bool:
    """Tell if the video that is written holds the job's clip."""
    return job.clip is not None and not outputs.new_only


def check_joined(job: Job, outputs: Outputs) -> None:
    """Raise JobError or PictureError for a clip that cannot be read, or to which the video cannot be joined."""
    if job.clip is None:
        if outputs.new_only:
            raise JobError(f"{NEW_ONLY} leaves out the clip that a video goes on from, and there is none.")
        return
    from longtake.video.continued import form_of
    from longtake.video.footage import near

    clip = job.clip.video
    form = form_of(clip)
    if outputs.new_only:
        return
    if outputs.video.suffix.lower() != ".mp4":
        raise PictureError(
            f"A video that is joined to its clip is an .mp4, and {outputs.video.name} was asked for; name an .mp4, or "
            f"write the new frames alone ({NEW_ONLY})."
        )
    if outputs.video.exists() and outputs.video.samefile(clip):
        raise PictureError(f"The video would take the place of its clip {clip}; name another file.")
    if outputs.zoom not in (None, 1):
        raise JobError(
            f"A video that is joined to its clip has the clip's size; leave --zoom out, or write the new frames alone "
            f"({NEW_ONLY})."
        )
    shape = (form.seen.width, form.seen.height)
    if job.width and job.height and not near((job.width, job.height), shape):
        raise JobError(
            f"New frames of {job.width} x {job.height} cannot be joined to a clip of {shape[0]} x {shape[1]}, whose "
            f"shape is quite another; leave --size out, or write the new frames alone ({NEW_ONLY})."
        )
    if form.reason:
        warnings.warn(
            f"The frames of {Path(clip).name} are encoded anew, since {form.reason}; those of H.264, as an MP4 has it, "
            "are copied.",
            LongtakeWarning,
            stacklevel=2,
        )


def joined_writer(job: Job, outputs: Outputs, clip: Footage) -> Writer:
    """The writer of the clip and the new frames."""
    assert job.clip is not None
    from longtake.video.joining import JoinedWriter

    return JoinedWriter(
        outputs.video,
        job.clip.video,
        job.fps,
        before=clip.behind,
        edge=clip.edge,
        crf=outputs.crf,
        job=job,
        growing=True,
    )
