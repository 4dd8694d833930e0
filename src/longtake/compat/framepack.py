"""HunyuanVideoFramepackPipeline: the interface of diffusers and mindone over the one loop.

Names and defaults are theirs, since people type them. `reference=True` makes the same numbers as diffusers.

Unlike the reference, where not `reference`:
- exactly `num_frames` frames come back (with a last image the nearest length that sections can make);
- `prompt_2` and `negative_prompt_2` reach CLIP, and the last image reaches SigLIP;
- one image, negative prompt or generator serves several prompts, and several videos of each prompt;
- images are cut to the asked shape, not stretched;
- `true_cfg_scale` above 1 without a negative prompt guides away from the empty one.

Always: `image_latents` and `last_image_latents` work, and an interrupted job returns the sections that it finished.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from longtake.backend import exchange, ops, runtime
from longtake.compat.lora import LoraMixin
from longtake.compat.schedulers import scheduler_of
from longtake.errors import JobError, LongtakeWarning, ModelError
from longtake.events import Event, SectionDone, Stepped
from longtake.job import Job
from longtake.models.outputs import Output
from longtake.pipeline.decode import stages, to_frames, unit_range
from longtake.pipeline.loop import Change, decoded, sample
from longtake.pipeline.networks import (
    COMPONENTS,
    NETWORKS,
    SETTINGS,
    Networks,
    carried_settings,
    load_networks,
    save_networks,
)
from longtake.pipeline.noise import noise_source
from longtake.pipeline.prepare import (
    PROMPT_TEMPLATE,
    Conditioning,
    Text,
    encode_picture,
    encode_pictures,
    encode_text,
    repeated,
)
from longtake.plan.plans import plan_of
from longtake.processors import pictures

DEFAULT_PROMPT_TEMPLATE = PROMPT_TEMPLATE
OUTPUT_TYPES = ("pil", "np", "pt", "latent")
SAMPLINGS = {"vanilla": "vanilla", "inverted_anti_drifting": "inverted", "inverted": "inverted"}
CALLBACK_INPUTS = ("latents", "prompt_embeds")


class FramepackSamplingType(str, Enum):
    """The sampling types by their names in the field."""

    VANILLA = "vanilla"
    INVERTED_ANTI_DRIFTING = "inverted_anti_drifting"


@dataclass
class HunyuanVideoFramepackPipelineOutput(Output):
    """The videos: lists of PIL images, an array (B, T, H, W, 3) or a tensor (B, T, 3, H, W) in [0, 1].

    For `output_type="latent"`: a list with the latents (B, C, T, h, w), scaled, as they stood after each section.
    """

    frames: Any


@dataclass(frozen=True)
class Prompts:
    """One side of the text, positive or negative: prompts, or their encodings."""

    prompt: str | list[str] | None
    prompt_2: str | list[str] | None = None
    states: Any = None
    pooled: Any = None
    mask: Any = None
    prefix: str = ""

    def __post_init__(self) -> None:
        name = self.prefix
        if self.states is not None and (self.prompt is not None or self.prompt_2 is not None):
            raise JobError(f"Give either {name}prompt (and {name}prompt_2) or {name}prompt_embeds, not both.")
        if self.states is not None and (self.mask is None or self.pooled is None):
            missing = "prompt_attention_mask" if self.mask is None else "pooled_prompt_embeds"
            raise JobError(
                f"{name}prompt_embeds need {name}{missing} beside them; encode_prompt returns all three."
            )
        for prompt in (self.prompt, self.prompt_2):
            if not (prompt is None or isinstance(prompt, str) or _are_texts(prompt)):
                raise JobError(f"A {name}prompt is a text or a list of texts, not {type(prompt).__name__}.")

    @property
    def given(self) -> bool:
        """Whether there is anything."""
        return self.prompt is not None or self.states is not None

    @property
    def count(self) -> int:
        """How many prompts there are."""
        return int(self.states.shape[0]) if self.states is not None else len(_list(self.prompt or ""))

    def encoded(
        self,
        networks: Networks,
        count: int,
        videos: int,
        template: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        reference: bool = False,
    ) -> Text:
        """One row for each of `videos`, from as many prompts as `count`, or one; no prompt is the empty one."""
        if self.states is not None:
            _check_count(self.count, count, f"{self.prefix}prompt_embeds")
            found = Text(self.states, self.mask, self.pooled)
        else:
            prompts, prompts_2 = (
                _list(self.prompt or ""),
                None if self.prompt_2 is None else _list(self.prompt_2),
            )
            _check_count(len(prompts), count, f"{self.prefix}prompt")
            if prompts_2 is not None and not reference:
                _check_count(len(prompts_2), count, f"{self.prefix}prompt_2")
                prompts, prompts_2 = _broadcast(prompts, count), _broadcast(prompts_2, count)
            found = encode_text(networks, prompts, None if reference else prompts_2, template, max_tokens)
            if self.pooled is not None:
                found = Text(found.states, found.mask, self.pooled)
        return Text(*(repeated(part, videos) for part in (found.states, found.mask, found.pooled)))


class HunyuanVideoFramepackPipeline(LoraMixin):
    """FramePack image-to-video; called and loaded as diffusers' class of this name."""

    model_cpu_offload_seq = "text_encoder->text_encoder_2->image_encoder->transformer->vae"
    _callback_tensor_inputs: ClassVar[list[str]] = list(CALLBACK_INPUTS)

    def __init__(
        self,
        text_encoder: Any,
        tokenizer: Any,
        transformer: Any,
        vae: Any,
        scheduler: Any,
        text_encoder_2: Any,
        tokenizer_2: Any,
        image_encoder: Any,
        feature_extractor: Any,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """`settings`: what a model's folder says of itself (`Networks.settings`); else what the transformer carries."""
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.transformer = transformer
        self.vae = vae
        self.scheduler = scheduler_of(scheduler)
        self.text_encoder_2 = text_encoder_2
        self.tokenizer_2 = tokenizer_2
        self.image_encoder = image_encoder
        self.feature_extractor = feature_extractor
        self.settings = carried_settings(transformer) if settings is None else dict(settings)
        if self.settings and not carried_settings(transformer):
            # A pipeline made of the same parts finds them there: `**pipe.components` has no other place for them.
            setattr(transformer, SETTINGS, dict(self.settings))
        self._progress_bar: dict[str, Any] = {}
        self._guidance_scale: float | None = None
        self._attention_kwargs: dict[str, Any] | None = None
        self._num_timesteps = 0
        self._current_timestep: Any = None
        self._interrupt = False

    @classmethod
    def from_pretrained(
        cls,
        folder: Any,
        torch_dtype: Any = None,
        mindspore_dtype: Any = None,
        dtype: Any = None,
        variant: str | None = None,
        device: Any = None,
        *,
        text_encoder: Any = None,
        tokenizer: Any = None,
        transformer: Any = None,
        vae: Any = None,
        scheduler: Any = None,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        subfolder: str | None = None,
        revision: str | None = None,
        cache_dir: Any = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
    ) -> HunyuanVideoFramepackPipeline:
        """Read a model's folder, or fetch a model of the hub; parts that are given are neither read nor fetched.

        The dtype goes by any of the field's names, is one for all networks or a mapping by part with `default`, and is
        float32 where none is named.
        """
        named = {
            "text_encoder": text_encoder,
            "tokenizer": tokenizer,
            "transformer": transformer,
            "vae": vae,
            "scheduler": scheduler,
            "text_encoder_2": text_encoder_2,
            "tokenizer_2": tokenizer_2,
            "image_encoder": image_encoder,
            "feature_extractor": feature_extractor,
        }
        given = {name: part for name, part in named.items() if part is not None}
        asked = [value for value in (torch_dtype, mindspore_dtype, dtype) if value is not None] or ["float32"]
        if any(value != asked[0] for value in asked):
            raise ModelError(
                "torch_dtype, mindspore_dtype and dtype are one setting; they were given different values."
            )
        networks = load_networks(
            folder,
            asked[0],
            device,
            given,
            variant,
            subfolder=subfolder,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            force_download=force_download,
        )
        return cls(**networks.components, settings=networks.settings)

    @classmethod
    def from_pipe(cls, pipeline: Any, **changes: Any) -> HunyuanVideoFramepackPipeline:
        """Another pipeline over the very same parts, those in `changes` apart; `pipeline` may be one of diffusers.

        Unlike the reference: nothing becomes float32 on the way, since the parts are the first pipeline's too.
        Raises ModelError for a part that does not exist, or that is missing.
        """
        unknown = sorted(set(changes) - {*COMPONENTS, "settings"})
        if unknown:
            raise ModelError(
                f"from_pipe takes no {unknown[0]!r}; a pipeline's parts are {', '.join(COMPONENTS)} (and settings)."
            )
        parts = {name: pipeline.components.get(name) for name in COMPONENTS} | changes
        missing = [name for name in COMPONENTS if parts[name] is None]
        if missing:
            raise ModelError(f"{type(pipeline).__name__} has no {missing[0]}; give one to from_pipe.")
        if "settings" not in parts and not carried_settings(changes.get("transformer")):
            parts["settings"] = getattr(pipeline, "settings", None)
        return cls(**parts)

    def save_pretrained(self, folder: Any, max_shard_size: int | str = "10GB") -> None:
        """Write a folder that this class and diffusers read."""
        save_networks(self.networks, folder, type(self).__name__, max_shard_size)

    @property
    def networks(self) -> Networks:
        """The parts as the loop takes them."""
        return Networks(**{name: getattr(self, name) for name in COMPONENTS}, settings=self.settings)

    @property
    def components(self) -> dict[str, Any]:
        """The parts by name, to build another pipeline of the same: `type(pipe)(**pipe.components)`.

        `settings` is among them only where the transformer carries others.
        """
        settings = {} if self.settings == carried_settings(self.transformer) else {"settings": self.settings}
        return {
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
            "transformer": self.transformer,
            "vae": self.vae,
            "scheduler": self.scheduler,
            "text_encoder_2": self.text_encoder_2,
            "tokenizer_2": self.tokenizer_2,
            "image_encoder": self.image_encoder,
            "feature_extractor": self.feature_extractor,
            **settings,
        }

    def to(self, *args: Any, device: Any = None, dtype: Any = None) -> HunyuanVideoFramepackPipeline:
        """Move all networks: a device, a dtype (the framework's own or its name), or both."""
        for value in args:
            if "float" in str(value).lower():
                dtype = value  # also another framework's, which is refused below
            elif value is not None:
                device = value
        wanted = None if dtype is None else runtime.dtype(dtype)
        for name in NETWORKS:
            exchange.move(getattr(self, name), device, wanted)
        return self

    @property
    def device(self) -> Any:
        """Where the transformer is."""
        return self.transformer.device

    @property
    def dtype(self) -> Any:
        """The transformer's dtype."""
        return self.transformer.dtype

    @property
    def vae_scale_factor_temporal(self) -> int:
        """Frames to one latent frame."""
        return int(getattr(self.vae, "temporal_compression_ratio", 4))

    @property
    def vae_scale_factor_spatial(self) -> int:
        """Pixels to one latent pixel, on each axis."""
        return int(getattr(self.vae, "spatial_compression_ratio", 8))

    def enable_vae_tiling(self) -> None:
        """Encode and decode in tiles of space: less memory, slightly other pixels."""
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Whole frames again."""
        self.vae.disable_tiling()

    def enable_vae_slicing(self) -> None:
        """Encode and decode one video of a batch at a time: less memory, the same pixels."""
        self.vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        """The whole batch at once again."""
        self.vae.disable_slicing()

    def set_progress_bar_config(
        self,
        disable: bool | None = None,
        desc: str | None = None,
        leave: bool | None = None,
        position: int | None = None,
    ) -> None:
        """How the bar of each section looks; it is tqdm's, where that is installed."""
        given = {"disable": disable, "desc": desc, "leave": leave, "position": position}
        self._progress_bar = {key: value for key, value in given.items() if value is not None}

    def progress_bar(self, iterable: Any = None, total: int | None = None) -> Any:
        """A progress bar over an iterable or of `total` steps."""
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return _NoBar(iterable)
        return tqdm(iterable, total=total, **self._progress_bar)

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

    def encode_prompt(
        self,
        prompt: str | list[str],
        prompt_2: str | list[str] | None = None,
        prompt_template: dict[str, Any] | None = None,
        num_videos_per_prompt: int = 1,
        max_sequence_length: int | None = None,
    ) -> tuple[Any, Any, Any]:
        """(prompt_embeds, pooled_prompt_embeds, prompt_attention_mask), as the call takes them."""
        prompts = Prompts(prompt, prompt_2)
        videos = prompts.count * num_videos_per_prompt
        found = prompts.encoded(self.networks, prompts.count, videos, prompt_template, max_sequence_length)
        return found.states, found.pooled, found.mask

    def encode_image(self, image: Any) -> Any:
        """SigLIP's states (B, N, E) of pictures that are tensors or arrays (B, 3, H, W) in [-1, 1]."""
        array = image if isinstance(image, np.ndarray) else ops.to_numpy(image)
        return encode_picture(self.image_encoder, self.feature_extractor, array)

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
    ) -> Any:
        """Make videos from pictures and prompts.

        image, last_image: where the video begins and (inverted sampling) ends: PIL, arrays (H, W, C), tensors
            (C, H, W), paths, or lists with one for each prompt.
        prompt, prompt_2: for Llama and for CLIP (the first where there is no second); lists make several videos.
        negative_prompt, negative_prompt_2: with `true_cfg_scale` above 1, what to guide away from.
        height, width: pixels, multiples of 16; by default the model's own, else 720 x 1280.
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

        Raises JobError or PictureError for a request that cannot be met.
        """
        self._guidance_scale, self._attention_kwargs = guidance_scale, attention_kwargs
        self._current_timestep, self._interrupt = None, False
        callback_inputs = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs)
        _check_call(sampling_type, output_type, callback_inputs, prompt_template)
        positive = Prompts(prompt, prompt_2, prompt_embeds, pooled_prompt_embeds, prompt_attention_mask)
        negative = Prompts(
            negative_prompt,
            negative_prompt_2,
            negative_prompt_embeds,
            negative_pooled_prompt_embeds,
            negative_prompt_attention_mask,
            prefix="negative_",
        )
        if positive.prompt is None and positive.states is None:
            raise JobError("There is no prompt; give prompt or prompt_embeds.")
        size = (self.settings.get("width", 1280), self.settings.get("height", 720))
        job = Job(
            prompt="\n".join(_list(prompt or "")),
            frames=num_frames,
            width=size[0] if width is None else width,
            height=size[1] if height is None else height,
            sampling=SAMPLINGS[str(getattr(sampling_type, "value", sampling_type))],
            window=latent_window_size,
            steps=num_inference_steps if sigmas is None else len(sigmas),
            guidance=guidance_scale,
            cfg_scale=true_cfg_scale,
            reference=reference,
            decoding=decoding,
        )
        job.check()
        plan, planned = plan_of(job, last_image is not None or last_image_latents is not None)
        if planned.notice and not reference:
            warnings.warn(planned.notice, LongtakeWarning, stacklevel=2)
        guided = negative if true_cfg_scale > 1 and (negative.given or not reference) else None
        count = positive.count
        videos = count * _at_least_one(num_videos_per_prompt)
        noise = noise_source(generator, videos)
        first, last = _pixels(image, count, "image", job), _pixels(last_image, count, "last_image", job)
        begin = _latents(image_latents, count, "image_latents", job)
        end = _latents(last_image_latents, count, "last_image_latents", job)
        if first is None and begin is None:
            raise JobError("A video begins with a picture; give image or image_latents.")
        shared = (self.networks, count, videos, prompt_template, max_sequence_length, reference)
        text, against = positive.encoded(*shared), guided.encoded(*shared) if guided else None
        pictured = encode_pictures(self.networks, first, last, noise, videos, begin, end, reference)
        conditioning = Conditioning(text, against, *pictured)
        events = sample(job, self.networks, plan, conditioning, noise, sigmas, attention_kwargs)
        done = self._consume(events, conditioning, callback_on_step_end, callback_inputs)
        if output_type == "latent":
            frames: Any = [ops.from_numpy(stage) for stage in stages(conditioning.start, done, job.sampling)]
        else:
            pieces = decoded(job, self.vae, conditioning.start, done)
            frames = convert(pieces, planned.frames, output_type or "np")
        return HunyuanVideoFramepackPipelineOutput(frames) if return_dict else (frames,)

    def _consume(
        self,
        events: Generator[Event, Change | None, None],
        conditioning: Conditioning,
        callback: Callable[..., Any] | None,
        inputs: Iterable[str],
    ) -> list[SectionDone]:
        """Run the loop to its end, or until interrupted; the sections that were finished."""
        done: list[SectionDone] = []
        states = conditioning.text.states
        change: Change | None = None
        bar: Any = None
        try:
            while (event := _next(events, change)) is not None:
                change, between = None, True
                if isinstance(event, SectionDone):
                    done.append(event)
                    bar.close()
                elif isinstance(event, Stepped):
                    bar = self.progress_bar(total=event.steps) if event.step == 0 else bar
                    change = self._step_end(event, callback, inputs, states)
                    states = (
                        states if change is None or change.prompt_states is None else change.prompt_states
                    )
                    bar.update()
                    # After its last step a section is done but for the writing.
                    between = event.step + 1 < event.steps
                if self._interrupt and between:
                    break
        finally:
            events.close()
            if bar is not None:
                bar.close()
            self._current_timestep = None
        return done

    def _step_end(
        self, event: Stepped, callback: Callable[..., Any] | None, inputs: Iterable[str], states: Any
    ) -> Change | None:
        """Tell the caller of a step; what he wants changed."""
        self._num_timesteps = event.steps
        self._current_timestep = ops.from_numpy(np.asarray([event.sigma * 1000], dtype=np.float32))[0]
        if callback is None:
            return None
        known = {"latents": event.latents, "prompt_embeds": states}
        answer = callback(self, event.step, self._current_timestep, {name: known[name] for name in inputs})
        # Unlike the reference: a callback that returns nothing changes nothing (it crashes there).
        return (
            Change(answer.get("latents"), answer.get("prompt_embeds"))
            if isinstance(answer, Mapping)
            else None
        )


