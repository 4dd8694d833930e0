"""The beginning of a job on disk: a place that is free, its pictures as files, and paths that stay right."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from longtake.errors import JobError
from longtake.job import Anchor, Job
from longtake.jobs.pictures import file_of
from longtake.jobs.stored import ENTRIES, JOB, LAST, PICTURE, VIDEO, anchored, told
from longtake.named import places
from longtake.sampling.caching import parse
from longtake.sampling.ratios import with_file
from longtake.video.edges import load_picture
from longtake.weights.fingerprint import file_fingerprint
from longtake.weights.lora import find_file


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
    # Left by a process that was killed while it began a job.
    other = [
        name
        for name in found
        if name not in ENTRIES and not PICTURE.fullmatch(name) and not name.endswith(".part")
    ]
    if other or VIDEO in found:
        raise JobError(
            f"{place} is not empty (it holds {(other or [VIDEO])[0]!r}); name a new folder for the job."
        )
    return place


def pictures_of(job: Job, given: Mapping[Any, Any]) -> tuple[Job, dict[str, bytes]]:
    """The job with all its pictures, and these as files by name; what is `given` by time goes before the job's own.

    Raises JobError if there is none to begin with where one is needed.
    """
    own = {anchor.at: anchor for anchor in job.anchors}
    sources = {at: anchor.image for at, anchor in own.items()}
    sources |= {at: source for at, source in given.items() if source is not None}
    if 0 not in sources and not job.from_text and job.clip is None:
        raise JobError("A video begins with a picture; none was given.")
    anchors = [own.get(at, Anchor(at, file_of(at))) for at in sources]
    found = {file_of(at): png(load_picture(source)) for at, source in sources.items()}
    if len(found) < len(anchors):
        raise JobError("Two pictures stand within a millisecond of each other; leave one of them out.")
    return anchored(replace(job, anchors=tuple(anchors)), LAST in found), found


def standing_alone(job: Job) -> Job:
    """The job with absolute paths and no file of ratios, since it may be resumed from elsewhere, and later.

    A model's short name becomes the places that it means today, since another longtake may mean others.
    """
    loras = tuple(replace(lora, path=_absolute(lora.path)) for lora in job.loras)
    base, elsewhere = places(job.model, job.parts)
    model = base if base == "embedded" else _absolute(base)
    parts = {name: _absolute(place) for name, place in elsewhere.items()}
    clip = job.clip and replace(job.clip, video=_absolute(job.clip.video))
    return replace(job, model=model, parts=parts, loras=loras, cache=_own_cache(job.cache), clip=clip)


def _own_cache(text: str) -> str:
    """The text of a cache with its file's ratios in the file's place: they decide frames, and the file may go."""
    cache = parse(text)
    return text if cache is None or cache.file is None else with_file(cache).text


def lora_fingerprints(job: Job) -> tuple[str, ...]:
    """The fingerprint of the file of each of the job's LoRAs."""
    return tuple(file_fingerprint(find_file(lora.path)) for lora in job.loras)


def png(picture: Image.Image) -> bytes:
    """The picture as a file, without loss."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def _absolute(path: str) -> str:
    place = Path(path).expanduser()
    return str(place.absolute()) if place.exists() else path
