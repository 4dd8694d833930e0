"""The whole pipeline against stock diffusers, same folder, same generator, `reference=True`."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

import miniature as shared

diffusers = pytest.importorskip("diffusers")
pil = pytest.importorskip("transformers.models.siglip.image_processing_pil_siglip")

from longtake.compat.framepack import HunyuanVideoFramepackPipeline  # noqa: E402

networks, picture, last_picture = shared.networks, shared.picture, shared.last_picture

# The bound of the issue. Velocities of random networks grow over 3 sections x 3 steps; 1e-6 is what is measured.
TOLERANCE = 1e-4

CALL = {
    "prompt": "A penguin dances in the snow",
    "height": shared.HEIGHT,
    "width": shared.WIDTH,
    "num_frames": 13,
    "latent_window_size": shared.WINDOW,
    "num_inference_steps": 3,
    "guidance_scale": 6.0,
}
CASES = {
    "inverted": {"sampling_type": "inverted_anti_drifting"},
    "inverted with cfg": {
        "sampling_type": "inverted_anti_drifting",
        "true_cfg_scale": 3.0,
        "negative_prompt": "a red ball",
    },
    "inverted to a last image": {"sampling_type": "inverted_anti_drifting", "last_image": True},
    "inverted to a last image with cfg": {
        "sampling_type": "inverted_anti_drifting",
        "last_image": True,
        "true_cfg_scale": 2.0,
        "negative_prompt": "",
    },
    "vanilla": {"sampling_type": "vanilla"},
    "vanilla with cfg": {"sampling_type": "vanilla", "true_cfg_scale": 3.0, "negative_prompt": "a red ball"},
    "six sections": {"sampling_type": "inverted_anti_drifting", "num_frames": 30},
    "window of one": {"sampling_type": "vanilla", "latent_window_size": 1, "num_frames": 3},
    "second prompt": {"sampling_type": "vanilla", "prompt_2": "ignored there"},
}


@pytest.fixture(scope="module")
def ours(networks: Any) -> Any:
    pipe = HunyuanVideoFramepackPipeline(**networks.components, settings=networks.settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def stock(ours: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """diffusers' pipeline from the folder that we wrote, with transformers' image processor of no torchvision."""
    folder = tmp_path_factory.mktemp("model")
    ours.save_pretrained(folder)
    pipe = diffusers.HunyuanVideoFramepackPipeline.from_pretrained(folder, feature_extractor=None)
    pipe.feature_extractor = pil.SiglipImageProcessorPil(size=dict(ours.feature_extractor.size))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def arguments(case: str, picture: Any, last_picture: Any) -> dict[str, Any]:
    found = {**CALL, **CASES[case], "image": picture}
    if found.get("last_image"):
        found["last_image"] = last_picture
    return found


def both(ours: Any, stock: Any, call: dict[str, Any], output_type: str) -> tuple[Any, Any]:
    def seeded() -> Any:
        return torch.Generator().manual_seed(3)

    mine = ours(**call, generator=seeded(), output_type=output_type, reference=True).frames
    return mine, stock(**call, generator=seeded(), output_type=output_type).frames


OWN = ("reference", "decoding", "timeline", "loop")
"""Parameters of a call that the peers do not have."""


def test_it_takes_every_parameter_of_diffusers() -> None:
    theirs = inspect.signature(diffusers.HunyuanVideoFramepackPipeline.__call__).parameters
    ours = inspect.signature(HunyuanVideoFramepackPipeline.__call__).parameters
    assert [name for name in ours if name not in OWN] == list(theirs)
    # Where ours is None, the model's folder decides, and diffusers' default stands behind it.
    decided = {"image", "height", "width", "prompt_template", "max_sequence_length"}
    for name in set(theirs) - decided - {"callback_on_step_end_tensor_inputs"}:
        assert ours[name].default == theirs[name].default, name


@pytest.mark.parametrize("case", CASES)
def test_latents_are_diffusers(case: str, ours: Any, stock: Any, picture: Any, last_picture: Any) -> None:
    mine, theirs = both(ours, stock, arguments(case, picture, last_picture), "latent")
    assert [tuple(stage.shape) for stage in mine] == [tuple(stage.shape) for stage in theirs]
    worst = max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True))
    print(case, worst)
    assert worst < TOLERANCE


@pytest.mark.parametrize("case", ["inverted to a last image", "vanilla", "six sections", "window of one"])
@pytest.mark.parametrize("output_type", ["np", "pt", "pil"])
def test_frames_are_diffusers(
    case: str, output_type: str, ours: Any, stock: Any, picture: Any, last_picture: Any
) -> None:
    mine, theirs = both(ours, stock, arguments(case, picture, last_picture), output_type)
    assert type(mine) is type(theirs)
    if output_type == "pil":
        assert mine[0][0].size == theirs[0][0].size
        mine, theirs = (np.stack([np.asarray(frame) for frame in video[0]]) for video in (mine, theirs))
        # A value on the edge between two steps may round either way.
        assert np.abs(mine.astype(int) - theirs).max() <= 1
    else:
        assert tuple(mine.shape) == tuple(theirs.shape)
        assert float(np.abs(np.asarray(mine) - np.asarray(theirs)).max()) < TOLERANCE


@pytest.mark.filterwarnings(
    "ignore:Passing `image` as torch tensor:FutureWarning"
)  # theirs, of what is tested
@pytest.mark.parametrize("kind", ["array", "tensor", "tensor in [-1, 1]", "list"])
def test_images_of_every_kind_are_diffusers(kind: str, ours: Any, stock: Any) -> None:
    pixels = np.random.default_rng(0).random((40, 56, 3), dtype=np.float32)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    image = {"array": pixels[None], "tensor": tensor, "tensor in [-1, 1]": 2 * tensor - 1, "list": [pixels]}[
        kind
    ]
    call = {**CALL, "image": image, "sampling_type": "vanilla", "num_frames": 5}
    mine, theirs = both(ours, stock, call, "latent")
    assert float((mine[-1] - theirs[-1]).abs().max()) < TOLERANCE


def test_their_networks_serve_in_our_pipeline(stock: Any, picture: Any) -> None:
    foreign = HunyuanVideoFramepackPipeline(**stock.components)
    foreign.set_progress_bar_config(disable=True)
    call = {**CALL, "image": picture, "sampling_type": "inverted_anti_drifting"}
    mine, theirs = both(foreign, stock, call, "latent")
    assert float((mine[-1] - theirs[-1]).abs().max()) < TOLERANCE


def test_two_prompts_with_two_images_are_diffusers(
    ours: Any, stock: Any, picture: Any, last_picture: Any
) -> None:
    image = [picture.resize((48, 32)), last_picture.resize((48, 32))]
    call = {
        **CALL,
        "image": image,
        "prompt": ["A penguin dances in the snow", "a ball"],
        "sampling_type": "vanilla",
    }
    mine, theirs = both(ours, stock, call, "latent")
    assert float((mine[-1] - theirs[-1]).abs().max()) < TOLERANCE


def test_a_dynamic_shift_is_diffusers(ours: Any, stock: Any, picture: Any) -> None:
    from longtake.compat.schedulers import FlowMatchEulerDiscreteScheduler

    mine = HunyuanVideoFramepackPipeline(
        **{**ours.components, "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)}
    )
    theirs = diffusers.HunyuanVideoFramepackPipeline(
        **{
            **stock.components,
            "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        }
    )
    for pipe in (mine, theirs):
        pipe.set_progress_bar_config(disable=True)
    a, b = both(mine, theirs, {**CALL, "image": picture, "sampling_type": "vanilla"}, "latent")
    assert float((a[-1] - b[-1]).abs().max()) < TOLERANCE


def test_a_callbacks_changes_are_diffusers(ours: Any, stock: Any, picture: Any) -> None:
    def halve(pipe: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"latents": inputs["latents"] / 2, "prompt_embeds": inputs["prompt_embeds"] * 1.1}

    call = {
        **CALL,
        "image": picture,
        "sampling_type": "vanilla",
        "callback_on_step_end": halve,
        "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"],
    }
    mine, theirs = both(ours, stock, call, "latent")
    assert float((mine[-1] - theirs[-1]).abs().max()) < TOLERANCE


def test_sigmas_of_the_caller_are_diffusers(ours: Any, stock: Any, picture: Any) -> None:
    call = {**CALL, "image": picture, "sampling_type": "vanilla", "sigmas": [1.0, 0.7, 0.2]}
    mine, theirs = both(ours, stock, call, "latent")
    assert float((mine[-1] - theirs[-1]).abs().max()) < TOLERANCE


def test_a_scheduler_of_theirs_is_asked_step_by_step(ours: Any, picture: Any) -> None:
    from longtake.compat.schedulers import UniPCMultistepScheduler

    settings = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    call = {**CALL, "image": picture, "sampling_type": "vanilla", "generator": 1, "output_type": "latent"}
    found = []
    for scheduler in (diffusers.UniPCMultistepScheduler(**settings), UniPCMultistepScheduler(flow_shift=3.0)):
        pipe = HunyuanVideoFramepackPipeline(**{**ours.components, "scheduler": scheduler})
        pipe.set_progress_bar_config(disable=True)
        found.append(pipe(**call).frames[-1])
    assert float((found[0] - found[1]).abs().max()) < TOLERANCE
