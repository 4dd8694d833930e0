"""The denoising of one section: from noise, step by step, to latents that are finite."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from longtake.backend import exchange, ops, runtime
from longtake.errors import RunError
from longtake.events import Event, Stepped
from longtake.pipeline.caching import StepCache
from longtake.pipeline.correcting import Correcting
from longtake.pipeline.decode import is_finite, total
from longtake.pipeline.encode import Text
from longtake.pipeline.loras import set_strengths
from longtake.pipeline.placement import room_for
from longtake.pipeline.predict import Predictor
from longtake.pipeline.prepare import Request
from longtake.pipeline.voices import Voice
from longtake.plan.plans import Section
from longtake.sampling.driven import Solve, driven, schedule_of
from longtake.sampling.schedule import Schedule
from longtake.sampling.solvers import SOLVERS, Solver, Step, Steps, Velocity


@dataclass(frozen=True)
class Change:
    """A change that a consumer may `send` after a `Stepped` (`stop` also after a `SectionDone`).

    `latents` replace those of the section at hand; `prompt_states` hold from now on; `stop` makes no more steps, and
    the frames of the finished sections still come.
    """

    latents: Any = None
    prompt_states: Any = None
    stop: bool = False


@dataclass(frozen=True)
class Run:
    """The denoising of one section, the `made`-th in the order of generation."""

    request: Request
    predict: Predictor
    strengths: dict[str, float]
    made: int
    section: Section
    cache: StepCache | None = None
    correct: Correcting | None = None

    def denoise(
        self, text: Text, voices: Sequence[Voice], noise: np.ndarray
    ) -> Generator[Event, Change | None, tuple[Any, Text]]:
        """The section's latents from noise (B, C, T, h, w), and its text with what the consumer changed.

        Its text is that of all or some of its `voices`. The latents are None if the consumer stopped. Raises RunError
        if a step leaves what is not finite.
        """
        if self.cache is not None:
            self.cache.begin()
        said, told = [text], list(voices)
        networks = self.request.networks
        transformer = networks.part("transformer")

        @contextmanager
        def ready() -> Iterator[None]:
            # Another stream over the same networks may have changed them meanwhile, or taken their place.
            set_strengths(transformer, self.strengths)
            with networks.using("transformer"):
                yield

        def velocity(x: Any, sigma: float) -> Any:
            with ready():
                return self.predict.mixed(told, self.request.negative, x, sigma)

        latents = runtime.place(ops.from_numpy(noise), exchange.device_of(transformer))
        solve, steps = solver_of(self.request, noise.shape)
        self.predict.levels = levels = levels_of(self.request, noise.shape)
        solver, checked = solve(velocity, latents), Lagging(self.section.number, steps)
        extra = 0
        step = self._advance(solver, None, 0)
        while step is not None:
            checked.add(step)
            change = yield Stepped(
                self.made,
                step.index,
                steps,
                step.sigma,
                step.latents,
                step.denoised,
                *self._velocities(len(told), extra),
            )
            extra = 0
            latents, sent = step.latents, None
            if self.cache is not None and _replaces(change, step):
                self.cache.changed()
            if change is not None and change.stop:
                return None, said[0]
            if change is not None and change.prompt_states is not None:
                before, said[0] = said[0], replace(said[0], states=change.prompt_states)
                told[:] = [replace(one, text=said[0]) if one.text is before else one for one in told]
            if change is not None and change.latents is not None:
                latents = sent = runtime.place(change.latents, exchange.device_of(transformer), "float32")
            following = step.index + 1
            if self.correct is not None and self.correct.is_due(following, levels):
                with self._room(following), ready():
                    latents = sent = self.correct(told, self.request, latents, following, levels)
                extra = self._branches * len(told)
                if self.cache is not None:
                    self.cache.changed()
            step = self._advance(solver, sent, following)
        checked.finish()
        return latents, said[0]

    @property
    def _branches(self) -> int:
        """The branches of guidance: velocities of one voice in one step."""
        return 1 if self.request.negative is None else 2

    def _velocities(self, voices: int, extra: int) -> tuple[int, int]:
        """The number of velocities that the step took, and of those that the network computed; `extra` corrected it."""
        each = self._branches * voices
        asked, computed = (each, each) if self.cache is None else self.cache.taken()
        return asked + extra, computed + extra

    def _room(self, index: int) -> AbstractContextManager[None]:
        """Around what needs memory at this step."""
        number = self.section.number
        return room_for(f"step {index + 1} of section {number}", number, index)

    def _advance(self, solver: Steps, sent: Any, index: int) -> Step | None:
        with self._room(index):
            try:
                return solver.send(sent)
            except StopIteration:
                return None


def _replaces(change: Change | None, step: Step) -> bool:
    """Tell if a consumer's change is one: many send the very latents that they were shown."""
    if change is None:
        return False
    same = change.latents is None or change.latents is step.latents
    return change.prompt_states is not None or not same


