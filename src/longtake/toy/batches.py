"""The data for one step of the transformer's training, drawn in numpy: sections of the pool's scenes, and noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from longtake import toyworld
from longtake.plan.lengths import WINDOW
from longtake.plan.plans import PLANS, Section
from longtake.toy.pool import Pool

SHIFT = 2.0
DROPPED_PROMPTS = 0.1
HISTORY_NOISE = 0.15
ENDS = 0.15
"""The part of the sections that see a last picture, of those whose plan can."""
GUIDANCE = (1000, 12000)
"""Guidance, in thousandths, is drawn between these: the networks are not distilled, and learn not to mind it."""


@dataclass(frozen=True)
class Rows:
    """The clean frames that a batch of sections sees and should make: latents (B, C, T, h, w) float32, times (B, T)."""

    window: np.ndarray
    window_times: np.ndarray
    clean: dict[int, tuple[np.ndarray, np.ndarray]]
    """(latents, times) of what is seen, by scale."""


@dataclass(frozen=True)
class Batch:
    """One step's B sections: which scenes and end pictures, what they see, their noise and its level, their prompts."""

    rows: np.ndarray
    ends: tuple[int | None, ...]
    seen: Rows
    noise: np.ndarray
    level: np.ndarray
    guidance: np.ndarray
    prompts: tuple[str, ...]

    @property
    def noisy(self) -> np.ndarray:
        """The windows at their noise levels, which is what the transformer sees of them."""
        level = self.level[:, None, None, None, None]
        return (1 - level) * self.seen.window + level * self.noise

    @property
    def velocity(self) -> np.ndarray:
        """The velocity that the transformer should predict for them."""
        return self.noise - self.seen.window


def draw_batch(pool: Pool, rows: np.ndarray, scale: float, rng: np.random.Generator) -> Batch:
    """A section of a random plan for each of the pool's scenes `rows`, at evenly spread levels of noise."""
    count = len(rows)
    drawn = [draw_section(rng) for _ in rows]
    ends = tuple(end for _, end in drawn)
    seen = gather(pool, rows.tolist(), [section for section, _ in drawn], ends, scale)
    noise = rng.standard_normal(seen.window.shape, np.float32)
    level = shifted((rng.permutation(count) + rng.random(count)) / count).astype(np.float32)
    prompts = tuple(
        "" if rng.random() < DROPPED_PROMPTS else toyworld.prompt(pool.scenes[row], rng) for row in rows
    )
    blur = HISTORY_NOISE * rng.random(count).astype(np.float32)[:, None, None, None, None]
    clean = {scale: (blurred(latents, blur, rng), times) for scale, (latents, times) in seen.clean.items()}
    guidance = rng.uniform(*GUIDANCE, count).astype(np.float32)
    return Batch(rows, ends, Rows(seen.window, seen.window_times, clean), noise, level, guidance, prompts)


def rows_at(step: int, size: int, count: int, seed: int) -> np.ndarray:
    """The numbers below `size` of batch number `step`; over the batches each comes once before any comes again."""
    first = step * count
    laps = range(first // size, (first + count - 1) // size + 1)
    order = np.concatenate([np.random.default_rng((seed, lap)).permutation(size) for lap in laps])
    begin = first - size * laps[0]
    return order[begin : begin + count]


def draw_section(rng: np.random.Generator) -> tuple[Section, int | None]:
    """One section of a random plan, and the number of its end picture if it sees one."""
    sections = int(rng.choice([1, 2, 3, 4, 5], p=[0.05, 0.1, 0.15, 0.4, 0.3]))
    # Those that the published models were trained for, each once: they see the same numbers of frames.
    kinds = [*{kind.structure: kind for _, kind in sorted(PLANS.items()) if kind.published}.values()]
    kind = kinds[int(rng.integers(len(kinds)))]
    if kind.sees_end and rng.random() < ENDS:
        # The section that is made first is the one that sees the end.
        return kind.lay_out(sections, WINDOW, True)[0], sections - 1
    return kind.lay_out(sections, WINDOW, False)[int(rng.integers(sections))], None


def gather(
    pool: Pool, rows: Sequence[int], sections: Sequence[Section], ends: Sequence[int | None], scale: float
) -> Rows:
    """The latents of one section each of the pool's scenes `rows`; `ends` numbers the end picture if one is seen."""

    def read(frames_of: Callable[[Section], Sequence[int | None]]) -> np.ndarray:
        videos = []
        for row, section, end in zip(rows, sections, ends, strict=True):
            frames = [
                np.zeros_like(pool.latents[row, 0]) if frame is None
                else pool.ends[row, end] if end is not None and frame == 1 + WINDOW * (end + 1)
                else pool.latents[row, frame]
                for frame in frames_of(section)
            ]  # fmt: skip
            videos.append(np.stack(frames, 1))
        return np.stack(videos).astype(np.float32) * np.float32(scale)

    def slot(scale: int) -> tuple[np.ndarray, np.ndarray]:
        times = np.array([section.slots[scale].times for section in sections])
        return read(lambda section: section.slots[scale].frames), times

    window_times = np.array([section.times for section in sections])
    clean = {scale: slot(scale) for scale in sections[0].slots}
    return Rows(read(lambda section: section.frames), window_times, clean)


def shifted(levels: np.ndarray, shift: float = SHIFT) -> np.ndarray:
    """Noise levels moved towards noise, as the schedule is."""
    return shift * levels / (1 + (shift - 1) * levels)


def blurred(latents: np.ndarray, blur: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A little noise on the history, if there is one: what was generated is never quite clean."""
    there = np.abs(latents).max(axis=(1, 3, 4), keepdims=True) > 0
    return latents + there * blur * rng.standard_normal(latents.shape, np.float32)
