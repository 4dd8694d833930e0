"""The causal 3D autoencoder of HunyuanVideo: 8x8x4 pixels and frames into one latent.

- convolutions pad by repeating the edge, and in time look only back, so the first frame is a picture of its own
- one attention in the middle, where a frame sees itself and the frames before it
- long videos are cut in overlapping tiles of time, large pictures in tiles of space (where tiling is on); the norms
  see one tile, so the grid of tiles is part of the result

Letters: B batch, C channels, T frames, H height, W width; pixels in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from longtake.backend import nn, ops, runtime
from longtake.config import VAEConfig
from longtake.errors import ModelError
from longtake.models.outputs import Encoded, Sample
from longtake.models.pretrained import PretrainedModel
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
    joined,
)
from longtake.models.vae.tiles import Grid, Tiles, TimeTiles, tiled_space
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
    """Resnets, then, where `stride` says so, fewer pixels and frames."""

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
    """Resnets, then, where `factor` says so, more pixels and frames; `rate` frames for a latent one come in."""

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
        return joined(self.conv_out.over(clip, None, self.conv_norm_out.factors(clip)))


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
        return joined(self.conv_out.over(clip, memory, self.conv_norm_out.factors(clip, memory)))


class Posterior:
    """The diagonal Gaussian that the encoder gives: `mean`, `logvar`, `std`, each (B, C, t, h, w)."""

    def __init__(self, parameters: Tensor) -> None:
        self.mean, logvar = parameters.chunk(2, 1)
        self.logvar = ops.clamp(logvar, -30.0, 20.0)
        self.std = ops.exp(0.5 * self.logvar)

    def sample(self, generator: Any = None, noise: Tensor | None = None) -> Tensor:
        """Mean + std · noise; the noise is drawn from the framework's `generator` where it is not given."""
        noise = runtime.randn_like(self.mean, generator) if noise is None else noise
        return self.mean + self.std * noise

    def mode(self) -> Tensor:
        """The mean."""
        return self.mean


