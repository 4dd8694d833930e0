"""Schedulers of the field, known by what they do."""

from typing import ClassVar

import numpy as np
import pytest

from longtake.errors import JobError
from longtake.sampling.driven import driven, schedule_of
from longtake.sampling.schedule import FlowMatchEuler


class Field:
    """A scheduler of flow matching, as diffusers' behave."""

    config: ClassVar = {
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
    }

    def __init__(self):
        self.step_index = None
        self.told = []

    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, mu=None):
        self.told.append((list(sigmas), device, mu))
        self.sigmas, self.timesteps = np.append(sigmas, 0.0), np.asarray(sigmas) * 1000
        self.step_index = 0

    def step(self, model_output, timestep, sample, return_dict=True):
        self.step_index += 1
        change = self.sigmas[self.step_index] - self.sigmas[self.step_index - 1]
        return (sample + change * model_output,)


def run(solve):
    return list(solve(lambda latents, sigma: latents + sigma, np.ones(2)))


def test_the_object_is_driven_itself():
    scheduler = Field()
    solve = driven(scheduler, [1.0, 0.5], 256, "cpu")
    places = []
    for step in solve(lambda latents, sigma: latents * 0 + sigma, np.ones(2)):
        places.append((scheduler.step_index, step.index, step.sigma, step.latents[0], step.denoised[0]))
    assert places == [(1, 0, 1.0, 0.5, 0.0), (2, 1, 0.5, 0.25, 0.25)]
    # Asked at once, and again where the section begins.
    assert [told[:2] for told in scheduler.told] == [([1.0, 0.5], "cpu")] * 2
    assert scheduler.told[0][2] == pytest.approx(0.5)  # mu of 256 tokens


def test_sent_latents_take_the_place():
    steps = driven(Field(), [1.0, 0.5], 256, None)(lambda latents, sigma: latents * 0, np.ones(2))
    next(steps)
    assert steps.send(np.full(2, 7.0)).latents.tolist() == [7.0, 7.0]


def test_no_reading_of_a_tensor_for_each_step():
    class Tensor(np.ndarray):
        read = 0

        def tolist(self):
            Tensor.read += 1
            return super().tolist()

        def __float__(self):
            raise AssertionError("reading one timestep after the other waits for the accelerator")

    class Accelerated(Field):
        def set_timesteps(self, sigmas=None, device=None, mu=None):
            super().set_timesteps(None, device, sigmas, mu)
            self.sigmas, self.timesteps = self.sigmas.view(Tensor), self.timesteps.view(Tensor)

    run(driven(Accelerated(), [1.0, 0.7, 0.2], 256, None))
    assert Tensor.read == 2


def altered(**changes):
    return type("DDIMScheduler", (Field,), changes)()


@pytest.mark.parametrize(
    ("scheduler", "says"),
    [
        (
            altered(set_timesteps=lambda self, steps, device=None: None),
            "DDIMScheduler is no scheduler for flow",
        ),
        (altered(set_timesteps=lambda self, sigmas=None, device=None: None), "'mu'"),
        (altered(set_timesteps=lambda self, steps, sigmas=None, device=None, mu=None: None), "'steps'"),
        (altered(config={**Field.config, "prediction_type": "epsilon"}), "prediction_type = 'epsilon'"),
        (altered(config={**Field.config, "use_flow_sigmas": False}), "use_flow_sigmas = False"),
        (object(), "object is no scheduler: it has no set_timesteps"),
    ],
)
def test_what_is_no_flow_is_refused_before_anything_is_computed(scheduler, says):
    with pytest.raises(JobError, match=says):
        driven(scheduler, [1.0, 0.5], 256, None)


def test_two_calls_for_one_sigma_are_refused():
    class Heun(Field):
        def set_timesteps(self, sigmas=None, device=None, mu=None):
            super().set_timesteps(None, device, np.repeat(sigmas, 2), mu)

    with pytest.raises(JobError, match="Heun makes 4 timesteps of 2 sigmas"):
        driven(Heun(), [1.0, 0.5], 256, None)


def test_the_schedule_behind_a_scheduler():
    schedule = FlowMatchEuler(shift=7.0)
    assert schedule_of(schedule) is schedule
    stock = type("FlowMatchEulerDiscreteScheduler", (Field,), {"config": schedule.settings()})()
    assert schedule_of(stock) == schedule
    with pytest.raises(JobError, match="names a solver or a shift, which a Field cannot take on"):
        schedule_of(Field())
