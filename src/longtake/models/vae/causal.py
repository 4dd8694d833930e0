"""The layers of a causal video network, over clips that lie in pieces.

A clip is a list of pieces (B, C, T, H, W), one after the other in time. Convolutions go from piece to piece with the
last frames of the one before, and norms look at all pieces, so cutting does not change the result. It keeps small what
one operation makes (`ops.piece_values` says why). Pieces use the weights of norms and convolutions without calling
them: a tensor in place of a clip goes through every layer by its call, so that hooks on any of them take effect.
A video that goes on comes clip by clip with a `Memory`: every layer continues from the frames that it saw last.

Letters: B batch, C channels, T frames, H height, W width, G groups.
"""

from __future__ import annotations

import math

import numpy as np

from longtake.backend import nn, ops

Tensor = ops.Tensor
Clip = list[Tensor]
Triple = tuple[int, int, int]
EPS = 1e-6
AROUND = (1, 1, 1, 1)
"""Padding by one pixel on each side."""


class Memory:
    """Keeps what each layer needs of the frames before. Norms and attention see the last `reach` latent frames."""

    def __init__(self, reach: int) -> None:
        self.reach = reach
        self._kept: dict[int, list[Tensor]] = {}

    def copied(self) -> Memory:
        """Another memory of the same frames."""
        other = Memory(self.reach)
        other._kept = dict(self._kept)
        return other

    def of(self, layer: nn.Module) -> list[Tensor]:
        """The tensors that the layer kept last; none when the video begins."""
        return self._kept.get(id(layer), [])

    def keep(self, layer: nn.Module, tensors: list[Tensor]) -> None:
        """Keep copies: a view would hold the whole clip."""
        self._kept[id(layer)] = [ops.cat([x], 2) for x in tensors]