class AutoencoderKLHunyuanVideo(PretrainedModel):
    """The autoencoder: `encode(frames).latent_dist`, `decode(latents).sample`.

    Frames are (B, 3, T, H, W) in [-1, 1] with T = 1 + 4n, latents (B, C, 1 + n, H/8, W/8), not yet scaled.
    Time is always tiled (above 16 frames), space where `enable_tiling` was called.
    """

    config_class = VAEConfig

    def __init__(self, config: Any = None, **fields: Any) -> None:
        super().__init__(config, **fields)
        config = self.config
        if config.temporal_compression_ratio != 4:
            raise ModelError(
                f"temporal_compression_ratio must be 4; it is {config.temporal_compression_ratio}."
            )
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv3d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv3d(config.latent_channels, config.latent_channels, 1)
        self.spatial_compression_ratio = config.spatial_compression_ratio
        self.temporal_compression_ratio = config.temporal_compression_ratio
        self.tiles = Tiles()
        self.use_tiling = False
        self.use_slicing = False

    def enable_tiling(
        self,
        tile_sample_min_height: int | None = None,
        tile_sample_min_width: int | None = None,
        tile_sample_min_num_frames: int | None = None,
        tile_sample_stride_height: int | None = None,
        tile_sample_stride_width: int | None = None,
        tile_sample_stride_num_frames: int | None = None,
    ) -> None:
        """Work on tiles of space too (less memory, slightly other pixels); sizes in pixels and frames."""
        now = self.tiles
        self.use_tiling = True
        self.tiles = Tiles(
            tile_sample_min_height or now.height,
            tile_sample_min_width or now.width,
            tile_sample_min_num_frames or now.frames,
            tile_sample_stride_height or now.stride_height,
            tile_sample_stride_width or now.stride_width,
            tile_sample_stride_num_frames or now.stride_frames,
        )

    def disable_tiling(self) -> None:
        """Whole frames again."""
        self.use_tiling = False

    def enable_slicing(self) -> None:
        """One video of a batch at a time (less memory, the same result)."""
        self.use_slicing = True

    def disable_slicing(self) -> None:
        """The whole batch at once again."""
        self.use_slicing = False

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """The posterior of frames (B, 3, T, H, W), as `.latent_dist`."""
        posterior = Posterior(whole(self.encoded_tiles(), x))
        return Encoded(posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True) -> Any:
        """The frames (B, 3, T, H, W) of unscaled latents, as `.sample`."""
        frames = whole(self.decoded_tiles(), z)
        return Sample(frames) if return_dict else (frames,)

    def forward(
        self, sample: Tensor, sample_posterior: bool = False, return_dict: bool = True, generator: Any = None
    ) -> Any:
        """Encode and decode frames (B, 3, T, H, W)."""
        posterior = self.encode(sample).latent_dist
        return self.decode(posterior.sample(generator) if sample_posterior else posterior.mode(), return_dict)

    def encode_tile(self, x: Tensor) -> Tensor:
        """Mean and log variance of one tile, without cutting it."""
        return self.quant_conv(runtime.compiled(self.encoder)(x))

    def decode_tile(self, z: Tensor) -> Tensor:
        """The frames of one tile of latents, without cutting it."""
        return runtime.compiled(self.decoder)(self.post_quant_conv(z))

    def decode_next(self, z: Tensor, memory: Memory) -> Tensor:
        """The frames of latents that follow those that the memory has seen."""
        return self.decoder(self.post_quant_conv(z), memory)

    def sliced(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`function` over the batch, one video at a time where slicing is on."""
        if self.use_slicing and x.shape[0] > 1:
            return ops.cat([function(row) for row in x.split(1, 0)], 0)
        return function(x)

    def encoded_tiles(self) -> TimeTiles:
        """Mean and log variance of frames that come in pieces, tile by tile."""
        tiles, ratio = self.tiles, self.temporal_compression_ratio
        overlap = (tiles.frames - tiles.stride_frames) // ratio
        grid = Grid(tiles.frames, tiles.stride_frames, tiles.stride_frames // ratio, overlap)
        return TimeTiles(grid, lambda x: self.sliced(self._encode_space, x))

    def decoded_tiles(self) -> TimeTiles:
        """The frames of latents that come in pieces, tile by tile."""
        tiles, ratio = self.tiles, self.temporal_compression_ratio
        overlap = tiles.frames - tiles.stride_frames
        grid = Grid(tiles.frames // ratio, tiles.stride_frames // ratio, tiles.stride_frames, overlap)
        return TimeTiles(
            grid, lambda z: self.sliced(lambda each: self.decode_space(each, self.decode_tile), z)
        )

    def _encode_space(self, x: Tensor) -> Tensor:
        tiles, ratio = self.tiles, self.spatial_compression_ratio
        if not self.use_tiling or (x.shape[3] <= tiles.height and x.shape[4] <= tiles.width):
            return self.encode_tile(x)
        stride = (tiles.stride_height, tiles.stride_width)
        out_stride = (stride[0] // ratio, stride[1] // ratio)
        overlap = (tiles.height // ratio - out_stride[0], tiles.width // ratio - out_stride[1])
        return tiled_space(x, self.encode_tile, (tiles.height, tiles.width), stride, out_stride, overlap)

    def decode_space(self, z: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """`function` over latents, in tiles of space where tiling is on."""
        tiles, ratio = self.tiles, self.spatial_compression_ratio
        size = (tiles.height // ratio, tiles.width // ratio)
        if not self.use_tiling or (z.shape[3] <= size[0] and z.shape[4] <= size[1]):
            return function(z)
        out_stride = (tiles.stride_height, tiles.stride_width)
        stride = (out_stride[0] // ratio, out_stride[1] // ratio)
        overlap = (tiles.height - out_stride[0], tiles.width - out_stride[1])
        return tiled_space(z, function, size, stride, out_stride, overlap)


def whole(tiles: TimeTiles, x: Tensor) -> Tensor:
    """The results over a whole video, joined."""
    return ops.cat([*tiles.push(x), *tiles.finish()], 2)
