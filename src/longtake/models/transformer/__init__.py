"""FramePack's transformer."""

from longtake.models.transformer.model import (
    SLOTS,
    Context,
    HunyuanVideoFramepackTransformer3DModel,
    Moment,
    Prompted,
)

__all__ = ["SLOTS", "Context", "HunyuanVideoFramepackTransformer3DModel", "Moment", "Prompted"]
