"""job.json: the job, what its sections are made by, and how its video is written. It may be a stranger's."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from longtake import strictjson
from longtake.errors import JobError, LongtakeError, LongtakeWarning, RunError
from longtake.job import Anchor, Job
from longtake.jobs.clip import CLIP
from longtake.jobs.log import LOG
from longtake.jobs.pictures import FIRST as FIRST
from longtake.jobs.pictures import LAST as LAST
from longtake.jobs.pictures import file_of
from longtake.jobs.pieces import PIECES
from longtake.jobs.section import SECTIONS
from longtake.jobs.takes import KEPT, MOST_KEPT, TAKES

FORMAT = 2
"""Of the folder, and of the recipes in it: a change of how sections are made needs another one, too."""

JOB, VIDEO, LOCK = "job.json", "video.mp4", "lock"
ENTRIES = (JOB, FIRST, LAST, CLIP, VIDEO, LOCK, SECTIONS, TAKES, PIECES, LOG)
"""The entries of a job's folder."""

PICTURE = re.compile(r"(?:first|last|picture-\d{1,18})\.png")
HASH = re.compile(r"[0-9a-f]{64}")

UNDO, UNDO_LENGTH = 50, 1_000_000
"""Most jobs that `undo` can go back to, and most characters of them in all."""


@dataclass(frozen=True)
class Made:
    """The content of job.json besides the job.

    `longtake` is the version that began it; `model` and `loras` are fingerprints; `form` is that of the networks which
    its sections are made with ("" before the first one); `video` is how the video is written. `takes` is how many takes
    of a section are kept beside the one in use; `before` are the jobs that were changed into this one, the last one
    last, each {"job": its values, "pictures": {name of a file: its hash}}; `pictures` the same of this job, or nothing
    if it has the pictures that it began with.
    """

    longtake: str
    model: str
    loras: tuple[str, ...]
    video: Mapping[str, Any]
    form: str = ""
    format: int = FORMAT
    takes: int = KEPT
    before: tuple[Mapping[str, Any], ...] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)

    def after(self, job: Job, pictures: Mapping[str, str]) -> Made:
        """The same after a change of this job, which had these pictures; what is too much for `undo` is forgotten."""
        before = [*self.before, {"job": job.values(), "pictures": dict(pictures)}][-UNDO:]
        while len(before) > 1 and len(json.dumps(before)) > UNDO_LENGTH:
            del before[0]
        return replace(self, before=tuple(before))


def read_job(path: Path) -> tuple[Job, Made]:
    """The content of job.json, in today's form; JobError if it is missing or damaged, or of a newer longtake."""
    path = Path(path).resolve()
    check_is_job(path)
    with told(path):
        text = (path / JOB).read_bytes()
    try:
        values = strictjson.parse(text.decode("utf-8"), "a job's file")
        job, made = values["job"], _made(values)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _damaged(path) from None
    if made.format > FORMAT:
        raise JobError(
            f"The job in {path} was begun by longtake {made.longtake}, which is newer than this one (its format is "
            f"{made.format}, and this one reads up to {FORMAT}); update longtake, or begin the job anew."
        )
    try:
        read = Job.of(job)
    except JobError as error:
        raise JobError(f"{path / JOB} holds no job that can be made: {error}") from None
    if len(made.loras) != len(read.loras):
        raise _damaged(path)
    return with_anchors(path, read, made), made


def job_text(job: Job, made: Made) -> bytes:
    """job.json."""
    values = {**asdict(made), "format": FORMAT, "job": job.values()}
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def with_anchors(path: Path, job: Job, made: Made) -> Job:
    """The job with the pictures that lie in its folder, each by the name that it has in the job, if it has one."""
    # One that a change took away may lie there still, if the change was cut off.
    there = LAST in made.pictures if made.pictures else (path / LAST).is_file()
    job = anchored(job, there or job.last_picture is not None)
    for file in (file_of(anchor.at) for anchor in job.anchors):
        if not (path / file).is_file():
            raise JobError(f"{path / file}, a picture of the job, is missing; put it back.")
    return job


