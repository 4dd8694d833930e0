"""The state of a job on disk: which sections are done, by which recipes, and whether its model is still the same."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from longtake import disk
from longtake.errors import JobError
from longtake.job import Job
from longtake.jobs import section, takes
from longtake.jobs.beginning import lora_fingerprints
from longtake.jobs.clip import CLIP
from longtake.jobs.pictures import OTHERS, file_of
from longtake.jobs.recipe import Recipes
from longtake.jobs.section import DONE, MISSING, OUTDATED, section_file
from longtake.jobs.stored import ENTRIES, LOCK, VIDEO, Made, read_job, told
from longtake.plan.pictures import frames_of
from longtake.plan.plans import plan_of


def describe_job(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state of a job as JSON values; reads only, so that another process may be at work on it."""
    place = Path(path).resolve()
    job, made = read_job(place)
    found = recipes(place, job, made)
    states = states_of(place, found)
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
    """The recipe of each section of a job in its folder.

    The first picture decides all sections, and so does the last one of a video without any between; a key frame
    decides those that see it.
    """
    plan = plan_of(job)
    with told(path):
        hashes = {at: _hash_of(path / file_of(at)) for at in frames_of(job, plan)}
    alone = plan.starts == (0,)
    everywhere = [at for at in hashes if at == 0 or (at == "end" and alone)]
    pictures = [hashes[at] for at in everywhere]
    key_frames = {frame: hashes[at] for at, frame in frames_of(job, plan).items() if at not in everywhere}
    facts: dict[str, Any] = {
        "format": made.format,
        "model": made.model,
        "adapters": made.loras,
        "form": made.form,
        "pictures": pictures,
    }
    if job.clip is not None:
        with told(path):
            facts["clip"] = _hash_of(path / CLIP)
    return Recipes(job, plan, facts, key_frames)


def states_of(path: Path, found: Recipes) -> dict[int, str]:
    """DONE, MISSING, OUTDATED or DAMAGED for each section, by number, as its header tells."""
    kept = takes.stored(path)
    states = {}
    for number in range(found.plan.count):
        state = section.state(section_file(path, number), found[number])
        # What a change that was cut off would have brought back.
        waits = state in (MISSING, OUTDATED) and kept and found[number] in kept
        states[number] = DONE if waits else state
    return states


def check_same(path: Path, job: Job, made: Made, model: str | None) -> None:
    """Raise JobError if the model or a LoRA is not what the job began with."""
    if model is not None and model != made.model:
        raise JobError(
            f"The job in {path} was begun with another model than {job.model} is now; "
            "give the one that it was begun with, or begin the job anew."
        )
    for lora, before, now in zip(job.loras, made.loras, lora_fingerprints(job), strict=True):
        if before != now:
            raise JobError(
                f"{lora.path} is not the LoRA any more that the job in {path} was begun with; "
                "put that one back, or begin the job anew."
            )


def check_inside(place: Path) -> None:
    """Raise JobError if an entry of the folder leads out of it: it may be a stranger's, and is written to."""
    for entry in (*(place / name for name in ENTRIES), *place.glob(OTHERS)):
        if entry.is_symlink() and not entry.resolve().is_relative_to(place):
            raise JobError(
                f"{entry} leads out of the job's folder, to {entry.resolve()}; put the file itself there."
            )


def _hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
