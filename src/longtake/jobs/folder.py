"""A job on disk: what is asked, its pictures, every finished section, and a log; what resuming reads.

    job.json            the job, what made it (longtake, the model's fingerprint), and how the video is written
    first.png           the picture; last.png if the video ends with one
    clip.safetensors    what is seen of the clip that the video goes on from, if it does
    sections/00003.safetensors    latents of section 3, with a checksum and the recipe that they were made by
    pieces/                       the video's sections, encoded
    takes/                        sections and pictures of the job as it was before it was changed
    log.jsonl           what happened, one JSON object a line
    video.mp4           the video, unless it was asked for elsewhere
    lock                held by the process that works on the job

A file takes its name when it is whole and on the disk, so that a process may be killed at any moment. What another
recipe made is set aside as a take; so an interrupted change of the job does no harm either.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from longtake import __version__, disk
from longtake.errors import JobError, LongtakeWarning
from longtake.job import Job
from longtake.jobs import pictures as kept_pictures
from longtake.jobs import section as sections
from longtake.jobs import takes as kept
from longtake.jobs.beginning import check_new, lora_fingerprints, pictures_of, standing_alone
from longtake.jobs.clip import CLIP, clip_bytes, read_clip
from longtake.jobs.log import Log
from longtake.jobs.pieces import PIECES, Cut, Pieces
from longtake.jobs.section import DONE, SECTIONS, section_file, section_files
from longtake.jobs.state import check_inside, check_same, recipes, states_of
from longtake.jobs.stored import (
    FIRST,
    FORMAT,
    JOB,
    LAST,
    LOCK,
    Made,
    anchored,
    check_is_job,
    confined,
    job_text,
    read_job,
    told,
)  # fmt: skip
from longtake.jobs.takes import TAKES
from longtake.picture import load_image
from longtake.plan import timeline
from longtake.plan.layout import LATENT_PIXELS
from longtake.plan.plans import plan_of
from longtake.video.footage import Footage

if TYPE_CHECKING:
    from longtake.pipeline.prepare import Inputs


class JobFolder:
    """A job's folder, held by this process alone; made by `create` or `open`, and closed at the end of a `with` block.

    It is a store: `generate(folder.job, networks, folder.inputs, store=folder)`. `job` stands alone: its pictures lie
    here, and its model's and LoRAs' paths are absolute. A failure to write (a full disk) raises a RunError while a
    section is made, else a JobError; what was finished stays.
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
        pictures: Mapping[Any, Any] | None = None,
        clip: Footage | None = None,
    ) -> JobFolder:
        """Begin a job in a new or empty folder; pictures are what `load_image` takes and default to the job's.

        `pictures` are those at any time, in seconds or "end"; `clip` is what is seen of the job's, with its latents.
        `model` is the model's `fingerprint`; `video` is kept for who writes the video. Raises JobError for a folder
        that holds something, and for a job without width and height.
        """
        place = check_new(path)
        job.check()
        if job.width is None or job.height is None:
            raise JobError("A job on disk needs its size; give width and height.")
        given = {**(pictures or {}), **_known({0: picture, "end": last_picture})}
        job, files = pictures_of(job, given)
        files.update(_clip_of(job, clip))
        job = standing_alone(job)
        job.check()
        timeline.check(job, plan_of(job))
        made = Made(__version__, model, lora_fingerprints(job), dict(video or {}))
        with told(place):
            disk.make_folder(place / SECTIONS)
            lock = _locked(place)
            try:
                check_new(place)  # another process may have been faster
                for name in {*kept_pictures.hashes(place), CLIP} - files.keys():
                    (place / name).unlink(missing_ok=True)
                for name, data in files.items():
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
        check_inside(place)
        with told(place):
            lock = _locked(place)
            try:
                job, made = read_job(place)
                check_same(place, job, made, model)
                kept_pictures.settle(place, made.pictures)
                for each in (place, place / SECTIONS, place / TAKES, place / PIECES):
                    for leftover in each.glob(disk.PARTS):
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
    def picture(self) -> Image.Image | None:
        """The picture that the video begins with, if there is one."""
        return load_image(self.path / FIRST) if self.job.picture is not None else None

    @property
    def last_picture(self) -> Image.Image | None:
        """The picture that it ends with, if there is one."""
        return load_image(self.path / LAST) if self.job.last_picture is not None else None

    @property
    def clip(self) -> Footage | None:
        """The frames that are seen of the job's clip, if it has one."""
        return None if self.job.clip is None else read_clip(self.path)[0]

    @property
    def sections(self) -> int:
        """The number of sections of the video."""
        return self._recipes.plan.count

    @property
    def inputs(self) -> Inputs:
        """The pictures, as `generate` takes them."""
        # Here, since it brings the framework.
        from longtake.pipeline.prepare import Inputs

        files = {anchor.at: self.path / kept_pictures.file_of(anchor.at) for anchor in self.job.anchors}
        pictures = {at: load_image(file) for at, file in files.items()}
        return Inputs(pictures=pictures, clip=self.clip)

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
        # What a change that was cut off has left to do.
        for number in self._arrange()[0]:
            self.log("section_outdated", number=number)

    def read_section(self, number: int) -> np.ndarray | None:
        """The latents of a section, or None if it is to be made: because it is missing, damaged or outdated.

        A damaged file is moved aside, an outdated one becomes a take; both are noted in the log.
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
                kept.aside(self.path, number, file, recipe)
            return None
        aside = file.with_suffix(".damaged")
        self.log("section_damaged", number=number, kept_as=aside.name)
        with told(self.path, number):
            os.replace(file, aside)
        return None

    def write_section(self, number: int, latents: np.ndarray) -> None:
        """Keep a finished section; when this returns, it survives a loss of power."""
        said = kept.told_texts(self.job, self._recipes, number)
        with told(self.path, number):
            sections.write(section_file(self.path, number), latents, self._recipes[number], said)
        self.log("section_done", number=number)

    def states(self) -> dict[int, str]:
        """DONE, MISSING, OUTDATED or DAMAGED for each section, by number, as its header tells."""
        return states_of(self.path, self._recipes)

    def change(
        self, job: Job, pictures: Mapping[str, bytes | None] | None = None, keep_takes: int | None = None
    ) -> list[int]:
        """Make this the folder's job; the numbers of the sections that were there and have to be made again.

        Sections that are not the same in it become takes, of which `keep_takes` are kept for each section from now on,
        and takes that are the same in it are used. `pictures` are files that change with it, by name (None: goes).
        `undo` takes the change back.
        """
        with told(self.path):
            now = kept_pictures.hashes(self.path)
            wanted = kept_pictures.keep(self.path, now, pictures or {})
        job = standing_alone(anchored(job, LAST in wanted))
        job.check()
        timeline.check(job, plan_of(job))
        made = replace(self.made, takes=self.made.takes if keep_takes is None else keep_takes)
        made = replace(made.after(self.job, now), pictures=wanted if wanted != now else self.made.pictures)
        again = self._turn_into(job, made)
        self.log("changed", job=job.values(), dropped=again)
        return again

    @property
    def earlier(self) -> Job:
        """The job that the last change was made to; JobError if there is no change to take back."""
        if not self.made.before:
            raise JobError(
                f"There is nothing to undo in {self.path}: its job is the one that it was begun with, or the oldest "
                "one that is remembered."
            )
        last = self.made.before[-1]
        job = anchored(Job.of(last["job"]), LAST in last["pictures"])
        job.check()
        paths = [[lora.path for lora in each.loras] for each in (job, self.job)]
        if paths[0] != paths[1] or job.clip != self.job.clip:
            raise JobError(f"{self.path / JOB} is damaged: no change of a job changes its LoRAs or its clip.")
        return job

    def undo(self) -> list[int]:
        """Go back to the job that the last change was made to; as `change`, it tells which sections it makes again.

        Nothing is made again that is still kept. Raises JobError if there is no change to take back.
        """
        job, wanted = self.earlier, self.made.before[-1]["pictures"]
        with told(self.path):
            now = kept_pictures.hashes(self.path)
        pictures = wanted if wanted != now else self.made.pictures
        again = self._turn_into(job, replace(self.made, before=self.made.before[:-1], pictures=pictures))
        self.log("undone", job=job.values(), dropped=again)
        return again

    def takes(self, number: int) -> list[kept.Take]:
        """All takes of a section, the one in use among them, in the order in which they were made."""
        return kept.takes_of(self.path, self._recipes, number)

    def using(self, take: kept.Take) -> Job:
        """The job in which the take is in use, for `change`; JobError if it is not the job's own any more."""
        return kept.using(self.job, self._recipes, take)

    def pieces(self, how: Mapping[str, Any], suffix: str, cut: Callable[[], Cut]) -> Pieces:
        """The pieces of the job's video, as encoded in this way to files of this kind."""
        # What decides a section is known when the networks have begun.
        return Pieces(self.path, self._recipes.plan, lambda: self._recipes, how, suffix, cut)

    def log(self, event: str, **fields: Any) -> None:
        """Append one line to the log; a log that cannot be written is no reason to stop."""
        self._log.append(event, **fields)

    def _keep(self, job: Job, made: Made) -> None:
        """Make this the folder's job."""
        with told(self.path):
            disk.write(self.path / JOB, job_text(job, made))
            kept_pictures.settle(self.path, made.pictures)
            self.job, self.made, self._recipes = job, made, recipes(self.path, job, made)

    def _turn_into(self, job: Job, made: Made) -> list[int]:
        """Make this the folder's job, and put every section and take to its place."""
        # From here on, what no longer fits is outdated, even if this process ends before it is set aside.
        moved = job.origin - self.job.origin
        self._keep(job, made)
        dropped, back = self._arrange()
        return sorted(
            number for number in {each + moved for each in dropped} - {*back} if number in self._recipes
        )

    def _arrange(self) -> tuple[list[int], list[int]]:
        """Set aside what does not fit the job, and use what fits it again; the numbers of both."""
        with told(self.path):
            before = kept.stored(self.path)
            dropped = kept.set_aside(self.path, self._recipes)
            back = kept.bring_back(self.path, self._recipes)
            kept.prune(self.path, self.made.takes, before)
        return dropped, back

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
        """Tell if latents have the shape of this section; in a stranger's folder a right checksum is no proof of it."""
        assert self.job.width is not None and self.job.height is not None
        plan = self._recipes.plan
        count = len(plan[plan.made_at(number)].frames)
        size = (count, self.job.height // LATENT_PIXELS, self.job.width // LATENT_PIXELS)
        return latents.ndim == 5 and latents.shape[2:] == size


def _known(pictures: Mapping[Any, Any]) -> dict[Any, Any]:
    return {at: picture for at, picture in pictures.items() if picture is not None}


def _clip_of(job: Job, clip: Footage | None) -> dict[str, bytes]:
    if job.clip is None:
        return {}
    if clip is None or clip.latents is None:
        raise JobError("A job on disk keeps what is seen of its clip; give it, with its latents.")
    return {CLIP: clip_bytes(clip, job.clip.video)}


def _locked(place: Path) -> disk.Lock:
    try:
        return disk.lock(place / LOCK)
    except BlockingIOError:
        raise JobError(f"Another process is at work on the job in {place}; wait for it, or end it.") from None
