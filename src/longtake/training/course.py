"""The course of a fine-tuning: step after step, with checkpoints, sample sheets and a log; told as events.

A step draws its random numbers from the seed and its own number alone. So a run that was stopped, at whatever moment,
and goes on from its checkpoint is bit for bit the run that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from longtake.backend import training
from longtake.training.learning import Learning
from longtake.training.output import Output
from longtake.training.records import Records
from longtake.training.settings import Settings


@dataclass(frozen=True)
class Surveyed:
    """The survey of the data and the part that is to be encoded, in sentences."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Reckoned:
    """The memory that the training needs, in sentences."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Encoding:
    """So many of all examples, or prompts, that were to be encoded are; `note` says what is unusual with the last."""

    kind: str
    done: int
    total: int
    note: str


@dataclass(frozen=True)
class Loading:
    """The model is read now."""

    model: str


@dataclass(frozen=True)
class Began:
    """The learning begins: `steps` of the whole run, of which `done` are done; so many numbers learn."""

    steps: int
    done: int
    learning: int
    examples: int
    lap: int
    """Steps of an epoch."""


@dataclass(frozen=True)
class Learnt:
    """A step is done: its number from 1 on, its mean error, the norm of its gradient and its rate."""

    step: int
    loss: float
    gradient: float
    rate: float
    seconds_left: float | None


@dataclass(frozen=True)
class Saved:
    """A checkpoint is written, and the result so far if there is one."""

    step: int
    file: Path


@dataclass(frozen=True)
class Sampled:
    """A sample sheet is written."""

    step: int
    file: Path


@dataclass(frozen=True)
class Finished:
    """The last event: the steps, the last means, and the result."""

    step: int
    figures: dict[str, float]
    file: Path


Event = Surveyed | Reckoned | Encoding | Loading | Began | Learnt | Saved | Sampled | Finished


@dataclass
class Course:
    """One run, from where it stands to its end. `write` writes the result into a folder and gives its place.

    `sheets` makes the sample sheets of a step and gives their files; `open_logs` gives, for the step that a run begins
    at, the logs that are told every line; `around` is entered around the arithmetic of each step. `company` is the
    processes that learn together, or None.
    """

    learning: Learning
    optimiser: Any
    output: Output
    records: Records
    steps: int
    write: Callable[[Path], Path]
    sheets: Callable[[int], Iterator[Path]]
    open_logs: Callable[[int], Sequence[Any]] = lambda step: ()
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    company: Any = None
    last: dict[str, float] = field(default_factory=dict)
    logs: Sequence[Any] = ()

    @property
    def writes(self) -> bool:
        """Tell if this process writes files, for itself or for all."""
        return self.company is None or self.company.first

    @property
    def settings(self) -> Settings:
        """The settings of the run."""
        return self.learning.settings

    def state(self) -> dict[str, Any]:
        """The state beside tensors that the steps to come follow from: the step's number and the settings alone."""
        return {"settings": self.settings.values(), "last": self.last}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on after this state; the folder has checked the settings already."""
        self.last = state["last"]

    def run(self) -> Generator[Event, None, None]:
        """Learn. To stop is to close the iterator: what was learnt is saved then, and the next run goes on there."""
        self.records.begin(self.optimiser, self, self.settings.seed, True, self.writes)
        first, saved = self.optimiser.steps, self.optimiser.steps
        self.logs = self.open_logs(first) if self.writes else ()
        began, earlier = time.monotonic(), self.records.seconds
        yield self._began(first)
        try:
            while True:
                step = self.optimiser.steps
                self.records.seconds = earlier + time.monotonic() - began
                if step != saved and (step % self.settings.save_every == 0 or step == self.steps):
                    saved = step
                    yield Saved(step, self.save())
                yield from self._on_the_way(step)
                if step >= self.steps:
                    break
                loss, norm, rate = self.step(step)
                done = self.optimiser.steps - first
                left = (time.monotonic() - began) / done * (self.steps - self.optimiser.steps)
                yield Learnt(step + 1, loss, norm, rate, left)
        except GeneratorExit:
            # What is shared out can be brought together by all processes alone.
            if self.optimiser.steps != saved and not (self.company is not None and self.company.shares):
                self.records.seconds = earlier + time.monotonic() - began
                self.save()
            raise
        yield Finished(step, self.last or self.records.present(), self.finish())

    def _began(self, done: int) -> Began:
        numbers = sum(math.prod(each.shape) for each in self.optimiser.parameters.values())
        order = self.learning.order
        return Began(self.steps, done, numbers, len(self.learning.examples), order.lap)

    def step(self, step: int) -> tuple[float, float, float]:
        """One step of the optimiser: the mean error of its rows, the norm of the gradient, the rate."""
        batches, company = self.learning.batches(step), self.company
        rows, total = sum(map(len, batches)), 0.0
        for number, lessons in enumerate(batches):
            training.seed_everything(seed_of(self.settings.seed, step, number + self.learning.before))
            joined = nullcontext() if company is None else company.adding(number == len(batches) - 1)
            # Blocks that run twice run again for the gradient.
            with self.around(), joined:
                errors = self.learning.errors(lessons)
                self.optimiser.add(errors.sum() / rows)
            total += float(errors.detach().sum()) / rows
        total = total if company is None else company.total(total) / company.size
        rate = rate_at(self.settings, step, self.steps)
        norm = self.optimiser.update(total, rate, self.settings.clip)
        self.records.add({"loss": total, "gradient": norm})
        if self.records.counted == self.settings.log_every:
            self.last = {"rate": rate, **self.records.means()}
            if not self.writes:
                return total, norm, rate
            self.records.write(step + 1, self.last)
            for log in self.logs:
                log.write(step + 1, self.last)
        return total, norm, rate

    def save(self) -> Path:
        """Write the checkpoint, and the result so far unless that is a whole model."""
        self.records.save(self.optimiser, self, self.settings.seed, self.writes)
        if self.settings.whole:
            return self.records.checkpoint
        with self.optimiser.averaged():
            return self.write(self.output.folder)

    def _on_the_way(self, step: int) -> Generator[Event, None, None]:
        """The copies that stay and the sample sheets of a step, unless they are there already."""
        settings = self.settings
        kept = self.output.kept(step)
        if settings.keep_every and step and step % settings.keep_every == 0 and not kept.exists():
            with self.optimiser.averaged():
                yield Saved(step, self.write(kept))
        if step % (settings.sample_every or settings.save_every) == 0 or step == self.steps:
            with self.optimiser.averaged():
                for file in self.sheets(step):
                    yield Sampled(step, file)

    def finish(self) -> Path:
        """Write the result at the end."""
        for log in self.logs:
            log.close()
        with self.optimiser.averaged():
            return self.write(self.output.folder)


def rate_at(settings: Settings, step: int, steps: int) -> float:
    """The learning rate of a step: linear up to `lr` over the warm-up, then constant, or down half a cosine to 0.

    >>> [round(rate_at(Settings(lr=1.0, warmup=2, schedule="cosine"), step, 6), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.lr
    along = (step - settings.warmup) / max(1, steps - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * along))


def seed_of(*numbers: int) -> int:
    """A seed for the framework's own generator from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1
