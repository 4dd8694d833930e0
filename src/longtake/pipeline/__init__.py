"""From a job to frames: conditioning, the one loop, and the field's pipeline over it (loaded on first use)."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longtake.pipeline.framepack import HunyuanVideoFramepackPipeline
    from longtake.pipeline.generate import generate
    from longtake.pipeline.networks import Networks, load_networks

__all__ = ["HunyuanVideoFramepackPipeline", "Networks", "generate", "load_networks"]

_HOMES = {
    "HunyuanVideoFramepackPipeline": "framepack",
    "Networks": "networks",
    "generate": "generate",
    "load_networks": "networks",
}


class _Package(ModuleType):
    """A package whose name `generate` is the function, also after the file of that name was imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(
            name, value.generate if name == "generate" and isinstance(value, ModuleType) else value
        )


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
