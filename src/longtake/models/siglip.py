"""SigLIP's vision tower and the preparation of its pictures.

Shapes: B batch, L patches, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from longtake.backend import nn, ops
from longtake.config import SiglipVisionConfig
from longtake.errors import ModelError
from longtake.models.clip import MLP, Encoder, join_heads, split_heads
from longtake.models.outputs import TextStates
from longtake.models.pretrained import PretrainedModel

Picture: TypeAlias = "Image.Image | np.ndarray | ops.Tensor"


class VisionEmbeddings(nn.Module):
    """A vector for each patch of the picture, and one for its place."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        patch = config.patch_size
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=patch, stride=patch
        )
        self.position_embedding = nn.Embedding((config.image_size // patch) ** 2, config.hidden_size)

    def forward(self, pixel_values: ops.Tensor) -> ops.Tensor:
        return self.patch_embedding(pixel_values).flatten(2).permute(0, 2, 1) + self.position_embedding.weight


class ProbeAttention(nn.Module):
    """One learned query's attention over the patches; the three projections lie in one matrix, as in the files."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        joint = nn.Linear(channels, 3 * channels)
        self.in_proj_weight = joint.weight
        self.in_proj_bias = joint.bias
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, probe: ops.Tensor, x: ops.Tensor) -> ops.Tensor:
        weights, biases = self.in_proj_weight.chunk(3, 0), self.in_proj_bias.chunk(3, 0)
        inputs = (probe, x, x)
        query, key, value = (
            split_heads(ops.linear(part, weight, bias), self.heads)
            for part, weight, bias in zip(inputs, weights, biases, strict=True)
        )
        return self.out_proj(join_heads(ops.attention(query, key, value)))


class PoolingHead(nn.Module):
    """All patches to one vector."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(ops.zeros(1, 1, config.hidden_size))
        self.attention = ProbeAttention(config.hidden_size, config.num_attention_heads)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: ops.Tensor) -> ops.Tensor:
        probe = ops.cat([self.probe] * x.shape[0], 0)
        pooled = self.attention(probe, x)
        return (pooled + self.mlp(self.layernorm(pooled)))[:, 0]


class SiglipVisionModel(PretrainedModel):
    """SigLIP's picture encoder; parameter names and outputs are those of transformers 5's class."""

    config_class = SiglipVisionConfig
    config: SiglipVisionConfig

    def __init__(self, config: object = None, **fields: object) -> None:
        super().__init__(config, **fields)
        config = self.config
        self.embeddings = VisionEmbeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if config.vision_use_head:
            self.head = PoolingHead(config)

    @property
    def blocks(self) -> Iterable[Any]:
        """All layers, in the order in which they run."""
        layers: Iterable[Any] = self.encoder.layers
        return layers

    @classmethod
    def rename(cls, name: str) -> str:
        """The parameter's name here for its name in a file: transformers up to 4 puts `vision_model.` in front."""
        return name.removeprefix("vision_model.")

    def forward(
        self, pixel_values: ops.Tensor, output_hidden_states: bool = False, return_dict: bool | None = None
    ) -> TextStates | tuple[ops.Tensor, ...]:
        """Normed states (B, L, C) of pictures (B, 3, size, size) in [-1, 1], and one pooled vector (B, C) of each.

        `hidden_states` (if asked for) are the embeddings and the states after each layer, before the last norm.
        `return_dict=False` gives a tuple.
        """
        size = self.config.image_size
        if tuple(pixel_values.shape[-2:]) != (size, size):
            height, width = pixel_values.shape[-2:]
            raise ModelError(
                f"SiglipVisionModel sees pictures of {size} x {size} pixels and was given {height} x {width}; "
                "prepare them with SiglipImageProcessor."
            )
        states = self.encoder(self.embeddings(pixel_values.to(self.dtype)), layers=self.walked(self.blocks))
        last = self.post_layernorm(states[-1])
        pooled = self.head(last) if self.config.vision_use_head else None
        out = TextStates(last, pooled, states if output_hidden_states else None)
        return out.to_tuple() if return_dict is False else out