def anchored(job: Job, last: bool) -> Job:
    """The job with the pictures of its folder in their order, each by the name that it came by.

    `last` tells if one is at the end. A picture that was given as a value has the name of its file.
    """
    known = {anchor.at: anchor for anchor in job.anchors}
    anchors = [replace(known[at], at=float(at)) for at in sorted(at for at in known if at != "end")]
    begins = not job.from_text and job.clip is None
    if begins and 0 not in known:
        anchors.insert(0, Anchor(0.0, FIRST))
    if last:
        anchors.append(known.get("end", Anchor("end", LAST)))
    return replace(job, anchors=tuple(anchors))


def confined(path: Path, made: Made) -> Made:
    """The same, without files outside of the job's folder: it may be a stranger's, and they may be somebody else's."""
    video = dict(made.video)
    for name, instead in (("file", f"the video is {VIDEO} in it"), ("sheet", "there is no contact sheet")):
        if name in video:
            file = (path / video[name]).resolve()
            video[name] = str(file)
            if not file.is_relative_to(path):
                del video[name]
                warnings.warn(
                    f"The job in {path} names the file {file}, which lies outside of its folder and is left alone: "
                    f"{instead}, unless another place is named now.",
                    LongtakeWarning,
                    stacklevel=3,
                )
    return replace(made, video=video)


def is_job(path: str | os.PathLike[str]) -> bool:
    """Tell if a job lies in this folder."""
    return (Path(path) / JOB).is_file()


def check_is_job(place: Path) -> None:
    """Raise JobError for a folder that is not there, or holds no job."""
    if not place.is_dir():
        raise JobError(
            f"There is no folder {place}; a job begins with: longtake generate … --job {place.name}"
        )
    if not is_job(place):
        raise JobError(f"{place} holds no job: it has no {JOB}.")


@contextmanager
def told(place: Path, section: int | None = None) -> Iterator[None]:
    """Inside, an OSError becomes one sentence about the job's file: a JobError, or a RunError if a section is made."""
    try:
        yield
    except LongtakeError:
        raise
    except OSError as error:
        file = error.filename or place
        sentence = (
            f"{os.fsdecode(file)} cannot be read or written: {error.strerror or error}; what is finished is kept, "
            f"and goes on by: longtake resume {place}"
        )
        raise (JobError(sentence) if section is None else RunError(sentence, section)) from error


def _made(values: Mapping[str, Any]) -> Made:
    """The rest of job.json; raises TypeError or KeyError for what it never holds."""
    texts = [values["longtake"], values["model"], values.get("form", ""), *values["loras"]]
    form = values["format"]
    if not all(isinstance(text, str) for text in texts) or not isinstance(values["loras"], list):
        raise TypeError("a text is missing")
    if isinstance(form, bool) or not isinstance(form, int) or form < 1:
        raise TypeError("the format is a number")
    longtake, model, networks, *loras = texts
    video, takes = _video(values["video"]), values.get("takes", KEPT)
    if isinstance(takes, bool) or not isinstance(takes, int) or not 0 <= takes <= MOST_KEPT:
        raise TypeError("the number of takes is a number")
    before = tuple(
        {"job": each["job"], "pictures": _hashes(each["pictures"])} for each in values.get("before", ())
    )
    pictures = _hashes(values.get("pictures", {}))
    return Made(longtake, model, tuple(loras), video, networks, form, takes, before, pictures)


def _hashes(values: Any) -> dict[str, str]:
    """Hashes by the names of pictures; the folder may be a stranger's, and these files are written."""
    for name, text in values.items():
        if not PICTURE.fullmatch(name) or not HASH.fullmatch(text):
            raise TypeError("a picture's name and hash")
    return dict(values)


def _video(values: Any) -> dict[str, Any]:
    """The video's settings: `file` and `sheet`, names or None; `zoom`, a count or None; `crf`, from 1 to 51."""
    for name, least, most in (("zoom", 1, 10**6), ("crf", 1, 51)):
        value = values.get(name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not (number and least <= value <= most):
            raise TypeError(f"{name} is a number")
    if not all(isinstance(values.get(name), (str, type(None))) for name in ("file", "sheet")):
        raise TypeError("a file's name is a text")
    return {name: value for name, value in values.items() if value is not None}


def _damaged(path: Path) -> JobError:
    return JobError(f"{path / JOB} is damaged; the job must be begun anew in another folder.")