def cut(clip: Clip, values: int, past: int = 0) -> Clip:
    """Split the clip so that each piece plus `past` frames, of `values` values each, stays under `ops.piece_values`."""
    pieces: Clip = []
    for piece in clip:
        x = ops.channels_last(piece)
        frames = max(1, ops.piece_values(x) // (x.shape[0] * values) - past)
        for start in range(0, x.shape[2], frames):
            pieces.append(x[:, :, start : start + frames] if frames < x.shape[2] else x)
    return pieces


def in_one(clip: Clip) -> Tensor:
    """The clip as one tensor (B, C, T, H, W)."""
    return ops.cat(clip, 2) if len(clip) > 1 else clip[0]


class Conv3d(nn.Conv3d):
    """A convolution by the backend's own operator."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.conv3d(input, self.weight, self.bias, self.stride)


class CausalConv3d(nn.Module):
    """A convolution whose frame t sees only frames up to t; before the first frame, that frame is repeated."""

    def __init__(self, channels: int, out_channels: int, kernel: int = 3, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        self.conv = Conv3d(channels, out_channels, kernel, stride)
        self.kernel, self.stride, self.widest = kernel, stride, max(channels, out_channels)

    def forward(self, x: Tensor, called: bool = False) -> Tensor:
        """Convolve a clip that is one tensor, by the stride; `called`: by nothing but the call of `conv`."""
        if self.kernel == 1:
            return self.conv(x)
        if x.shape[2] == 1 and not called:
            return self._picture(ops.pad(x[:, :, 0], AROUND, mode="replicate"))
        return self.conv(ops.pad(x, (*AROUND, 2, 0), mode="replicate"))

    def over(
        self, clip: Clip, memory: Memory | None = None, factors: list[tuple[Tensor, Tensor]] | None = None
    ) -> Clip:
        """Convolve a clip by steps of one; with `factors` (scale, shift) a piece goes through them and SiLU first."""
        past: Clip = [] if memory is None else memory.of(self)
        done: Clip = []
        for i in range(len(clip)):
            x = clip[i]
            if factors is not None:
                x = ops.silu(ops.scale_shift(x, factors[i][0], factors[i][1]))
            single, begins = x.shape[2] == 1, len(past) == 0
            x = ops.pad(x, (*AROUND, 0 if single or not begins else 2, 0), mode="replicate")
            if not begins:
                done.append(self._continued(past[0], past[1], x))
            elif single:
                done.append(self._picture(x[:, :, 0]))
                past = [x, x]
            else:
                done.append(self.conv(x))
            past = [past[1], x] if single else [x[:, :, -2:-1], x[:, :, -1:]]
        if memory is not None:
            memory.keep(self, past)
        return done

    def values(self, x: Tensor) -> int:
        """The number of values in a padded frame of `x`, counted with the larger number of channels."""
        return self.widest * (x.shape[3] + 2) * (x.shape[4] + 2)

    def _picture(self, x: Tensor) -> Tensor:
        # A single frame is its own past: the kernel's sum over time does the same with a third of the products.
        return ops.conv2d(x, self.conv.weight.sum(2), self.conv.bias, self.stride[1:])[:, :, None]

    def _continued(self, before: Tensor, last: Tensor, x: Tensor) -> Tensor:
        """The padded frames `x` after the frames `before` and `last`."""
        if x.shape[2] > 1 or 3 * math.prod(x.shape) <= ops.piece_values(x):
            return self.conv(ops.cat([before, last, x], 2))
        # One frame of a large picture: three products apart cost less than laying the frames side by side.
        weight, step = self.conv.weight, (1, 1)
        first = ops.conv2d(before[:, :, 0], weight[:, :, 0], None, step)
        second = ops.conv2d(last[:, :, 0], weight[:, :, 1], None, step)
        return (first + second + ops.conv2d(x[:, :, 0], weight[:, :, 2], self.conv.bias, step))[:, :, None]


class CausalNorm(nn.GroupNorm):
    """A group norm over a whole clip; in a video that goes on, over each frame and those before it within the reach.

    `rate`: frames to one latent frame here.
    """

    def __init__(self, groups: int, channels: int, rate: int = 1) -> None:
        super().__init__(groups, channels, eps=EPS)
        self.rate = rate

    def factors(self, clip: Clip, memory: Memory | None = None) -> list[tuple[Tensor, Tensor]]:
        """The scale and the shift of each piece, (B, C, 1 or T, 1, 1): a value x becomes scale · x + shift."""
        moments = [ops.moments(x) for x in clip]
        mean, variance = in_one([each[0] for each in moments]), in_one([each[1] for each in moments])
        shape = (mean.shape[0], self.num_groups, -1, mean.shape[2])
        mean, variance = mean.reshape(shape), variance.reshape(shape)
        if memory is None:
            centre = mean.mean((2, 3), keepdim=True)
            around = (variance + (mean - centre) ** 2).mean((2, 3), keepdim=True)
            scale, shift = self._factors(centre, around)
            return [(scale, shift) for _ in clip]
        centre = mean.mean(2, keepdim=True)
        around = (variance + (mean - centre) ** 2).mean(2, keepdim=True)
        scale, shift = self._factors(*self._windowed(centre, around, memory))
        found: list[tuple[Tensor, Tensor]] = []
        start = 0
        for x in clip:
            stop = start + x.shape[2]
            found.append((scale[:, :, start:stop], shift[:, :, start:stop]))
            start = stop
        return found

    def _factors(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """From moments (B, G, 1, T)."""
        each = (1, self.num_groups, -1, 1)
        weight, bias = self.weight.reshape(each).to(mean.dtype), self.bias.reshape(each).to(mean.dtype)
        scale = weight * ops.rsqrt(ops.clamp(variance, 0.0) + self.eps)
        shift = bias - mean * scale
        shape = (mean.shape[0], -1, mean.shape[3], 1, 1)
        return ops.channels_last(scale.reshape(shape)), ops.channels_last(shift.reshape(shape))

    def _windowed(self, mean: Tensor, variance: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Moments (B, G, 1, T) over each frame and those before it within the reach."""
        past, frames = memory.of(self), mean.shape[3]
        if past:
            mean, variance = ops.cat([past[0], mean], 3), ops.cat([past[1], variance], 3)
        known, span = mean.shape[3], memory.reach * self.rate
        first = max(known - span + 1, 0)
        memory.keep(self, [mean[..., first:], variance[..., first:]])
        age = np.arange(known - frames, known)[None] - np.arange(known)[:, None]
        seen = ((age >= 0) & (age < span)).astype(np.float32)
        weights = ops.from_numpy(seen / seen.sum(0), like=mean)
        pivot = mean[..., :1]  # leaves little to cancel
        apart = mean - pivot
        centre = apart @ weights
        return centre + pivot, (variance + apart * apart) @ weights - centre * centre


class Resnet(nn.Module):
    """Norm, SiLU, convolution, twice, beside a shortcut."""

    def __init__(self, channels: int, out_channels: int, groups: int, rate: int = 1) -> None:
        super().__init__()
        self.norm1 = CausalNorm(groups, channels, rate)
        self.conv1 = CausalConv3d(channels, out_channels)
        self.norm2 = CausalNorm(groups, out_channels, rate)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.conv_shortcut = (
            None if channels == out_channels else CausalConv3d(channels, out_channels, kernel=1)
        )

    def forward(self, clip: Clip | Tensor, memory: Memory | None = None) -> Clip | Tensor:
        if not isinstance(clip, list):
            hidden = self.conv1(ops.silu(self.norm1(clip)), called=True)
            hidden = self.conv2(ops.silu(self.norm2(hidden)), called=True)
            return hidden + (clip if self.conv_shortcut is None else self.conv_shortcut(clip))
        clip = cut(clip, max(self.conv1.values(clip[0]), self.conv2.values(clip[0])), 2)
        hidden = self.conv1.over(clip, memory, self.norm1.factors(clip, memory))
        hidden = self.conv2.over(hidden, memory, self.norm2.factors(hidden, memory))
        if self.conv_shortcut is None:
            return [hidden[i] + clip[i] for i in range(len(clip))]
        return [hidden[i] + self.conv_shortcut(clip[i]) for i in range(len(clip))]


class CausalAttention(nn.Module):
    """Attention with one head: a frame sees itself and earlier frames, of the clip or within the memory's reach."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = CausalNorm(groups, channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, clip: Clip | Tensor, memory: Memory | None = None) -> Clip | Tensor:
        if not isinstance(clip, list):
            return clip + self._seen(self.group_norm(clip), None)
        x = in_one(clip)
        scale, shift = self.group_norm.factors([x], memory)[0]
        return [x + self._seen(ops.scale_shift(x, scale, shift), memory)]

    def _seen(self, x: Tensor, memory: Memory | None) -> Tensor:
        """The attention over normed frames (B, C, T, H, W)."""
        batch, channels, frames, height, width = x.shape
        area = height * width
        hidden = x.permute(0, 2, 3, 4, 1)
        hidden = hidden.reshape(batch, 1, frames * area, channels)
        query, key, value = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        reach = frames
        if memory is not None:
            reach, past = memory.reach, memory.of(self)
            if past:
                key, value = ops.cat([past[0], key], 2), ops.cat([past[1], value], 2)
            begin = max(key.shape[2] - (reach - 1) * area, 0)
            memory.keep(self, [key[:, :, begin:], value[:, :, begin:]])
        known = key.shape[2] // area - frames
        seen = []
        for t in range(frames):
            # A frame's queries against the keys up to its end: exact, and no mask of tokens squared.
            begin, end = max(known + t + 1 - reach, 0) * area, (known + t + 1) * area
            queries = query[:, :, t * area : (t + 1) * area]
            seen.append(ops.attention(queries, key[:, :, begin:end], value[:, :, begin:end]))
        hidden = self.to_out[0](ops.cat(seen, 2)).reshape(batch, frames, height, width, channels)
        return hidden.permute(0, 4, 1, 2, 3)


class Downsample(nn.Module):
    """A strided causal convolution."""

    def __init__(self, channels: int, stride: Triple) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride=stride)

    def forward(self, clip: Clip | Tensor) -> Clip | Tensor:
        return [self.conv(in_one(clip))] if isinstance(clip, list) else self.conv(clip, called=True)
