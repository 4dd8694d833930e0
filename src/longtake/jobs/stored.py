"""job.json: the job, what its sections are made by, and how its video is written. It may be a stranger's."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from longtake import strictjson
from longtake.errors import JobError, LongtakeError, LongtakeWarning, RunError
from longtake.job import Anchor, Job

FORMAT = 2
"""Of the folder, and of the recipes in it: a change of how sections are made needs another one, too."""

JOB, FIRST, LAST, VIDEO = "job.json", "first.png", "last.png", "video.mp4"


@dataclass(frozen=True)
class Made:
    """What job.json says besides the job.

    `longtake` is the version that began it; `model` and `loras` are fingerprints; `form` is that of the networks which
    its sections are made with ("" before the first one); `video` is how the video is written.
    """

    longtake: str
    model: str
    loras: tuple[str, ...]
    video: Mapping[str, Any]
    form: str = ""
    format: int = FORMAT


def read_job(path: Path) -> tuple[Job, Made]:
    """What job.json says, in today's form; JobError if it is missing or damaged, or of a newer longtake."""
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
    return with_anchors(path, read), made


def job_text(job: Job, made: Made) -> bytes:
    """job.json."""
    values = {**asdict(made), "format": FORMAT, "job": job.values()}
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def with_anchors(path: Path, job: Job) -> Job:
    """The job with the pictures that lie in its folder, each by the name that it has in the job, if it has one."""
    anchors = [Anchor(0.0, job.picture or FIRST)]
    if job.last_picture is not None or (path / LAST).is_file():
        anchors.append(Anchor("end", job.last_picture or LAST))
    for file in (FIRST, LAST)[: len(anchors)]:
        if not (path / file).is_file():
            raise JobError(f"{path / file}, a picture of the job, is missing; put it back.")
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
    """Whether a job lies in this folder."""
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
    """What goes wrong with a file of the job, as one sentence: a JobError, or a RunError on the way of a section."""
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
    return Made(longtake, model, tuple(loras), _video(values["video"]), networks, form)


def _video(values: Any) -> dict[str, Any]:
    """How the video is written: `file` and `sheet`, names or None; `zoom`, a count or None; `crf`, from 1 to 51."""
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
