"""HunyuanVideoFramepackPipeline: the interface of diffusers and mindone over the one loop.

Names and defaults are theirs, since people type them. `reference=True` makes the same numbers as diffusers.

Unlike the reference, if not `reference`:
- exactly `num_frames` frames come back (with a last image the nearest length that sections can make);
- `prompt_2` and `negative_prompt_2` reach CLIP, and the last image reaches SigLIP;
- one image, negative prompt or generator serves several prompts, and several videos of each prompt;
- images are cut to the asked shape, not stretched;
- `true_cfg_scale` above 1 without a negative prompt guides away from the empty one.

Always: `image_latents` and `last_image_latents` work, and an interrupted job returns the sections that it finished.
"""

from __future__ import annotations

from typing import ClassVar

from longtake.compat.arguments import CALLBACK_INPUTS, FramepackSamplingType
from longtake.compat.call import FramepackCall
from longtake.compat.keywords import DECLINED, declines
from longtake.compat.lora import LoraMixin
from longtake.compat.offload import Offloading
from longtake.compat.outputs import HunyuanVideoFramepackPipelineOutput
from longtake.compat.parts import Parts
from longtake.compat.progress import ProgressBars
from longtake.pipeline.encode import PROMPT_TEMPLATE

__all__ = [
    "DEFAULT_PROMPT_TEMPLATE",
    "FramepackSamplingType",
    "HunyuanVideoFramepackPipeline",
    "HunyuanVideoFramepackPipelineOutput",
]

DEFAULT_PROMPT_TEMPLATE = PROMPT_TEMPLATE


@declines(DECLINED)
class HunyuanVideoFramepackPipeline(FramepackCall, Parts, Offloading, LoraMixin, ProgressBars):
    """FramePack image-to-video; called and loaded as diffusers' class of this name."""

    model_cpu_offload_seq = "text_encoder->text_encoder_2->image_encoder->transformer->vae"
    _callback_tensor_inputs: ClassVar[list[str]] = list(CALLBACK_INPUTS)
