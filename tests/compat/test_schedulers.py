import copy
import json
import pickle

import numpy as np
import pytest

from longtake.backend import ops, runtime
from longtake.compat.schedulers import (
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    scheduler_of,
)
from longtake.errors import JobError, ModelError
from longtake.sampling import sigmas
from longtake.sampling.solvers import euler

BOTH = pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler])


def test_euler_equals_our_solver():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, 9)[:-1])
    noise = ops.from_numpy(np.random.default_rng(0).standard_normal((1, 4, 2, 3, 3)).astype(np.float32))
    latents = noise
    for timestep in scheduler.timesteps:
        latents = scheduler.step(ops.sin(latents), timestep, latents, return_dict=False)[0]
    ours = list(euler(lambda x, sigma: ops.sin(x), noise, sigmas.flow_sigmas(8, shift=7.0)))[-1].latents
    # Differences of float32 sigmas round the same in float32 and float64.
    np.testing.assert_array_equal(ops.to_numpy(latents), ops.to_numpy(ours))


@BOTH
def test_config_reads_as_mapping_and_by_attribute(kind):
    scheduler = kind(num_train_timesteps=500)
    assert scheduler.config.num_train_timesteps == scheduler.config["num_train_timesteps"] == 500
    assert len(scheduler) == 500
    assert scheduler.config.get("nothing", 3) == 3
    assert set(scheduler.config) == kind.kind.names()
    with pytest.raises(AttributeError, match="nothing"):
        _ = scheduler.config.nothing
    with pytest.raises(TypeError, match="read only"):
        scheduler.config["shift"] = 3
    with pytest.raises(TypeError, match="read only"):
        scheduler.config.shift = 3
    assert copy.deepcopy(scheduler.config) == pickle.loads(pickle.dumps(scheduler.config)) == scheduler.config


@BOTH
def test_files_round_trip(kind, tmp_path):
    kind(num_train_timesteps=500).save_pretrained(tmp_path / "scheduler")
    written = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert written["_class_name"] == kind.__name__
    assert kind.from_pretrained(tmp_path, subfolder="scheduler").config.num_train_timesteps == 500
    assert (
        kind.from_pretrained(tmp_path / "scheduler", num_train_timesteps=40).config.num_train_timesteps == 40
    )


@BOTH
def test_files_that_are_none(kind, tmp_path):
    with pytest.raises(ModelError, match=r"scheduler_config\.json"):
        kind.from_pretrained(tmp_path)
    file = tmp_path / "scheduler_config.json"
    for text in ("{", "[]"):
        file.write_text(text)
        with pytest.raises(ModelError, match=r"scheduler_config\.json"):
            kind.from_pretrained(tmp_path)
    file.write_text('{"shfit": 7}')
    with pytest.raises(ModelError, match=r"scheduler_config\.json.*'shfit'"):
        kind.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        (FlowMatchEulerDiscreteScheduler, {"shfit": 7.0}, "'shfit'"),
        (
            FlowMatchEulerDiscreteScheduler,
            {"use_karras_sigmas": True},
            "use_karras_sigmas = False only; True",
        ),
        (FlowMatchEulerDiscreteScheduler, {"time_shift_type": "cubic"}, "exponential, linear"),
        (UniPCMultistepScheduler, {"prediction_type": "epsilon"}, "prediction_type = 'flow_prediction' only"),
        (UniPCMultistepScheduler, {"use_flow_sigmas": False}, "use_flow_sigmas = True only"),
        (UniPCMultistepScheduler, {"solver_order": 4}, "solver_order must be one of 1, 2, 3"),
        (UniPCMultistepScheduler, {"solver_type": "heun"}, "bh1, bh2"),
    ],
)
def test_settings_that_are_not_there(kind, settings, says):
    with pytest.raises(ModelError, match=says):
        kind.from_config(settings)


@BOTH
def test_settings_of_the_namesake_are_taken_at_their_default(kind):
    scheduler = kind(use_karras_sigmas=False, use_beta_sigmas=False)
    assert kind.from_config({**scheduler.config, "_diffusers_version": "0.42.1"}).config == scheduler.config


def test_one_kind_is_made_from_the_other():
    config = FlowMatchEulerDiscreteScheduler(shift=7.0, num_train_timesteps=500).config
    scheduler = UniPCMultistepScheduler.from_config(config, flow_shift=7.0)
    assert (scheduler.config.flow_shift, scheduler.config.num_train_timesteps) == (7.0, 500)


