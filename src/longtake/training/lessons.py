"""Lessons: one section of one example, with all that is drawn for it, and what may be done to it before it is learnt.

Each option is one small function from a lesson to a lesson. A lesson's random numbers are its own, from the seed and
the number of its row, so that the same row is the same lesson in a batch of any size and in any process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from longtake.plan.plans import Plan, Section, kind_named
from longtake.training.examples import Example, Told
from longtake.training.levels import drawn
from longtake.training.objective import Read, shape_of
from longtake.training.order import Row
from longtake.training.settings import Settings

OFTEN = 64
"""Tries to find a section that goes into a batch with the first one."""


@dataclass(frozen=True)
class Lesson:
    """One section to learn: what it makes and sees, read by `read`; what it is told; its noise and that one's level."""

    example: Example
    plan: Plan
    made: int
    """The place of the section in the plan's order of generation."""
    section: Section
    read: Read
    told: Told
    image_states: np.ndarray
    noise: np.ndarray
    level: float
    rng: np.random.Generator

    @property
    def anchors(self) -> frozenset[int]:
        """The frames that are given, to which nothing is done."""
        return frozenset(self.plan.anchors)

    @property
    def shape(self) -> tuple[tuple[int, int], ...]:
        """The numbers of frames that it makes and sees: equal in one batch."""
        return shape_of(self.section)


def lesson(
    row: Row, example: Example, sampling: str, settings: Settings, shift: float, like: Lesson | None = None
) -> Lesson:
    """The lesson of a row: the section of the plan that stands where the row's place stands in the example.

    `like` is a lesson of the same batch, whose section sees as much.
    """
    rng = np.random.default_rng((settings.seed, 1, row.number))
    frames = example.latents.shape[1]
    # Where the plan has another number of sections than the example has places, the place says how far on.
    along = (row.place + float(rng.random())) / row.places
    shows_end = settings.key_frames > 0 and kind_named(sampling).sees_end and frames > 1
    if shows_end and rng.random() < settings.key_frames:
        plan, made = ending(sampling, settings.window, (frames - 1) // settings.window, rng)
    else:
        plan = kind_named(sampling).lay_out(max(1, (frames - 1) // settings.window), settings.window, False)
        made = min(int(along * len(plan)), len(plan) - 1)
    section = plan[made]
    found = Lesson(
        example, plan, made, alone(section) if frames == 1 else section, reading(example, plan),
        example.told_in(section.frames), example.image_states, np.zeros(0), 0.0, rng,
    )  # fmt: skip
    for _ in range(OFTEN):
        if like is None or found.shape == like.shape:
            break
        made = int(rng.integers(len(plan)))
        found = replace(found, made=made, section=plan[made], told=example.told_in(plan[made].frames))
    shape = (example.latents.shape[0], len(found.section.frames), *example.latents.shape[2:])
    level = drawn(settings.timestep_sampling, shift, rng)
    return replace(found, noise=rng.standard_normal(shape, np.float32), level=level)


def reading(example: Example, plan: Plan) -> Read:
    """Reads the example's frames; one that is given behind its end is the last that it has."""
    last = example.latents.shape[1] - 1
    given = {frame: min(frame, last) for frame in plan.anchors}
    return lambda frames: example.read(
        frame if frame is None else given.get(frame, frame) for frame in frames
    )


def ending(sampling: str, window: int, most: int, rng: np.random.Generator) -> tuple[Plan, int]:
    """A plan that ends at a random later frame, which is shown, and the place of a section that sees it."""
    plan = kind_named(sampling).lay_out(int(rng.integers(1, most + 1)), window, True)
    shown = max(plan.anchors)
    sees = [
        place
        for place, section in enumerate(plan)
        if any(shown in slot.frames for slot in section.slots.values())
    ]
    return plan, sees[int(rng.integers(len(sees)))]


def alone(section: Section) -> Section:
    """The section for a picture alone: it makes that one frame, at the time of its first, and sees nothing."""
    slots = {scale: replace(slot, frames=(None,) * len(slot.frames)) for scale, slot in section.slots.items()}
    return replace(section, frames=(0,), times=section.times[:1], slots=slots)


# What may be done to a lesson -----------------------------------------------------------------------------------------


def without_picture(one: Lesson) -> Lesson:
    """Text to video: the first picture is blank wherever it is seen, and so are the picture's states."""

    def read(frames: Sequence[int | None]) -> np.ndarray:
        return one.read([None if frame == 0 and 0 not in one.section.frames else frame for frame in frames])

    return replace(one, read=lambda frames: read(list(frames)), image_states=np.zeros_like(one.image_states))


def without_prompt(one: Lesson, empty: Told) -> Lesson:
    """The empty prompt, which classifier-free guidance compares with."""
    return replace(one, told=empty)
