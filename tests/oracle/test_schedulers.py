"""Our schedulers against the live classes of diffusers that bear their names."""

import math
import warnings

import numpy as np
import pytest
import torch

import longtake.compat.schedulers as ours
from longtake.errors import JobError
from longtake.sampling import sigmas as schedules
from longtake.sampling.driven import driven
from longtake.sampling.schedule import Schedule

theirs = pytest.importorskip("diffusers")

NOISE = torch.randn(2, 4, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CUSTOM = [1.0, 0.9, 0.5, 0.31, 0.05]
# The published FramePack folders have a static shift of 7.
EULER = [{}, {"shift": 7.0}, {"shift": 3.3, "num_train_timesteps": 500}]
COMPONENTS = ("text_encoder", "tokenizer", "transformer", "vae", "text_encoder_2", "tokenizer_2")
COMPONENTS += ("image_encoder", "feature_extractor")
DYNAMIC = {"use_dynamic_shifting": True}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


def pair(name, settings):
    return getattr(ours, name)(**settings), getattr(theirs, name)(**settings)


def same_schedule(mine, stock):
    assert mine.sigmas.dtype == stock.sigmas.dtype == torch.float32
    assert mine.timesteps.dtype == stock.timesteps.dtype
    # float32: one unit in the last place is 6e-8 just below 1, and the order of operations differs.
    assert mine.sigmas.numpy() == pytest.approx(stock.sigmas.numpy(), abs=1e-6)
    scale = mine.config.num_train_timesteps
    assert mine.timesteps.numpy() / scale == pytest.approx(stock.timesteps.numpy() / scale, abs=1e-6)


def velocity(latents, timestep):
    return torch.sin(2 * latents) + 0.1 * latents * math.cos(float(timestep) / 300)


def same_steps(mine, stock, noise, tolerance):
    """Both are fed the same latents, so that each step is judged alone; then the whole way is judged."""
    a = b = noise
    for timestep in stock.timesteps:
        slope = velocity(b, timestep)
        following = stock.step(slope, timestep, b).prev_sample
        assert mine.step(slope, timestep, b).prev_sample.numpy() == pytest.approx(
            following.numpy(), abs=tolerance
        )
        b = following
    mine.set_timesteps(sigmas=CUSTOM, mu=1.0)
    for timestep in mine.timesteps:
        a = mine.step(velocity(a, timestep), timestep, a).prev_sample
    stock.set_timesteps(sigmas=np.array(CUSTOM), mu=1.0)
    b = noise
    for timestep in stock.timesteps:
        b = stock.step(velocity(b, timestep), timestep, b).prev_sample
    return a, b


@pytest.mark.parametrize("settings", EULER)
@pytest.mark.parametrize("steps", [1, 2, 25, 50])
def test_euler_schedule(settings, steps):
    mine, stock = pair("FlowMatchEulerDiscreteScheduler", settings)
    assert (mine.sigma_min, mine.sigma_max) == pytest.approx((stock.sigma_min, stock.sigma_max), abs=1e-9)
    mine.set_timesteps(steps)
    stock.set_timesteps(steps)
    same_schedule(mine, stock)
    # What the pipelines pass.
    even = np.linspace(1.0, 0.0, steps + 1)[:-1]
    mine.set_timesteps(sigmas=even)
    stock.set_timesteps(sigmas=even)
    assert torch.equal(mine.sigmas, stock.sigmas)
    assert torch.equal(mine.timesteps, stock.timesteps)
    assert schedules.flow_sigmas(steps, shift=mine.shift) == stock.sigmas.tolist()


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"])
@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("tokens", [256, 2304, 13680])
@pytest.mark.parametrize("chosen", [None, CUSTOM])
def test_dynamic_schedule(name, kind, tokens, chosen):
    settings = DYNAMIC | {"time_shift_type": kind} | (FLOW if name.startswith("Uni") else {})
    mine, stock = pair(name, settings)
    mu = schedules.dynamic_mu(tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for scheduler in (mine, stock):
            if chosen:
                scheduler.set_timesteps(sigmas=np.array(chosen), mu=mu)
            else:
                scheduler.set_timesteps(12, mu=mu)
    same_schedule(mine, stock)
    if name.startswith("Flow") and kind == "exponential":
        even = np.linspace(1.0, 0.0, 26)[:-1]
        stock.set_timesteps(sigmas=even, mu=mu)
        assert schedules.flow_sigmas(25, tokens=tokens) == pytest.approx(stock.sigmas.tolist(), abs=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0, 7.0])
@pytest.mark.parametrize("steps", [1, 2, 25, 50])
def test_unipc_schedule(shift, steps):
    mine, stock = pair("UniPCMultistepScheduler", FLOW | {"flow_shift": shift})
    mine.set_timesteps(steps)
    stock.set_timesteps(steps)
    same_schedule(mine, stock)
    mine.set_timesteps(sigmas=CUSTOM)
    stock.set_timesteps(sigmas=np.array(CUSTOM))
    same_schedule(mine, stock)


@pytest.mark.parametrize("settings", [*EULER, DYNAMIC])
def test_euler_steps(settings):
    mine, stock = pair("FlowMatchEulerDiscreteScheduler", settings)
    mine.set_timesteps(12, mu=1.0)
    stock.set_timesteps(12, mu=1.0)
    # float32 throughout, and the schedules are equal to one unit in the last place.
    a, b = same_steps(mine, stock, NOISE.float(), 2e-6)
    assert a.numpy() == pytest.approx(b.numpy(), abs=5e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("lower_order_final", [True, False])
@pytest.mark.parametrize("solver_type", ["bh1", "bh2"])
@pytest.mark.parametrize("disable_corrector", [[], [0, 2]])
def test_unipc_steps(order, lower_order_final, solver_type, disable_corrector):
    settings = FLOW | {
        "solver_order": order,
        "solver_type": solver_type,
        "lower_order_final": lower_order_final,
        "disable_corrector": disable_corrector,
        "flow_shift": 3.0,
    }
    mine, stock = pair("UniPCMultistepScheduler", settings)
    for scheduler in (mine, stock):
        scheduler.set_timesteps(12)
    # The same schedule in float64, so that what is compared is the formulas and not float32's cancellation.
    stock.sigmas = mine.sigmas.double()
    latents = NOISE
    for place, timestep in enumerate(stock.timesteps):
        slope = velocity(latents, timestep)
        found = mine.step(slope, timestep, latents).prev_sample
        assert torch.isfinite(found).all()
        try:
            following = stock.step(slope, timestep, latents).prev_sample
        except torch.linalg.LinAlgError:
            following = torch.full_like(latents, math.nan)
        if place == 11 and (solver_type == "bh1" or (order > 1 and not lower_order_final)):
            # Stock's step to sigma 0 fails for bh1 and for orders above 1: NaN, infinite, or a singular matrix.
            assert not following.isfinite().any()
            break
        # The stock recursion for phi loses six or seven of sixteen digits at small steps.
        assert found.numpy() == pytest.approx(following.numpy(), abs=1e-9)
        latents = following


def test_unipc_in_float32():
    mine, stock = pair("UniPCMultistepScheduler", FLOW | {"flow_shift": 3.0, "solver_order": 2})
    for scheduler in (mine, stock):
        scheduler.set_timesteps(12)
    # float32; stock computes lambda there too, and near sigma 1 its 1 - sigma has few digits left.
    a, b = same_steps(mine, stock, NOISE.float(), 2e-5)
    assert a.numpy() == pytest.approx(b.numpy(), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("FlowMatchEulerDiscreteScheduler", {"shift": 7.0}),
        ("UniPCMultistepScheduler", FLOW | {"flow_shift": 7.0, "disable_corrector": [0]}),
    ],
)
def test_files_are_read_by_the_other(name, settings, tmp_path):
    mine, stock = pair(name, settings)
    mine.save_pretrained(tmp_path / "mine")
    stock.save_pretrained(tmp_path / "stock")
    read, reverse = (
        type(stock).from_pretrained(tmp_path / "mine"),
        type(mine).from_pretrained(tmp_path / "stock"),
    )
    assert {key: read.config[key] for key in mine.config} == dict(mine.config)
    assert reverse.config == mine.config
    assert type(mine).from_config(stock.config).config == mine.config
    assert dict(type(stock).from_config(mine.config).config).items() >= dict(mine.config).items()
    # Every setting of theirs is known here.
    assert {key for key in stock.config if not key.startswith("_")} == type(mine).kind.names()


@pytest.mark.parametrize("settings", [{}, {"use_dynamic_shifting": True}])
@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_stock_pipeline_retrieves_our_timesteps(name, settings):
    framepack = pytest.importorskip("diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack")
    mine, stock = pair(name, settings | (FLOW if name.startswith("Uni") else {}))
    mu = framepack.calculate_shift(
        2304,
        mine.config.get("base_image_seq_len", 256),
        mine.config.get("max_image_seq_len", 4096),
        mine.config.get("base_shift", 0.5),
        mine.config.get("max_shift", 1.15),
    )
    assert mu == pytest.approx(schedules.dynamic_mu(2304))
    even = np.linspace(1.0, 0.0, 6)[:-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        times, count = framepack.retrieve_timesteps(mine, 5, "cpu", sigmas=even, mu=mu)
        expected, _ = framepack.retrieve_timesteps(stock, 5, "cpu", sigmas=even, mu=mu)
    pipeline = theirs.HunyuanVideoFramepackPipeline(**dict.fromkeys(COMPONENTS), scheduler=mine)
    assert pipeline.scheduler is mine
    assert count == 5
    assert times.tolist() == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_a_scheduler_that_stock_refuses_is_refused(name):
    framepack = pytest.importorskip("diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack")
    scheduler, even = getattr(theirs, name)(), np.linspace(1.0, 0.0, 6)[:-1]
    with pytest.raises((ValueError, TypeError)):
        framepack.retrieve_timesteps(scheduler, 5, "cpu", sigmas=even, mu=1.0)
    with pytest.raises(JobError, match=f"{name} is no scheduler for flow matching"):
        driven(scheduler, even, 2304, "cpu")


def test_a_scheduler_that_is_none_for_flow_by_its_settings():
    with pytest.raises(JobError, match="UniPCMultistepScheduler with prediction_type = 'epsilon'"):
        driven(theirs.UniPCMultistepScheduler(), [1.0, 0.5], 2304, "cpu")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("FlowMatchEulerDiscreteScheduler", {"shift": 7.0}),
        ("FlowMatchEulerDiscreteScheduler", DYNAMIC),
        ("UniPCMultistepScheduler", FLOW | {"flow_shift": 3.0}),
    ],
)
def test_a_schedule_of_their_file_solves_as_they_do(name, settings, tmp_path):
    """The folder's data alone, and their object step by step."""
    stock = getattr(theirs, name)(**settings)
    stock.save_pretrained(tmp_path)
    schedule = Schedule.read_folder(tmp_path)

    def slope(latents, sigma):
        return velocity(latents, 1000 * sigma)

    mine = list(schedule.solve()(slope, NOISE.float(), schedule.sigmas(12, tokens=2304)))
    their_steps = list(driven(stock, np.linspace(1.0, 0.0, 13)[:-1], 2304, "cpu")(slope, NOISE.float()))
    assert stock.step_index == 12
    # float32; stock's UniPC computes lambda there too, and near sigma 1 its 1 - sigma has few digits left.
    assert mine[-1].latents.numpy() == pytest.approx(their_steps[-1].latents.numpy(), abs=1e-4)
