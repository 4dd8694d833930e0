"""The layers that hold weights, on PyTorch: its own classes."""

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