class Lagging:
    """Checks that latents are finite, each step's after the next step has begun, so that the device never waits for us.

    A velocity that is not finite makes all later latents so too, so the error still names the first step that failed.
    """

    def __init__(self, section: int, steps: int) -> None:
        self._section, self._steps = section, steps
        self._last: tuple[int, Any] | None = None

    def add(self, step: Step) -> None:
        """Look at the step before, and remember this one."""
        self.finish()
        self._last = (step.index, total(step.latents))

    def finish(self) -> None:
        """Look at the last step."""
        if self._last is None:
            return
        (index, value), self._last = self._last, None
        if not is_finite(value):
            raise RunError(
                f"The numbers went wrong in section {self._section} at step {index + 1} of {self._steps}: the latents "
                "are not finite; the sections before it are unharmed, and another dtype or solver may help.",
                self._section,
                index,
            )


def solver_of(request: Request, shape: tuple[int, ...]) -> tuple[Solve, int]:
    """The solver over its schedule for latents of this shape, and how many steps it makes.

    The job's solver and shift go first. Else the scheduler decides: one that is data names a solver of ours, any other
    scheduler is asked for each step.
    """
    job, scheduler = request.job, request.scheduler
    if _is_driven(request):
        device = exchange.device_of(request.networks.part("transformer"))
        plain = _plain(request)
        return driven(scheduler, plain, _tokens(request, shape), device), len(plain)
    levels = _schedule(request).sigmas(sigmas=_plain(request), tokens=_tokens(request, shape))
    solver = SOLVERS[job.solver] if job.solver else _schedule(request).solve()
    return partial(_solved, solver, levels), len(levels) - 1


def levels_of(request: Request, shape: tuple[int, ...]) -> list[float]:
    """The noise levels of a section with latents of this shape, in their order; after `solver_of`."""
    if _is_driven(request):
        # By the same numbers as it is driven.
        training = request.scheduler.config["num_train_timesteps"]
        timesteps = exchange.array_of(request.scheduler.timesteps).tolist()
        return [timestep / training for timestep in timesteps]
    return _schedule(request).sigmas(sigmas=_plain(request), tokens=_tokens(request, shape))


def _is_driven(request: Request) -> bool:
    """Tell if the scheduler is no data of ours, and is asked for each step."""
    job = request.job
    return job.shift is None and job.solver is None and not isinstance(request.scheduler, Schedule)


def _plain(request: Request) -> list[float]:
    """The noise levels before the schedule's shift."""
    even = np.linspace(1.0, 0.0, request.job.steps + 1)[:-1]
    return [float(sigma) for sigma in (even if request.sigmas is None else request.sigmas)]


def _tokens(request: Request, shape: tuple[int, ...]) -> float:
    return float(np.prod(shape[2:])) / request.networks.part("transformer").config.patch_size ** 2


def _schedule(request: Request) -> Schedule:
    schedule = schedule_of(request.scheduler)
    return schedule if request.job.shift is None else schedule.shifted_by(request.job.shift)


def _solved(solver: Solver, levels: list[float], velocity: Velocity, latents: Any) -> Steps:
    return solver(velocity, latents, levels)
