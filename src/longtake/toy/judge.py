"""Judges a model of toyworld while it is trained: a few held-out scenes, made with two samplings and measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longtake import toyworld
from longtake.backend import exchange, ops, runtime
from longtake.evaluation import pictures
from longtake.evaluation.making import Arm, evaluate_videos
from longtake.evaluation.meter import Meter
from longtake.evaluation.records import Record, record_of
from longtake.evaluation.results import arm_of
from longtake.job import Job
from longtake.pipeline.decode import from_frames, to_frames
from longtake.pipeline.networks import Networks

HELD_OUT = 1 << 40
"""Scenes from seeds that begin with this number are never trained on."""
SAMPLINGS = ("inverted", "vanilla")
"""Those that the embedded model is judged by."""


def held_out_scenes(count: int, first: int = 0, variant: str = "plain") -> list[toyworld.Scene]:
    """Scenes that no training saw, the motions in turn, of one of `toyworld.VARIANTS`."""
    motions = toyworld.MOTIONS
    return [
        toyworld.study_scene(
            variant, np.random.default_rng((HELD_OUT, number)), motion=motions[number % len(motions)]
        )
        for number in range(first, first + count)
    ]


def through_autoencoder(vae: Any, videos: np.ndarray, batch: int = 4) -> np.ndarray:
    """Videos (N, T, H, W, 3) uint8, encoded (the posterior's mean) and decoded."""
    done = []
    for first in range(0, len(videos), batch):
        pixels = from_frames(videos[first : first + batch])
        with runtime.no_grad():
            placed = runtime.place(ops.from_numpy(pixels), exchange.device_of(vae), vae.dtype)
            done.append(to_frames(vae(placed).sample))
    return np.concatenate(done)


def figures_of(videos: np.ndarray, scenes: Sequence[toyworld.Scene]) -> dict[str, float]:
    """The `figures` of videos (N, T, H, W, 3) uint8 that lie in memory."""
    records = []
    for number, (frames, scene) in enumerate(zip(videos, scenes, strict=True)):
        meter = Meter(scene)
        meter.push(frames)
        records.append(record_of(meter.finish(), "", number, asked=scene.motion))
    return figures(records)


def figures(records: Sequence[Record]) -> dict[str, float]:
    """Medians over the videos, the mean of the background, and the share with the motion that was asked for."""
    arm = arm_of(records, {})
    return {
        "size_error": arm.median("size"),
        "colour_error": arm.median("colour"),
        "background_error": float(np.mean(arm.figures["background"]["mean"])),
        "motion": float(np.mean([seen == asked for seen, asked in zip(arm.seen, arm.asked, strict=True)])),
    }


def judge(
    networks: Networks, sheet: Path, count: int = 14, frames: int = 73, steps: int = 10
) -> dict[str, float]:
    """Short videos of a few held-out scenes with both sampling types: their figures, and their frames as a sheet."""
    scenes = dict(enumerate(held_out_scenes(count)))
    arms = [Arm(name, Job("", frames=frames, sampling=name, steps=steps)) for name in SAMPLINGS]
    told = evaluate_videos(arms, lambda job: networks, scenes, stills=9)
    records = [each for each in told if isinstance(each, Record)]
    shown = [each for each in records if int(each.scene) < len(toyworld.MOTIONS)]
    pictures.sheet(shown, sheet)
    found: dict[str, float] = {}
    for name in SAMPLINGS:
        own = figures([record for record in records if record.arm == name])
        found |= {f"{name}_{figure}": round(value, 4) for figure, value in own.items()}
    return found
