"""Evaluate a model on the toy world: arms are jobs, each made for the same scenes and seeds, and measured as it comes.

Legend: B videos made at once, T frames, H height, W width.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from longtake import toyworld
from longtake.errors import JobError
from longtake.evaluation.asked import asked_motion, last_change, spans
from longtake.evaluation.measures import AUTOENCODER, TRUTH
from longtake.evaluation.meter import Meter, seams_of
from longtake.evaluation.records import Keep, Record, record_of
from longtake.events import FramesReady, Stepped
from longtake.job import Job
from longtake.picture import spread
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.pipeline.prepare import Inputs
from longtake.plan.layout import LATENT_FRAMES
from longtake.plan.plans import plan_of

FLOOR_FRAMES = 145
"""Frames of a video that goes through the autoencoder: it has no drift of its own."""

Scenes = Mapping[int, toyworld.Scene]
"""Scenes by their numbers, under which their results are kept and paired."""


@dataclass(frozen=True)
class Arm:
    """One way of making videos: a job, whose pictures and prompts are the scenes'; `model` tells weights apart."""

    name: str
    job: Job
    model: str = ""


@dataclass(frozen=True)
class Progressed:
    """So many videos of an arm, of so many, are made by now; parts of a video count."""

    arm: str
    done: float
    total: int


Told = Iterator[Record | Progressed]


def evaluate_videos(
    arms: Iterable[Arm],
    load: Callable[[Job], Networks],
    scenes: Scenes,
    seeds: Sequence[int] = (0,),
    *,
    batch: int = 16,
    keep: Keep | None = None,
    stills: int = 0,
) -> Told:
    """A record of each video of each arm, in turn, with `Progressed` in between.

    `load` gives the networks of a job; it is asked once an arm that has something left to make. Videos that `keep`
    has are not made again. Each begins with its scene's true first frame and is told its canonical prompt; its noise
    follows from its seed and its scene's number alone, so that it does not depend on the `batch` it is made in.
    `stills` frames of the first seed's videos are kept.
    """
    for arm in arms:
        asked = [(number, seed) for seed in seeds for number in scenes]
        facts = _facts(arm, scenes)
        left, done = [], 0
        for number, seed in asked:
            record = None if keep is None else keep.read(facts(number), arm.name, number, seed)
            if record is None:
                left.append((number, seed))
            else:
                done += 1
                yield record
        if not left:
            continue
        networks = load(arm.job)
        for rows in _batches(left, scenes, batch):
            shown = stills if any(seed == seeds[0] for _, seed in rows) else 0
            for told in _made(arm, networks, scenes, rows, shown):
                if isinstance(told, Record):
                    if keep is not None:
                        keep.write(facts(int(told.scene)), told)
                    yield told
                else:
                    yield Progressed(arm.name, done + told * len(rows), len(asked))
            done += len(rows)


def _made(
    arm: Arm, networks: Networks, scenes: Scenes, rows: Sequence[tuple[int, int]], stills: int
) -> Iterator[Record | float]:
    """The records of a batch of (scene, seed), and before them the shares of it that are made."""
    job = sized(arm.job, networks)
    plan = plan_of(job)
    shown = [scenes[number] for number, _ in rows]
    pictures = [toyworld.render(scene, [0], job.height or 0, job.width or 0)[0] for scene in shown]
    noise = [noise_seed(job.seed + seed, number) for number, seed in rows]
    told = spans(shown[0], toyworld.FPS)
    if told:
        job = replace(job, prompt="", prompts=told, fps=toyworld.FPS)
        inputs = Inputs(picture=pictures[0], videos=len(rows), generator=noise)
    else:
        inputs = Inputs(
            picture=pictures, prompts=[toyworld.prompt(scene) for scene in shown], generator=noise
        )
    total, steps = plan.count * job.steps, 0
    with _Rows(shown, seams_of(plan), spread(plan.frames, stills) if stills else []) as measured:
        with contextlib.closing(generate(job, networks, inputs)) as events:
            for event in events:
                if isinstance(event, Stepped):
                    steps += 1
                    yield steps / total
                elif isinstance(event, FramesReady):
                    measured.push(event.frames)
        section = LATENT_FRAMES * job.window
        for row, (number, seed) in enumerate(rows):
            yield measured.record(row, arm.name, number, seed, section)


