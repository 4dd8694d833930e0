"""FramePack's transformer."""

from longtake.models.transformer.blocks import Block
from longtake.models.transformer.model import (
    HunyuanVideoFramepackTransformer3DModel,
    Moment,
    Prompted,
    Tokens,
)
from longtake.models.transformer.packing import SLOTS, Beyond, Context, Sight

__all__ = [
    "SLOTS",
    "Beyond",
    "Block",
    "Context",
    "HunyuanVideoFramepackTransformer3DModel",
    "Moment",
    "Prompted",
    "Sight",
    "Tokens",
]
