"""The layers that hold weights, on PyTorch: its own classes."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import (
    Conv2d,
    Conv3d,
    Embedding,
    GroupNorm,
    Identity,
    LayerNorm,
    Linear,
    Module,
    ModuleList,
    Parameter,
    RMSNorm,
    Sequential,
)

__all__ = [
    "Coded",
    "Conv2d",
    "Conv3d",
    "Embedding",
    "GroupNorm",
    "Identity",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleList",
    "Parameter",
    "RMSNorm",
    "Sequential",
]


class Coded(Module):
    """A module whose `weight` is a code of its numbers in 8 bits: it goes along with the module, in its own dtype."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        code: Any = self._parameters.get("weight")

        def kept(tensor: Any) -> Any:
            # To PyTorch a code in float8 is a floating number, which `to(dtype)` and `half()` would cast.
            if tensor is code and tensor.is_floating_point():
                return fn(tensor.view(torch.uint8)).view(tensor.dtype)
            return fn(tensor)

        return super()._apply(kept, recurse)  # type: ignore[no-untyped-call]
