"""Histories that the model makes itself, as in sampling it sees nothing else: its own rollout, and that one reversed.

Everything here runs without gradients, and gives a lesson for the same objective as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from longtake.backend import ops, runtime
from longtake.plan.plans import Plan
from longtake.training.examples import Told
from longtake.training.lessons import Lesson
from longtake.training.levels import shifted
from longtake.training.objective import Read, Velocity, gather

Network = Callable[[Sequence[Lesson]], Velocity]
"""The velocity of the network that is told what these lessons are told."""


def rolled(network: Network, one: Lesson, steps: int, shift: float) -> np.ndarray:
    """Latents (C, T, h, w) of the lesson's section as the network makes it, by so many steps of Euler's method."""
    levels = shifted(np.linspace(1.0, 0.0, steps + 1), shift)
    rows = gather([one.read], [one.section])
    latents = one.rng.standard_normal(rows.window.shape, np.float32)
    with runtime.no_grad():
        velocity = network([one])
        for level, following in pairwise(levels.tolist()):
            found = ops.to_numpy(velocity(latents, np.full(1, level, np.float32), rows).float())
            latents = latents + np.float32(following - level) * found
    return latents[0].astype(np.float32)


def with_own_history(network: Network, one: Lesson, sections: int, steps: int, shift: float) -> Lesson:
    """The lesson, with the last `sections` that are made before its own as the network makes them.

    The first of them sees the video's true frames, and each later one what was made before it.
    """
    made: dict[int, np.ndarray] = {}
    read = over(one.read, made)
    for place in range(max(0, one.made - sections), one.made):
        section = one.plan[place]
        before = replace(one, section=section, made=place, read=read, told=_told(one, section.frames))
        latents = rolled(network, before, steps, shift)
        made |= {frame: latents[:, number] for number, frame in enumerate(section.frames)}
    return replace(one, read=read)


def backwards(network: Network, one: Lesson, steps: int, shift: float) -> Lesson:
    """The lesson to go back from what the network made to what is true (BAgger, arXiv 2512.12080).

    The network makes one section from true frames; then the video is turned round in time, so that the frames which it
    saw come after those which it made, and are what is learnt. A lesson whose plan has no such two sections stays.

    Unlike the paper: one section is made and not a long rollout, latent frames are turned and not pixels (inside a
    latent frame time runs forward still), and the picture that is given is the video's own last latent frame.
    """
    pairs = turned_pairs(one.plan)
    if not pairs:
        return one
    first, place = pairs[int(one.rng.integers(len(pairs)))]
    section = one.plan[first]
    before = replace(one, section=section, made=first, told=_told(one, section.frames))
    latents = rolled(network, before, steps, shift)
    made = {frame: latents[:, number] for number, frame in enumerate(section.frames)}
    back = replace(one, section=one.plan[place], made=place, read=turned(over(one.read, made), one.plan))
    return back if back.shape == one.shape else one


def turned_pairs(plan: Plan) -> list[tuple[int, int]]:
    """Places of (a section, the one that makes in the turned video what it saw there, and sees it), by the order made.

    >>> from longtake.plan.plans import inverted, vanilla
    >>> turned_pairs(vanilla(3)), turned_pairs(inverted(2)), turned_pairs(vanilla(1))
    ([(1, 2), (2, 1)], [(1, 1)], [])
    """
    found = []
    for place in range(1, len(plan)):
        section = plan[place]
        mirrored = len(plan) - 1 - section.number
        for number in plan.sources(section):
            if abs(number - section.number) == 1:
                other = plan.made_at(len(plan) - 1 - number)
                if mirrored in plan.sources(plan[other]):
                    found.append((place, other))
    return found


def turned(read: Read, plan: Plan) -> Read:
    """The reader of the video that runs backwards; its frame 0 is the last one of the plan."""
    last = max(max(section.frames) for section in plan)

    def reading(frames: Iterable[int | None]) -> np.ndarray:
        return read(None if frame is None else last if frame == 0 else last + 1 - frame for frame in frames)

    return reading


def over(read: Read, made: dict[int, np.ndarray]) -> Read:
    """A reader that gives the frames that are `made` in the place of the video's own."""

    def reading(frames: Iterable[int | None]) -> np.ndarray:
        asked = list(frames)
        found = np.array(read(asked))
        for number, frame in enumerate(asked):
            if frame in made:
                found[:, number] = made[frame]
        return found

    return reading


def _told(one: Lesson, frames: Sequence[int]) -> Told:
    """The prompt of another section of the lesson's video; an empty prompt stays empty."""
    own = one.told is one.example.told_in(one.section.frames)
    return one.example.told_in(frames) if own else one.told
