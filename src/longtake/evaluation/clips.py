"""Evaluate video files: what needs no truth, against their own first second or against another video.

Legend: T frames, H height, W width.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from longtake.errors import JobError, PictureError
from longtake.evaluation.making import Progressed, Told
from longtake.evaluation.meter import Curve, Meter, Standard, seams_of
from longtake.evaluation.records import Keep, record_of
from longtake.evaluation.scenes import frame_psnr
from longtake.picture import spread
from longtake.plan.layout import LATENT_FRAMES
from longtake.plan.plans import plan_of
from longtake.video import SUFFIXES, Metadata, read_metadata, stream_video

_CHUNK = 2**22  # values that are measured at once
_FPS = 30.0  # of a file that says none


@dataclass(frozen=True)
class ClipArm:
    """Videos that belong together: one file, or a folder's."""

    name: str
    files: tuple[Path, ...]


def clip_arm(path: Path) -> ClipArm:
    """The arm of a video file, or of all video files in a folder; JobError if there is none."""
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)
        if not files:
            raise JobError(
                f"{path} is a folder with neither a model, nor videos ({', '.join(SUFFIXES)}), nor a results.json."
            )
        return ClipArm(path.name, tuple(files))
    return ClipArm(path.name, (path,))


def evaluate_clips(
    arms: Iterable[ClipArm],
    *,
    reference: Path | None = None,
    window: int | None = None,
    keep: Keep | None = None,
    stills: int = 0,
) -> Told:
    """A record of each video of each arm, in turn, with `Progressed` in between.

    Seams are known of a video that longtake wrote; of others, if `window` says how many latent frames a section has.
    With a `reference`, sharpness and colours are compared with its mean, and each frame of the same size with its own
    (`psnr`). Raises PictureError for a file that is no video.
    """
    standard = None if reference is None else standard_of(reference)
    for arm in arms:
        for done, file in enumerate(arm.files):
            facts = {
                "file": _state(file), "reference": reference and _state(reference), "window": window, "stills": stills
            }  # fmt: skip
            record = None if keep is None else keep.read(facts, arm.name, file.name, None)
            if record is None:
                clip = _Clip(file, window, standard, stills)
                for count in clip.measured(reference):
                    yield Progressed(
                        arm.name, done + min(1.0, count / max(clip.facts.frames, 1)), len(arm.files)
                    )
                record = replace(clip.record(file.name), arm=arm.name)
                if keep is not None:
                    keep.write(facts, record)
            yield record
        yield Progressed(arm.name, len(arm.files), len(arm.files))


def standard_of(path: Path) -> Standard:
    """The standard for other videos, if this one is their reference."""
    meter = Meter()
    for frames in chunks(path):
        meter.push(frames)
    return meter.as_standard()


def chunks(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video, some (T, H, W, 3) at once, in the memory of a few."""
    frames = stream_video(path)
    first = next(frames)
    count = max(1, _CHUNK // first.size)
    frames = itertools.chain([first], frames)
    while some := list(itertools.islice(frames, count)):
        yield np.stack(some)


class _Clip:
    """One file under measurement."""

    def __init__(self, file: Path, window: int | None, standard: Standard | None, stills: int) -> None:
        self.facts = read_metadata(file)
        self._file, self._window = file, window
        seams, self._section = _seams(self.facts, window)
        self._meter = Meter(None, seams, self.facts.fps or _FPS, standard)
        self._shown = frozenset(spread(self.facts.frames, stills) if stills else ())
        self._stills: list[np.ndarray] = []
        self._psnr: list[np.ndarray] = []

    def measured(self, reference: Path | None) -> Iterator[int]:
        """Measure all frames; how many, by and by."""
        others = stream_video(reference) if reference is not None else iter(())
        for frames in chunks(self._file):
            at = range(self._meter.count, self._meter.count + len(frames))
            self._stills += [frames[number - at.start].copy() for number in at if number in self._shown]
            other = list(itertools.islice(others, len(frames)))
            if other and other[0].shape == frames.shape[1:]:
                self._psnr.append(frame_psnr(frames[: len(other)], np.stack(other)))
            self._meter.push(frames)
            yield self._meter.count

    def record(self, name: str) -> Any:
        """The record, under the name of the file."""
        found = self._meter.finish()
        if self._psnr:
            values = np.concatenate(self._psnr)
            found.curves["psnr"] = Curve(np.arange(len(values)), values)
        stills = np.stack(self._stills) if self._stills else None
        return record_of(found, "", name, section=self._section, stills=stills)


def _seams(facts: Metadata, window: int | None) -> tuple[Sequence[int], int]:
    """The frames that sections of a file begin with, and the last frame of its first section."""
    if facts.job is not None:
        return seams_of(plan_of(facts.job)), LATENT_FRAMES * facts.job.window
    if window is not None:
        section = LATENT_FRAMES * window
        return range(1 + section, facts.frames, section), section
    return (), max(1, round(facts.fps or _FPS))


def _state(path: Path) -> list[Any]:
    """The facts by which a changed file is known."""
    try:
        state = path.stat()
    except OSError:
        raise PictureError(f"There is no file {path}.") from None
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]
