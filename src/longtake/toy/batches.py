"""The data for one step of the transformer's training, drawn in numpy: sections of the pool's scenes, and noise.

A step is a few groups. The sections of a group come from one kind of plan, since they must see as much as each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from longtake.plan.lengths import WINDOW, shown_frames
from longtake.plan.plans import PLANS, Section
from longtake.sampling.codebooks import Codebook
from longtake.sampling.treatments import Treatment, discrete
from longtake.toy.pool import Pool
from longtake.toy.scenes import SECTIONS, told
from longtake.training.objective import Read, Rows, gather, treated

SHIFT = 2.0
DROPPED_PROMPTS = 0.1
HISTORY_NOISE = 0.15
DISCRETE = 0.15
"""The share of the groups that see a discrete history, of some number of codes; the others see it with noise."""
GROUPS = 3
ENDS = 0.2
"""The part of the sections that go to a last picture, of those whose plan can."""
FAR = 20
"""In a scene whose picture is from long before, sections behind this frame are learned: they see nothing between."""
OTHER_WINDOWS = 0.2
"""The share of the groups whose sections are shorter or longer than others, as they are next to a change."""
WINDOWS = (4, 13)
"""The least and the most latent frames of such a section."""
GUIDANCE = (1000, 12000)
"""Guidance, in thousandths, is drawn between these: the networks are not distilled, and learn not to mind it."""
PICTURE = "picture"
"""The picture itself, from its prompt alone: a group of its own beside those of the plans."""
SHARES = {
    "inverted": 0.24,
    "vanilla": 0.24,
    "endpoint": 0.14,
    "planned": 0.14,
    "unanchored": 0.08,
    "repeat": 0.05,
    "sliding": 0.05,
    PICTURE: 0.06,
}
"""The share of each kind of plan in the groups; kinds of one structure are one."""


@dataclass(frozen=True)
class Lesson:
    """One section of a scene in the pool.

    `end` is the number of the end picture that its video goes to; `pictured` tells if the video begins with a picture.
    """

    row: int
    section: Section
    end: int | None = None
    pictured: bool = True

    @property
    def anchors(self) -> frozenset[int]:
        """The latent frames that are given."""
        return frozenset({0} if self.end is None else {0, _behind(self.end)})


@dataclass(frozen=True)
class Batch:
    """B sections that see as much as each other: which they are, what they see, their noise and its level, prompts."""

    lessons: tuple[Lesson, ...]
    seen: Rows
    noise: np.ndarray
    level: np.ndarray
    guidance: np.ndarray
    prompts: tuple[str, ...]


def draw_step(
    pool: Pool, rows: np.ndarray, scale: float, rng: np.random.Generator, codebook: Codebook
) -> list[Batch]:
    """A section for each of the pool's scenes `rows`, in groups, at levels of noise that are evenly spread."""
    kinds = rng.choice(list(SHARES), GROUPS, p=list(SHARES.values()))
    level = shifted((rng.permutation(len(rows)) + rng.random(len(rows))) / len(rows)).astype(np.float32)
    groups = zip(kinds, np.array_split(rows, GROUPS), np.array_split(level, GROUPS), strict=True)
    return [
        draw_batch(pool, str(kind), group, part, scale, rng, draw_treatment(codebook, rng))
        for kind, group, part in groups
        if len(group)
    ]


def draw_batch(
    pool: Pool,
    kind: str,
    rows: np.ndarray,
    level: np.ndarray,
    scale: float,
    rng: np.random.Generator,
    treatment: Treatment,
) -> Batch:
    """A section of a random plan of this kind for each of the pool's scenes `rows`."""
    window = int(rng.integers(WINDOWS[0], WINDOWS[1] + 1)) if rng.random() < OTHER_WINDOWS else WINDOW
    lessons = tuple(draw_lesson(kind, int(row), bool(pool.starts[row]), rng, window) for row in rows)
    sections, anchors = [lesson.section for lesson in lessons], [lesson.anchors for lesson in lessons]
    seen = treated(clean_rows(pool, lessons, scale), sections, treatment, rng, anchors)
    noise = rng.standard_normal(seen.window.shape, np.float32)
    prompts = tuple(
        "" if rng.random() < DROPPED_PROMPTS and lesson.pictured else _prompt(pool, lesson, rng)
        for lesson in lessons
    )
    guidance = rng.uniform(*GUIDANCE, len(rows)).astype(np.float32)
    return Batch(lessons, seen, noise, level, guidance, prompts)


