"""diffusers' own FramePack pipeline with our loop inside.

Loading, saving, offloading, quantisation, hooks, LoRA, `to` and `from_pipe` are the code of diffusers, accelerate and
peft, unchanged: this class is one of theirs. The call is that of `longtake.compat.framepack`, which says what it takes
and where it differs from theirs; encoders are run by their `encode_prompt` and `encode_image`, so that a subclass may
override them. Networks are theirs, or ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import diffusers
from transformers import PreTrainedTokenizerFast

from longtake.compat import framepack
from longtake.pipeline.networks import COMPONENTS, SETTINGS, Networks, carried_settings

Stock = diffusers.HunyuanVideoFramepackPipeline
# Methods of stock's call that ours does not go through.
OURS_ALONE = ("check_inputs", "prepare_latents", "prepare_image_latents", "_soft_append")


class HunyuanVideoFramepackPipeline(Stock):  # type: ignore[misc, unused-ignore]
    """FramePack image-to-video: diffusers' pipeline in everything but the call."""

    # Its pooling head takes the weights of a layer without calling it, so that no hook brings them; it is small.
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["image_encoder"]

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
        pipe = super().from_pretrained(pretrained_model_name_or_path, **options)
        place = {key: options[key] for key in ("cache_dir", "revision", "token") if key in options}
        index = cls.load_config(pretrained_model_name_or_path, **place)
        pipe.register_to_config(**{SETTINGS: index.get(SETTINGS, {})})
        pipe.tokenizer = _verbatim(pipe.tokenizer)
        return pipe

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the model says about itself: width, height, prompt_template, max_sequence_length."""
        return self.config.get(SETTINGS) or carried_settings(self.transformer)

    @property
    def networks(self) -> Networks:
        """The parts as the loop takes them."""
        return Networks(**{name: getattr(self, name) for name in COMPONENTS}, settings=self.settings)

    _consume = framepack.HunyuanVideoFramepackPipeline._consume
    _step_end = framepack.HunyuanVideoFramepackPipeline._step_end

    def __call__(self, *args, **kw):
        try:
            return framepack.HunyuanVideoFramepackPipeline.__call__(self, *args, **kw)
        finally:
            self.maybe_free_model_hooks()


def _verbatim(tokenizer: Any) -> Any:
    """The tokenizer, read again from its tokenizer.json if it loses spaces.

    For the class that the published model names, transformers 5 does not read that file but makes up one of its own.
    """
    if tokenizer is None or "a b" in tokenizer.decode(tokenizer("a b")["input_ids"]):
        return tokenizer
    return PreTrainedTokenizerFast.from_pretrained(tokenizer.name_or_path)
