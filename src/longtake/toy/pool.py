"""Scenes as latents: what the transformer learns from, made once from the finished autoencoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longtake import toyworld
from longtake.backend import ops, runtime, training
from longtake.pipeline.decode import from_frames
from longtake.plan.plans import WINDOW, Section, video_frames

SECTIONS = 5
"""How many sections a scene of the pool is long: above four, inverted plans cap the gap to the picture."""


@dataclass(frozen=True)
class Pool:
    """`latents` (N, T, C, h, w) float16, not scaled, of videos of `SECTIONS` sections; `ends` (N, SECTIONS, C, h, w) of
    the frame behind each section alone; `pictures` (N, 1 + SECTIONS, H, W, 3) uint8: the first frame and those."""

    scenes: list[toyworld.Scene]
    latents: np.ndarray
    ends: np.ndarray
    pictures: np.ndarray

    def __len__(self) -> int:
        return len(self.scenes)

    def replace(self, row: int, other: Pool) -> None:
        """Put the one scene of `other` in the place of `row`."""
        self.scenes[row] = other.scenes[0]
        for mine, new in (
            (self.latents, other.latents),
            (self.ends, other.ends),
            (self.pictures, other.pictures),
        ):
            mine[row] = new[0]


@dataclass(frozen=True)
class Rows:
    """What one batch of sections sees and should make: latents (B, C, T, h, w) float32, times (B, T)."""

    window: np.ndarray
    window_times: np.ndarray
    clean: tuple[tuple[np.ndarray, np.ndarray], ...]
    """(latents, times) of the slots of scale 1, 2 and 4."""


def make_pool(vae: Any, scenes: Sequence[toyworld.Scene], size: int) -> Pool:
    """Render and encode the scenes (the posterior's mean), one after the other."""
    frames = video_frames(SECTIONS)
    ends = [video_frames(number) for number in range(1, SECTIONS + 1)]
    latents, singles, pictures = [], [], []
    for scene in scenes:
        video = toyworld.render(scene, range(frames + 1), size, size)
        shown = np.stack([video[0], *(video[end] for end in ends)])
        with runtime.no_grad(), training.autocast("bfloat16"):
            mean = vae.encode(ops.from_numpy(from_frames(video[None, :frames]))).latent_dist.mean
            single = vae.encode(ops.from_numpy(from_frames(shown[:, None]))).latent_dist.mean
        latents.append(ops.to_numpy(mean)[0].swapaxes(0, 1).astype(np.float16))
        singles.append(ops.to_numpy(single)[1:, :, 0].astype(np.float16))
        pictures.append(shown)
    return Pool(list(scenes), np.stack(latents), np.stack(singles), np.stack(pictures))


def gather(
    pool: Pool, rows: Sequence[int], sections: Sequence[Section], last: Sequence[int | None], scale: float
) -> Rows:
    """The latents of one section each of the pool's scenes `rows`; `last` numbers the end picture where one is seen."""

    def read(frames_of: Any) -> np.ndarray:
        videos = []
        for row, section, end in zip(rows, sections, last, strict=True):
            frames = [
                np.zeros_like(pool.latents[row, 0]) if frame is None
                else pool.ends[row, end] if end is not None and frame == 1 + WINDOW * (end + 1)
                else pool.latents[row, frame]
                for frame in frames_of(section)
            ]  # fmt: skip
            videos.append(np.stack(frames, 1))
        return np.stack(videos).astype(np.float32) * np.float32(scale)

    def times(times_of: Any) -> np.ndarray:
        return np.array([times_of(section) for section in sections])

    slots = [
        (
            read(lambda section, n=n: section.slots[n].frames),
            times(lambda section, n=n: section.slots[n].times),
        )
        for n in range(3)
    ]
    return Rows(read(lambda section: section.frames), times(lambda section: section.times), tuple(slots))


def batches(rng: np.random.Generator, size: int, count: int) -> Iterator[np.ndarray]:
    """Numbers below `size` in batches of `count`, each number once before any comes again."""
    order = np.array([], dtype=np.int64)
    while True:
        while len(order) < count:
            order = np.concatenate([order, rng.permutation(size)])
        yield order[:count]
        order = order[count:]
