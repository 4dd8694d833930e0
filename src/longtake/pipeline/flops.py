"""The arithmetic of a job, counted from configs and sizes: products of matrices, attention, convolutions. Pure.

A multiplication and an addition are two operations, as hardware makers count. Norms, activations and rotary turns are
left out: they wait for memory, not for arithmetic.

Letters: D width, H hidden width, T tokens of the whole sequence, W of the window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from longtake.pipeline.working import TILE_FRAMES, Work
from longtake.plan.layout import token_count

PICTURE = 729
"""Tokens of SigLIP's picture."""
TILE_STEP = 12
"""Frames by which the autoencoder's tiles of time move on."""


@dataclass(frozen=True)
class Operations:
    """Operations by what computes them."""

    linear: float = 0.0
    attention: float = 0.0
    convolution: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.linear + self.attention + self.convolution


def step_operations(config: Any, work: Work, picture: int = PICTURE) -> Operations:
    """One pass of the transformer, of all rows; what is computed once a section or once a job is not in it.

    `picture` are the tokens of the picture encoder. The last block makes the window's tokens alone.

    >>> from longtake.config import PUBLISHED
    >>> round(step_operations(PUBLISHED["framepack"], Work(608, 640)).total / 1e12)
    501
    """
    c = config
    tokens = work.tokens(c.patch_size, picture if c.has_image_proj else 0)
    window = token_count(work.window, work.height, work.width) * 4 // c.patch_size**2
    width = c.num_attention_heads * c.attention_head_dim
    hidden = int(width * c.mlp_ratio)
    each = 4 * width**2 + 2 * width * hidden
    blocks = c.num_layers + c.num_single_layers
    linear, seen = blocks * tokens * each, blocks * tokens * tokens
    if c.num_single_layers:
        linear -= (tokens - window) * (each - 2 * width**2)  # keys and values are made of all
        seen -= (tokens - window) * tokens
    pixels = c.patch_size**2 * c.patch_size_t
    linear += window * width * pixels * (c.in_channels + (c.out_channels or c.in_channels))
    linear += 2 * width**2  # the head's modulation
    return Operations(2.0 * work.rows * linear, 4.0 * work.rows * seen * width)


def decode_operations(config: Any, width: int, height: int, frames: int, rows: int = 1) -> Operations:
    """The decoder for so many frames, in tiles of time that overlap, whole in space."""
    tiles = max(1.0, frames / TILE_STEP)
    one = tile_operations(config, width, height, (TILE_FRAMES - 1) // config.temporal_compression_ratio + 1)
    return Operations(*(rows * tiles * value for value in (one.linear, one.attention, one.convolution)))


def tile_operations(config: Any, width: int, height: int, latents: int) -> Operations:
    """The decoder over one tile of so many latent frames."""
    c, time = config, latents
    channels = tuple(reversed(c.block_out_channels))
    spatial, temporal = (int(math.log2(ratio)) for ratio in _ratios(c))
    high, wide = height // c.spatial_compression_ratio, width // c.spatial_compression_ratio
    last = len(channels) - 1
    place, before = time * high * wide, channels[0]
    convolved = 27 * place * (c.latent_channels * before + 4 * before**2) + place * c.latent_channels**2
    linear = seen = 0
    if c.mid_block_add_attention:
        linear, seen = 4 * place * before**2, 2 * place**2 * before
    for level, after in enumerate(channels):
        place = time * high * wide
        first = 27 * (before + after) * after + (before * after if before != after else 0)
        convolved += place * (first + c.layers_per_block * 2 * 27 * after**2)
        grows_wide, grows_long = level < spatial, last - temporal <= level < last
        if grows_wide or grows_long:
            time = 2 * time - 1 if grows_long else time
            high, wide = (high * 2, wide * 2) if grows_wide else (high, wide)
            # Enlargement and convolution are one: of a grown axis each value has two places instead of three.
            products = (2 if grows_long else 3) * (4 if grows_wide else 9)
            convolved += time * high * wide * products * after**2
        before = after
    convolved += 27 * time * high * wide * before * c.out_channels
    return Operations(2.0 * linear, 2.0 * seen, 2.0 * convolved)


def _ratios(config: Any) -> tuple[int, int]:
    return config.spatial_compression_ratio, config.temporal_compression_ratio
