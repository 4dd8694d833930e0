"""A step cache between the blocks of the transformer: after the decision to skip, no further block is asked for.

It is a policy around the sequence of blocks (`models.pretrained.Walk`), the outermost while a velocity is computed. So
it goes with blocks that are streamed, which then are not fetched, and with compiled ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from longtake.backend import runtime
from longtake.models.layers import modulate
from longtake.models.pretrained import walking
from longtake.models.transformer.blocks import Block, Pieces, Rotary, Rows
from longtake.pipeline.change import relative
from longtake.sampling.caching import Decisions
from longtake.sampling.solvers import Velocity

if TYPE_CHECKING:
    from longtake.pipeline.caching import StepCache

Tensor = Any


class Between:
    """The velocity of one branch in one section; what the blocks add to the window is kept, and serves again.

    `signal` is what the decision compares, `start` what the blocks of this step began with, `added` what they added.
    """

    def __init__(self, cache: StepCache, velocity: Velocity, decisions: Decisions, head: type[Head]) -> None:
        self._cache, self._velocity, self._decisions, self._head = cache, velocity, decisions, head
        self._mark, self._thread = cache.mark, 0
        self.signal: Tensor = None
        self.start: Tensor = None
        self.added: Tensor = None

    def __call__(self, latents: Tensor, sigma: float) -> Tensor:
        if self._mark != self._cache.mark:
            self._mark, self.added = self._cache.mark, None
        self._thread = threading.get_ident()
        with walking(self._cache.transformer, self._walk):
            return self._velocity(latents, sigma)

    def computes(self, change: Callable[[], float]) -> bool:
        """Tell if all blocks run at this step."""
        return self._decisions.computes(change, forced=self.added is None)

    def _walk(self, blocks: Iterable[Block]) -> Iterable[Block]:
        # Another thread may run the same network for a video of its own meanwhile.
        return self._between(blocks) if threading.get_ident() == self._thread else blocks

    def _between(self, blocks: Iterable[Block]) -> Iterator[Any]:
        own = self._cache.transformer.blocks
        waiting, last = iter(blocks), len(own) - 1
        head = self._head(self, next(waiting), own[0])
        yield head
        skips = head.skips
        del head  # and with it a block that was brought
        self._cache.count(not skips)
        if not skips:
            for number, block in enumerate(waiting, 1):
                yield Tail(self, block) if number == last else block
            return
        if isinstance(waiting, Iterator) and hasattr(waiting, "close"):
            waiting.close()  # who streams blocks need not bring the next ones
        yield from repeat(_passed, last - 1)
        yield self._finished

    def _finished(self, *given: Any) -> Pieces:
        """In the place of the last block that is skipped: the window as all of them would have left it."""
        asked = Given(*given)
        return (window(asked.pieces[0], asked.rows) + self.added,)


class Given(NamedTuple):
    """The arguments of a block (`Block`)."""

    pieces: Pieces
    conditioning: Tensor
    rotary: Rotary
    mask: Tensor | None
    rows: Rows = None
    modulation: Tensor | None = None


class Standing:
    """A callable in the place of a block, which it calls; what is kept of the block's modulations still is."""

    def __init__(self, between: Between, block: Any) -> None:
        self.between, self.block = between, block
        if hasattr(block, "modulations"):
            self.modulations = block.modulations

    def __call__(self, *given: Any) -> Pieces:
        return self.stand(Given(*given))

    def stand(self, given: Given) -> Pieces:
        """The result in the place of the block."""
        raise NotImplementedError

    def run(self, given: Given) -> Pieces:
        """The result of the block itself."""
        result: Pieces = runtime.compiled(self.block)(*given)
        return result


class Tail(Standing):
    """The last block."""

    def stand(self, given: Given) -> Pieces:
        """The block's result, of which it is kept what all blocks added."""
        result = self.run(given)
        self.between.added = result[0] - window(self.between.start, given.rows)
        self.between.start = None
        return result


class Head(Standing):
    """The first block, where the decision falls; here nothing is skipped, and what the blocks add is kept."""

    skips = False

    def __init__(self, between: Between, block: Any, own: Any) -> None:
        super().__init__(between, block)
        self.own = own
        """The network's own first block."""

    def stand(self, given: Given) -> Pieces:
        """The block's result; what it was given is where all blocks began."""
        self.between.start = given.pieces[0]
        return self.run(given)


class Tea(Head):
    """TeaCache: the decision falls before the first block, by the latents that it would see, normed and modulated."""

    def stand(self, given: Given) -> Pieces:
        """The block's result, or what it was given if the step is skipped."""
        modulation: Any = given.modulation
        if modulation is None:
            # A block that is brought has its weights; the network's own may lie elsewhere.
            modulation = getattr(self.block, "modulations", self.own.modulations)(given.conditioning)
        shift, scale = modulation.chunk(12, -1)[:2]
        signal, before = modulate(self.own.norm(given.pieces[0]), shift, scale), self.between.signal
        self.between.signal = signal
        self.skips = not self.between.computes(lambda: relative(signal, before))
        return given.pieces if self.skips else super().stand(given._replace(modulation=modulation))


class First(Head):
    """First-block caching: the decision falls after the first block, by what it adds."""

    def stand(self, given: Given) -> Pieces:
        """The block's result, from which all others go on if the step is computed."""
        result = self.run(given)
        signal = result[0] - given.pieces[0]
        self.skips = not self.between.computes(lambda: relative(signal, self.between.signal))
        if not self.skips:
            self.between.start, self.between.signal = result[0], signal
        return result


HEADS: dict[str, type[Head]] = {"tea": Tea, "first": First}
"""The first block's stand-in of each cache between the blocks, which decides."""


def window(latents: Tensor, rows: Rows) -> Tensor:
    """The window's tokens among those of the latents."""
    return latents if rows is None else latents[:, rows[0] : rows[1]]


def _passed(pieces: Pieces, *_: Any) -> Pieces:
    """In the place of a block that is skipped."""
    return pieces
