"""The places of a model's parts while they are used, and the error if there is no room for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from longtake.backend import runtime
from longtake.errors import MemoryRunError
from longtake.pipeline.working import Work


class Placement(Protocol):
    """Brings a part of the model to where it runs, for as long as it is used."""

    def using(self, part: str, network: Any) -> AbstractContextManager[Any]:
        """Inside, the network is ready to run; gives what is to be called. Nothing is yielded to anybody inside."""

    def prepare(self, work: Work) -> tuple[str, ...]:
        """Make ready for a job; in words, what lies elsewhere than where it was loaded."""

    def smaller(self) -> str | None:
        """Let the parts take less of the device, since memory ended; in words, or None if nothing can be done."""


class Resident:
    """Every part stays where it was loaded."""

    def using(self, part: str, network: Any) -> AbstractContextManager[Any]:
        """The network as it is."""
        return nullcontext(network)

    def prepare(self, work: Work) -> tuple[str, ...]:
        """Nothing is to be done."""
        return ()

    def smaller(self) -> str | None:
        """Nothing can be done."""
        return None


@contextmanager
def room_for(what: str, section: int | None = None, step: int | None = None) -> Iterator[None]:
    """Inside, running out of memory is a MemoryRunError that says for `what` there was not enough."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryRunError) or not runtime.out_of_memory(error):
            raise
        raise MemoryRunError(
            f"There is not enough memory for {what}; sections that are finished are kept if the job has a folder. "
            "A smaller size, another dtype (bfloat16) or enable_tiling of the autoencoder needs less.",
            section,
            step,
        ) from error
