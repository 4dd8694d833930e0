"""The size that a picture or a video is learned in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from longtake.errors import JobError
from longtake.processors.pictures import bucket

STEP = 16
"""Pixels: eight make a latent, and the transformer takes two by two of those."""


@dataclass(frozen=True)
class Sizes:
    """(width, height) for each shape: one `area` for all; with `many`, its buckets as musubi-tuner makes them.

    Without an `area` they are FramePack's own buckets. `upscale` False leaves smaller ones in their size.
    """

    area: tuple[int, int] | None = None
    many: bool = False
    upscale: bool = True

    def of(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) for what is so wide and high.

        >>> Sizes().of(1920, 1080), Sizes((64, 64)).of(1920, 1080), Sizes((960, 544), True).of(1080, 1920)
        ((832, 480), (64, 64), (544, 960))
        """
        if self.area is None:
            return bucket(width, height)
        if not self.many:
            return self.area
        if not self.upscale and width * height <= math.prod(self.area):
            return width - width % STEP, height - height % STEP
        return min(self.buckets, key=lambda size: abs(size[0] / size[1] - width / height))

    @cached_property
    def buckets(self) -> list[tuple[int, int]]:
        """The sizes of about the same area, in steps of 16 pixels, the narrowest first."""
        assert self.area is not None
        product = math.prod(self.area)
        side = math.isqrt(product)
        found = set()
        for width in range(side // 2 - side // 2 % STEP, side + STEP, STEP):
            height = product // width - product // width % STEP
            found |= {(width, height), (height, width)}
        return sorted(found)

    def check(self, where: str) -> None:
        """Raise JobError, which names the place, for a size that cannot be encoded."""
        if self.area is None:
            return
        if min(self.area) < STEP:
            raise JobError(f"{where}: a resolution of {_told(self.area)} is less than {STEP} pixels a side.")
        if not self.many and any(side % STEP for side in self.area):
            near = tuple(round(side / STEP) * STEP for side in self.area)
            raise JobError(
                f"{where}: a resolution of {_told(self.area)} is no multiple of {STEP} pixels; write "
                f"{_told(near)}, or set enable_bucket."
            )


def _told(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
