"""The field's interface over the loop, where it is better than the field's; `tests/oracle` holds where it is equal."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from types import MethodType
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from longtake import backend
from longtake.backend import ops, runtime
from longtake.compat.framepack import FramepackSamplingType, HunyuanVideoFramepackPipeline
from longtake.compat.keywords import DECLINED
from longtake.errors import JobError, LongtakeWarning, ModelError

CALL: dict[str, Any] = {
    "prompt": "a small blue bird",
    "num_frames": 12,
    "latent_window_size": 2,
    "num_inference_steps": 2,
    "generator": 1,
    "output_type": "np",
}


def run(pipe: Any, **changes: Any) -> Any:
    return pipe(**{**CALL, **changes}).frames


@pytest.mark.parametrize("sampling_type", [*FramepackSamplingType, "vanilla", "inverted_anti_drifting"])
def test_exactly_num_frames_come_back(sampling_type: str, pipe: Any, picture: Image.Image) -> None:
    assert run(pipe, image=picture, sampling_type=sampling_type).shape == (1, 12, 32, 48, 3)


def test_output_types(pipe: Any, picture: Image.Image) -> None:
    array = run(pipe, image=picture)
    assert array.dtype == np.float32 and 0 <= array.min() <= array.max() <= 1
    tensor = run(pipe, image=picture, output_type="pt")
    np.testing.assert_array_equal(ops.to_numpy(tensor), array.transpose(0, 1, 4, 2, 3))
    videos = run(pipe, image=picture, output_type="pil")
    assert len(videos) == 1 and len(videos[0]) == 12 and videos[0][0].size == (48, 32)
    np.testing.assert_array_equal(np.asarray(videos[0][3]), np.rint(array[0, 3] * 255).astype(np.uint8))
    latents = run(pipe, image=picture, output_type="latent")
    assert [stage.shape[2] for stage in latents] == [2, 5]
    assert [
        stage.shape[2] for stage in run(pipe, image=picture, output_type="latent", sampling_type="vanilla")
    ] == [3, 5]


def test_a_tuple_comes_back_where_it_is_asked_for(pipe: Any, picture: Image.Image) -> None:
    assert pipe(picture, **CALL, return_dict=False)[0].shape[1] == 12
    assert pipe(picture, **CALL)[0].shape[1] == 12


def test_the_second_prompt_changes_the_video(pipe: Any, picture: Image.Image) -> None:
    one, two = run(pipe, image=picture), run(pipe, image=picture, prompt_2="a red ball bounces")
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(
        run(pipe, image=picture, reference=True),
        run(pipe, image=picture, reference=True, prompt_2="a red ball bounces"),
    )


def test_the_last_image_changes_length_and_video_and_the_user_is_told(
    pipe: Any, picture: Image.Image, last_picture: Image.Image
) -> None:
    with pytest.warns(LongtakeWarning, match="9 frames are made instead of 12"):
        frames = run(pipe, image=picture, last_image=last_picture)
    assert frames.shape[1] == 9


def test_latents_stand_in_for_images(pipe: Any, picture: Image.Image) -> None:
    given = np.random.default_rng(0).standard_normal((1, 4, 1, 4, 6)).astype(np.float32)
    plain = run(pipe, image=picture, num_frames=9)
    one = run(pipe, image_latents=given, num_frames=9)
    both = run(pipe, image=picture, image_latents=ops.from_numpy(given), num_frames=9)
    end = run(pipe, image=picture, last_image_latents=given, num_frames=9)
    for a, b in ((plain, one), (one, both), (plain, end)):
        assert not np.array_equal(a, b)


def test_several_prompts_with_one_image_are_the_single_videos(pipe: Any, picture: Image.Image) -> None:
    prompts = ["a small blue bird", "a red ball bounces"]
    together = run(pipe, image=picture, prompt=prompts, generator=[1, 2])
    assert together.shape[0] == 2
    for video, prompt in enumerate(prompts):
        alone = run(pipe, image=picture, prompt=prompt, generator=1 + video)
        # Rows share a padded sequence, which changes the order of float32 sums.
        np.testing.assert_allclose(together[video], alone[0], atol=1e-4)


def test_several_videos_of_a_prompt_are_the_next_seeds(pipe: Any, picture: Image.Image) -> None:
    together = run(pipe, image=picture, num_videos_per_prompt=2)
    assert together.shape[0] == 2
    for video in range(2):
        np.testing.assert_allclose(
            together[video], run(pipe, image=picture, generator=1 + video)[0], atol=1e-4
        )


def test_prompts_come_before_videos(pipe: Any, picture: Image.Image) -> None:
    found = run(
        pipe,
        image=[picture, picture],
        prompt=["a bird", "a ball"],
        num_videos_per_prompt=2,
        generator=[5] * 4,
    )
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    np.testing.assert_allclose(found[2], found[3], atol=1e-4)
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_one_negative_prompt_serves_several_prompts(pipe: Any, picture: Image.Image) -> None:
    found = run(pipe, image=picture, prompt=["a bird", "a ball"], negative_prompt="snow", true_cfg_scale=2.0)
    assert found.shape[0] == 2


def test_guidance_without_a_negative_prompt_is_away_from_the_empty_one(
    pipe: Any, picture: Image.Image
) -> None:
    silent = run(pipe, image=picture, true_cfg_scale=3.0)
    np.testing.assert_array_equal(silent, run(pipe, image=picture, true_cfg_scale=3.0, negative_prompt=""))
    assert not np.array_equal(silent, run(pipe, image=picture))
    np.testing.assert_array_equal(
        run(pipe, image=picture, true_cfg_scale=3.0, reference=True), run(pipe, image=picture, reference=True)
    )


def test_encoded_prompts_are_the_prompts(pipe: Any, picture: Image.Image) -> None:
    embeds, pooled, mask = pipe.encode_prompt("a small blue bird")
    given = run(
        pipe,
        image=picture,
        prompt=None,
        prompt_embeds=embeds,
        pooled_prompt_embeds=pooled,
        prompt_attention_mask=mask,
    )
    np.testing.assert_array_equal(given, run(pipe, image=picture))


@pytest.mark.parametrize("seeded", [runtime.seeded, np.random.default_rng], ids=["framework", "numpy"])
def test_generators_of_both_kinds_are_streams(seeded: Any, pipe: Any, picture: Image.Image) -> None:
    np.testing.assert_array_equal(*(run(pipe, image=picture, generator=seeded(0)) for _ in range(2)))


def test_a_callback_sees_every_step_and_may_return_nothing(pipe: Any, picture: Image.Image) -> None:
    seen = []

    def look(inside: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> None:
        seen.append((step, float(timestep), set(inputs), inside.num_timesteps))

    run(
        pipe,
        image=picture,
        callback_on_step_end=look,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    )
    assert [step for step, *_ in seen] == [0, 1, 0, 1]
    assert seen[0][1:] == (1000.0, {"latents", "prompt_embeds"}, 2)
    assert pipe.current_timestep is None


@pytest.mark.parametrize(("sampling_type", "frames"), [("vanilla", 9), ("inverted_anti_drifting", 5)])
def test_an_interrupted_job_returns_the_sections_it_finished(
    sampling_type: str, frames: int, pipe: Any, picture: Image.Image
) -> None:
    calls = []

    def stop(inside: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> None:
        calls.append(step)
        inside.interrupt = len(calls) == 3

    found = run(pipe, image=picture, callback_on_step_end=stop, sampling_type=sampling_type)
    assert calls == [0, 1, 0]
    # Vanilla has the picture and one section (1 + 8 frames), inverted the last section alone (1 + 4).
    assert found.shape[1] == frames


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": 3}, "int"),
        ({"height": 40}, "multiple of 16"),
        ({"num_frames": 0}, "frames"),
        ({"output_type": "gif"}, "gif"),
        ({"sampling_type": "sideways"}, "sideways"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "noise"),
        ({"prompt_template": {"words": 1}}, "template"),
        ({"generator": [1, 2, 3]}, "3 generators for 1"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt"),
        ({"prompt": ["a", "b", "c"], "image": "two"}, "image has 2 entries for 3 prompts"),
        (
            {"prompt": ["a", "b", "c"], "negative_prompt": ["d", "e"], "true_cfg_scale": 2.0},
            "negative_prompt has 2",
        ),
        ({"prompt_embeds": ops.zeros(1, 4, 16)}, "not both"),
        ({"prompt": None, "prompt_embeds": ops.zeros(1, 4, 16)}, "prompt_attention_mask"),
        (
            {
                "prompt": None,
                "prompt_embeds": ops.zeros(1, 4, 16),
                "prompt_attention_mask": ops.ones(1, 4),
            },
            "need pooled_prompt_embeds",
        ),
        ({"negative_prompt_embeds": ops.zeros(1, 4, 16)}, "need negative_prompt_attention_mask"),
        ({"image_latents": ops.zeros(1, 4, 4, 6)}, "image_latents has the shape"),
        ({"sampling_type": "vanilla", "last_image": Image.new("RGB", (48, 32))}, "inverted"),
    ],
)
def test_a_bad_request_is_one_sentence(
    changes: dict[str, Any], words: str, pipe: Any, picture: Image.Image
) -> None:
    changes = {"image": picture, **changes}
    if changes["image"] == "two":
        changes["image"] = [picture, picture]
    with pytest.raises(JobError, match=words):
        run(pipe, **changes)


def test_it_is_saved_and_loaded_and_takes_given_parts(pipe: Any, picture: Image.Image, tmp_path: Any) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = HunyuanVideoFramepackPipeline.from_pretrained(
        tmp_path, torch_dtype=runtime.dtype("float32"), vae=pipe.vae
    )
    loaded.set_progress_bar_config(disable=True)
    assert loaded.vae is pipe.vae and loaded.transformer is not pipe.transformer
    # Mapped weights lie otherwise in memory, which changes the order of float32 sums.
    np.testing.assert_allclose(run(loaded, image=picture), run(pipe, image=picture), atol=1e-4)
    # Not before the shared part is given up: it would change for everyone.
    loaded.vae = copy.deepcopy(pipe.vae)
    half = runtime.dtype("float16")
    loaded.to(half)
    assert loaded.dtype == half == loaded.text_encoder.dtype == loaded.vae.dtype
    assert runtime.dtype_name(pipe.vae.dtype) == "float32"
    assert str(loaded.to("cpu").device).lower().startswith("cpu")


def test_half_precision_networks_run(pipe: Any, picture: Image.Image, tmp_path: Any) -> None:
    """bfloat16 on PyTorch; float16 where a CPU has no bfloat16."""
    name = "bfloat16" if backend.name == "torch" else "float16"
    pipe.save_pretrained(tmp_path)
    half = HunyuanVideoFramepackPipeline.from_pretrained(tmp_path, mindspore_dtype=runtime.dtype(name))
    half.set_progress_bar_config(disable=True)
    assert run(half, image=picture).shape == (1, 12, 32, 48, 3)
    assert runtime.dtype_name(run(half, image=picture, output_type="pt").dtype) == name


def test_tiling_works_through_the_autoencoder(pipe: Any, picture: Image.Image) -> None:
    plain = run(pipe, image=picture)
    pipe.enable_vae_slicing()
    pipe.vae.enable_tiling(32, 32, tile_sample_stride_height=16, tile_sample_stride_width=16)
    try:
        assert not np.array_equal(plain, run(pipe, image=picture))
    finally:
        pipe.disable_vae_tiling()
        pipe.disable_vae_slicing()
    np.testing.assert_array_equal(plain, run(pipe, image=picture))


def test_components_build_another_pipeline(pipe: Any) -> None:
    other = HunyuanVideoFramepackPipeline(**pipe.components)
    assert other.components == pipe.components
    assert (other.vae_scale_factor_spatial, other.vae_scale_factor_temporal) == (8, 4)


def test_a_dtype_for_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="'transfomer'"):
        HunyuanVideoFramepackPipeline.from_pretrained("embedded", dtype={"transfomer": "float16"})
    with pytest.raises(ModelError, match="one setting"):
        HunyuanVideoFramepackPipeline.from_pretrained("embedded", dtype="float32", torch_dtype="float16")


# Parts ---------------------------------------------------------------------------------------------------------------


def test_a_part_that_is_none_is_left_out(pipe: Any, picture: Image.Image, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "whole")
    loaded = HunyuanVideoFramepackPipeline.from_pretrained(tmp_path / "whole", transformer=None, vae=None)
    assert loaded.transformer is None and loaded.vae is None
    for found, expected in zip(loaded.encode_prompt("a bird"), pipe.encode_prompt("a bird"), strict=True):
        # Mapped weights lie otherwise in memory, which changes the order of float32 sums.
        np.testing.assert_allclose(ops.to_numpy(found), ops.to_numpy(expected), atol=1e-5)
    assert runtime.dtype_name(loaded.to("float16", "cpu").dtype) == "float16"
    loaded.save_pretrained(tmp_path / "encoders")
    assert not (tmp_path / "encoders" / "transformer").exists()
    again = HunyuanVideoFramepackPipeline.from_pretrained(
        tmp_path / "encoders", transformer=pipe.transformer, vae=pipe.vae, dtype="float16"
    )
    assert again.transformer is pipe.transformer
    with pytest.raises(ModelError, match="no transformer"):
        run(loaded, image=picture)
    with pytest.raises(ModelError, match="no transformer"):
        loaded.load_lora_weights("x")
    with pytest.raises(ModelError, match="no vae"):
        loaded.enable_vae_tiling()
    with pytest.raises(ModelError, match="no network"):
        _ = HunyuanVideoFramepackPipeline().device


def test_encodings_made_by_one_pipeline_are_used_by_another(pipe: Any, picture: Image.Image) -> None:
    encoder = HunyuanVideoFramepackPipeline.from_pipe(pipe, transformer=None, vae=None)
    denoiser = HunyuanVideoFramepackPipeline.from_pipe(pipe, text_encoder=None, text_encoder_2=None)
    denoiser.set_progress_bar_config(disable=True)
    embeds, pooled, mask = encoder.encode_prompt("a small blue bird")
    given = run(
        denoiser,
        image=picture,
        prompt=None,
        prompt_embeds=embeds,
        pooled_prompt_embeds=pooled,
        prompt_attention_mask=mask,
    )
    np.testing.assert_array_equal(given, run(pipe, image=picture))
    with pytest.raises(ModelError, match="no text_encoder"):
        run(denoiser, image=picture)


def test_the_keywords_of_the_field_are_taken(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path, safe_serialization=True, variant="own", max_shard_size="1MB")
    assert (tmp_path / "vae" / "diffusion_pytorch_model.own.safetensors").exists()
    loaded = HunyuanVideoFramepackPipeline.from_pretrained(
        tmp_path,
        use_safetensors=True,
        low_cpu_mem_usage=True,
        device_map="cpu",
        attn_implementation="sdpa",
        variant="own",
    )
    assert runtime.dtype_name(loaded.dtype) == "float32" and str(loaded.device).lower().startswith("cpu")
    half = HunyuanVideoFramepackPipeline.from_pipe(loaded, torch_dtype=runtime.dtype("float16"))
    assert half.vae is loaded.vae and runtime.dtype_name(half.vae.dtype) == "float16"
    pipe.set_progress_bar_config(ncols=40, leave=False, disable=True)
    pipe.encode_prompt("a bird", None, None, 2, device="cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_safetensors": False}, "safetensors alone"),
        ({"device_map": "balanced"}, "longtake.integrations.diffusers"),
        ({"device_map": {"vae": "cpu"}}, "longtake.integrations.diffusers"),
        ({"device_map": "cpu", "device": "meta"}, "one setting"),
        ({"quantization_config": {"bits": 4}}, "longtake.integrations.diffusers"),
    ],
)
def test_loading_that_is_not_done_here_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        HunyuanVideoFramepackPipeline.from_pretrained("embedded", **options)


def test_saving_that_is_not_done_here_is_refused(pipe: Any, tmp_path: Path) -> None:
    for options in ({"safe_serialization": False}, {"push_to_hub": True}):
        with pytest.raises(ModelError, match=r"pickles|hub"):
            pipe.save_pretrained(tmp_path, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", DECLINED)
def test_what_is_declined_says_who_does_it(name: str, pipe: Any) -> None:
    with pytest.raises(JobError, match=rf"{name}.*longtake\.integrations\.diffusers\."):
        getattr(pipe, name)("anything", at=1)


# The call ------------------------------------------------------------------------------------------------------------


def test_the_pipelines_scheduler_is_the_one_that_is_driven(pipe: Any, picture: Image.Image) -> None:
    seen = []

    def look(inside: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> None:
        seen.append((inside.scheduler.step_index, float(inside.scheduler.timesteps[step]) == float(timestep)))

    run(pipe, image=picture, callback_on_step_end=look)
    assert seen == [(1, True), (2, True)] * 2


def test_a_scheduler_that_is_none_of_flow_matching_is_refused(pipe: Any, picture: Image.Image) -> None:
    class Denoising:
        """Like DDIM: steps of another process."""

        config: ClassVar[dict[str, Any]] = {"num_train_timesteps": 1000, "prediction_type": "epsilon"}

        def set_timesteps(self, sigmas: Any = None, device: Any = None, mu: float | None = None) -> None:
            """Take what FramePack gives."""

        def step(self, *_: Any) -> None:
            """Never called."""

    pipe.scheduler = Denoising()
    with pytest.raises(JobError, match=r"Denoising.*epsilon.*flow matching"):
        run(pipe, image=picture)


def encode_brightly(self: Any, image: Any, device: Any = None, dtype: Any = None) -> Any:
    return HunyuanVideoFramepackPipeline.encode_image(self, image, device, dtype) * 2


def encode_loudly(self: Any, prompt: Any, **options: Any) -> Any:
    prompts = [prompt] if isinstance(prompt, str) else prompt
    return HunyuanVideoFramepackPipeline.encode_prompt(self, [f"{each}!" for each in prompts], **options)


@pytest.mark.parametrize("where", ["subclass", "instance", "class"])
@pytest.mark.parametrize(
    ("name", "override"), [("encode_image", encode_brightly), ("encode_prompt", encode_loudly)]
)
def test_an_encoder_method_that_is_overridden_is_used(
    where: str, name: str, override: Any, pipe: Any, picture: Image.Image, monkeypatch: Any
) -> None:
    asked: dict[str, Any] = {"image": picture, "negative_prompt": "snow", "true_cfg_scale": 2.0}
    before = run(pipe, **asked)
    loud = {"prompt": "a small blue bird!", "negative_prompt": "snow!"} if name == "encode_prompt" else {}
    expected = run(pipe, **{**asked, **loud})
    if where == "subclass":
        pipe = type("Own", (HunyuanVideoFramepackPipeline,), {name: override})(**pipe.components)
        pipe.set_progress_bar_config(disable=True)
    elif where == "instance":
        setattr(pipe, name, MethodType(override, pipe))
    else:
        plain = getattr(HunyuanVideoFramepackPipeline, name)
        body = (lambda self, *a, **k: plain(self, *a, **k) * 2) if name == "encode_image" else (
            lambda self, prompt, **k: plain(self, [f"{each}!" for each in [prompt]], **k)
        )  # fmt: skip
        monkeypatch.setattr(HunyuanVideoFramepackPipeline, name, functools.wraps(plain)(body))
    found = run(pipe, **asked)
    assert not np.array_equal(found, before)
    if name == "encode_prompt":
        np.testing.assert_array_equal(found, expected)


def test_prompt_embeds_of_a_callback_are_used_and_stay(pipe: Any, picture: Image.Image) -> None:
    seen = []

    def silence(inside: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        seen.append(float(np.abs(ops.to_numpy(inputs["prompt_embeds"])).max()))
        return {"prompt_embeds": inputs["prompt_embeds"] * 0}

    asked = {"callback_on_step_end": silence, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    changed = run(pipe, image=picture, num_videos_per_prompt=2, **asked)
    assert seen[0] > 0 and seen[1:] == [0] * 3
    assert not np.array_equal(changed, run(pipe, image=picture, num_videos_per_prompt=2))


def test_what_a_callback_returns_is_put_where_it_belongs_or_refused(pipe: Any, picture: Image.Image) -> None:
    def doubled(inside: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        # An array, in another precision than the loop's.
        return {"latents": (ops.to_numpy(inputs["latents"]) * 2).astype(np.float64)}

    def same(inside: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"latents": inputs["latents"] * 2}

    one, two = (run(pipe, image=picture, callback_on_step_end=each) for each in (doubled, same))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(JobError, match="latents of the shape"):
        run(pipe, image=picture, callback_on_step_end=lambda *_: {"latents": np.zeros((1, 4), np.float32)})
    for answer in (True, {"noise": 1}):
        with pytest.raises(
            JobError, match="A callback returns nothing, or a dict of latents and prompt_embeds"
        ):
            run(pipe, image=picture, callback_on_step_end=lambda *_, answer=answer: answer)
    kept = run(pipe, image=picture, callback_on_step_end=lambda *given: given[-1])
    np.testing.assert_array_equal(kept, run(pipe, image=picture))
    with pytest.raises(JobError, match="must ask for it"):
        run(
            pipe,
            image=picture,
            callback_on_step_end=lambda *_: {"prompt_embeds": np.zeros((1, 4), np.float32)},
        )


def test_a_pipeline_makes_one_video_at_a_time(pipe: Any, picture: Image.Image) -> None:
    expected = run(pipe, image=picture)
    other = HunyuanVideoFramepackPipeline.from_pipe(pipe)
    other.set_progress_bar_config(disable=True)
    found = []

    def again(inside: Any, step: int, timestep: Any, inputs: dict[str, Any]) -> None:
        with pytest.raises(JobError, match=r"making a video already.*from_pipe"):
            run(inside, image=picture)
        if step == 0:
            # Over the very same parts, the scheduler among them.
            assert other.scheduler is inside.scheduler
            found.append(run(other, image=picture))

    np.testing.assert_array_equal(run(pipe, image=picture, callback_on_step_end=again), expected)
    assert len(found) == 2
    for video in found:
        np.testing.assert_array_equal(video, expected)
    np.testing.assert_array_equal(run(pipe, image=picture), expected)


def test_without_a_generator_the_frameworks_own_state_is_drawn_from(
    pipe: Any, picture: Image.Image, torch_only: Any
) -> None:
    videos = []
    for seed in (3, 3, 4):
        torch_only.manual_seed(seed)
        videos.append(run(pipe, image=picture, generator=None))
    np.testing.assert_array_equal(videos[0], videos[1])
    assert not np.array_equal(videos[0], videos[2])


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ({"height": 40}, ValueError),
        ({"prompt": 3}, TypeError),
        ({"num_frames": "9"}, TypeError),
        ({"image": "/nowhere.png"}, OSError),
        ({"guidance_scale": float("nan")}, ValueError),
    ],
)
def test_errors_are_the_fields_too(call: dict[str, Any], kind: type, pipe: Any, picture: Image.Image) -> None:
    with pytest.raises(kind) as caught:
        run(pipe, **{"image": picture, **call})
    assert isinstance(caught.value, JobError)


def test_a_negative_prompt_without_guidance_is_told(pipe: Any, picture: Image.Image) -> None:
    call = {
        "prompt": "a ball",
        "num_frames": 5,
        "latent_window_size": 2,
        "num_inference_steps": 1,
        "generator": 1,
    }
    with pytest.warns(LongtakeWarning, match="no effect without true_cfg_scale above 1"):
        pipe(image=picture, negative_prompt="a red ball", output_type="latent", **call)


def test_a_step_cache_is_switched_on_and_off(pipe: Any, picture: Image.Image) -> None:
    steps = 6
    plain = run(pipe, image=picture, num_inference_steps=steps)
    pipe.enable_cache("easy:2")
    cached = run(pipe, image=picture, num_inference_steps=steps)
    assert not np.array_equal(cached, plain)
    with pytest.raises(JobError, match="disable_cache comes before another one"):
        pipe.enable_cache("first")
    pipe.disable_cache()
    np.testing.assert_array_equal(run(pipe, image=picture, num_inference_steps=steps), plain)
    with pytest.raises(JobError, match="No cache 'fast'"):
        pipe.enable_cache("fast")
    pipe.enable_cache("easy")
    with pytest.raises(JobError, match="The reference computes every step"):
        run(pipe, image=picture, reference=True)
    pipe.disable_cache()
