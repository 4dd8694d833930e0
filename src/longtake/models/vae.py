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
from dataclasses import dataclass
from typing import Any

from longtake.backend import nn, ops, runtime
from longtake.config import VAEConfig
from longtake.errors import ModelError
from longtake.models.outputs import Encoded, Sample
from longtake.models.pretrained import PretrainedModel

Tensor = ops.Tensor
Triple = tuple[int, int, int]
EPS = 1e-6


class CausalConv3d(nn.Module):
    """A convolution whose frame t sees the input's frames up to t only."""

    def __init__(self, channels: int, out_channels: int, kernel: int = 3, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out_channels, kernel, stride)
        self.stride = stride
        side = kernel // 2
        self.padding = (side, side, side, side, kernel - 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] == 1:
            return self._picture(x[:, :, 0])[:, :, None]
        return self.conv(ops.pad(x, self.padding, mode="replicate") if any(self.padding) else x)

    def _picture(self, x: Tensor) -> Tensor:
        # A single frame is its own past: the kernel's sum over time does the same with a third of the products.
        x = ops.pad(x, self.padding[:4], mode="replicate") if any(self.padding) else x
        return ops.conv2d(x, self.conv.weight.sum(2), self.conv.bias, self.stride[1:])


class Resnet(nn.Module):
    """Norm, SiLU, convolution, twice, beside a shortcut."""

    def __init__(self, channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=EPS)
        self.conv1 = CausalConv3d(channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=EPS)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.conv_shortcut = (
            None if channels == out_channels else CausalConv3d(channels, out_channels, kernel=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(ops.silu(self.norm1(x)))
        hidden = self.conv2(ops.silu(self.norm2(hidden)))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class CausalAttention(nn.Module):
    """One head over the pixels of a frame and of all frames before it."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        area = height * width
        hidden = self.group_norm(x).reshape(batch, 1, channels, frames * area).swapaxes(2, 3)
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        # A frame's queries against the keys up to its end: exact, and no mask of tokens squared.
        seen = [
            ops.attention(
                query[:, :, t * area : (t + 1) * area],
                key[:, :, : (t + 1) * area],
                value[:, :, : (t + 1) * area],
            )
            for t in range(frames)
        ]
        hidden = self.to_out[0](ops.cat(seen, 2))
        return x + hidden.swapaxes(2, 3).reshape(batch, channels, frames, height, width)


class MidBlock(nn.Module):
    """Resnet, attention, resnet, at the smallest size."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([CausalAttention(channels, groups)] if attention else [])
        self.resnets = nn.ModuleList([Resnet(channels, channels, groups) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class Downsample(nn.Module):
    """A strided causal convolution."""

    def __init__(self, channels: int, stride: Triple) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Nearest enlargement, then a convolution; the first frame grows in space alone."""

    def __init__(self, channels: int, factor: Triple) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        first = ops.interpolate(x[:, :, :1], scale_factor=(1, *self.factor[1:]), mode="nearest")
        if x.shape[2] == 1:
            return self.conv(first)
        rest = ops.interpolate(x[:, :, 1:], scale_factor=self.factor, mode="nearest")
        return self.conv(ops.cat([first, rest], 2))


class DownBlock(nn.Module):
    """Resnets, then, where `stride` says so, fewer pixels and frames."""

    def __init__(self, channels: int, out_channels: int, layers: int, groups: int, stride: Triple) -> None:
        super().__init__()
        widths = [channels] + [out_channels] * (layers - 1)
        self.resnets = nn.ModuleList([Resnet(width, out_channels, groups) for width in widths])
        self.downsamplers = nn.ModuleList([Downsample(out_channels, stride)]) if max(stride) > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.downsamplers is None else self.downsamplers[0](x)


class UpBlock(nn.Module):
    """Resnets, then, where `factor` says so, more pixels and frames."""

    def __init__(self, channels: int, out_channels: int, layers: int, groups: int, factor: Triple) -> None:
        super().__init__()
        widths = [channels] + [out_channels] * (layers - 1)
        self.resnets = nn.ModuleList([Resnet(width, out_channels, groups) for width in widths])
        self.upsamplers = nn.ModuleList([Upsample(out_channels, factor)]) if max(factor) > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.upsamplers is None else self.upsamplers[0](x)


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
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = CausalConv3d(widths[-1], 2 * config.latent_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(ops.silu(self.conv_norm_out(x)))


class Decoder(nn.Module):
    """Latents (B, C, t, h, w) to frames (B, 3, T, H, W)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = tuple(reversed(config.block_out_channels)), config.norm_num_groups
        self.conv_in = CausalConv3d(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups, config.mid_block_add_attention)
        self.up_blocks = nn.ModuleList(
            [
                UpBlock(channels, out_channels, config.layers_per_block + 1, groups, factor)
                for channels, out_channels, factor in zip(
                    (widths[0], *widths), widths, scalings(config), strict=False
                )
            ]
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = CausalConv3d(widths[-1], config.out_channels)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(ops.silu(self.conv_norm_out(x)))


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


@dataclass(frozen=True)
class Tiles:
    """The size of a tile and the distance to the next, in pixels (frames without the first one)."""

    height: int = 256
    width: int = 256
    frames: int = 16
    stride_height: int = 192
    stride_width: int = 192
    stride_frames: int = 12


def blend(before: Tensor, tile: Tensor, extent: int, axis: int) -> Tensor:
    """Cross-fade the end of `before` linearly into the first `extent` entries of `tile` along `axis`."""
    extent = min(before.shape[axis], tile.shape[axis], extent)
    if extent <= 0:
        return tile
    shape = [1] * 5
    shape[axis] = extent
    weight = ops.arange(extent, like=tile).reshape(shape) / extent
    end = ops.narrow(before, axis, before.shape[axis] - extent, extent)
    start, rest = tile.split((extent, tile.shape[axis] - extent), axis)
    return ops.cat([end * (1 - weight) + start * weight, rest], axis)


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
        posterior = Posterior(self._sliced(self._encode, x))
        return Encoded(posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True) -> Any:
        """The frames (B, 3, T, H, W) of unscaled latents, as `.sample`."""
        frames = self._sliced(self._decode, z)
        return Sample(frames) if return_dict else (frames,)

    def forward(
        self, sample: Tensor, sample_posterior: bool = False, return_dict: bool = True, generator: Any = None
    ) -> Any:
        """Encode and decode frames (B, 3, T, H, W)."""
        posterior = self.encode(sample).latent_dist
        return self.decode(posterior.sample(generator) if sample_posterior else posterior.mode(), return_dict)

    def encode_tile(self, x: Tensor) -> Tensor:
        """Mean and log variance of one tile, without cutting it."""
        return self.quant_conv(self.encoder(x))

    def decode_tile(self, z: Tensor) -> Tensor:
        """The frames of one tile of latents, without cutting it."""
        return self.decoder(self.post_quant_conv(z))

    def _sliced(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if self.use_slicing and x.shape[0] > 1:
            return ops.cat([function(row) for row in x.split(1, 0)], 0)
        return function(x)

    def _encode(self, x: Tensor) -> Tensor:
        tiles, ratio = self.tiles, self.temporal_compression_ratio
        if x.shape[2] <= tiles.frames:
            return self._encode_space(x)
        return tiled_time(
            x, self._encode_space, tiles.frames, tiles.stride_frames,
            tiles.stride_frames // ratio, (tiles.frames - tiles.stride_frames) // ratio,
        )  # fmt: skip

    def _decode(self, z: Tensor) -> Tensor:
        tiles, ratio = self.tiles, self.temporal_compression_ratio
        if z.shape[2] <= tiles.frames // ratio:
            return self._decode_space(z)
        return tiled_time(
            z, self._decode_space, tiles.frames // ratio, tiles.stride_frames // ratio,
            tiles.stride_frames, tiles.frames - tiles.stride_frames,
        )  # fmt: skip

    def _encode_space(self, x: Tensor) -> Tensor:
        tiles, ratio = self.tiles, self.spatial_compression_ratio
        if not self.use_tiling or (x.shape[3] <= tiles.height and x.shape[4] <= tiles.width):
            return self.encode_tile(x)
        stride = (tiles.stride_height, tiles.stride_width)
        out_stride = (stride[0] // ratio, stride[1] // ratio)
        overlap = (tiles.height // ratio - out_stride[0], tiles.width // ratio - out_stride[1])
        return tiled_space(x, self.encode_tile, (tiles.height, tiles.width), stride, out_stride, overlap)

    def _decode_space(self, z: Tensor) -> Tensor:
        tiles, ratio = self.tiles, self.spatial_compression_ratio
        size = (tiles.height // ratio, tiles.width // ratio)
        if not self.use_tiling or (z.shape[3] <= size[0] and z.shape[4] <= size[1]):
            return self.decode_tile(z)
        out_stride = (tiles.stride_height, tiles.stride_width)
        stride = (out_stride[0] // ratio, out_stride[1] // ratio)
        overlap = (tiles.height - out_stride[0], tiles.width - out_stride[1])
        return tiled_space(z, self.decode_tile, size, stride, out_stride, overlap)


def tiled_time(
    x: Tensor, function: Callable[[Tensor], Tensor], size: int, stride: int, out_stride: int, overlap: int
) -> Tensor:
    """Apply `function` to tiles of `size` + 1 frames every `stride`, and cross-fade `overlap` frames of the results.

    The frame that a tile begins with was the last one of the tile before: it primes the causal convolutions and is
    dropped from the result.
    """
    pieces: list[Tensor] = []
    before = None
    for start in range(0, x.shape[2], stride):
        tile = x[:, :, start : start + size + 1]
        if start and tile.shape[2] == 1:
            break  # its only frame primes nothing: the reference computes it and drops it
        done = function(tile)
        if before is None:
            pieces.append(done[:, :, : out_stride + 1])
        else:
            done = blend(before, done[:, :, 1:], overlap, 2)
            pieces.append(done[:, :, :out_stride])
        before = done
    return ops.cat(pieces, 2)


def tiled_space(
    x: Tensor,
    function: Callable[[Tensor], Tensor],
    size: tuple[int, int],
    stride: tuple[int, int],
    out_stride: tuple[int, int],
    overlap: tuple[int, int],
) -> Tensor:
    """Apply `function` to tiles of `size` every `stride`, and cross-fade `overlap` rows and columns of the results."""
    rows: list[Tensor] = []
    above: list[Tensor] = []
    for top in range(0, x.shape[3], stride[0]):
        line: list[Tensor] = []
        for left in range(0, x.shape[4], stride[1]):
            tile = function(x[:, :, :, top : top + size[0], left : left + size[1]])
            if above:
                tile = blend(above[len(line)], tile, overlap[0], 3)
            if line:
                tile = blend(line[-1], tile, overlap[1], 4)
            line.append(tile)
        rows.append(ops.cat([tile[:, :, :, : out_stride[0], : out_stride[1]] for tile in line], 4))
        above = line
    return ops.cat(rows, 3)
