"""The causal 3D autoencoder of HunyuanVideo: 8x8x4 pixels and frames into one latent.

- convolutions pad by repeating the edge, and in time look only back, so the first frame is a picture of its own
- one attention in the middle, where a frame sees itself and the frames before it
- long videos are cut in overlapping tiles of time, large pictures (with tiling) in tiles of space; the norms
  see one tile, so the grid of tiles is part of the result

Letters: B batch, C channels, T frames, H height, W width; pixels in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from longtake.backend import nn, ops, runtime
from longtake.config import VAEConfig
from longtake.errors import ModelError
from longtake.models.outputs import Encoded, Sample
from longtake.models.pretrained import PretrainedModel, is_untouched
from longtake.models.vae.causal import Memory
from longtake.models.vae.halves import Decoder, Encoder
from longtake.models.vae.tiles import UNCUT, Grid, Over, Tiles, TimeTiles, tiled_space

Tensor = ops.Tensor


class Posterior:
    """The diagonal Gaussian that the encoder gives: `mean`, `logvar`, `std`, each (B, C, t, h, w)."""

    def __init__(self, parameters: Tensor) -> None:
        self.mean, logvar = parameters.chunk(2, 1)
        self.logvar = ops.clamp(logvar, -30.0, 20.0)
        self.std = ops.exp(0.5 * self.logvar)

    def sample(self, generator: Any = None, noise: Tensor | None = None) -> Tensor:
        """Mean + std · noise; noise that is not given is drawn from the framework's `generator`."""
        noise = runtime.randn_like(self.mean, generator) if noise is None else noise
        return self.mean + self.std * noise

    def mode(self) -> Tensor:
        """The mean."""
        return self.mean


