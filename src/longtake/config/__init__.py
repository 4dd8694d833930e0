"""The networks' configurations, and the reading of their files."""

from longtake.config.networks import (
    PUBLISHED,
    CLIPTextConfig,
    LlamaConfig,
    SiglipVisionConfig,
    TransformerConfig,
    VAEConfig,
)
from longtake.config.reading import Config, class_of, read_json

__all__ = [
    "PUBLISHED",
    "CLIPTextConfig",
    "Config",
    "LlamaConfig",
    "SiglipVisionConfig",
    "TransformerConfig",
    "VAEConfig",
    "class_of",
    "read_json",
]
