"""One set of networks in several pipelines, and another scheduler in the same one."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake.compat.framepack import HunyuanVideoFramepackPipeline
from longtake.compat.schedulers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from longtake.errors import BackendError, ModelError
from longtake.pipeline.networks import COMPONENTS, SETTINGS, Networks

OWN = {
    "width": 32,
    "height": 32,
    "prompt_template": {"template": "Video: {}", "crop_start": 1},
    "max_sequence_length": 12,
}


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def forget(transformer: Any) -> None:
    if hasattr(transformer, SETTINGS):
        delattr(transformer, SETTINGS)


def run(pipe: Any, picture: Image.Image, **changes: Any) -> np.ndarray:
    call = {
        "prompt": "a small blue bird",
        "num_frames": 5,
        "latent_window_size": 2,
        "num_inference_steps": 2,
        "generator": 1,
        "output_type": "np",
    }
    return quiet(pipe)(image=picture, **{**call, **changes})[0]


@pytest.fixture(scope="module")
def transformer(networks: Networks) -> Any:
    """A transformer of these tests' own; one for all of them, since MindSpore compiles each."""
    return copy.deepcopy(networks.transformer)


@pytest.fixture
def parts(networks: Networks, transformer: Any) -> dict[str, Any]:
    """The parts, with a transformer that carries no settings."""
    forget(transformer)
    return {**networks.components, "transformer": transformer}


@pytest.fixture
def first(parts: dict[str, Any]) -> Any:
    """A pipeline with a size and a prompt template of its own."""
    return HunyuanVideoFramepackPipeline(**parts, settings=OWN)


@pytest.mark.parametrize("way", ["components", "from_pipe"])
def test_another_pipeline_of_the_same_parts_makes_the_same_video(
    way: str, first: Any, picture: Image.Image
) -> None:
    second = type(first)(**first.components) if way == "components" else type(first).from_pipe(first)
    for name in COMPONENTS:
        assert getattr(second, name) is getattr(first, name)
    video = run(first, picture)
    assert video.shape == (1, 5, 32, 32, 3)
    np.testing.assert_array_equal(run(second, picture), video)
    # The template counts: what is made behind the published one is another video.
    published = {key: value for key, value in OWN.items() if key != "prompt_template"}
    other = run(type(first)(**first.components, settings=published), picture)
    assert not np.array_equal(other, video)


def test_components_are_the_nine_parts_alone_as_other_classes_expect(first: Any) -> None:
    assert set(first.components) == set(COMPONENTS)


def test_settings_that_the_transformer_does_not_carry_are_among_the_components(first: Any) -> None:
    second = type(first)(**first.components, settings={**OWN, "width": 48})
    third = type(first)(**second.components)
    assert third.settings == second.settings == {**OWN, "width": 48}
    plain = type(first)(**first.components, settings={})
    assert type(first)(**plain.components).settings == {}
    assert first.settings == OWN


def test_settings_stay_where_the_transformer_is_replaced(first: Any, picture: Image.Image) -> None:
    bare = copy.deepcopy(first.transformer)
    forget(bare)
    second = type(first).from_pipe(first, transformer=bare)
    assert second.settings == OWN and second.transformer is bare
    np.testing.assert_array_equal(run(second, picture), run(first, picture))
    setattr(bare, SETTINGS, {"width": 48})
    assert type(first).from_pipe(first, transformer=bare).settings == {"width": 48}


def test_from_pipe_takes_other_parts_and_foreign_pipelines(first: Any) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    second = type(first).from_pipe(first, scheduler=scheduler)
    assert second.scheduler is scheduler and first.scheduler is not scheduler
    foreign = SimpleNamespace(components={**first.components, "safety_checker": None})
    assert type(first).from_pipe(foreign).vae is first.vae


def test_from_pipe_names_what_it_cannot_use(first: Any) -> None:
    with pytest.raises(ModelError, match="takes no 'torch_type'; a pipeline's parts are text_encoder, "):
        type(first).from_pipe(first, torch_type="float16")


def test_from_pipe_takes_a_part_that_is_not_there(first: Any) -> None:
    bare = SimpleNamespace(components={**first.components, "image_encoder": None})
    assert type(first).from_pipe(bare).image_encoder is None


def test_a_scheduler_is_swapped_and_swapped_back(first: Any, picture: Image.Image) -> None:
    before = first.scheduler
    euler = run(first, picture, num_inference_steps=4)
    swaps = (
        UniPCMultistepScheduler.from_config(before.config, flow_shift=3.0),
        FlowMatchEulerDiscreteScheduler.from_config(before.config, shift=3.0),
    )
    videos = [euler]
    for scheduler in swaps:
        first.scheduler = scheduler
        videos.append(run(first, picture, num_inference_steps=4))
    assert all(np.isfinite(video).all() for video in videos)
    assert not np.array_equal(videos[0], videos[1]) and not np.array_equal(videos[0], videos[2])
    # Back by way of the other class, and the object itself.
    first.scheduler = FlowMatchEulerDiscreteScheduler.from_config(swaps[0].config, shift=before.config.shift)
    np.testing.assert_array_equal(run(first, picture, num_inference_steps=4), euler)
    first.scheduler = before
    np.testing.assert_array_equal(run(first, picture, num_inference_steps=4), euler)


def test_two_pipelines_have_schedulers_of_their_own(first: Any, picture: Image.Image) -> None:
    alone = run(first, picture)
    second = type(first).from_pipe(first, scheduler=UniPCMultistepScheduler(flow_shift=5.0))
    run(second, picture)
    np.testing.assert_array_equal(run(first, picture), alone)


def test_a_place_or_dtype_that_does_not_exist_is_one_sentence(first: Any) -> None:
    with pytest.raises(BackendError, match="'float64'"):
        first.to("float64")
    with pytest.raises(BackendError, match="flot32"):
        first.to("flot32")