class AutoencoderKLHunyuanVideo(PretrainedModel):
    """The autoencoder: `encode(frames).latent_dist`, `decode(latents).sample`.

    Frames are (B, 3, T, H, W) in [-1, 1] with T = 1 + 4n, latents (B, C, 1 + n, H/8, W/8), not yet scaled.
    Time is tiled above 16 frames (unless `use_framewise_encoding` or `use_framewise_decoding` is False), space after
    `enable_tiling`; `decoding_tile`, (height, width) in pixels, tiles the space of decoding alone.
    """

    config_class = VAEConfig
    sharing: Any = None
    """Whose `over` the decoder goes over its tiles by, if they are shared out (`pipeline.together`); None is `map`."""

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
        usual = Tiles()
        # The field's names, read at every call: setting one is another way to choose the tiles.
        self.tile_sample_min_height, self.tile_sample_stride_height = usual.height, usual.stride_height
        self.tile_sample_min_width, self.tile_sample_stride_width = usual.width, usual.stride_width
        self.tile_sample_min_num_frames, self.tile_sample_stride_num_frames = (
            usual.frames,
            usual.stride_frames,
        )
        self.use_tiling = False
        self.decoding_tile: tuple[int, int] | None = None
        self.use_slicing = False
        self.use_framewise_encoding = True
        self.use_framewise_decoding = True

    @property
    def tiles(self) -> Tiles:
        """The sizes that the attributes say; raises JobError if nothing can be cut so."""
        tiles = Tiles(
            self.tile_sample_min_height,
            self.tile_sample_min_width,
            self.tile_sample_min_num_frames,
            self.tile_sample_stride_height,
            self.tile_sample_stride_width,
            self.tile_sample_stride_num_frames,
        )
        if self.use_framewise_encoding or self.use_framewise_decoding:
            tiles.check("frames", self.temporal_compression_ratio)
        if self.use_tiling:
            tiles.check("height", self.spatial_compression_ratio)
            tiles.check("width", self.spatial_compression_ratio)
        return tiles

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
        self.use_tiling = True
        asked = {
            "tile_sample_min_height": tile_sample_min_height,
            "tile_sample_min_width": tile_sample_min_width,
            "tile_sample_min_num_frames": tile_sample_min_num_frames,
            "tile_sample_stride_height": tile_sample_stride_height,
            "tile_sample_stride_width": tile_sample_stride_width,
            "tile_sample_stride_num_frames": tile_sample_stride_num_frames,
        }
        for name, value in asked.items():
            if value is not None:
                setattr(self, name, value)

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
        self._bring()
        with self.at_work():
            posterior = Posterior(whole(self.encoded_tiles(), x))
        return Encoded(posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True) -> Any:
        """The frames (B, 3, T, H, W) of unscaled latents, as `.sample`."""
        self._bring()
        with self.at_work():
            frames = whole(self.decoded_tiles(), z)
        return Sample(frames) if return_dict else (frames,)

    def forward(
        self, sample: Tensor, sample_posterior: bool = False, return_dict: bool = True, generator: Any = None
    ) -> Any:
        """Encode and decode frames (B, 3, T, H, W)."""
        posterior = self.encode(sample).latent_dist
        return self.decode(posterior.sample(generator) if sample_posterior else posterior.mode(), return_dict)

    def _bring(self) -> None:
        """Let accelerate's hook bring the weights here: it waits for a call of the network, and these are others."""
        bring = getattr(getattr(self, "_hf_hook", None), "pre_forward", None)
        if bring is not None:
            bring(self)

    def encode_tile(self, x: Tensor) -> Tensor:
        """Mean and log variance of one tile, without cutting it."""
        run = runtime.compiled(self.encoder) if is_untouched(self) else partial(self.encoder, called=True)
        return self.quant_conv(run(x))

    def decode_tile(self, z: Tensor) -> Tensor:
        """The frames of one tile of latents, without cutting it."""
        run = runtime.compiled(self.decoder) if is_untouched(self) else partial(self.decoder, called=True)
        return run(self.post_quant_conv(z))

    def decode_next(self, z: Tensor, memory: Memory) -> Tensor:
        """The frames of latents that follow those that the memory has seen."""
        return self.decoder(self.post_quant_conv(z), memory)

    def sliced(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`function` over the batch; with slicing, over one video after the other."""
        if self.use_slicing and x.shape[0] > 1:
            return ops.cat([function(row) for row in x.split(1, 0)], 0)
        return function(x)

    def encoded_tiles(self) -> TimeTiles:
        """Mean and log variance of frames that come in pieces, tile by tile."""
        tiles, ratio, grid = self.tiles, self.temporal_compression_ratio, UNCUT
        if self.use_framewise_encoding:
            overlap = (tiles.frames - tiles.stride_frames) // ratio
            grid = Grid(tiles.frames, tiles.stride_frames, tiles.stride_frames // ratio, overlap)
        return TimeTiles(grid, lambda x: self.sliced(self._encode_space, x))

    def decoded_tiles(self) -> TimeTiles:
        """The frames of latents that come in pieces, tile by tile."""
        tiles, ratio, grid = self.tiles, self.temporal_compression_ratio, UNCUT
        if self.use_framewise_decoding:
            overlap = tiles.frames - tiles.stride_frames
            grid = Grid(tiles.frames // ratio, tiles.stride_frames // ratio, tiles.stride_frames, overlap)
        # Tiles of space are shared out, if there are any; else those of time.
        over: Over = map if self.sharing is None else self.sharing.over
        in_pieces = self.use_tiling or self.decoding_tile is not None
        in_time, in_space = (map, over) if in_pieces else (over, map)
        return TimeTiles(
            grid,
            lambda z: self.sliced(lambda each: self.decode_space(each, self.decode_tile, in_space), z),
            in_time,
        )

    def _encode_space(self, x: Tensor) -> Tensor:
        tiles, ratio = self.tiles, self.spatial_compression_ratio
        if not self.use_tiling or (x.shape[3] <= tiles.height and x.shape[4] <= tiles.width):
            return self.encode_tile(x)
        stride = (tiles.stride_height, tiles.stride_width)
        out_stride = (stride[0] // ratio, stride[1] // ratio)
        overlap = (tiles.height // ratio - out_stride[0], tiles.width // ratio - out_stride[1])
        return tiled_space(x, self.encode_tile, (tiles.height, tiles.width), stride, out_stride, overlap)

    def decode_space(self, z: Tensor, function: Callable[[Tensor], Tensor], over: Over = map) -> Tensor:
        """`function` over latents; with tiling, over tiles of space."""
        tiles, ratio = self.tiles, self.spatial_compression_ratio
        tiled = (tiles.height, tiles.width), (tiles.stride_height, tiles.stride_width)
        if self.decoding_tile is not None and not self.use_tiling:
            frame = (z.shape[3] * ratio, z.shape[4] * ratio)
            high, wide = (min(each) for each in zip(self.decoding_tile, frame, strict=True))
            # A side that is not cut has one tile as long as it is; the others overlap by a quarter.
            tiled = (
                (high, wide),
                (high if high == frame[0] else high * 3 // 4, wide if wide == frame[1] else wide * 3 // 4),
            )
        (height, width), out_stride = tiled
        size = (height // ratio, width // ratio)
        cuts = self.use_tiling or self.decoding_tile is not None
        if not cuts or (z.shape[3] <= size[0] and z.shape[4] <= size[1]):
            return function(z)
        stride = (out_stride[0] // ratio, out_stride[1] // ratio)
        overlap = (height - out_stride[0], width - out_stride[1])
        return tiled_space(z, function, size, stride, out_stride, overlap, over)


def whole(tiles: TimeTiles, x: Tensor) -> Tensor:
    """The results over a whole video, as one tensor."""
    return ops.cat([*tiles.push(x), *tiles.finish()], 2)
