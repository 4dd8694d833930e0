"""The packing of clean frames: scales, kernels, slots, token counts, and FramePack's structure names.

A frame at scale k is patched with a kernel k times as large on every axis as the window's own (1, 2, 2), so that it
costs 1/k**3 of a full frame. A structure name says the same in one word: `f16k4f2k2f1k1_g9` packs 16 frames by k4,
2 by k2 and 1 by k1 (newest last) and generates 9.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from longtake.errors import JobError

KERNELS: dict[int, tuple[int, int, int]] = {
    scale: (scale, 2 * scale, 2 * scale) for scale in (1, 2, 4, 8, 16)
}
"""Patch kernels (frames, latent rows, latent columns) by scale; 8 and 16 occur in names of the paper alone."""

SCALES = (1, 2, 4)
"""Those that the published transformers have kernels for."""

LATENT_PIXELS = 8
"""Pixels to one latent pixel on each spatial axis."""

LATENT_FRAMES = 4
"""Frames to one latent frame; the first latent frame holds a single one."""

TAILS = {"td": "deleted", "ta": "appended", "tc": "compressed"}
"""The treatment of the history's far end, by its mark in a structure name."""


@dataclass(frozen=True)
class Slot:
    """Clean frames packed together at one scale.

    `frames` are latent frame numbers in the finished video (0 is the picture), None if there is no frame and zeros are
    fed; `times` are their positions on the rotary time axis.
    """

    scale: int
    frames: tuple[int | None, ...]
    times: tuple[int, ...]


@dataclass(frozen=True)
class Far:
    """The far end of a history: all frames beyond those that a section packs.

    `appended`: each of them is pooled to about 32 x 32 latent pixels a cell and costs about one token, so that the
    context grows with the video; else they are one frame, their mean, packed by `scale`. All have one time, beyond the
    packed frames: their true distance would soon be further than anything a model was trained on.
    """

    scale: int
    frames: range
    time: int
    appended: bool

    @property
    def count(self) -> int:
        """Frames that are fed for it; the mean of none is zeros."""
        return len(self.frames) if self.appended else 1


FAR_CELL = 32
"""Latent pixels to a cell of an appended frame, on each axis, as near as an even division comes."""


def far_tokens(rows: int, columns: int) -> tuple[int, int]:
    """Tokens of an appended frame of so many latent rows and columns; each holds 2 x 2 cells.

    >>> far_tokens(80, 76), far_tokens(60, 104), far_tokens(8, 8)
    ((1, 1), (1, 2), (1, 1))
    """
    return max(1, round(rows / (2 * FAR_CELL))), max(1, round(columns / (2 * FAR_CELL)))


def divided(size: int, count: int) -> list[int]:
    """The edges of `count` even parts of `size`.

    >>> divided(80, 2), divided(7, 3)
    ([0, 40, 80], [0, 2, 5, 7])
    """
    return [round(size * edge / count) for edge in range(count + 1)]


