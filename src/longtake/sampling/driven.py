"""A solver that asks a scheduler of the field for each step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from longtake.errors import JobError, ModelError
from longtake.sampling.schedule import Schedule, mu_of
from longtake.sampling.solvers import Array, Step, Steps, Velocity

Solve = Callable[[Velocity, Array], Steps]
"""A solver that has its sigmas already."""


def driven(scheduler: Any, sigmas: Sequence[float] | np.ndarray, tokens: float, device: Any) -> Solve:
    """A solver over `sigmas` (before the scheduler's shift, without the last 0) that calls `scheduler.step`.

    Each run of the solver begins with `set_timesteps`, as the field's pipelines do; `tokens` of the window decide a
    dynamic shift. It is this very object that is driven: its `step_index` and `timesteps` move. Two runs at the same
    time need one scheduler each, so who shares a scheduler copies it (`copy.deepcopy`) before.

    Raises JobError if the scheduler is not one of flow matching, which would make another video than its name says.
    """
    _check(scheduler)
    levels = np.array(sigmas, dtype=np.float64)
    mu = mu_of(scheduler.config, tokens)

    def begin() -> None:
        scheduler.set_timesteps(sigmas=levels, device=device, mu=mu)
        if len(scheduler.timesteps) != len(levels):
            raise JobError(
                f"{type(scheduler).__name__} makes {len(scheduler.timesteps)} timesteps of {len(levels)} sigmas; "
                "a scheduler that calls the network once for each sigma is needed."
            )

    def solve(velocity: Velocity, latents: Array) -> Steps:
        begin()
        training = scheduler.config["num_train_timesteps"]
        # Read once: on an accelerator each reading waits for it.
        seen, noise = scheduler.timesteps.tolist(), scheduler.sigmas.tolist()
        for index, timestep in enumerate(scheduler.timesteps):
            slope = velocity(latents, seen[index] / training)
            denoised = latents - noise[index] * slope
            latents = scheduler.step(slope, timestep, latents, return_dict=False)[0]
            sent = yield Step(index, noise[index], latents, denoised)
            latents = latents if sent is None else sent

    begin()  # so that what the scheduler refuses is refused before anything is computed
    return solve


def schedule_of(scheduler: Any) -> Schedule:
    """The schedule that a scheduler's settings describe, so that a job can ask for another solver or shift over it.

    Raises JobError if it has none that is known here.
    """
    if isinstance(scheduler, Schedule):
        return scheduler
    own = getattr(scheduler, "schedule", None)
    if isinstance(own, Schedule):
        return own
    try:
        return Schedule.read(dict(scheduler.config), type(scheduler).__name__)
    except ModelError as error:
        raise JobError(
            f"The job names a solver or a shift, which a {type(scheduler).__name__} cannot take on ({error}); "
            "leave them out, or give another scheduler."
        ) from error


def _check(scheduler: Any) -> None:
    name = type(scheduler).__name__
    missing = [word for word in ("set_timesteps", "step", "config") if not hasattr(scheduler, word)]
    if missing:
        raise JobError(f"{name} is no scheduler: it has no {missing[0]}.")
    advice = "take FlowMatchEulerDiscreteScheduler, or UniPCMultistepScheduler with use_flow_sigmas."
    try:
        inspect.signature(scheduler.set_timesteps).bind(sigmas=(), device=None, mu=0.0)
    except TypeError as error:
        raise JobError(
            f"{name} is no scheduler for flow matching: its set_timesteps does not take the sigmas and mu of FramePack "
            f"({error}); {advice}"
        ) from None
    wanted = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    for key, value in wanted.items():
        found = scheduler.config.get(key, value)
        if found != value:
            raise JobError(f"{name} with {key} = {found!r} is no scheduler for flow matching; {advice}")
