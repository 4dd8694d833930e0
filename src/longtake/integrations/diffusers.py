"""diffusers' own FramePack pipeline with our loop inside.

Loading, saving, offloading, quantisation, hooks, LoRA, `to` and `from_pipe` are the code of diffusers, accelerate and
peft, unchanged: this class is one of theirs. The call is that of `longtake.compat.framepack`, which holds what it takes and
where it differs from theirs.
"""

from __future__ import annotations

from typing import Any, ClassVar

import diffusers

from longtake.compat import framepack
from longtake.pipeline.networks import COMPONENTS, SETTINGS, Networks, carried_settings


class HunyuanVideoFramepackPipeline(diffusers.HunyuanVideoFramepackPipeline):
    """FramePack image-to-video: diffusers' pipeline in everything but the call."""

    # Its pooling head takes the weights of a layer without calling it, so that no hook brings them back; it is small.
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["image_encoder"]

    @property
    def networks(self) -> Networks:
        """The parts as the loop takes them."""
        return Networks(**{name: getattr(self, name) for name in COMPONENTS}, settings=self.settings)

    @property
    def settings(self):
        return carried_settings(self.transformer)

    _consume = framepack.HunyuanVideoFramepackPipeline._consume
    _step_end = framepack.HunyuanVideoFramepackPipeline._step_end

    def __call__(self, *args, **kw):
        try:
            return framepack.HunyuanVideoFramepackPipeline.__call__(self, *args, **kw)
        finally:
            self.maybe_free_model_hooks()
