import dataclasses
import json

import numpy as np
import pytest

from longtake.compat.schedulers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from longtake.errors import JobError, ModelError
from longtake.sampling import sigmas as noise_levels
from longtake.sampling.driven import driven
from longtake.sampling.schedule import CLASSES, FlowMatchEuler, FlowUniPC, Schedule

TOKENS = 2304
DYNAMIC = {"use_dynamic_shifting": True}
SETTINGS = [{}, {"num_train_timesteps": 500}, DYNAMIC, DYNAMIC | {"time_shift_type": "linear"}]


def velocity(latents, sigma):
    return latents * np.float32(np.cos(7 * sigma)) + np.float32(sigma)


@pytest.mark.parametrize("kind", CLASSES.values())
def test_a_schedule_is_written_and_read(kind, tmp_path):
    schedule = kind(num_train_timesteps=500, use_dynamic_shifting=True)
    values = json.loads(json.dumps(schedule.published()))
    assert values["_class_name"] == kind.published_class
    assert Schedule.read(values) == schedule
    assert Schedule.read({**values, "_diffusers_version": "0.42.1"}) == schedule
    (tmp_path / "scheduler_config.json").write_text(json.dumps(values))
    assert Schedule.read_folder(tmp_path) == schedule
    changed = Schedule.read_folder(tmp_path, num_train_timesteps=7)
    assert changed == dataclasses.replace(schedule, num_train_timesteps=7)


def test_a_class_is_named_by_the_file_or_from_outside(tmp_path):
    (tmp_path / "scheduler_config.json").write_text('{"shift": 7.0}')
    assert Schedule.read_folder(tmp_path, "FlowMatchEulerDiscreteScheduler") == FlowMatchEuler(shift=7.0)
    assert Schedule.read_folder(tmp_path, "UniPCMultistepScheduler") == FlowUniPC(flow_shift=7.0)
    with pytest.raises(
        ModelError, match=r"scheduler_config.json: There is no scheduler None here; there are: Fl"
    ):
        Schedule.read_folder(tmp_path)
    with pytest.raises(ModelError, match="no scheduler DDIMScheduler here"):
        Schedule.read_folder(tmp_path, "DDIMScheduler")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"shift": "7"}, "shift must be a number; '7'"),
        ({"shift": True}, "shift must be a number; True"),
        ({"shift": float("nan")}, "shift must be a number; nan"),
        ({"shift": 0}, "above 0; 0"),
        ({"use_dynamic_shifting": 1}, "use_dynamic_shifting must be true or false; 1"),
        ({"num_train_timesteps": 0.5}, "num_train_timesteps must be a whole number"),
        ({"num_train_timesteps": 0}, "1 or more"),
        ({"base_shift": None}, "base_shift must be a number; None"),
    ],
)
def test_values_that_are_none(settings, says):
    with pytest.raises(ModelError, match=says):
        Schedule.read({"_class_name": "FlowMatchEulerDiscreteScheduler", **settings})


def test_sigmas_are_framepacks():
    schedule = FlowMatchEuler(shift=7.0)
    assert schedule.sigmas(25) == noise_levels.flow_sigmas(25, shift=7.0)
    assert schedule.sigmas(sigmas=[1.0, 0.5]) == pytest.approx([1.0, 0.875, 0.0])
    assert FlowMatchEuler(use_dynamic_shifting=True).sigmas(25, tokens=TOKENS) == pytest.approx(
        noise_levels.flow_sigmas(25, tokens=TOKENS), abs=1e-6
    )
    with pytest.raises(JobError, match="needs mu or the number of tokens"):
        FlowMatchEuler(use_dynamic_shifting=True).sigmas(25)
    with pytest.raises(JobError, match="number of steps"):
        schedule.sigmas(0)
    with pytest.raises(JobError, match="at least one sigma"):
        schedule.sigmas(sigmas=[])


@pytest.mark.parametrize("kind", CLASSES.values())
def test_a_job_gives_it_another_shift(kind):
    dynamic = kind(use_dynamic_shifting=True)
    assert dynamic.shifted_by(7.0).static == 7.0
    assert dynamic.shifted_by(7.0).sigmas(2) == pytest.approx([1.0, 0.875, 0.0], abs=2e-6)
    for wrong in (0, -1.0, float("nan")):
        with pytest.raises(JobError, match="above 0"):
            dynamic.shifted_by(wrong)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("steps", [1, 2, 5, 12])
@pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler])
def test_the_solver_of_a_schedule_is_its_object_driven(kind, steps, settings):
    """Whoever runs the data and whoever drives the object makes the same video, bit by bit."""
    from longtake.backend import ops

    scheduler = kind(**settings)
    noise = ops.from_numpy(np.random.default_rng(0).standard_normal((1, 4, 2, 3, 3)).astype(np.float32))
    seen: list[float] = []

    def watched(latents, sigma):
        seen.append(float(np.float32(1000 * sigma)))
        return ops.sin(latents) * float(np.float32(np.cos(7 * np.float32(sigma))))

    plain = np.linspace(1.0, 0.0, steps + 1)[:-1]
    by_object = list(driven(scheduler, plain, TOKENS, None)(watched, noise))
    assert scheduler.step_index == steps
    seen_by_object, seen = seen, []
    schedule = scheduler.schedule
    by_data = list(schedule.solve()(watched, noise, schedule.sigmas(steps, tokens=TOKENS)))
    assert seen == seen_by_object
    assert [step.sigma for step in by_data] == [step.sigma for step in by_object]
    for ours, theirs in zip(by_data, by_object, strict=True):
        np.testing.assert_array_equal(ops.to_numpy(ours.latents), ops.to_numpy(theirs.latents))
        np.testing.assert_array_equal(ops.to_numpy(ours.denoised), ops.to_numpy(theirs.denoised))


def test_the_names_of_the_solvers_need_no_numpy():
    import subprocess
    import sys

    code = "import sys; from longtake.sampling.solvers import SOLVERS; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
