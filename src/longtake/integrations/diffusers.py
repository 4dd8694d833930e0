"""diffusers' own FramePack pipeline with our loop inside.

Loading, saving, offloading, quantisation, hooks, LoRA, `to` and `from_pipe` are the code of diffusers, accelerate and
peft, unchanged: this class is one of theirs. The call is that of `longtake.compat`, which says what it takes and how it
differs from theirs. Prompts and pictures go through their `encode_prompt` and `encode_image`, which a subclass may
override. The networks are theirs, or ours.

    from longtake.integrations.diffusers import HunyuanVideoFramepackPipeline

    pipe = HunyuanVideoFramepackPipeline.from_pretrained("owner/name", dtype=torch.bfloat16)
    pipe.enable_model_cpu_offload()
    pipe.transformer.enable_cache(FirstBlockCacheConfig())
    frames = pipe(image=image, prompt="…").frames[0]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count, cycle
from typing import Any, ClassVar

import diffusers
import numpy as np
from transformers import PreTrainedTokenizerFast

from longtake.backend import ops, runtime
from longtake.compat.call import FramepackCall
from longtake.errors import JobError
from longtake.job import Job
from longtake.pipeline.encode import MAX_TEXT_TOKENS, PROMPT_TEMPLATE
from longtake.pipeline.networks import COMPONENTS, SETTINGS, Networks, carried_settings
from longtake.pipeline.predict import Wrap
from longtake.sampling.solvers import Velocity

Stock: Any = diffusers.HunyuanVideoFramepackPipeline
OURS_ALONE = ("check_inputs", "prepare_latents", "prepare_image_latents", "_soft_append")
"""Methods that stock's call goes through, and ours does not."""

ONE_BRANCH = (diffusers.PyramidAttentionBroadcastConfig, diffusers.FasterCacheConfig)
"""Step caches that do not ask which branch of guidance is computed."""


class HunyuanVideoFramepackPipeline(FramepackCall, Stock):  # type: ignore[misc]
    """FramePack image-to-video: diffusers' pipeline in everything but the call."""

    # Its pooling head takes the weights of a layer without calling it, so that no hook brings them; it is small.
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["image_encoder"]
    _sources: ClassVar[tuple[str, ...]] = ()
    encode_image = Stock.encode_image

    def __init_subclass__(cls) -> None:
        """Raise TypeError for an override that nobody would call."""
        for name in OURS_ALONE:
            if getattr(cls, name) is not getattr(Stock, name):
                raise TypeError(
                    f"{cls.__name__} overrides {name}, which longtake's loop does not call; override encode_prompt or "
                    "encode_image, or give a callback_on_step_end."
                )

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, **options: Any
    ) -> HunyuanVideoFramepackPipeline:
        """As diffusers reads a model; with what its folder says of itself, and Llama's tokenizer as it stands there."""
        pipe: Any = super().from_pretrained(pretrained_model_name_or_path, **options)
        place = {key: options[key] for key in ("cache_dir", "revision", "token") if key in options}
        index = cls.load_config(pretrained_model_name_or_path, **place)
        pipe.register_to_config(**{SETTINGS: index.get(SETTINGS, {})})
        pipe.tokenizer = _verbatim(pipe.tokenizer)
        return pipe

    @property
    def settings(self) -> Mapping[str, Any]:
        """The model's own settings: width, height, prompt_template, max_sequence_length."""
        return self.config.get(SETTINGS) or carried_settings(self.transformer)

    @property
    def networks(self) -> Networks:  # type: ignore[override]
        """The parts as the loop takes them."""
        return Networks(**{name: getattr(self, name) for name in COMPONENTS}, settings=self.settings)

    def encode_prompt(
        self,
        prompt: Any = None,
        prompt_2: Any = None,
        prompt_template: Any = None,
        num_videos_per_prompt: int = 1,
        prompt_embeds: Any = None,
        pooled_prompt_embeds: Any = None,
        prompt_attention_mask: Any = None,
        device: Any = None,
        dtype: Any = None,
        max_sequence_length: int | None = None,
    ) -> tuple[Any, Any, Any]:
        """(prompt_embeds, pooled_prompt_embeds, prompt_attention_mask). Unlike the reference: CLIP reads `prompt_2`."""
        if prompt_2 is not None and pooled_prompt_embeds is None:
            pooled_prompt_embeds = self._get_clip_prompt_embeds(
                prompt_2, num_videos_per_prompt, device, dtype
            )
        template = prompt_template or self.settings.get("prompt_template", PROMPT_TEMPLATE)
        most = max_sequence_length or self.settings.get("max_sequence_length", MAX_TEXT_TOKENS)
        prompt_embeds, pooled_prompt_embeds, prompt_attention_mask = Stock.encode_prompt(
            self, prompt, None, template, num_videos_per_prompt, prompt_embeds, pooled_prompt_embeds,
            prompt_attention_mask, device, dtype, most,
        )  # fmt: skip
        return prompt_embeds, pooled_prompt_embeds, prompt_attention_mask

    def enable_cache(self, config: Any) -> None:
        """A step cache of ours by its text, around the transformer's velocity; or one of diffusers' by its config."""
        if not isinstance(config, str):
            self.transformer.enable_cache(config)
        elif getattr(self.transformer, "is_cache_enabled", False):
            raise JobError(
                "The transformer has a cache already; transformer.disable_cache() comes before another one."
            )
        else:
            super().enable_cache(config)

    @contextmanager
    def _around(self, job: Job) -> Iterator[Wrap | None]:
        try:
            with runtime.no_grad():
                caches = hasattr(self.transformer, "cache_context")
                yield self._telling(2 if job.cfg_scale > 1 else 1) if caches else None
        finally:
            self.maybe_free_model_hooks()

    def _telling(self, branches: int) -> Wrap:
        """Tells diffusers' step caches, before each call of the transformer, which call it is."""
        kept = getattr(self.transformer, "_cache_config", None)
        if branches > 1 and isinstance(kept, ONE_BRANCH):
            raise JobError(
                f"{type(kept).__name__} keeps one state, which two branches of guidance would mix; use another cache, "
                "or true_cfg_scale 1."
            )
        names = cycle(("cond", "uncond")[:branches])

        def wrap(velocity: Velocity) -> Velocity:
            name, steps = next(names), count()
            if name == "cond":
                # A new section has nothing in common with the last steps of the one before.
                self.transformer._reset_stateful_cache()

            def told(latents: Any, sigma: float) -> Any:
                self._current_timestep = ops.from_numpy(np.asarray(sigma * 1000, dtype=np.float32))
                place = {"step_index": next(steps), "sigma": sigma, "num_inference_steps": self.num_timesteps}
                with self.transformer.cache_context(name, **place):
                    return velocity(latents, sigma)

            return told

        return wrap


def _verbatim(tokenizer: Any) -> Any:
    """The tokenizer, read again from its tokenizer.json if it loses spaces.

    For the class that the published model names, transformers 5 does not read that file but makes up one of its own.
    """
    if tokenizer is None or "a b" in tokenizer.decode(tokenizer("a b")["input_ids"]):
        return tokenizer
    return PreTrainedTokenizerFast.from_pretrained(tokenizer.name_or_path)
