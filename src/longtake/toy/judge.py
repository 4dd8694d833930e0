"""Judges how well a model keeps and moves the cartoons of toyworld: on scenes held out, made and measured.

Beside every figure stand the same figure of true videos, of true videos that went through the autoencoder, and chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longtake import toyworld
from longtake.backend import ops, runtime
from longtake.events import FramesReady
from longtake.job import Job
from longtake.picture import contact_sheet
from longtake.pipeline.decode import from_frames, to_frames
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.pipeline.prepare import Inputs

HELD_OUT = 1 << 40
"""Scenes from seeds that begin with this number are never trained on."""
SAMPLINGS = ("inverted", "vanilla")
"""Those that the embedded model is judged by."""
CHANCE = 1 / len(toyworld.MOTIONS)


def held_out_scenes(count: int, first: int = 0) -> list[toyworld.Scene]:
    """Scenes that no training saw, the motions in turn."""
    motions = toyworld.MOTIONS
    return [
        toyworld.random_scene(
            np.random.default_rng((HELD_OUT, number)), motion=motions[number % len(motions)]
        )
        for number in range(first, first + count)
    ]


@dataclass(frozen=True)
class Figures:
    """The measurements of N videos; errors are relative (size, colour) or in [0, 1] (background)."""

    size_error: np.ndarray
    colour_error: np.ndarray
    background_error: np.ndarray
    asked: tuple[str, ...]
    seen: tuple[str, ...]

    def summary(self) -> dict[str, float]:
        """Medians over the videos, the mean for the background, and the share with the motion that was asked for."""
        right = [asked == seen for asked, seen in zip(self.asked, self.seen, strict=True)]
        return {
            "size_error": float(np.median(self.size_error)),
            "colour_error": float(np.median(self.colour_error)),
            "background_error": float(np.mean(self.background_error)),
            "motion": float(np.mean(right)),
        }

    def by_motion(self) -> dict[str, float]:
        """The share of videos with the motion that was asked for, by motion."""
        return {
            motion: float(
                np.mean([s == motion for a, s in zip(self.asked, self.seen, strict=True) if a == motion])
            )
            for motion in dict.fromkeys(self.asked)
        }


def figures_of(videos: np.ndarray, scenes: Sequence[toyworld.Scene]) -> Figures:
    """Measure videos (N, T, H, W, 3) uint8 against their scenes."""
    found = [toyworld.measure(frames, scene).medians for frames, scene in zip(videos, scenes, strict=True)]
    return Figures(
        size_error=np.array([medians["size_error"] for medians in found]),
        colour_error=np.array([medians["colour_error"] for medians in found]),
        background_error=np.array([medians["background_error"] for medians in found]),
        asked=tuple(scene.motion for scene in scenes),
        seen=tuple(
            toyworld.classify_motion(frames, scene) for frames, scene in zip(videos, scenes, strict=True)
        ),
    )


def true_videos(scenes: Sequence[toyworld.Scene], frames: int, size: int) -> np.ndarray:
    """(N, T, H, W, 3) uint8."""
    return np.stack([toyworld.render(scene, range(frames), size, size) for scene in scenes])


def through_autoencoder(vae: Any, videos: np.ndarray, batch: int = 4) -> np.ndarray:
    """Videos (N, T, H, W, 3) uint8, encoded (the posterior's mean) and decoded."""
    done = []
    for first in range(0, len(videos), batch):
        pixels = from_frames(videos[first : first + batch])
        with runtime.no_grad():
            done.append(to_frames(vae(ops.from_numpy(pixels)).sample))
    return np.concatenate(done)


def psnr(truth: np.ndarray, found: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 arrays, in dB."""
    error = np.mean((truth.astype(np.float32) - found.astype(np.float32)) ** 2)
    return float(10 * np.log10(255**2 / error))


def make_videos(
    networks: Networks,
    scenes: Sequence[toyworld.Scene],
    sampling: str,
    frames: int = 145,
    steps: int = 25,
    seed: int = 0,
    batch: int = 16,
    cfg_scale: float = 1.0,
) -> np.ndarray:
    """Videos (N, T, H, W, 3) uint8 of the scenes' first frames and canonical prompts."""
    width, _ = networks.default_size
    done = []
    for first in range(0, len(scenes), batch):
        group = scenes[first : first + batch]
        job = Job("", frames=frames, sampling=sampling, steps=steps, seed=seed + first, cfg_scale=cfg_scale)
        pictures = list(true_videos(group, 1, width)[:, 0])
        inputs = Inputs(picture=pictures, prompts=[toyworld.prompt(scene) for scene in group])
        events = generate(job, networks, inputs)
        done.append(np.concatenate([e.frames for e in events if isinstance(e, FramesReady)], axis=1))
    return np.concatenate(done)


def judge(
    networks: Networks, sheet: Path, count: int = 14, frames: int = 73, steps: int = 10
) -> dict[str, float]:
    """Short videos of a few held-out scenes with both sampling types: their figures, and their frames as a sheet."""
    scenes = held_out_scenes(count)
    shown: list[np.ndarray] = []
    figures: dict[str, float] = {}
    for sampling in SAMPLINGS:
        videos = make_videos(networks, scenes, sampling, frames, steps)
        shown += [video[:: frames // 8][:9] for video in videos[: len(toyworld.MOTIONS)]]
        found = figures_of(videos, scenes).summary()
        figures |= {f"{sampling}_{name}": round(value, 4) for name, value in found.items()}
    contact_sheet(np.concatenate(shown), columns=9).save(sheet)
    return figures
