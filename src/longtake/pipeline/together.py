"""One video by several processes, each with a device of its own: what each of them does, and what they tell each other.

All run the same loop over the same sections and draw the same noise. A step's sequence is cut into as many parts as
there are processes, tokens taken in turn, so that each has its share of window, clean frames and text; blocks work on
their own part, and attention is shared by heads (`backend.parallel`). Tiles of the decoder are decoded side by side.
Prompts and pictures are encoded by process 0 alone, which tells the others: their machines need no encoders then, and
all have the very same numbers. Process 0 alone reads and writes files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np

from longtake.backend import exchange, ops, parallel, runtime
from longtake.errors import JobError, ModelError
from longtake.job import Job
from longtake.models.pretrained import Walk
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.pipeline.noise import Noise, What
from longtake.pipeline.placement import Placement
from longtake.pipeline.store import Store
from longtake.pipeline.working import Work

Tensor = Any
Ranks = parallel.Ranks


def join(rank: int, size: int, device: str | None = None, store: Any = None) -> Ranks:
    """Meet the other processes (`backend.parallel.join`)."""
    return parallel.join(rank, size, device, store)


def check_heads(heads: int, size: int) -> None:
    """Raise ModelError if the heads of attention cannot be shared out."""
    if heads % size:
        able = [str(count) for count in range(2, heads + 1) if heads % count == 0]
        raise ModelError(
            f"{size} processes cannot share {heads} heads of attention; start {', '.join(able)}, or one alone."
        )


def check_job(job: Job) -> None:
    """Raise JobError for what is decided inside the blocks, of which each process sees a part alone."""
    if job.cache.startswith(("first", "tea")):
        raise JobError(
            f"cache {job.cache!r} looks between the blocks, of which each of several processes has a part; take "
            "another cache, such as easy:0.05, or start one process alone."
        )


def shared(networks: Any, ranks: Ranks) -> Any:
    """The networks, with each process's part of the work; raises ModelError for others than ours."""
    transformer, vae = networks.part("transformer"), networks.part("vae")
    if not isinstance(transformer, HunyuanVideoFramepackTransformer3DModel):
        raise ModelError(
            f"Several processes share longtake's own transformer; this is a {type(transformer).__name__} of another "
            "make."
        )
    check_heads(transformer.config.num_attention_heads, ranks.size)
    transformer.walks = (*transformer.walks, shared_blocks(ranks))
    if isinstance(vae, AutoencoderKLHunyuanVideo):
        vae.sharing = Spread(ranks)
    return replace(networks, ranks=ranks, placement=Alike(networks.placement, vae, ranks))


class Alike:
    """A placement under which all processes do the same: the decoder has one tile, and none goes on with less alone."""

    def __init__(self, placement: Placement, vae: Any, ranks: Ranks) -> None:
        self._placement, self._vae, self._ranks = placement, vae, ranks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._placement, name)

    def using(self, part: str, network: Any) -> AbstractContextManager[Any]:
        """Inside, the network is ready to run."""
        return self._placement.using(part, network)

    def prepare(self, work: Work) -> tuple[str, ...]:
        """Make ready for a job; the tile is process 0's, since each may have other memory free."""
        said = self._placement.prepare(work)
        tile = self._ranks.share(getattr(self._vae, "decoding_tile", None))
        if isinstance(self._vae, AutoencoderKLHunyuanVideo):
            self._vae.decoding_tile = tile
        return said

    def smaller(self) -> None:
        """Nothing: the others would wait for what this process does again."""


# The sequence of the blocks -------------------------------------------------------------------------------------------


def shared_blocks(ranks: Ranks) -> Walk:
    """The policy that lets each process run the blocks on its part of the sequence."""

    def walk(blocks: Iterable[Any]) -> Iterator[SharedBlock]:
        part = Part(ranks)
        for block in blocks:
            yield SharedBlock(block, part)

    return walk


