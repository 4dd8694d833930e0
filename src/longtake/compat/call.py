"""The call of the field's pipeline: its arguments go in, the one loop runs, the frames come out in its forms."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from longtake.backend import exchange, ops, runtime
from longtake.compat.arguments import FramepackSamplingType, Side, check_call, plan_name
from longtake.compat.outputs import OUTPUTS, Collected, HunyuanVideoFramepackPipelineOutput
from longtake.compat.stepping import alone, driven, run
from longtake.compat.timeline import directed
from longtake.errors import JobError, LongtakeWarning
from longtake.job import Job
from longtake.named import SIZE
from longtake.pipeline.encode import (
    MAX_TEXT_TOKENS,
    PROMPT_TEMPLATE,
    Text,
    decode_picture,
    encode_picture,
    encode_text,
    repeated,
)
from longtake.pipeline.given import given_pictures
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.pipeline.predict import Wrap
from longtake.pipeline.prepare import Inputs
from longtake.processors import pictures
from longtake.sampling.configs import text_of

DEFAULT_SIZE = (1280, 720)
"""(width, height) in the field, of a model that says nothing about itself."""


class FramepackCall:
    """`pipe(...)`, and what a pipeline tells about it; over `networks`, `settings` and `progress_bar`."""

    networks: Networks
    settings: Any
    scheduler: Any
    transformer: Any
    progress_bar: Callable[..., Any]

    _sources: ClassVar[tuple[str, ...]] = (__file__,)
    """Files whose encode_prompt and encode_image need not be called; those of any other are."""

    _guidance_scale: float | None = None
    _attention_kwargs: dict[str, Any] | None = None
    _num_timesteps = 0
    _current_timestep: Any = None
    _interrupt = False
    _cache = ""

    @property
    def guidance_scale(self) -> float | None:
        """The distilled guidance of the last call."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Steps of each section in the last call."""
        return self._num_timesteps

    @property
    def attention_kwargs(self) -> dict[str, Any] | None:
        """The last call's."""
        return self._attention_kwargs

    @property
    def current_timestep(self) -> Any:
        """The timestep of the step that was made last; None between calls."""
        return self._current_timestep

    @property
    def interrupt(self) -> bool:
        """Set it (from a callback or another thread) to end the job after the step at hand."""
        return self._interrupt

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._interrupt = value

    def enable_cache(self, config: Any) -> None:
        """Make videos with a step cache from now on: a text such as "easy:0.05", or one of diffusers' configs.

        Raises JobError for a cache that is not made here, and if there is one already.
        """
        if self._cache:
            raise JobError(
                f"There is the cache {self._cache!r} already; disable_cache comes before another one."
            )
        self._cache = text_of(config)

    def disable_cache(self) -> None:
        """Compute every step again; a cache of the transformer alone (its own `enable_cache`) stays."""
        self._cache = ""

    def encode_prompt(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        prompt_template: dict[str, Any] | None = None,
        num_videos_per_prompt: int = 1,
        prompt_embeds: Any = None,
        pooled_prompt_embeds: Any = None,
        prompt_attention_mask: Any = None,
        device: Any = None,
        dtype: Any = None,
        max_sequence_length: int | None = None,
    ) -> tuple[Any, Any, Any]:
        """(prompt_embeds, pooled_prompt_embeds, prompt_attention_mask), as the call takes them.

        They come on the encoders' device and in their dtype, unless `device` or `dtype` says otherwise. Unlike the
        reference: CLIP reads `prompt_2`.
        """
        given = Text(prompt_embeds, prompt_attention_mask, pooled_prompt_embeds)
        side = Side(prompt, prompt_2, given)
        if not side.given:
            raise JobError("There is no prompt to encode; give prompt, or prompt_embeds with the other two.")
        prompts, prompts_2 = list(side.prompts or ("",)), side.prompts_2
        if prompts_2 is not None and len(prompts_2) != len(prompts):
            raise JobError(
                f"prompt_2 has {len(prompts_2)} entries for {len(prompts)} prompts; give one for each."
            )
        found = encode_text(self.networks, prompts, prompts_2, prompt_template, max_sequence_length, given)
        rows = found.states.shape[0] * num_videos_per_prompt
        states, mask, pooled = (repeated(part, rows) for part in (found.states, found.mask, found.pooled))
        return (
            runtime.place(states, device, dtype),
            runtime.place(pooled, device, dtype),
            runtime.place(mask, device),
        )

    def encode_image(self, image: Any, device: Any = None, dtype: Any = None) -> Any:
        """SigLIP's states (B, N, E) of pictures that are tensors or arrays (B, 3, H, W) in [-1, 1]."""
        array = image if isinstance(image, np.ndarray) else ops.to_numpy(image)
        networks = self.networks
        with networks.using("image_encoder") as encoder:
            states = encode_picture(encoder, networks.part("feature_extractor"), array)
        return runtime.place(states, device, dtype)

    def __call__(
        self,
        image: Any = None,
        last_image: Any = None,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int = 129,
        latent_window_size: int = 9,
        num_inference_steps: int = 50,
        sigmas: Sequence[float] | None = None,
        true_cfg_scale: float = 1.0,
        guidance_scale: float = 6.0,
        num_videos_per_prompt: int | None = 1,
        generator: Any = None,
        image_latents: Any = None,
        last_image_latents: Any = None,
        prompt_embeds: Any = None,
        pooled_prompt_embeds: Any = None,
        prompt_attention_mask: Any = None,
        negative_prompt_embeds: Any = None,
        negative_pooled_prompt_embeds: Any = None,
        negative_prompt_attention_mask: Any = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable[..., Any] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        prompt_template: dict[str, Any] | None = None,
        max_sequence_length: int | None = None,
        sampling_type: str = FramepackSamplingType.INVERTED_ANTI_DRIFTING,
        reference: bool = False,
        decoding: str = "exact",
        timeline: Any = None,
        loop: bool = False,
    ) -> Any:
        """Make videos from pictures and prompts.

        image, last_image: the video's beginning and (inverted sampling) its end: PIL, arrays (H, W, C), tensors
            (C, H, W), paths, or lists with one for each prompt. Without an image the video begins from the prompt
            alone, or, if the model was not trained to, from plain black.
        prompt, prompt_2: for Llama and for CLIP (the first if there is no second); lists make several videos.
        negative_prompt, negative_prompt_2: with `true_cfg_scale` above 1, what to guide away from.
        height, width: pixels, multiples of 16; by default the model's own (FramePack's table), else 720 x 1280.
        num_frames: at 30 a second; latent_window_size: latent frames of a section.
        num_inference_steps, sigmas: steps of each section, or their noise levels before the scheduler's shift.
        guidance_scale: the distilled one, which the network is told.
        generator: an int, a numpy or framework generator, or a list with one for each video (`noise_source`).
        image_latents, last_image_latents: latents (B, C, 1, h, w), scaled, in place of encoding the images.
        prompt_embeds …: what `encode_prompt` returns, in place of prompts.
        output_type: "pil", "np", "pt" or "latent".
        callback_on_step_end: called with (pipeline, step, timestep, dict); may return {"latents": …,
            "prompt_embeds": …} to change them.
        prompt_template, max_sequence_length: by default the model's own, else HunyuanVideo's and 256.
        sampling_type: "inverted_anti_drifting" or "vanilla", as the model was trained.
        reference: do as diffusers does, number for number.
        decoding: "exact", or "causal", which is faster and near to it.
        timeline: prompts, pictures and LoRA weights in time (docs/timeline.md): a dict {"prompts": [{"from": 1, "to":
            3, "text": …}], "keyframes": [{"at": 2, "image": …}], …}, a text such as "[1s-3s: it jumps]", or a file.
        loop: let the end meet the beginning (a sampling that sees the end).

        Raises JobError or PictureError for a request that cannot be met, RunError for a run that fails on its way.
        """
        callback_inputs = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs)
        check_call(output_type, callback_inputs, prompt_template, num_videos_per_prompt)
        positive = Side(prompt, prompt_2, Text(prompt_embeds, prompt_attention_mask, pooled_prompt_embeds))
        against = Text(negative_prompt_embeds, negative_prompt_attention_mask, negative_pooled_prompt_embeds)
        negative = Side(negative_prompt, negative_prompt_2, against, "negative_")
        if not positive.given and timeline is None:
            raise JobError("There is no prompt; give prompt or prompt_embeds.")
        if negative.given and true_cfg_scale <= 1:
            warnings.warn(
                "A negative prompt has no effect without true_cfg_scale above 1.",
                LongtakeWarning,
                stacklevel=2,
            )
        guided = true_cfg_scale <= 1 or negative.given or not reference
        job = Job(
            prompt=(positive.prompts or ("",))[0],
            frames=num_frames,
            width=self._own_size(image)[0] if width is None else width,
            height=self._own_size(image)[1] if height is None else height,
            sampling=plan_name(sampling_type),
            window=latent_window_size,
            steps=num_inference_steps if sigmas is None else len(sigmas),
            guidance=guidance_scale,
            cfg_scale=true_cfg_scale if guided else 1.0,
            reference=reference,
            decoding=decoding,
            cache=self._cache,
        )
        job, given = directed(job, timeline, loop)
        _check_side(job, positive)
        inputs = Inputs(
            pictures=given,
            picture=image,
            last_picture=last_image,
            latents=image_latents,
            last_latents=last_image_latents,
            prompts=positive.prompts,
            prompts_2=positive.prompts_2,
            negatives=negative.prompts,
            negatives_2=negative.prompts_2,
            text=positive.text,
            negative=negative.text,
            videos=num_videos_per_prompt or 1,
            # A list of one is that one; without any, the framework's own state is drawn from.
            generator=[None] if generator is None else generator,
            sigmas=sigmas,
            template=prompt_template,
            max_tokens=max_sequence_length,
            attention_kwargs=attention_kwargs,
        )
        collected: Collected = OUTPUTS[output_type or "np"]()
        with alone(self), driven(self.scheduler) as scheduler, self._around(job) as wrap:
            self._guidance_scale, self._attention_kwargs = guidance_scale, attention_kwargs
            self._current_timestep, self._interrupt = None, False
            inputs = self._overridden(replace(inputs, scheduler=scheduler), job, positive, negative)
            events = generate(job, self.networks, inputs, convert=collected.convert, wrap=wrap)
            run(self, events, collected, callback_on_step_end, callback_inputs, reference)
        frames = collected.frames
        return HunyuanVideoFramepackPipelineOutput(frames) if return_dict else (frames,)

    def _own_size(self, image: Any) -> tuple[int, int]:
        """(width, height) of a call that does not say it: the model's own, or the one of its table for the picture."""
        if image is not None and "width" not in self.settings and SIZE in self.settings:
            shape = pictures.size_of(image)
            if shape is not None:
                return pictures.bucket(*shape)
        return self.settings.get("width", DEFAULT_SIZE[0]), self.settings.get("height", DEFAULT_SIZE[1])

    def _around(self, job: Job) -> AbstractContextManager[Wrap | None]:
        """Entered for each run; gives what wraps its velocity."""
        return nullcontext()

    def _overridden(self, inputs: Inputs, job: Job, positive: Side, negative: Side) -> Inputs:
        """The inputs with the encodings of a subclass's or an instance's own encode_prompt and encode_image."""
        if not self._is_own("encode_prompt"):
            inputs = replace(inputs, text=self._encoded(inputs, job, positive))
            if job.cfg_scale > 1:
                inputs = replace(inputs, negative=self._encoded(inputs, job, negative))
        if not self._is_own("encode_image"):
            seen = {
                at: self._seen(picture.source, picture.latents, job)
                for at, picture in given_pictures(job, inputs).items()
            }
            states = {
                at: self.encode_image(ops.from_numpy(pixels), device=exchange.device_of(self.transformer))
                for at, pixels in seen.items()
            }
            inputs = replace(inputs, image_states=states or None)
        return inputs

    def _encoded(self, inputs: Inputs, job: Job, side: Side) -> Text:
        """One side of the text through `encode_prompt`, called as the field's pipelines call it."""
        template = inputs.template or self.settings.get("prompt_template", PROMPT_TEMPLATE)
        most = inputs.max_tokens or self.settings.get("max_sequence_length", MAX_TEXT_TOKENS)
        states, pooled, mask = self.encode_prompt(
            prompt=side.prompt if side.given else "",
            prompt_2=None if job.reference else side.prompt_2,
            prompt_template=dict(template),
            num_videos_per_prompt=1,
            prompt_embeds=side.text.states,
            pooled_prompt_embeds=side.text.pooled,
            prompt_attention_mask=side.text.mask,
            device=exchange.device_of(self.transformer),
            max_sequence_length=most,
        )
        return Text(states, mask, pooled)

    def _seen(self, picture: Any, latents: Any, job: Job) -> np.ndarray:
        """The pixels (B, 3, H, W) of a picture, or of latents that stand for one."""
        if picture is not None:
            return pictures.pixels(picture, job.width or 0, job.height or 0, job.reference)
        array = latents if isinstance(latents, np.ndarray) else ops.to_numpy(latents)
        with self.networks.using("vae") as vae:
            return decode_picture(vae, array)

    def _is_own(self, name: str) -> bool:
        """Tell if a method is that of the pipeline's own source, and nobody's patch."""
        function = getattr(getattr(self, name), "__func__", None)
        code = getattr(function, "__code__", None)
        if code is None or hasattr(function, "__wrapped__"):
            return False
        return code.co_name == name and code.co_filename in self._sources


def _check_side(job: Job, side: Side) -> None:
    """Raise JobError for prompts in time that go with no one text that is said in the whole video."""
    if not side.given and not job.prompt and not job.prompts:
        raise JobError("There is no prompt; give prompt or prompt_embeds, or say something in the timeline.")
    several = len(side.prompts or ()) > 1 or side.prompt_2 is not None or side.text.states is not None
    if job.prompts and several:
        raise JobError(
            "Prompts in time go with one prompt, as a text; there are several, a second one, or encodings: make one "
            "video at a time, or leave the prompts out of the timeline."
        )
