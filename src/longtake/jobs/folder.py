"""A job on disk: what is asked, its pictures, every finished section, and a log; what resuming reads.

    job.json            the job, what made it (longtake, the model's fingerprint), and how the video is written
    first.png           the picture; last.png if the video ends with one
    sections/00003.safetensors    latents of section 3, with a checksum and the recipe that they were made by
    log.jsonl           what happened, one JSON object a line
    video.mp4           the video, unless it was asked for elsewhere
    lock                held by the process that works on the job

A file takes its name when it is whole and on the disk, so that a process may be killed at any moment. What another
recipe made is made again; so an interrupted change of the job does no harm either.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from longtake import __version__, disk
from longtake.errors import JobError, LongtakeWarning
from longtake.job import Anchor, Job
from longtake.jobs import section as sections
from longtake.jobs.log import LOG, Log
from longtake.jobs.recipe import Recipes
from longtake.jobs.section import DAMAGED, DONE, MISSING, OUTDATED, SECTIONS, section_file, section_files
from longtake.jobs.stored import (
    FIRST,
    FORMAT,
    JOB,
    LAST,
    VIDEO,
    Made,
    check_is_job,
    confined,
    is_job,
    job_text,
    read_job,
    told,
)
from longtake.picture import load_image
from longtake.plan import timeline
from longtake.plan.layout import LATENT_PIXELS
from longtake.plan.plans import Plan, plan_of
from longtake.weights.fingerprint import file_fingerprint
from longtake.weights.lora import find_file

if TYPE_CHECKING:
    from longtake.pipeline.prepare import Inputs

__all__ = [
    "DAMAGED", "DONE", "MISSING", "OUTDATED", "VIDEO",
    "JobFolder", "check_new", "describe_job", "is_job", "read_job", "section_file",
]  # fmt: skip

LOCK = "lock"
ENTRIES = (JOB, FIRST, LAST, SECTIONS, LOG, LOCK, VIDEO)


class JobFolder:
    """A job's folder, held by this process alone; made by `create` or `open`, and closed at the end of a `with` block.

    It is a store: `generate(folder.job, networks, folder.inputs, store=folder)`. `job` stands alone: its pictures lie
    here, and its model's and LoRAs' paths are absolute. Every failure to write (a full disk) is one sentence, a RunError
    on the way of a section and else a JobError, and leaves what was finished.
    """

    def __init__(self, path: Path, job: Job, made: Made, lock: disk.Lock) -> None:
        self.path, self.job, self.made = path, job, made
        self._lock = lock
        self._log = Log(path)
        self._recipes = recipes(path, job, made)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        job: Job,
        picture: Any = None,
        last_picture: Any = None,
        model: str = "",
        video: Mapping[str, Any] | None = None,
    ) -> JobFolder:
        """Begin a job in a new or empty folder; pictures are what `load_image` takes and default to the job's.

        `model` is the model's `fingerprint`; `video` is kept for who writes the video. Raises JobError for a folder
        that holds something, and for a job without width and height.
        """
        place = check_new(path)
        job.check()
        if job.width is None or job.height is None:
            raise JobError("A job on disk needs its size; give width and height.")
        pictures = _pictures(job, picture, last_picture)
        job = _standing_alone(_with_anchors(job, LAST in pictures))
        job.check()
        timeline.check(job, plan_of(job))
        made = Made(__version__, model, _lora_fingerprints(job), dict(video or {}))
        with told(place):
            disk.make_folder(place / SECTIONS)
            lock = _locked(place)
            try:
                check_new(place)  # another process may have been faster
                (place / LAST).unlink(missing_ok=True)
                for name, data in pictures.items():
                    disk.write(place / name, data)
                disk.write(place / JOB, job_text(job, made))
                folder = cls(place, job, made, lock)
            except BaseException:
                lock.release()
                raise
        folder.log("created", longtake=__version__)
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str], model: str | None = None) -> JobFolder:
        """Go on with a job; if `model` is given, it must be the fingerprint of the one that the job began with.

        A job that an older longtake began is read, and its sections are made again. Raises JobError for a folder that
        holds no job, one of a newer longtake, of another model, or one that another process works on.
        """
        place = Path(path).resolve()
        check_is_job(place)
        _check_inside(place)
        with told(place):
            lock = _locked(place)
            try:
                job, made = read_job(place)
                check_same(place, job, made, model)
                for leftover in (*place.glob(disk.PARTS), *(place / SECTIONS).glob(disk.PARTS)):
                    leftover.unlink(missing_ok=True)
                disk.make_folder(place / SECTIONS)
                folder = cls(place, job, confined(place, made), lock)
                folder._renew()
                return folder
            except BaseException:
                lock.release()
                raise

    def __enter__(self) -> JobFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.log("stopped", reason=str(error) or type(error).__name__)
        self.close()

    def close(self) -> None:
        """Let another process work on the job."""
        self._lock.release()

    @property
    def picture(self) -> Image.Image:
        """The picture that the video begins with."""
        return load_image(self.path / FIRST)

    @property
    def last_picture(self) -> Image.Image | None:
        """The picture that it ends with, if there is one."""
        return load_image(self.path / LAST) if self.job.last_picture is not None else None

    @property
    def inputs(self) -> Inputs:
        """The pictures, as `generate` takes them."""
        # Here, since it brings the framework.
        from longtake.pipeline.prepare import Inputs

        return Inputs(picture=self.picture, last_picture=self.last_picture)

    # The store

    def begin(self, job: Job, form: str) -> None:
        """Take sections of this job that networks in this form make, such as "bfloat16".

        Raises JobError for another job than the folder's, and if finished sections were made in another form: a video
        of both would show it.
        """
        own = replace(self.job, dtype=job.dtype) if self.job.dtype == "auto" else self.job
        if replace(job, anchors=own.anchors) != own:
            raise JobError(
                f"{self.path} holds another job than the one that was given; give its own, folder.job."
            )
        if self.made.form not in ("", form) and DONE in self.states().values():
            raise JobError(
                f"The sections in {self.path} were made with the networks in {self.made.form}, and now they are in "
                f"{form}; load them as before, or begin the job anew in another folder."
            )
        if (own, form) != (self.job, self.made.form):
            self._keep(own, replace(self.made, form=form))

    def read_section(self, number: int) -> np.ndarray | None:
        """The latents of a section, or None if it is to be made: because it is missing, damaged or outdated.

        What is damaged is moved aside, what is outdated goes; both are noted in the log.
        """
        file = section_file(self.path, number)
        if not file.exists():
            return None
        latents, recipe = sections.read(file)
        if latents is not None and recipe == self._recipes[number]:
            if self._fits(number, latents):
                return latents
        elif latents is not None:
            self.log("section_outdated", number=number)
            with told(self.path, number):
                file.unlink()
            return None
        aside = file.with_suffix(".damaged")
        self.log("section_damaged", number=number, kept_as=aside.name)
        with told(self.path, number):
            os.replace(file, aside)
        return None

    def write_section(self, number: int, latents: np.ndarray) -> None:
        """Keep a finished section; when this returns, it survives a loss of power."""
        with told(self.path, number):
            sections.write(section_file(self.path, number), latents, self._recipes[number])
        self.log("section_done", number=number)

    def states(self) -> dict[int, str]:
        """DONE, MISSING, OUTDATED or DAMAGED for each section, by number, as its header tells."""
        return _states(self.path, self._recipes)

    def change(self, job: Job) -> list[int]:
        """Make this the folder's job and drop the sections that it makes otherwise; returns their numbers."""
        job = _standing_alone(_with_anchors(job, self.job.last_picture is not None))
        job.check()
        timeline.check(job, plan_of(job))
        # From here on, what no longer fits is outdated, even if this process ends before it is dropped.
        self._keep(job, self.made)
        dropped = []
        with told(self.path):
            for number, file in section_files(self.path):
                fits = number in self._recipes and sections.recipe_of(file) == self._recipes[number]
                if not fits:
                    file.unlink()
                    dropped.append(number)
        self.log("changed", job=job.values(), dropped=dropped)
        return dropped

    def log(self, event: str, **fields: Any) -> None:
        """Append one line to the log; a log that cannot be written is no reason to stop."""
        self._log.append(event, **fields)

    def _keep(self, job: Job, made: Made) -> None:
        """Make this the folder's job."""
        with told(self.path):
            disk.write(self.path / JOB, job_text(job, made))
            self.job, self.made, self._recipes = job, made, recipes(self.path, job, made)

    def _renew(self) -> None:
        """Bring what an older longtake wrote to today's form."""
        if self.made.format == FORMAT:
            return
        if any(section_files(self.path)):
            warnings.warn(
                f"The job in {self.path} was begun by longtake {self.made.longtake}, which did not keep all that "
                "decides a section; its sections are made again.",
                LongtakeWarning,
                stacklevel=3,
            )
        self._keep(self.job, replace(self.made, format=FORMAT))

    def _fits(self, number: int, latents: np.ndarray) -> bool:
        """Whether latents have the shape of this section, which no stranger's checksum says."""
        assert self.job.width is not None and self.job.height is not None
        plan = self._recipes.plan
        count = len(plan[plan.made_at(number)].frames)
        size = (count, self.job.height // LATENT_PIXELS, self.job.width // LATENT_PIXELS)
        return latents.ndim == 5 and latents.shape[2:] == size


def check_new(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a folder in which a job can begin; JobError if something is there already."""
    place = Path(path).resolve()
    with told(place):
        above = next(each for each in (place, *place.parents) if each.exists())
        if not above.is_dir():
            below = "" if above == place else f", and {place} would lie below it"
            raise JobError(f"{above} is a file{below}; a job needs a folder.")
        if (place / JOB).exists():
            raise JobError(f"{place} holds a job already; go on with it by: longtake resume {path}")
        found = sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []
    # What a process leaves that is killed while it begins a job.
    other = [name for name in found if name not in ENTRIES and not name.endswith(".part")]
    if other or VIDEO in found:
        raise JobError(
            f"{place} is not empty (it holds {(other or [VIDEO])[0]!r}); name a new folder for the job."
        )
    return place


def check_same(path: Path, job: Job, made: Made, model: str | None) -> None:
    """Raise JobError if the model or a LoRA is not what the job began with."""
    if model is not None and model != made.model:
        raise JobError(
            f"The job in {path} was begun with another model than {job.model} is now; "
            "give the one that it was begun with, or begin the job anew."
        )
    for lora, before, now in zip(job.loras, made.loras, _lora_fingerprints(job), strict=True):
        if before != now:
            raise JobError(
                f"{lora.path} is not the LoRA any more that the job in {path} was begun with; "
                "put that one back, or begin the job anew."
            )


def describe_job(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state of a job as JSON values; reads only, so that another process may be at work on it."""
    place = Path(path).resolve()
    job, made = read_job(place)
    found = recipes(place, job, made)
    states = _states(place, found)
    video = place / (made.video.get("file") or VIDEO)
    return {
        "folder": str(place),
        "longtake": made.longtake,
        "frames": found.plan.frames,
        "sections": len(states),
        "done": sum(state == DONE for state in states.values()),
        "states": {str(number): state for number, state in states.items()},
        "running": disk.is_locked(place / LOCK),
        "video": str(video) if video.exists() else None,
        "job": job.values(),
    }


def recipes(path: Path, job: Job, made: Made) -> Recipes:
    """The recipe of each section of a job in its folder."""
    plan: Plan = plan_of(job)
    with told(path):
        pictures = [_hash_of(path / FIRST), *([_hash_of(path / LAST)] if len(plan.anchors) > 1 else [])]
    facts = {
        "format": made.format,
        "model": made.model,
        "adapters": made.loras,
        "form": made.form,
        "pictures": pictures,
    }
    return Recipes(job, plan, facts)


def _states(path: Path, found: Recipes) -> dict[int, str]:
    numbers = range(found.plan.count)
    return {number: sections.state(section_file(path, number), found[number]) for number in numbers}


def _hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _pictures(job: Job, first: Any, last: Any) -> dict[str, bytes]:
    """The pictures as files, by name."""
    sources = {
        FIRST: job.picture if first is None else first,
        LAST: job.last_picture if last is None else last,
    }
    pictures = {name: _png(load_image(source)) for name, source in sources.items() if source is not None}
    if FIRST not in pictures:
        raise JobError("A video begins with a picture; none was given.")
    return pictures


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def _with_anchors(job: Job, last: bool) -> Job:
    """The job with the pictures of its folder; each keeps the name that it came by."""
    anchors = [Anchor(0.0, job.picture or FIRST)]
    if last:
        anchors.append(Anchor("end", job.last_picture or LAST))
    return replace(job, anchors=tuple(anchors))


def _standing_alone(job: Job) -> Job:
    """The job with absolute paths, since it may be resumed from another working directory."""
    loras = tuple(replace(lora, path=_absolute(lora.path)) for lora in job.loras)
    model = job.model if job.model == "embedded" else _absolute(job.model)
    parts = {name: _absolute(place) for name, place in job.parts.items()}
    return replace(job, model=model, parts=parts, loras=loras)


def _absolute(path: str) -> str:
    place = Path(path).expanduser()
    return str(place.absolute()) if place.exists() else path


def _lora_fingerprints(job: Job) -> tuple[str, ...]:
    return tuple(file_fingerprint(find_file(lora.path)) for lora in job.loras)


def _check_inside(place: Path) -> None:
    """Raise JobError if an entry of the folder leads out of it: it may be a stranger's, and is written to."""
    for name in ENTRIES:
        entry = place / name
        if entry.is_symlink() and not entry.resolve().is_relative_to(place):
            raise JobError(
                f"{entry} leads out of the job's folder, to {entry.resolve()}; put the file itself there."
            )


def _locked(place: Path) -> disk.Lock:
    try:
        return disk.lock(place / LOCK)
    except BlockingIOError:
        raise JobError(f"Another process is at work on the job in {place}; wait for it, or end it.") from None
