"""From seconds to latent frames: where a job's pictures and changes cut its video, to the nearest frame that can be.

A picture stands at a video frame that lies a whole number of latent frames behind the picture before it; a change lies
between two latent frames. So each is at most two video frames away from where it was asked for.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from longtake.errors import JobError
from longtake.plan.layout import LATENT_FRAMES
from longtake.plan.lengths import nearest_section_count, reference_section_count, section_count
from longtake.plan.stretches import Division, even, runs_of
from longtake.spans import PromptSpan, WeightSpan

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.plan.orders import View


@dataclass(frozen=True)
class Bed:
    """The place of a stretch: its first latent frame to be made, and the first video frame that this one holds.

    `length` is the number of latent frames up to the next picture, or to the end; those after the end are not counted.
    """

    latent: int
    frame: int
    length: int


def frame_at(seconds: float, fps: int) -> float:
    """The video frame that is seen at a second, with its fraction; without the noise of floating point.

    >>> frame_at(0.1, 30), frame_at(2.05, 30)
    (3.0, 61.5)
    """
    return round(seconds * fps, 6)


def division_of(job: Job, view: View) -> Division:
    """The stretches, runs and sections of a job's video, whose sections have this sight.

    Raises JobError for pictures that are too near to one another or to the end. A job that asks nothing in time has
    whole windows, as ever.
    """
    end, clip = job.last_picture is not None, job.clip is not None
    lead = led(job, view)
    changes = sorted({each for each in changes_of(job) if 0 < each < job.frames})
    if not (key_frames(job) or changes or job.loop or clip):
        counted = (
            reference_section_count if job.reference else nearest_section_count if end else section_count
        )
        return even(counted(job.frames, job.window), job.window, end)
    behind = followed(job, view)
    ends = bool(behind) or job.loop
    beds = beds_of(job, max(1, lead), 0 if lead else 1, ends)
    cut = [_lengths(bed, places) for bed, places in zip(beds, _cuts(beds, changes), strict=True)]
    whole = 0
    if not ends:
        begun = beds[-1].frame + LATENT_FRAMES * sum(cut[-1][:-1])
        # One frame more is the picture that `section_count` counts.
        whole = section_count(job.frames - begun + 1, job.window)
    runs = runs_of([(bed.latent, lengths) for bed, lengths in zip(beds, cut, strict=True)], job.window, whole)
    starts = (0, *(bed.latent - 1 for bed in beds[1:]))
    return Division(job.window, runs, starts, lead, behind, job.loop)


def led(job: Job, view: View) -> int:
    """Latent frames of the job's clip that lie before its video: one alone, and as many as a section sees."""
    if job.clip is None or not view.before:
        return 0
    return job.clip.latents or 1 + view.past


def followed(job: Job, view: View) -> int:
    """Latent frames that are given behind the job's video: its last picture, or the beginning of its clip."""
    if job.clip is not None and not view.before:
        return job.clip.latents or max(1, view.future)
    return int(job.last_picture is not None)


def key_frames(job: Job) -> list[float]:
    """The video frames, with their fractions, at which the job asks for pictures, but for the first and the last."""
    return sorted(frame_at(each.at, job.fps) for each in job.anchors if each.at != "end" and each.at)


def changes_of(job: Job) -> Iterator[float]:
    """The video frames, with their fractions, at which something begins or ends to be said."""
    weights = [weight for lora in job.loras for weight in lora.spans]
    spans: list[PromptSpan | WeightSpan] = [*job.prompts, *weights]
    for span in spans:
        yield frame_at(span.start, job.fps)
        if span.end is not None:
            yield frame_at(span.end, job.fps)


def beds_of(job: Job, latent: int, frame: int, ends: bool) -> list[Bed]:
    """The place of each stretch; the first begins at this latent frame and this video frame.

    `ends` says that the last one goes to a given picture, so that nothing of it can be cut off.
    """
    beds = []
    for asked in key_frames(job):
        length = _nearest(asked - frame)
        if length < 1:
            _refuse_near(job, asked, frame)
        beds.append(Bed(latent, frame, length))
        latent, frame = latent + length + 1, frame + LATENT_FRAMES * length + 1
    left = job.frames - frame
    if beds and left < 1:
        raise JobError(
            f"A picture at {_seconds(key_frames(job)[-1], job)} s stands at the end of this video, which has "
            f'{_seconds(job.frames, job)} s; ask for it at "end", or for a longer video.'
        )
    length = max(1, _nearest(left)) if ends else max(1, -(-left // LATENT_FRAMES))
    return [*beds, Bed(latent, frame, length)]


def _refuse_near(job: Job, asked: float, frame: int) -> None:
    before = _seconds(max(0, frame - 1), job)
    raise JobError(
        f"A picture at {_seconds(asked, job)} s is too near to the one before it, at {before} s; between two pictures "
        f"lie at least {LATENT_FRAMES} frames ({_seconds(LATENT_FRAMES, job)} s)."
    )


def _cuts(beds: Sequence[Bed], changes: Sequence[float]) -> list[list[int]]:
    """The latent frames of each stretch, counted from its first, at which something changes inside of it."""
    begins = [max(0, bed.frame - 1) for bed in beds]
    found: list[list[int]] = [[] for _ in beds]
    for asked in changes:
        stretch = max(0, bisect_right(begins, asked) - 1)
        place = _nearest(asked - beds[stretch].frame)
        # At the first frame a section begins as it is; behind the last one, the next stretch does.
        if 0 < place < beds[stretch].length and place not in found[stretch][-1:]:
            found[stretch].append(place)
    return found


def _lengths(bed: Bed, places: Sequence[int]) -> list[int]:
    edges = [0, *places, bed.length]
    return [stop - start for start, stop in pairwise(edges)]


def _nearest(frames: float) -> int:
    """Latent frames nearest to so many video frames; the fewer of two, so that a section's middle lies behind it."""
    return math.ceil(frames / LATENT_FRAMES - 0.5)


def _seconds(frames: float, job: Job) -> str:
    return f"{frames / job.fps:g}"
