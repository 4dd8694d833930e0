"""The task of a fine-tuning at each step: the lessons of its rows, and their errors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from longtake.backend import ops, runtime, training
from longtake.errors import JobError
from longtake.pipeline.encode import Text
from longtake.plan.plans import PLANS, kind_named
from longtake.sampling.treatments import Treatment
from longtake.training import objective, selfmade
from longtake.training.examples import Examples, Told
from longtake.training.lessons import Lesson, lesson, without_picture, without_prompt
from longtake.training.objective import Velocity
from longtake.training.order import Order, Row
from longtake.training.settings import Settings


class Learning:
    """The lessons of every step, and the error of the network in them.

    `empty` is the empty prompt (needed if prompts are dropped); `treatment` is done to the history of every lesson;
    `samplings` are the plans whose sections are learnt.
    """

    def __init__(
        self,
        transformer: Any,
        examples: Examples,
        settings: Settings,
        samplings: Sequence[str],
        shift: float,
        empty: Told | None = None,
        treatment: Treatment | None = None,
        company: Any = None,
    ) -> None:
        check(settings, samplings)
        self.company = company
        rows = settings.rows * (1 if company is None else company.size)
        self.device = transformer.device if company is None else company.device
        self.dtype = runtime.dtype_name(transformer.dtype)
        self.transformer, self.examples, self.settings = transformer, examples, settings
        self.samplings, self.shift, self.empty = tuple(samplings), shift, empty
        self.treatment = treatment
        self.order = Order(examples, settings.window, rows, settings.seed)

    @property
    def before(self) -> int:
        """The batches of a step that other processes learn from before this one's."""
        return 0 if self.company is None else self.company.rank * self.settings.accumulate

    def lessons(self, step: int) -> list[Lesson]:
        """This process's lessons of a step, all from sections of one plan and of equal shape."""
        chosen = np.random.default_rng((self.settings.seed, 2, step)).integers(len(self.samplings))
        sampling = self.samplings[int(chosen)]
        rows = self.order.at(step)

        def of(row: Row, like: Lesson | None) -> Lesson:
            return lesson(row, self.examples[row.example], sampling, self.settings, self.shift, like)

        first = of(rows[0], None)
        own = rows if self.company is None else rows[self.company.part(len(rows))]
        return [first if row is rows[0] else of(row, first) for row in own]

    def varied(self, one: Lesson) -> Lesson:
        """A lesson with what the options do to it, each by its chance."""
        settings = self.settings
        chances = one.rng.random(3)
        if chances[0] < settings.drop_picture:
            one = without_picture(one)
        if chances[1] < settings.drop_prompt and self.empty is not None:
            one = without_prompt(one, self.empty)
        if chances[2] < settings.self_made:
            made = (settings.self_made_sections, settings.self_made_steps, self.shift)
            return selfmade.with_own_history(self.network, one, *made)
        if chances[2] < settings.self_made + settings.bagger:
            return selfmade.backwards(self.network, one, settings.self_made_steps, self.shift)
        return one

    def batches(self, step: int) -> list[list[Lesson]]:
        """The lessons of a step in the batches that the network takes one after the other."""
        found, size = self.lessons(step), self.settings.batch
        return [found[start : start + size] for start in range(0, len(found), size)]

    def errors(self, lessons: Sequence[Lesson]) -> Any:
        """(B,): the mean squared error of the velocity of each lesson."""
        with self.arithmetic():
            varied = [self.varied(one) for one in lessons]
            return objective.loss(
                self.network(varied),
                [one.section for one in varied],
                [one.read for one in varied],
                np.stack([one.noise for one in varied]),
                np.array([one.level for one in varied], np.float32),
                self.treatment,
                [one.rng for one in varied],
                [one.anchors for one in varied],
            )

    def network(self, lessons: Sequence[Lesson]) -> Velocity:
        """The velocity of the transformer that is told what these lessons are told."""
        told = padded([one.told for one in lessons])
        guidance = np.full(len(lessons), 1000 * self.settings.guidance, np.float32)
        states, mask, pooled = (self._put(part) for part in told)
        seen = self._put(np.stack([one.image_states for one in lessons]))
        return objective.of_transformer(self.transformer, states, mask, pooled, seen, guidance)

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Inside, the network computes in the precision that was asked for.

        Of a network in 16 bits that is its own: mixed precision would take its norms, and all that is kept of them for
        the gradient, in float32.
        """
        wanted = precision_of(self.settings.precision, self.device) if self.dtype == "float32" else "float32"
        return training.autocast(wanted, self.device, not self.settings.gradient_checkpointing)

    def _put(self, array: np.ndarray) -> Any:
        return runtime.place(ops.from_numpy(array), self.device)


def check(settings: Settings, samplings: Sequence[str]) -> None:
    """Raise JobError for an option that none of the plans can serve."""
    names = ", ".join(samplings)
    if settings.key_frames and not any(kind_named(name).sees_end for name in samplings):
        raise JobError(
            f"--key-frames shows a picture at the end, which {names} never sees; leave it out, or add a sampling that "
            f"does: {', '.join(name for name, kind in PLANS.items() if kind.sees_end)}."
        )
    for name in samplings:
        if settings.bagger and not selfmade.turned_pairs(kind_named(name).lay_out(4, settings.window, False)):
            raise JobError(
                f"--bagger learns a section from one that was made from it, and in {name} no section sees another so; "
                "leave it out, or take another sampling."
            )


def precision_of(asked: str, device: Any) -> str:
    """The dtype of the arithmetic on a device."""
    return runtime.auto_dtype(device) if asked == "auto" else asked


def padded(told: Sequence[Told]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States (B, N, D), masks (B, N) and pooled states (B, P) of prompts, all as long as the longest."""
    longest = max(len(one.mask) for one in told)

    def filled(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, longest - len(array)), *[(0, 0)] * (array.ndim - 1)])

    return (
        np.stack([filled(one.states) for one in told]).astype(np.float32),
        np.stack([filled(one.mask) for one in told]).astype(np.int64),
        np.stack([one.pooled for one in told]).astype(np.float32),
    )


def told_of(prompt: str, text: Text) -> Told:
    """A prompt, with the first row of its encodings as arrays."""
    states, mask, pooled = (ops.to_numpy(part[0]) for part in (text.states, text.mask, text.pooled))
    return Told(prompt, states, mask, pooled)
