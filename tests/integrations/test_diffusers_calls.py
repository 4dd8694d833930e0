"""The habits of diffusers' pipelines, which its own tests ask of every one, held by the class with our loop."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from diffusers.utils.source_code_parsing_utils import ReturnNameVisitor  # noqa: E402

from longtake.integrations.diffusers import HunyuanVideoFramepackPipeline  # noqa: E402

Stock = diffusers.HunyuanVideoFramepackPipeline


@pytest.fixture(scope="module")
def pipe(read: Callable[..., Any]) -> Any:
    return read(HunyuanVideoFramepackPipeline)


@pytest.fixture(scope="module")
def stock(read: Callable[..., Any]) -> Any:
    return read(Stock)


def seeded(*seeds: int) -> Any:
    found = [torch.Generator().manual_seed(seed) for seed in seeds]
    return found if len(found) > 1 else found[0]


OWN = ("reference", "decoding", "timeline", "loop")
"""Parameters of a call that the peers do not have."""


def test_it_takes_what_stock_takes() -> None:
    theirs = list(inspect.signature(Stock.__call__).parameters)
    ours = list(inspect.signature(HunyuanVideoFramepackPipeline.__call__).parameters)
    assert [name for name in ours if name not in OWN] == theirs


def test_a_round_trip_to_disk(
    read: Callable[..., Any], folder: Path, call: dict[str, Any], tmp_path: Path, assert_same: Any
) -> None:
    pipe = read(HunyuanVideoFramepackPipeline)
    # Ours is of no library that diffusers writes down.
    theirs = transformers.SiglipImageProcessor.from_pretrained(folder, subfolder="feature_extractor")
    pipe.register_modules(feature_extractor=theirs)
    pipe.save_pretrained(tmp_path)
    assert type(Stock.from_pretrained(tmp_path)) is Stock
    again = HunyuanVideoFramepackPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert_same(again(**call).frames, pipe(**call).frames, 1e-9)
    # The name in the file is the field's own, so its generic door reads the folder too.
    assert type(diffusers.DiffusionPipeline.from_pretrained(tmp_path)) is Stock


def test_from_pipe_shares_the_parts(pipe: Any, stock: Any, call: dict[str, Any], assert_same: Any) -> None:
    other = HunyuanVideoFramepackPipeline.from_pipe(stock)
    other.set_progress_bar_config(disable=True)
    assert other.components == stock.components
    assert_same(other(**call).frames, pipe(**call).frames, 1e-9)
    assert type(Stock.from_pipe(other)) is Stock
    again = HunyuanVideoFramepackPipeline(**pipe.components)
    assert again.components == pipe.components


@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
def test_output_types(
    output_type: str, pipe: Any, stock: Any, call: dict[str, Any], assert_same: Any
) -> None:
    call |= {"output_type": output_type, "generator": seeded(3)}
    found = pipe(**call, reference=True).frames
    expected = stock(**call | {"generator": seeded(3)}).frames
    assert type(found) is type(expected)
    if output_type == "pil":
        assert isinstance(found[0][0], Image.Image)
        found, expected = (
            [np.stack([np.asarray(image) for image in video]) / 255.0 for video in videos]
            for videos in (found, expected)
        )
        # A value on the edge between two steps may round either way.
        assert_same(found, expected, 1.01 / 255)
    else:
        assert_same(found, expected)


def test_a_tuple_instead_of_an_output(pipe: Any, call: dict[str, Any]) -> None:
    output = pipe(**call)
    np.testing.assert_array_equal(pipe(**call, return_dict=False)[0], output.frames)
    np.testing.assert_array_equal(output[0], output.frames)


@pytest.mark.parametrize("sampling", ["vanilla", "inverted_anti_drifting"])
def test_rows_of_a_batch_are_the_videos_alone(
    sampling: str, pipe: Any, call: dict[str, Any], picture: Any, last_picture: Any, assert_same: Any
) -> None:
    call |= {"sampling_type": sampling}
    prompts, images = ["A penguin dances in the snow", "a red ball bounces"], [picture, last_picture]
    alone = [
        pipe(**call | {"prompt": prompt, "image": image, "generator": seeded(seed)}).frames[0]
        for prompt, image, seed in zip(prompts, images, (1, 2), strict=True)
    ]
    together = pipe(**call | {"prompt": prompts, "image": images, "generator": seeded(1, 2)}).frames
    assert_same(together, alone)


def test_several_videos_of_a_prompt(pipe: Any, call: dict[str, Any], assert_same: Any) -> None:
    """Unlike stock, where this is a shape error."""
    found = pipe(**call | {"generator": seeded(1, 2)}, num_videos_per_prompt=2).frames
    alone = [pipe(**call | {"generator": seeded(seed)}).frames[0] for seed in (1, 2)]
    assert_same(found, alone)


def test_a_callback_sees_and_changes_the_latents(
    pipe: Any, stock: Any, call: dict[str, Any], assert_same: Any
) -> None:
    seen: list[tuple[int, float]] = []

    def halve(pipeline: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        assert set(inputs) == set(pipeline._callback_tensor_inputs)
        assert float(pipeline.current_timestep) == float(timestep)
        seen.append((step, float(timestep)))
        return {"latents": inputs["latents"] / 2, "prompt_embeds": inputs["prompt_embeds"] * 1.1}

    call |= {
        "callback_on_step_end": halve,
        "callback_on_step_end_tensor_inputs": list(pipe._callback_tensor_inputs),
        "output_type": "latent",
    }
    found = pipe(**call | {"generator": seeded(3)}, reference=True).frames
    count, steps = len(seen), list(seen)
    seen.clear()
    assert_same(found, stock(**call | {"generator": seeded(3)}).frames)
    assert len(seen) == count and np.abs(np.asarray(seen) - np.asarray(steps)).max() < 1e-3
    assert pipe.num_timesteps == stock.num_timesteps == 3
    assert pipe.current_timestep is None
    assert pipe.guidance_scale == stock.guidance_scale and pipe.attention_kwargs is None


def test_callback_objects_of_diffusers(pipe: Any, call: dict[str, Any]) -> None:
    from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

    class Zero(PipelineCallback):  # type: ignore[misc, unused-ignore]
        tensor_inputs = ["latents"]  # noqa: RUF012

        def callback_fn(
            self, pipeline: Any, step: int, timestep: Any, inputs: dict[str, Any]
        ) -> dict[str, Any]:
            if step == pipeline.num_timesteps - 1:
                inputs["latents"] = torch.zeros_like(inputs["latents"])
            return inputs

    zero = Zero(cutoff_step_ratio=1.0)
    for callback in (zero, MultiPipelineCallbacks([zero])):
        found = pipe(**call | {"output_type": "latent"}, callback_on_step_end=callback).frames[-1]
        # The picture's own latent frame is the first.
        assert not np.asarray(found[:, :, 1:]).any() and np.asarray(found[:, :, :1]).any()


def test_an_interrupt_keeps_the_finished_sections(pipe: Any, call: dict[str, Any], assert_same: Any) -> None:
    """Unlike stock, which decodes the noise of the sections that it skips."""
    steps = 0

    def stop(pipeline: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        nonlocal steps
        steps += 1
        pipeline._interrupt = steps == 4  # in the second section
        return inputs

    call |= {"sampling_type": "vanilla", "output_type": "latent"}
    found = pipe(**call, callback_on_step_end=stop).frames
    assert steps == 4 and len(found) == 1
    assert_same(found, pipe(**call).frames[:1], 1e-9)


def test_encodings_in_place_of_prompts(pipe: Any, call: dict[str, Any], assert_same: Any) -> None:
    expected = pipe(**call).frames
    states, pooled, mask = pipe.encode_prompt(call.pop("prompt"))
    given = {"prompt_embeds": states, "pooled_prompt_embeds": pooled, "prompt_attention_mask": mask}
    assert_same(pipe(**call, **given).frames, expected, 1e-9)


def test_text_is_encoded_without_the_other_parts(read: Callable[..., Any], pipe: Any) -> None:
    """As a script does that encodes first and loads the transformer afterwards; the names are those of the call."""
    visitor = ReturnNameVisitor()
    visitor.visit(visitor.get_ast_tree(cls=HunyuanVideoFramepackPipeline))
    assert set(visitor.return_names) <= set(
        inspect.signature(HunyuanVideoFramepackPipeline.__call__).parameters
    )
    assert len(visitor.return_names) == 3
    alone = read(HunyuanVideoFramepackPipeline, transformer=None, vae=None, image_encoder=None)
    for found, expected in zip(alone.encode_prompt("a ball"), pipe.encode_prompt("a ball"), strict=True):
        assert torch.equal(found, expected)


def test_overridden_encoders_are_called(
    stock: Any, pipe: Any, call: dict[str, Any], assert_same: Any
) -> None:
    class Weighted(HunyuanVideoFramepackPipeline):
        """As somebody would write who weighs words."""

        def encode_prompt(self, *args: Any, **kwargs: Any) -> Any:
            states, pooled, mask = super().encode_prompt(*args, **kwargs)
            return states * 1.5, pooled, mask

        def encode_image(self, *args: Any, **kwargs: Any) -> Any:
            return super().encode_image(*args, **kwargs) * 0.5

    class Stocks(Stock):  # type: ignore[misc, unused-ignore]
        encode_prompt, encode_image = Weighted.encode_prompt, Weighted.encode_image

    weighted = Weighted(**stock.components)
    weighted.set_progress_bar_config(disable=True)
    theirs = Stock(**stock.components)
    theirs.set_progress_bar_config(disable=True)
    states, pooled, mask = stock.encode_prompt(call["prompt"])
    given = {"prompt_embeds": states * 1.5, "pooled_prompt_embeds": pooled, "prompt_attention_mask": mask}
    theirs.encode_image = lambda *args, **kwargs: stock.encode_image(*args, **kwargs) * 0.5
    found = weighted(**call | {"generator": seeded(3)}, reference=True).frames
    assert_same(found, theirs(**call | {"generator": seeded(3), "prompt": None}, **given).frames)
    assert np.abs(found - pipe(**call | {"generator": seeded(3)}, reference=True).frames).max() > 1e-3


def test_the_second_prompt_reaches_clip(pipe: Any, call: dict[str, Any]) -> None:
    frames = pipe(**call).frames
    assert np.abs(pipe(**call, prompt_2="a red ball bounces").frames - frames).max() > 0
    np.testing.assert_array_equal(
        pipe(**call, prompt_2="a red ball bounces", reference=True).frames,
        pipe(**call, reference=True).frames,
    )


@pytest.mark.parametrize(
    "override", ["prepare_latents", "prepare_image_latents", "check_inputs", "_soft_append"]
)
def test_overriding_what_the_loop_does_itself_is_refused(override: str) -> None:
    with pytest.raises(TypeError, match=f"{override}.*override encode_prompt or encode_image"):
        type("Mine", (HunyuanVideoFramepackPipeline,), {override: lambda self: None})


def test_the_progress_bar_is_diffusers(
    read: Callable[..., Any], call: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = read(HunyuanVideoFramepackPipeline)
    pipe.set_progress_bar_config(disable=False, desc="a bar of its own", ncols=60)
    pipe(**call)
    assert capsys.readouterr().err.count("a bar of its own: 100%") >= 2  # one for each section
    pipe.set_progress_bar_config(disable=True)
    pipe(**call)
    assert not capsys.readouterr().err


def test_to_moves_and_casts(read: Callable[..., Any], call: dict[str, Any]) -> None:
    pipe = read(HunyuanVideoFramepackPipeline).to(torch.bfloat16)
    assert pipe.transformer.dtype == pipe.vae.dtype == pipe.dtype == torch.bfloat16
    assert np.isfinite(pipe(**call).frames).all()
    assert pipe(**call | {"output_type": "pt"}).frames.dtype == torch.bfloat16
    mixed = read(HunyuanVideoFramepackPipeline)
    mixed.transformer.to(torch.bfloat16)
    assert np.isfinite(mixed(**call).frames).all()


def test_requests_that_cannot_be_met_are_refused(pipe: Any, call: dict[str, Any]) -> None:
    for change in (
        {"height": 33},
        {"sampling_type": "other"},
        {"callback_on_step_end_tensor_inputs": ["vae"]},
        {"prompt": None},
        {"prompt": 3},
        {"prompt_template": {}},
        {"output_type": "gif"},
        {"num_inference_steps": 0},
        {"sampling_type": "vanilla", "last_image": call["image"]},
        {"generator": seeded(1, 2)},
    ):
        with pytest.raises(ValueError):
            pipe(**call | change)


def test_nothing_is_kept_for_a_backward_pass(pipe: Any, call: dict[str, Any]) -> None:
    found = pipe(**call | {"output_type": "pt"}).frames
    assert not found.requires_grad


def test_what_the_folder_says_of_itself_travels(
    read: Callable[..., Any], stock: Any, call: dict[str, Any], tmp_path: Path, networks: Any
) -> None:
    pipe = read(HunyuanVideoFramepackPipeline)
    assert pipe.settings == networks.settings
    del call["height"], call["width"]
    assert pipe(**call).frames.shape[2:4] == (networks.settings["height"], networks.settings["width"])
    assert HunyuanVideoFramepackPipeline.from_pipe(pipe).settings == networks.settings
    pipe.feature_extractor = stock.feature_extractor = None
    pipe.save_pretrained(tmp_path)
    again = HunyuanVideoFramepackPipeline.from_pretrained(tmp_path, feature_extractor=None)
    assert again.settings == networks.settings


def test_llamas_tokenizer_is_read_as_it_stands(folder: Path, tmp_path: Path, pipe: Any) -> None:
    """The published model names a class for which transformers 5 makes a tokenizer without spaces."""
    place = tmp_path / "model"
    shutil.copytree(folder, place)
    for file, change in (
        ("model_index.json", {"tokenizer": ["transformers", "LlamaTokenizerFast"]}),
        ("tokenizer/tokenizer_config.json", {"tokenizer_class": "LlamaTokenizerFast"}),
    ):
        (place / file).write_text(json.dumps(json.loads((place / file).read_text()) | change))
    lost = Stock.from_pretrained(place, feature_extractor=None)
    read = HunyuanVideoFramepackPipeline.from_pretrained(place, feature_extractor=None)
    assert lost.tokenizer("a red ball")["input_ids"] != pipe.tokenizer("a red ball")["input_ids"]
    assert read.tokenizer("a red ball")["input_ids"] == pipe.tokenizer("a red ball")["input_ids"]
    assert torch.equal(read.encode_prompt("a red ball")[0], pipe.encode_prompt("a red ball")[0])