class Part:
    """One process's part of one pass through the blocks: every `size`-th token of the latents, and of the text."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.begun = False
        self.lengths: list[int] = []
        self.rotary: tuple[Tensor, ...] = ()
        self.mask: Tensor | None = None

    def begin(
        self, pieces: tuple[Tensor, ...], rotary: tuple[Tensor, ...], mask: Tensor | None
    ) -> tuple[Tensor, ...]:
        """This process's part of the whole sequence; tables and mask are kept."""
        latents = int(pieces[0].shape[1])
        size, rank = self.ranks.size, self.ranks.rank
        counts = [int(piece.shape[1]) for piece in pieces]
        self.lengths = [sum(len(range(other, count, size)) for count in counts) for other in range(size)]
        self.rotary = tuple(
            ops.cat([table[:, :latents][:, rank::size], table[:, latents:][:, rank::size]], 1)
            for table in rotary
        )
        if mask is not None:
            # Keys lie as attention gathers them: the parts one behind the other.
            both = (mask[..., :latents], mask[..., latents:])
            mask = ops.cat([half[..., other::size] for other in range(size) for half in both], -1)
        self.mask, self.begun = mask, True
        return tuple(piece[:, rank::size] for piece in pieces)

    def whole(self, x: Tensor, rows: tuple[int, int]) -> Tensor:
        """The tokens rows[0] … rows[1] - 1 of the latents, from all processes' parts of the sequence (B, n, D)."""
        size = self.ranks.size
        first, last = ([len(range(other, row, size)) for other in range(size)] for row in rows)
        lengths = [end - start for start, end in zip(first, last, strict=True)]
        parts = self.ranks.gathered(x[:, first[self.ranks.rank] : last[self.ranks.rank]], lengths)
        token = np.arange(*rows)
        place = (token % size) * max(lengths) + token // size - np.asarray(first)[token % size]
        flat = parts.permute(1, 0, 2, 3).flatten(1, 2)
        return ops.index_select(flat, 1, ops.from_numpy(place).to(flat.device))


class SharedBlock:
    """A block in whose place each process runs it on its own part."""

    def __init__(self, block: Any, part: Part) -> None:
        self._block, self._part = block, part

    def __getattr__(self, name: str) -> Any:
        # Its modulations are everywhere the same.
        return getattr(self._block, name)

    def __call__(
        self,
        pieces: tuple[Tensor, ...],
        conditioning: Tensor,
        rotary: tuple[Tensor, ...],
        mask: Tensor | None,
        rows: tuple[int, int] | None = None,
        modulation: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The part after the block; with `rows`, which the last one is given, the window's tokens of all parts."""
        part = self._part
        if not part.begun:
            pieces = part.begin(pieces, rotary, mask)
        with part.ranks.attention(part.lengths):
            block = runtime.compiled(self._block)
            # All of the part, also in the last block: what it need not make there is a four-hundredth of a step.
            pieces = block(pieces, conditioning, part.rotary, part.mask, None, modulation)
        return pieces if rows is None else (part.whole(pieces[0], rows), *pieces[1:])


# The decoder's tiles --------------------------------------------------------------------------------------------------


class Spread:
    """A `map` over tiles whose work the processes share: each makes every so many-th, and all get all, in order."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def over(self, function: Callable[[Tensor], Tensor], tiles: Iterable[Tensor]) -> Iterator[Tensor]:
        """The function's results; as many are made at once as there are processes."""
        ranks, waiting = self._ranks, list(tiles)
        while waiting:
            some, waiting = waiting[: ranks.size], waiting[ranks.size :]
            mine = function(some[ranks.rank]) if ranks.rank < len(some) else None
            for source, tile in enumerate(some):
                yield ranks.broadcast(mine if source == ranks.rank else None, source, tile)


# What process 0 tells the others --------------------------------------------------------------------------------------


def told(ranks: Ranks, make: Callable[[], Any]) -> Any:
    """The values that process 0 makes, in every process; tensors go as arrays and come back as tensors."""
    return _tensors(ranks.share(_arrays(make()) if ranks.rank == 0 else None))


def told_noise(ranks: Ranks, noise: Noise) -> Noise:
    """Noise that process 0 draws: a stream goes on in one place alone."""

    def draw(what: What, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        return ranks.share(noise(what, shape, dtype) if ranks.rank == 0 else None)

    return draw


class TheirStore:
    """Process 0's store of finished sections, as every process sees it: it alone reads and writes."""

    def __init__(self, store: Store | None, ranks: Ranks) -> None:
        self._store, self._ranks = store, ranks

    def begin(self, job: Job, form: str) -> None:
        """Take sections of this job."""
        if self._store is not None:
            self._store.begin(job, form)

    def read_section(self, number: int) -> np.ndarray | None:
        """The latents of the section at this place, or None; asked by all processes at once."""
        return self._ranks.share(None if self._store is None else self._store.read_section(number))

    def write_section(self, number: int, latents: np.ndarray) -> None:
        """Keep a finished section."""
        if self._store is not None:
            self._store.write_section(number, latents)


class _Array:
    """A tensor on its way."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values


def _arrays(value: Any) -> Any:
    """The value with arrays in the place of tensors."""
    if isinstance(value, ops.Tensor):
        return _Array(exchange.array_of(value))
    return _inside(value, _arrays)


def _tensors(value: Any) -> Any:
    """The way back."""
    return ops.from_numpy(value.values) if isinstance(value, _Array) else _inside(value, _tensors)


def _inside(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: function(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(map(function, value))
    if isinstance(value, list):
        return list(map(function, value))
    return value
