"""longtake: a picture and a sentence become a video of any length (FramePack).

The names below are imported when they are first used, so that `import longtake` loads no framework. Every error is a
`LongtakeError`; `longtake.errors` shows the tree.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longtake import errors
    from longtake.compat.framepack import HunyuanVideoFramepackPipeline
    from longtake.compat.schedulers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
    from longtake.errors import (
        BackendError,
        JobError,
        JobTypeError,
        LongtakeError,
        LongtakeWarning,
        LostRunError,
        MemoryRunError,
        ModelError,
        PictureError,
        RunError,
    )
    from longtake.events import Encoded, FramesReady, Moved, Planned, Preview, SectionDone, Stepped
    from longtake.job import Anchor, Clip, Job, Lora, PromptSpan, SectionChange
    from longtake.jobs.folder import JobFolder
    from longtake.models.clip import CLIPTextModel
    from longtake.models.llama import LlamaModel
    from longtake.models.quantised import EightBitConfig
    from longtake.models.siglip import SiglipVisionModel
    from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
    from longtake.models.vae import AutoencoderKLHunyuanVideo
    from longtake.picture import load_image
    from longtake.pipeline.denoise import Change
    from longtake.pipeline.loading import load_networks
    from longtake.pipeline.loop import generate
    from longtake.pipeline.place import place
    from longtake.pipeline.prepare import Inputs
    from longtake.processors.siglip import SiglipImageProcessor
    from longtake.video import JoinedWriter, export_to_video

__version__ = "0.1.0"

_HOMES = {
    "Anchor": "longtake.job",
    "AutoencoderKLHunyuanVideo": "longtake.models.vae",
    "BackendError": "longtake.errors",
    "CLIPTextModel": "longtake.models.clip",
    "Change": "longtake.pipeline.denoise",
    "Clip": "longtake.job",
    "EightBitConfig": "longtake.models.quantised",
    "Encoded": "longtake.events",
    "FlowMatchEulerDiscreteScheduler": "longtake.compat.schedulers",
    "FramesReady": "longtake.events",
    "HunyuanVideoFramepackPipeline": "longtake.compat.framepack",
    "HunyuanVideoFramepackTransformer3DModel": "longtake.models.transformer",
    "Inputs": "longtake.pipeline.prepare",
    "Job": "longtake.job",
    "JobError": "longtake.errors",
    "JoinedWriter": "longtake.video",
    "JobFolder": "longtake.jobs.folder",
    "JobTypeError": "longtake.errors",
    "LlamaModel": "longtake.models.llama",
    "LongtakeError": "longtake.errors",
    "LongtakeWarning": "longtake.errors",
    "Lora": "longtake.job",
    "LostRunError": "longtake.errors",
    "MemoryRunError": "longtake.errors",
    "ModelError": "longtake.errors",
    "PictureError": "longtake.errors",
    "Moved": "longtake.events",
    "Planned": "longtake.events",
    "Preview": "longtake.events",
    "PromptSpan": "longtake.job",
    "RunError": "longtake.errors",
    "SectionChange": "longtake.job",
    "SectionDone": "longtake.events",
    "SiglipImageProcessor": "longtake.processors.siglip",
    "SiglipVisionModel": "longtake.models.siglip",
    "Stepped": "longtake.events",
    "UniPCMultistepScheduler": "longtake.compat.schedulers",
    "export_to_video": "longtake.video",
    "generate": "longtake.pipeline.loop",
    "load_image": "longtake.picture",
    "load_networks": "longtake.pipeline.loading",
    "place": "longtake.pipeline.place",
}

__all__ = [
    "Anchor",
    "AutoencoderKLHunyuanVideo",
    "BackendError",
    "CLIPTextModel",
    "Change",
    "Clip",
    "EightBitConfig",
    "Encoded",
    "FlowMatchEulerDiscreteScheduler",
    "FramesReady",
    "HunyuanVideoFramepackPipeline",
    "HunyuanVideoFramepackTransformer3DModel",
    "Inputs",
    "Job",
    "JobError",
    "JobFolder",
    "JobTypeError",
    "JoinedWriter",
    "LlamaModel",
    "LongtakeError",
    "LongtakeWarning",
    "Lora",
    "LostRunError",
    "MemoryRunError",
    "ModelError",
    "Moved",
    "PictureError",
    "Planned",
    "Preview",
    "PromptSpan",
    "RunError",
    "SectionChange",
    "SectionDone",
    "SiglipImageProcessor",
    "SiglipVisionModel",
    "Stepped",
    "UniPCMultistepScheduler",
    "errors",
    "export_to_video",
    "generate",
    "load_image",
    "load_networks",
    "place",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("longtake.errors")
    if name not in _HOMES:
        raise AttributeError(f"longtake has no {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