class _NoBar:
    """What is shown where tqdm is not installed: nothing."""

    def __init__(self, iterable: Any = None) -> None:
        self.iterable = iterable

    def __iter__(self) -> Any:
        return iter(self.iterable or ())

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, steps: int = 1) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def convert(pieces: Iterable[Any], count: int, output_type: str) -> Any:
    """Decoded pieces (B, 3, T, H, W) -> at most `count` frames, each piece converted as it comes.

    PIL lists, an array (B, T, H, W, 3) in [0, 1], or a tensor (B, T, 3, H, W) in [0, 1].
    """
    if output_type == "pt":
        return ops.cat([unit_range(piece).permute(0, 2, 1, 3, 4) for piece in pieces], 1)[:, :count]
    array: np.ndarray | None = None
    rows: list[list[Image.Image]] = []
    filled = 0
    for piece in pieces:
        piece = piece[:, :, : count - filled]
        batch, _, frames, height, width = piece.shape
        if output_type == "pil":
            rows = rows or [[] for _ in range(batch)]
            for row, frame_arrays in zip(rows, to_frames(piece), strict=True):
                row += map(Image.fromarray, frame_arrays)
        else:
            # Memory that is never written to is never taken.
            array = np.empty((batch, count, height, width, 3), np.float32) if array is None else array
            array[:, filled : filled + frames] = ops.to_numpy(unit_range(piece)).transpose(0, 2, 3, 4, 1)
        filled += frames
    return rows if array is None else array[:, :filled]


