"""The two halves of the causal autoencoder, as lists of blocks over clips in pieces.

Letters: B batch, C channels, T frames, H height, W width, t, h, w the same of latents.
"""

from __future__ import annotations

import math

from longtake.backend import nn, ops
from longtake.config import VAEConfig
from longtake.models.vae.causal import (
    CausalAttention,
    CausalConv3d,
    CausalNorm,
    Clip,
    Downsample,
    Memory,
    Resnet,
    Triple,
    cut,
    in_one,
)
from longtake.models.vae.upsample import Upsample

Tensor = ops.Tensor


class MidBlock(nn.Module):
    """Resnet, attention, resnet, at the smallest size."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([CausalAttention(channels, groups)] if attention else [])
        self.resnets = nn.ModuleList([Resnet(channels, channels, groups) for _ in range(2)])

    def forward(self, clip: Clip, memory: Memory | None = None) -> Clip:
        clip = self.resnets[0](clip, memory)
        for attention in self.attentions:
            clip = attention(clip, memory)
        return self.resnets[1](clip, memory)


class DownBlock(nn.Module):
    """Resnets, then fewer pixels and frames by `stride`; a stride of ones leaves them."""

    def __init__(self, channels: int, out_channels: int, layers: int, groups: int, stride: Triple) -> None:
        super().__init__()
        widths = [channels] + [out_channels] * (layers - 1)
        self.resnets = nn.ModuleList([Resnet(width, out_channels, groups) for width in widths])
        self.downsamplers = nn.ModuleList([Downsample(out_channels, stride)]) if max(stride) > 1 else None

    def forward(self, clip: Clip) -> Clip:
        for resnet in self.resnets:
            clip = resnet(clip)
        return clip if self.downsamplers is None else self.downsamplers[0](clip)


class UpBlock(nn.Module):
    """Resnets, then more pixels and frames by `factor`; `rate` frames to one latent frame come in."""

    def __init__(
        self, channels: int, out_channels: int, layers: int, groups: int, factor: Triple, rate: int
    ) -> None:
        super().__init__()
        widths = [channels] + [out_channels] * (layers - 1)
        self.resnets = nn.ModuleList([Resnet(width, out_channels, groups, rate) for width in widths])
        self.upsamplers = nn.ModuleList([Upsample(out_channels, factor)]) if max(factor) > 1 else None

    def forward(self, clip: Clip, memory: Memory | None = None) -> Clip:
        for resnet in self.resnets:
            clip = resnet(clip, memory)
        return clip if self.upsamplers is None else self.upsamplers[0](clip, memory)


def scalings(config: VAEConfig) -> list[Triple]:
    """By how much each block shrinks (or grows) time, height and width.

    Space changes in the first blocks, time in the last ones before the final, which keeps its size.
    """
    blocks = len(config.block_out_channels)
    space = int(math.log2(config.spatial_compression_ratio))
    time = int(math.log2(config.temporal_compression_ratio))
    return [
        (2 if blocks - 1 - time <= i < blocks - 1 else 1, 2 if i < space else 1, 2 if i < space else 1)
        for i in range(blocks)
    ]


class Encoder(nn.Module):
    """Frames (B, 3, T, H, W) to the posterior's mean and log variance (B, 2C, t, h, w)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = CausalConv3d(config.in_channels, widths[0])
        self.down_blocks = nn.ModuleList(
            [
                DownBlock(channels, out_channels, config.layers_per_block, groups, stride)
                for channels, out_channels, stride in zip(
                    (widths[0], *widths), widths, scalings(config), strict=False
                )
            ]
        )
        self.mid_block = MidBlock(widths[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = CausalNorm(groups, widths[-1])
        self.conv_out = CausalConv3d(widths[-1], 2 * config.latent_channels)

    def forward(self, x: Tensor) -> Tensor:
        clip = self.conv_in.over(cut([x], self.conv_in.values(x), 2))
        for block in self.down_blocks:
            clip = block(clip)
        clip = self.mid_block(clip)
        return in_one(self.conv_out.over(clip, None, self.conv_norm_out.factors(clip)))


class Decoder(nn.Module):
    """Latents (B, C, t, h, w) to frames (B, 3, T, H, W); with a memory, those that follow the latents before."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = tuple(reversed(config.block_out_channels)), config.norm_num_groups
        self.conv_in = CausalConv3d(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups, config.mid_block_add_attention)
        blocks, rate = [], 1
        for channels, out_channels, factor in zip(
            (widths[0], *widths), widths, scalings(config), strict=False
        ):
            blocks.append(UpBlock(channels, out_channels, config.layers_per_block + 1, groups, factor, rate))
            rate *= factor[0]
        self.up_blocks = nn.ModuleList(blocks)
        self.conv_norm_out = CausalNorm(groups, widths[-1], rate)
        self.conv_out = CausalConv3d(widths[-1], config.out_channels)

    def forward(self, z: Tensor, memory: Memory | None = None) -> Tensor:
        clip = self.mid_block(self.conv_in.over(cut([z], self.conv_in.values(z), 2), memory), memory)
        for block in self.up_blocks:
            clip = block(clip, memory)
        return in_one(self.conv_out.over(clip, memory, self.conv_norm_out.factors(clip, memory)))
