"""Sample videos while a model learns: the lines of a prompt file, and a sheet of frames for each, by the one loop."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longtake.errors import JobError
from longtake.events import FramesReady
from longtake.job import Anchor, Job
from longtake.picture import contact_sheet, save_picture, spread
from longtake.video.edges import load_picture

FIELDS: dict[str, tuple[str, type]] = {
    "w": ("width", int), "h": ("height", int), "f": ("frames", int), "d": ("seed", int), "s": ("steps", int),
    "g": ("guidance", float), "l": ("cfg_scale", float), "fs": ("shift", float), "n": ("negative_prompt", str),
    "i": ("image", str), "ei": ("end_image", str),
}  # fmt: skip
"""The words of musubi-tuner's prompt files that are read here, each with what it says of a job."""
FRAMES = 8
"""Frames of a sheet."""


@dataclass(frozen=True)
class Sample:
    """One video to make while a model learns."""

    job: Job
    line: int


def read_samples(file: Path, sampling: str, window: int) -> list[Sample]:
    """The samples of a prompt file: a line for each, `text --w --h --f --d --s --g --i picture`; # begins a comment.

    As in musubi-tuner `d` is the seed, `g` the distilled guidance, `l` the classifier-free one, `n` the negative
    prompt, `fs` the flow shift; `ei` is a picture at the end. Raises JobError, naming the line, for what
    cannot be made.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise JobError(f"--sample-prompts {file} cannot be read: {reason}.") from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                found.append(Sample(job_of(line, sampling, window, file.parent), number))
            except JobError as error:
                raise JobError(f"Line {number} of {file} cannot be made: {error}") from None
    if not found:
        raise JobError(f"{file} has no line with a prompt.")
    return found


def job_of(line: str, sampling: str, window: int, folder: Path) -> Job:
    """The job of one line.

    >>> job_of("A bird flies. --w 64 --h 64 --f 37 --d 3 --i bird.png", "vanilla", 9, Path()).frames
    37
    """
    prompt, *words = re.split(r"(?:^|\s+)--(?=[a-z])", line.strip())
    values: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition(" ")
        if name not in FIELDS:
            raise JobError(
                f"--{name} is not read here; there are: {', '.join(f'--{each}' for each in FIELDS)}."
            )
        field, kind = FIELDS[name]
        try:
            values[field] = kind(text.strip())
        except ValueError:
            raise JobError(f"--{name} takes a number; {text.strip()!r} was given.") from None
    pictures: dict[str, Any] = {"image": 0, "end_image": "end"}
    anchors = tuple(
        Anchor(at, str(folder / values.pop(name))) for name, at in pictures.items() if name in values
    )
    if not any(anchor.at == 0 for anchor in anchors):
        raise JobError("a video begins with a picture, which --i names.")
    job = Job(**{"prompt": prompt, "sampling": sampling, "window": window, "anchors": anchors, **values})
    job.check()
    return job


def sheets(networks: Any, samples: list[Sample], files: list[Path]) -> Iterator[Path]:
    """Make the videos with the networks as they are now, and give the file of each one's sheet as it is written."""
    from longtake.pipeline.loop import generate
    from longtake.pipeline.prepare import Inputs

    for sample, file in zip(samples, files, strict=True):
        job, frames, chosen = sample.job, [], None
        pictures = [load_picture(at) if at else None for at in (job.picture, job.last_picture)]
        events = generate(job, networks, Inputs(pictures[0], pictures[1]))
        with closing(events):
            for event in events:
                if isinstance(event, FramesReady):
                    frames += list(event.frames[0])
        chosen = [frames[number] for number in spread(len(frames), FRAMES)]
        file.parent.mkdir(parents=True, exist_ok=True)
        save_picture(contact_sheet(chosen), file)
        yield file