def _next(events: Generator[Event, Change | None, None], change: Change | None) -> Event | None:
    try:
        return events.send(change)
    except StopIteration:
        return None


def _check_call(sampling_type: Any, output_type: Any, inputs: Iterable[str], template: Any) -> None:
    if str(getattr(sampling_type, "value", sampling_type)) not in SAMPLINGS:
        known = ", ".join(kind.value for kind in FramepackSamplingType)
        raise JobError(f"No sampling_type {sampling_type!r}; there are: {known}.")
    if output_type not in OUTPUT_TYPES:
        raise JobError(f"No output_type {output_type!r}; there are: {', '.join(OUTPUT_TYPES)}.")
    foreign = [name for name in inputs if name not in CALLBACK_INPUTS]
    if foreign:
        raise JobError(f"A callback cannot have {foreign[0]!r}; it can have {' and '.join(CALLBACK_INPUTS)}.")
    if template is not None and not (
        isinstance(template, Mapping) and "{}" in str(template.get("template", ""))
    ):
        raise JobError("prompt_template is a dict with a key 'template' that has {} where the prompt goes.")


def _check_count(have: int, prompts: int, name: str) -> None:
    if have not in (1, prompts):
        raise JobError(f"{name} has {have} entries for {prompts} prompts; give one, or one for each prompt.")


def _pixels(images: Any, prompts: int, name: str, job: Job) -> np.ndarray | None:
    if images is None:
        return None
    found = pictures.pixels(images, job.width or 0, job.height or 0, job.reference)
    _check_count(found.shape[0], prompts, name)
    return found


def _latents(latents: Any, prompts: int, name: str, job: Job) -> np.ndarray | None:
    if latents is None:
        return None
    array = latents if isinstance(latents, np.ndarray) else ops.to_numpy(latents)
    wanted = (1, (job.height or 0) // 8, (job.width or 0) // 8)
    if array.ndim != 5 or array.shape[2:] != wanted:
        raise JobError(
            f"{name} has the shape {tuple(array.shape)}; for {job.width} x {job.height} it is "
            f"(B, C, {', '.join(map(str, wanted))})."
        )
    _check_count(array.shape[0], prompts, name)
    return np.asarray(array, dtype=np.float32)


def _at_least_one(videos: int | None) -> int:
    if videos is not None and videos < 1:
        raise JobError(f"num_videos_per_prompt must be at least 1; {videos} was asked for.")
    return videos or 1


def _list(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(text, str) for text in value)


def _broadcast(texts: list[str], count: int) -> list[str]:
    return texts * count if len(texts) == 1 else texts
