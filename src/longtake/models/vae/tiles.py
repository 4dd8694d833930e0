"""Long videos and large pictures in overlapping tiles, cross-faded in the overlap.

Letters: B batch, C channels, T frames (of pixels or of latents), H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from longtake.backend import ops
from longtake.errors import JobError
from longtake.plan.layout import LATENT_FRAMES

Tensor = ops.Tensor


@dataclass(frozen=True)
class Tiles:
    """The size of a tile and the distance to the next, in pixels and frames of the video."""

    height: int = 256
    width: int = 256
    frames: int = 16
    """Frames of a tile, without the one that it begins with."""
    stride_height: int = 192
    stride_width: int = 192
    stride_frames: int = 12

    def check(self, axis: str, ratio: int) -> None:
        """Raise JobError if `axis` ("height", "width", "frames") cannot be cut so; `ratio` of it make one latent.

        >>> Tiles().check("height", 8)
        """
        size, stride = getattr(self, axis), getattr(self, f"stride_{axis}")
        for value in (size, stride):
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or value < ratio or value % ratio:
                raise JobError(
                    f"Tiles are cut in multiples of {ratio} along {axis}; {value!r} was asked for."
                )
        if stride > size:
            raise JobError(
                f"Tiles of {size} every {stride} along {axis} leave gaps; the stride is at most the tile's size."
            )


@dataclass(frozen=True)
class Grid:
    """Tiles along time: `size` + 1 frames every `stride`, giving `out_stride` new ones; `overlap` are cross-faded."""

    size: int
    stride: int
    out_stride: int
    overlap: int

    @property
    def behind(self) -> int:
        """The number of tiles before it that a tile fades from, directly or not.

        >>> Grid(4, 3, 12, 4).behind, Grid(4, 1, 4, 12).behind
        (1, 3)
        """
        return max(1, -(-self.overlap // self.out_stride))


LONGEST = 2**62
"""More frames than there are; one more is still a C long, which MindSpore's slices are."""
UNCUT = Grid(LONGEST, LONGEST, LONGEST, 0)
"""One tile, as long as the video."""


Wanted = Callable[[int, int], bool]
"""wanted(first, stop): tells if anybody wants one of these frames, of which 0 is the video's first."""


Over = Callable[[Callable[[Tensor], Tensor], Iterable[Tensor]], Iterator[Tensor]]
"""Applies a function to tiles, as `map` does: the results in order, each made when it is asked for, or some at once."""


class TimeTiles:
    """`function` over the tiles of a video that comes in pieces: each tile once, as soon as its frames are there.

    The frame that a tile begins with was the last one of the tile before: it primes the causal convolutions and is
    dropped from the result. Held between pieces: fewer frames than a tile has, and the frames to fade from.

    Frames of the result that are not `wanted` come as their number, tile by tile, and cost nothing but the tiles before
    one that is wanted, which that one fades from.
    """

    def __init__(
        self,
        grid: Grid,
        function: Callable[[Tensor], Tensor],
        over: Over = map,
        wanted: Wanted | None = None,
    ) -> None:
        self.grid, self.function, self.over, self.wanted = grid, function, over, wanted
        self._waiting: Tensor | None = None
        self._before: Tensor | None = None
        self._next = 0
        """The number of the tile that comes next."""

    def push(self, x: Tensor) -> Iterator[Any]:
        """Take the next frames (B, C, T, H, W); the results that are final now, in order."""
        grid = self.grid
        x = x if self._waiting is None else ops.cat([self._waiting, x], 2)
        start, cuts = 0, []
        while x.shape[2] - start > grid.size:
            cuts.append(x[:, :, start : start + grid.size + 1])
            start += grid.stride
        self._waiting = _own(x[:, :, start:])
        yield from self._results(cuts, False)

    def finish(self) -> Iterator[Any]:
        """The rest of the results; nothing can be pushed afterwards."""
        x, grid = self._waiting, self.grid
        if x is None:
            return
        # A tile of one frame primes nothing: the reference computes it and drops it.
        starts = range(0, x.shape[2] - 1, grid.stride) if self._next else (0,)
        yield from self._results([x[:, :, n : n + grid.size + 1] for n in starts], True)
        self._waiting, self._before, self._next = None, None, 0

    def _results(self, cuts: list[Tensor], rest: bool) -> Iterator[Any]:
        """The results of the next tiles, which are the `rest` of the video or not."""
        numbers = range(self._next, self._next + len(cuts))
        needed = [self._is_wanted(number, number + self.grid.behind) for number in numbers]
        done = iter(self.over(self.function, [cut for cut, each in zip(cuts, needed, strict=True) if each]))
        for number, cut, each in zip(numbers, cuts, needed, strict=True):
            self._next = number + 1
            if not each:
                self._before = None
                yield self._frames(number, cut, rest)
                continue
            result = self._final(next(done), number == 0, rest)
            yield result if self._is_wanted(number, number) else int(result.shape[2])

    def _is_wanted(self, first: int, last: int) -> bool:
        """Tell if frames of the tiles from the first to the last are wanted."""
        stride = self.grid.out_stride
        return self.wanted is None or self.wanted(stride * first + (first > 0), stride * (last + 1) + 1)

    def _frames(self, number: int, cut: Tensor, rest: bool) -> int:
        """The number of frames of a tile's result, for latents."""
        count = LATENT_FRAMES * (cut.shape[2] - 1)
        return (count if rest else min(count, self.grid.out_stride)) + (number == 0)

    def _final(self, done: Tensor, first: bool, rest: bool) -> Tensor:
        """The part of a tile's result that is final."""
        before, grid = self._before, self.grid
        done = done if first else done[:, :, 1:]
        if before is not None:
            done = blend(before, done, grid.overlap, 2)
        self._before = _own(done[:, :, max(done.shape[2] - grid.overlap, 0) :])
        return done if first and rest else done[:, :, : grid.out_stride + first]


def _own(x: Tensor) -> Tensor:
    # A view would keep all of the tensor that it looks into.
    return ops.cat([x], 2)


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


def tiled_space(
    x: Tensor,
    function: Callable[[Tensor], Tensor],
    size: tuple[int, int],
    stride: tuple[int, int],
    out_stride: tuple[int, int],
    overlap: tuple[int, int],
    over: Over = map,
) -> Tensor:
    """Apply `function` to tiles of `size` every `stride`, and cross-fade `overlap` rows and columns of the results."""
    tops, lefts = range(0, x.shape[3], stride[0]), range(0, x.shape[4], stride[1])
    done = over(
        function,
        [x[:, :, :, top : top + size[0], left : left + size[1]] for top in tops for left in lefts],
    )
    rows: list[Tensor] = []
    above: list[Tensor] = []
    for _ in tops:
        line: list[Tensor] = []
        for tile in islice(done, len(lefts)):
            if above:
                tile = blend(above[len(line)], tile, overlap[0], 3)
            if line:
                tile = blend(line[-1], tile, overlap[1], 4)
            line.append(tile)
        rows.append(ops.cat([tile[:, :, :, : out_stride[0], : out_stride[1]] for tile in line], 4))
        above = line
    return ops.cat(rows, 3)
