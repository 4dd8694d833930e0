"""Enlargement by repetition and a causal convolution, computed on the small grid.

Letters: B batch, C channels, T frames, H height, W width.
"""

from __future__ import annotations

from typing import Any

from longtake.backend import nn, ops
from longtake.models.vae.causal import AROUND, CausalConv3d, Clip, Memory, Triple, cut

Tensor = ops.Tensor


class Upsample(nn.Module):
    """Nearest enlargement, then a convolution; the first frame grows in space alone.

    Both are computed at once on the small grid. Of the 27 products that make one value of the large grid, those with
    the same input become one product by the sum of their weights, so 8 are left if all three axes grow. Odd and even
    places of an axis have kernels of their own, the phases.
    """

    def __init__(self, channels: int, factor: Triple) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels)
        self.factor, self.channels = factor, channels

    def forward(self, clip: Clip | Tensor, memory: Memory | None = None) -> Clip | Tensor:
        if not isinstance(clip, list):
            return self.conv(repeated(clip, self.factor), called=True)
        time, high, wide = self.factor
        needed = 3 - time  # frames before the first that it sees
        past: Clip = [] if memory is None else memory.of(self)
        kernels = phases(self.conv.conv.weight, self.factor)
        half = self.channels * high * wide
        done: Clip = []
        for piece in cut(clip, time * half * (clip[0].shape[3] + 2) * (clip[0].shape[4] + 2)):
            begins = len(past) == 0
            x = ops.pad(piece, (*AROUND, needed if begins else 0, 0), mode="replicate")
            x = x if begins else ops.cat([*past, x], 2)
            # The odd half of the very first frame is left out: it would come before that frame.
            first = begins and time == 2
            past = [x[:, :, -1:]] if needed == 1 else [x[:, :, -2:-1], x[:, :, -1:]]
            if piece.shape[2] == 1 and time == 2:
                if not first:
                    done.append(self._enlarged(x, kernels[:half], 1))
                done.append(self._enlarged(x, kernels[half:], 1))
            else:
                done.append(self._enlarged(x, kernels, time)[:, :, 1 if first else 0 :])
        if memory is not None:
            memory.keep(self, past)
        return done

    def _enlarged(self, x: Tensor, kernels: Tensor, time: int) -> Tensor:
        """The phases of the padded frames, laid side by side, by `time` and the factors of space."""
        _, high, wide = self.factor
        bias: Any = self.conv.conv.bias
        biases = ops.cat([bias] * (time * high * wide), 0)
        y = ops.conv3d(x, kernels, biases, (1, 1, 1)).permute(0, 2, 3, 4, 1)
        batch, t, h, w, _ = y.shape
        y = y.reshape(batch, t, h, w, time, high, wide, self.channels).permute(0, 1, 4, 2, 5, 3, 6, 7)
        y = y.reshape(batch, t * time, h * high, w * wide, self.channels)
        # A grown axis begins with an odd place before the picture and ends with an even one after it.
        top, left = high - 1, wide - 1
        y = y[:, :, top : h * high - top, left : w * wide - left]
        return y.permute(0, 4, 1, 2, 3)


def repeated(x: Tensor, factor: Triple) -> Tensor:
    """The nearest enlargement of (B, C, T, H, W); the first frame stays one frame."""
    frames, rows, columns = (
        [place // by for place in range(size * by)] for size, by in zip(x.shape[2:], factor, strict=True)
    )
    return x[:, :, frames[factor[0] - 1 :]][:, :, :, rows][:, :, :, :, columns]


def phases(weight: Tensor, factor: Triple) -> Tensor:
    """The kernels of the odd and the even places along each grown axis, one below the other, of (out, in, 3, 3, 3).

    Made anew for every clip: a few sums, against a convolution.
    """
    found = weight.float() if weight.itemsize < 4 else weight
    for axis in (4, 3, 2):
        if factor[axis - 2] == 2:
            a, b, c = found.split(1, axis)
            odd, even = ops.cat([a + b, c], axis), ops.cat([a, b + c], axis)
            found = ops.cat([odd, even], 0)
    return found.to(weight.dtype)
