"""Schedules, solvers and whole videos, on whichever framework is active, against golden files of the stock pipeline.

tests/golden/make.py made the files, with networks in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from longtake import backend
from longtake.backend import ops, runtime
from longtake.compat.framepack import HunyuanVideoFramepackPipeline
from longtake.compat.schedulers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.sampling import sigmas
from longtake.sampling.solvers import euler

# float32 has 6e-8 per operation; a video is two sections of three steps, and its networks are random.
CLOSE = 1e-5
# As in tests/models/test_golden.py: the sinusoids, here of two networks' calls in each of six steps.
VIDEOS = 3e-5 if backend.name == "torch" else 5e-5


def made_up(x: Any, sigma: float) -> Any:
    """The velocity of the golden ways: sin(2x) + sigma x, on arrays and tensors."""
    return (np.sin(2 * x) if isinstance(x, np.ndarray) else ops.sin(2 * x)) + sigma * x


def test_schedules(recipe: Any) -> None:
    golden = recipe.read("sampling")
    config, expected = golden.config, golden.expected
    static = sigmas.flow_sigmas(25, shift=config["shift"])
    np.testing.assert_array_equal(np.float32(static), expected["euler_static"])
    dynamic = sigmas.flow_sigmas(25, tokens=config["tokens"])
    # One unit of float32: the exponential of the shift is taken in another order.
    np.testing.assert_allclose(dynamic, expected["euler_dynamic"], rtol=0, atol=1.2e-7)
    even = np.linspace(1.0, 0.0, 26)[:-1]
    scheduler = FlowMatchEulerDiscreteScheduler(shift=config["shift"])
    scheduler.set_timesteps(sigmas=even)
    np.testing.assert_array_equal(ops.to_numpy(scheduler.sigmas), expected["euler_static"])
    for order in (2, 3):
        scheduler = UniPCMultistepScheduler(flow_shift=config["flow_shift"], solver_order=order)
        scheduler.set_timesteps(8)
        # As in tests/oracle/test_schedulers.py: the order of operations differs.
        np.testing.assert_allclose(
            ops.to_numpy(scheduler.sigmas), expected[f"unipc_{order}_sigmas"], rtol=0, atol=1e-6
        )


def test_euler_on_arrays(recipe: Any, relative: Callable) -> None:
    golden = recipe.read("sampling")
    levels = [float(sigma) for sigma in golden.expected["euler_sigmas"]]
    way = [step.latents for step in euler(made_up, golden.inputs["noise"].astype(np.float64), levels)]
    assert relative(np.stack(way), golden.expected["euler_way"]) < CLOSE


@pytest.mark.parametrize("name", ["euler", "unipc_2", "unipc_3"])
def test_schedulers_step_by_step(name: str, recipe: Any, relative: Callable) -> None:
    golden = recipe.read("sampling")
    scheduler: Any = (
        FlowMatchEulerDiscreteScheduler(shift=7.0)
        if name == "euler"
        else UniPCMultistepScheduler(flow_shift=3.0, solver_order=int(name[-1]))
    )
    scheduler.set_timesteps(8)
    latents, way = ops.from_numpy(golden.inputs["noise"]), []
    for place, (sigma, _) in enumerate(pairwise(golden.expected[f"{name}_sigmas"])):
        timestep = scheduler.timesteps[place]
        latents = scheduler.step(made_up(latents, float(sigma)), timestep, latents).prev_sample
        way.append(ops.to_numpy(latents))
    assert relative(np.stack(way), golden.expected[f"{name}_way"]) < CLOSE


class Given:
    """In place of SigLIP: states that are given, whatever it sees."""

    def __init__(self, states: np.ndarray) -> None:
        self.last_hidden_state = ops.from_numpy(states)
        self.device, self.dtype = self.last_hidden_state.device, self.last_hidden_state.dtype

    def parameters(self) -> Any:
        return iter([self.last_hidden_state])

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self


def video(golden: Any, filled: Callable, stream: Any, **changes: Any) -> Any:
    """What the golden call gives, with our networks."""
    x = golden.inputs
    picture = (x.pop("picture") / 4 + 0.5).clip(0, 1)
    pipe = HunyuanVideoFramepackPipeline(
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
        transformer=filled(HunyuanVideoFramepackTransformer3DModel(**golden.config["transformer"])),
        vae=filled(AutoencoderKLHunyuanVideo(**golden.config["vae"])),
        scheduler=FlowMatchEulerDiscreteScheduler(**golden.config["scheduler"]),
        image_encoder=Given(x.pop("image_states")),
        feature_extractor=lambda images, **options: {"pixel_values": ops.zeros(1)},
    )
    pipe.set_progress_bar_config(disable=True)
    given = {name: ops.from_numpy(value) for name, value in x.items()}
    call = {**golden.config["call"], **given, **changes}
    return pipe(image=picture, generator=stream, reference=True, **call).frames


# Compilation takes seconds for every network and shape.
MODES = [("pipeline_vanilla", "eager"), ("pipeline_inverted", "eager")]
MODES += [("pipeline_inverted", "graph")] if backend.name == "mindspore" else []


@pytest.mark.parametrize(("name", "mode"), MODES, indirect=["mode"])
def test_whole_videos(name: str, mode: str, recipe: Any, filled: Callable, relative: Callable) -> None:
    golden = recipe.read(name)
    with runtime.no_grad():
        latents = video(golden, filled, recipe.Stream(name), output_type="latent")[-1]
    assert relative(latents, golden.expected["latents"]) < VIDEOS
    if mode == "graph":
        return  # the decoder has shapes by the dozen, and tests/models/test_golden.py compiles one
    with runtime.no_grad():
        frames = video(golden, filled, recipe.Stream(name), output_type="np")
    assert relative(frames[:, :, ::5, ::5], golden.expected["frames"]) < VIDEOS


def test_other_guidance_would_be_noticed(recipe: Any, filled: Callable, relative: Callable) -> None:
    golden = recipe.read("pipeline_inverted")
    changes = {"output_type": "latent", "true_cfg_scale": 2.01}
    latents = video(golden, filled, recipe.Stream("pipeline_inverted"), **changes)[-1]
    assert relative(latents, golden.expected["latents"]) > 10 * VIDEOS