def draw_lesson(kind: str, row: int, far: bool, rng: np.random.Generator, window: int = WINDOW) -> Lesson:
    """One section of a random plan of this kind; of a far scene one of those that see nothing near the picture."""
    if kind == PICTURE:
        return Lesson(row, Section(0, (0,), (0,), {}), pictured=False)
    plan = PLANS[kind]
    most = SECTIONS * WINDOW // window
    count = most if far else min(most, int(rng.choice([1, 2, 3, 4, 5], p=[0.05, 0.1, 0.15, 0.4, 0.3])))
    # The pool has the pictures behind sections of the usual length alone.
    end = count - 1 if plan.sees_end and window == WINDOW and rng.random() < ENDS else None
    laid = plan.lay_out(count, window, end is not None)
    number = int(rng.integers(-(-FAR // window) if far else 0, count))
    return Lesson(row, laid[laid.made_at(number)], end)


def clean_rows(pool: Pool, lessons: tuple[Lesson, ...], scale: float) -> Rows:
    """The latents that the lessons make and see, as the pool has them."""

    def reader(lesson: Lesson) -> Read:
        def read(frames: Iterable[int | None]) -> np.ndarray:
            found = np.stack([_frame(pool, lesson, frame) for frame in frames], 1)
            return found.astype(np.float32) * np.float32(scale)

        return read

    return gather([reader(lesson) for lesson in lessons], [lesson.section for lesson in lessons])


def draw_treatment(codebook: Codebook, rng: np.random.Generator) -> Treatment:
    """The treatment of a group's history: a discretisation, or else a little noise."""
    pairs = sorted(codebook.pairs)
    count, groups = pairs[int(rng.integers(len(pairs)))]
    return discrete(codebook.of(count, groups), groups) if rng.random() < DISCRETE else blurred


def _frame(pool: Pool, lesson: Lesson, frame: int | None) -> np.ndarray:
    if frame is None:
        return np.zeros_like(pool.latents[lesson.row, 0])
    if lesson.end is not None and frame == _behind(lesson.end):
        return np.asarray(pool.ends[lesson.row, lesson.end])
    return np.asarray(pool.latents[lesson.row, frame])


def _behind(end: int) -> int:
    """The latent frame that the end picture with this number is: the one behind its section."""
    return 1 + WINDOW * (end + 1)


def _prompt(pool: Pool, lesson: Lesson, rng: np.random.Generator) -> str:
    """The prompt that says what the middle of the section shows, as in a job whose prompts change."""
    shown = shown_frames(lesson.section.frames[len(lesson.section.frames) // 2])
    start = int(pool.starts[lesson.row]) if lesson.pictured else 0
    return told(pool.scenes[lesson.row], start + shown[len(shown) // 2], rng)


def rows_at(step: int, size: int, count: int, seed: int) -> np.ndarray:
    """The numbers below `size` of batch number `step`; over the batches each comes once before any comes again."""
    first = step * count
    laps = range(first // size, (first + count - 1) // size + 1)
    order = np.concatenate([np.random.default_rng((seed, lap)).permutation(size) for lap in laps])
    begin = first - size * laps[0]
    return order[begin : begin + count]


def shifted(levels: np.ndarray, shift: float = SHIFT) -> np.ndarray:
    """Noise levels moved towards noise, as the schedule is."""
    return shift * levels / (1 + (shift - 1) * levels)


def blurred(latents: np.ndarray, made: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A little noise on the history, for each row as much as is drawn: what was generated is never quite clean."""
    blur = HISTORY_NOISE * rng.random(len(latents)).astype(np.float32)[:, None, None, None, None]
    return latents + made[:, None, :, None, None] * blur * rng.standard_normal(latents.shape, np.float32)