def _batches(
    left: Sequence[tuple[int, int]], scenes: Scenes, batch: int
) -> Iterator[Sequence[tuple[int, int]]]:
    """Videos that can be made at once: any whose prompt stays, but seeds of one scene alone if its prompt changes."""
    plain = [each for each in left if not spans(scenes[each[0]], toyworld.FPS)]
    groups = [plain]
    for number in dict.fromkeys(number for number, _ in left):
        groups.append([each for each in left if each[0] == number and each not in plain])
    for group in groups:
        for first in range(0, len(group), batch):
            yield group[first : first + batch]


class _Rows:
    """Meters of B videos that come together, each measured by a thread of its own."""

    def __init__(
        self,
        scenes: Sequence[toyworld.Scene],
        seams: Sequence[int] = (),
        shown: Sequence[int] = (),
        certain: bool = False,
    ) -> None:
        self._scenes, self._shown, self._start = scenes, shown, 0
        self._meters = [Meter(scene, seams, certain=certain) for scene in scenes]
        self._stills: list[list[np.ndarray]] = [[] for _ in scenes]
        self._threads = ThreadPoolExecutor(min(len(scenes), os.cpu_count() or 1))

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def push(self, frames: np.ndarray) -> None:
        """Take the next frames (B, T, H, W, 3)."""
        for _ in self._threads.map(lambda meter, own: meter.push(own), self._meters, frames):
            pass
        end = self._start + frames.shape[1]
        for own, kept in zip(frames, self._stills, strict=True):
            kept += [own[at - self._start].copy() for at in self._shown if self._start <= at < end]
        self._start = end

    def record(self, row: int, arm: str, number: int, seed: int | None, section: int) -> Record:
        """The record of one of the videos, when all frames are there."""
        measured = self._meters[row].finish()
        stills = np.stack(self._stills[row]) if self._stills[row] else None
        scene = self._scenes[row]
        asked = asked_motion(scene, last_change(scene, measured.frames), measured.frames)
        return record_of(measured, arm, number, seed, section=section, asked=asked, stills=stills)


def true_records(
    scenes: Scenes,
    frames: int,
    size: tuple[int, int],
    *,
    keep: Keep | None = None,
    stills: int = 0,
    seams: Sequence[int] = (),
    section: int = 36,
) -> Told:
    """Records of the true videos of the scenes, measured in the same way; `size` is (width, height)."""
    width, height = size
    chunk = 4 * toyworld.FPS
    for done, (number, scene) in enumerate(scenes.items(), 1):
        facts = {"frames": frames, "size": size, "scene": repr(scene), "stills": stills, "arm": TRUTH}
        record = None if keep is None else keep.read(facts, TRUTH, number, None)
        if record is None:
            with _Rows([scene], seams, spread(frames, stills) if stills else []) as measured:
                for first in range(0, frames, chunk):
                    numbers = range(first, min(first + chunk, frames))
                    measured.push(toyworld.render(scene, numbers, height, width)[None])
                record = measured.record(0, TRUTH, number, None, section)
            if keep is not None:
                keep.write(facts, record)
        yield record
        yield Progressed(TRUTH, done, len(scenes))


def floor_records(
    scenes: Scenes,
    frames: int,
    size: tuple[int, int],
    again: Callable[[np.ndarray], np.ndarray],
    section: int = 36,
) -> Told:
    """Records of true videos after `again` (1, T, H, W, 3), which is the way through the autoencoder."""
    width, height = size
    for done, (number, scene) in enumerate(scenes.items(), 1):
        true = toyworld.render(scene, range(min(frames, FLOOR_FRAMES)), height, width)
        with _Rows([scene], certain=True) as measured:
            measured.push(again(true[None]))
            yield measured.record(0, AUTOENCODER, number, None, section)
        yield Progressed(AUTOENCODER, done, len(scenes))


def sized(job: Job, networks: Networks) -> Job:
    """The job in the size of its videos; JobError if neither it nor its model has one."""
    if not (job.width and job.height) and "width" not in networks.settings:
        raise JobError(f"The model {job.model} has no size of its own; say --size, such as --size 64.")
    width, height = networks.default_size
    return replace(job, width=job.width or width, height=job.height or height)


def noise_seed(seed: int, scene: int) -> int:
    """The seed of the noise of one scene's video.

    >>> noise_seed(0, 3) != noise_seed(1, 3) != noise_seed(1, 2)
    True
    """
    return (seed << 32) + scene


def _facts(arm: Arm, scenes: Scenes) -> Callable[[int], dict[str, Any]]:
    """The facts that decide the video of a scene, beside its seed."""
    job = json.loads(replace(arm.job, prompt="").to_json())
    model = arm.model or job["model"]
    return lambda number: {"job": job, "model": model, "scene": repr(scenes[number])}