def token_count(frames: int, height: int, width: int, scale: int = 1) -> int:
    """Tokens of `frames` latent frames at `scale`; `height` and `width` in pixels.

    Sizes that the kernel does not divide count whole, since they are padded before patching.

    >>> token_count(9, 640, 608), token_count(2, 640, 608, scale=2), token_count(16, 640, 608, scale=4)
    (13680, 380, 400)
    """
    kernel = KERNELS[scale]
    sizes = (frames, height // LATENT_PIXELS, width // LATENT_PIXELS)
    steps, rows, columns = (-(-size // edge) for size, edge in zip(sizes, kernel, strict=True))
    return steps * rows * columns


def slot_tokens(slot: Slot, height: int, width: int) -> int:
    """Tokens of a slot; frames that are not there cost the same, since zeros are fed for them."""
    return token_count(len(slot.frames), height, width, slot.scale)


def check_scales(scales: Iterable[int]) -> None:
    """Raise JobError for a scale that no transformer here has a kernel for."""
    for scale in scales:
        if scale not in SCALES:
            raise JobError(
                f"The plan packs clean frames by {scale}, and this transformer has kernels for "
                f"{', '.join(map(str, SCALES))}; choose a plan that uses these scales alone."
            )


def end_tokens(far: Far | None, height: int, width: int) -> int:
    """Tokens of the far end of a history."""
    if far is None:
        return 0
    if not far.appended:
        return token_count(1, height, width, far.scale)
    rows, columns = far_tokens(height // LATENT_PIXELS, width // LATENT_PIXELS)
    return far.count * rows * columns


@dataclass(frozen=True)
class Packed:
    """So many history frames by one kernel: `f16k4`."""

    frames: int
    scale: int

    def __str__(self) -> str:
        return f"f{self.frames}k{self.scale}"


@dataclass(frozen=True)
class Generated:
    """So many frames to denoise: `g9`."""

    frames: int

    def __str__(self) -> str:
        return f"g{self.frames}"


@dataclass(frozen=True)
class Skipped:
    """Any number of frames that nobody sees, none included: `x`."""

    def __str__(self) -> str:
        return "x"


@dataclass(frozen=True)
class Tail:
    """The far end of the history: `td` (deleted), `ta` (appended) or `tc` (compressed)."""

    mark: str

    def __str__(self) -> str:
        return self.mark


Part = tuple[Packed, ...] | Generated | Skipped | Tail


@dataclass(frozen=True)
class Structure:
    """A packing structure in the order of time; `discrete` is the paper's `+D`, a history of discrete latents.

    >>> str(parse("f1k1_x_g9_f1k1f2k2f16k4_td")), parse("td_f16k4f2k2f1k1_g9+D").discrete
    ('f1k1_x_g9_f1k1f2k2f16k4_td', True)
    """

    parts: tuple[Part, ...]
    discrete: bool = False

    def __str__(self) -> str:
        words = ("".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in self.parts)
        return "_".join(words) + ("+D" if self.discrete else "")

    @property
    def window(self) -> int:
        """Latent frames that one section denoises."""
        return next(part.frames for part in self.parts if isinstance(part, Generated))

    @property
    def packed(self) -> tuple[Packed, ...]:
        """All packed stretches in the order of time."""
        return tuple(stretch for part in self.parts if isinstance(part, tuple) for stretch in part)

    @property
    def tail(self) -> str | None:
        """The treatment of older history (a key of TAILS), or None if the name does not say."""
        return next((part.mark for part in self.parts if isinstance(part, Tail)), None)

    @property
    def context_cost(self) -> float:
        """The cost of the packed frames, in full frames.

        >>> parse("f16k4f2k2f1k1_g9").context_cost
        1.5
        """
        return sum(stretch.frames / stretch.scale**3 for stretch in self.packed)


_STRETCH = re.compile(r"f([1-9]\d*)k([1-9]\d*)")


def parse(name: str) -> Structure:
    """Read a structure name; `str` of the result is the name again. Raises JobError if the name is not one.

    >>> parse("f16k4f2k2f1k1_g9").packed
    (Packed(frames=16, scale=4), Packed(frames=2, scale=2), Packed(frames=1, scale=1))
    """
    body, discrete = (name[:-2], True) if name.endswith("+D") else (name, False)
    words = body.split("_")
    parts = tuple(_part(word, name) for word in words)
    if sum(isinstance(part, Generated) for part in parts) != 1:
        raise JobError(f"The structure {name!r} must say once how many frames it generates (as g9).")
    if any(isinstance(part, Tail) for part in parts[1:-1]) or all(
        isinstance(parts[end], Tail) for end in (0, -1)
    ):
        raise JobError(f"The structure {name!r} may have one of {', '.join(TAILS)}, first or last.")
    return Structure(parts, discrete)


def _part(word: str, name: str) -> Part:
    if word in TAILS:
        return Tail(word)
    if word == "x":
        return Skipped()
    if re.fullmatch(r"g[1-9]\d*", word):
        return Generated(int(word[1:]))
    if re.fullmatch(rf"({_STRETCH.pattern})+", word):
        return tuple(_stretches(word, name))
    raise JobError(
        f"The structure {name!r} has the part {word!r}; a part is packed frames (f16k4f2k2f1k1), "
        f"generated frames (g9), x, or one of {', '.join(TAILS)}."
    )


def _stretches(word: str, name: str) -> Iterator[Packed]:
    known = ", ".join(f"k{scale}" for scale in KERNELS)
    for frames, scale in _STRETCH.findall(word):
        if int(scale) not in KERNELS:
            raise JobError(f"The structure {name!r} has the kernel k{scale}; there are: {known}.")
        yield Packed(int(frames), int(scale))