@BOTH
def test_needs_a_schedule(kind):
    scheduler, latents = kind(), ops.zeros(1, 4, 1, 2, 2)
    with pytest.raises(JobError, match="set_timesteps"):
        scheduler.step(latents, 1000.0, latents)
    with pytest.raises(JobError, match="number of steps"):
        scheduler.set_timesteps(0)
    with pytest.raises(JobError, match="at least one sigma"):
        scheduler.set_timesteps(sigmas=[])
    with pytest.raises(JobError, match="mu"):
        kind(use_dynamic_shifting=True).set_timesteps(4)


@BOTH
def test_place_in_the_schedule(kind):
    scheduler, latents = kind(), ops.zeros(1, 4, 1, 2, 2)
    scheduler.set_timesteps(3)
    assert scheduler.step_index is scheduler.begin_index is None
    with pytest.raises(JobError, match="none of the schedule's"):
        scheduler.step(latents, 1234.5, latents)
    scheduler.set_begin_index(1)
    for timestep in scheduler.timesteps[1:]:
        assert scheduler.step(latents, timestep, latents).prev_sample.shape == latents.shape
    assert scheduler.step_index == 3
    with pytest.raises(JobError, match="all of them are done"):
        scheduler.step(latents, scheduler.timesteps[-1], latents)


def test_equal_timesteps_begin_at_the_first():
    scheduler, latents = UniPCMultistepScheduler(flow_shift=7.0), ops.ones(1, 4, 1, 2, 2)
    scheduler.set_timesteps(200)
    assert scheduler.timesteps[0] == scheduler.timesteps[1]
    scheduler.step(latents, scheduler.timesteps[0], latents)
    assert scheduler.step_index == 1


@BOTH
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_dtypes(kind, dtype):
    scheduler = kind()
    scheduler.set_timesteps(2)
    latents = runtime.place(ops.ones(1, 4, 1, 2, 2), dtype=dtype)
    assert runtime.dtype_name(scheduler.step(latents, scheduler.timesteps[0], latents)[0].dtype) == dtype


def test_bh1_ends():
    scheduler = UniPCMultistepScheduler(solver_type="bh1", lower_order_final=False, solver_order=3)
    scheduler.set_timesteps(5)
    latents = ops.ones(1, 4, 1, 2, 2)
    for timestep in scheduler.timesteps:
        latents = scheduler.step(0.1 * latents, timestep, latents).prev_sample
    assert np.isfinite(ops.to_numpy(latents)).all()


def test_the_shift_goes_along_from_one_kind_to_the_other():
    unipc = UniPCMultistepScheduler.from_config(FlowMatchEulerDiscreteScheduler(shift=7.0).config)
    assert unipc.config.flow_shift == 7.0
    assert FlowMatchEulerDiscreteScheduler.from_config(unipc.config).config.shift == 7.0
    assert UniPCMultistepScheduler.from_config(unipc.config, flow_shift=3.0).config.flow_shift == 3.0


@BOTH
def test_the_object_is_over_a_schedule(kind):
    scheduler = kind(num_train_timesteps=500)
    assert scheduler.schedule == kind.kind(num_train_timesteps=500)
    assert scheduler_of(scheduler.schedule).config == scheduler.config
    assert type(scheduler_of(scheduler.schedule)) is kind
    assert scheduler_of(scheduler) is scheduler
    assert set(scheduler.compatibles) == {FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler}
    assert "num_train_timesteps" in scheduler.config and len(scheduler.config) == len(kind.kind.names())


@BOTH
def test_what_is_declined_is_said(kind):
    with pytest.raises(JobError, match="takes sigmas, not timesteps"):
        kind().set_timesteps(timesteps=[1000, 500])
    with pytest.raises(JobError, match=r"pass scheduler\.config"):
        kind.from_config(kind())
    with pytest.raises(JobError, match="2 sigmas do not make 3 steps"):
        kind().set_timesteps(3, sigmas=[1.0, 0.5])
    with pytest.raises(ModelError, match="above 0"):
        kind.from_config({"shift": 0.0, "flow_shift": 0.0})


def test_a_changed_shift_is_the_schedules():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_shift(7)
    assert scheduler.shift == scheduler.schedule.shift == 7.0
    scheduler.set_timesteps(sigmas=[1.0, 0.5])
    assert scheduler.sigmas.tolist() == pytest.approx([1.0, 0.875, 0.0])


@BOTH
def test_a_copy_has_a_place_of_its_own(kind):
    scheduler, latents = kind(), ops.ones(1, 4, 1, 2, 2)
    scheduler.set_timesteps(3)
    scheduler.step(latents, scheduler.timesteps[0], latents)
    other = copy.deepcopy(scheduler)
    other.step(latents, other.timesteps[1], latents)
    assert (scheduler.step_index, other.step_index) == (1, 2)
