"""Where the parts of a model are while they are used, and what is said when there is no room for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from longtake.backend import runtime
from longtake.errors import MemoryRunError


class Placement(Protocol):
    """Brings a part of the model to where it runs, for as long as it is used."""

    def using(self, part: str, network: Any) -> AbstractContextManager[Any]:
        """Inside, the network is ready to run; gives what is to be called."""


class Resident:
    """Every part stays where it was loaded."""

    def using(self, part: str, network: Any) -> AbstractContextManager[Any]:
        """The network as it is."""
        return nullcontext(network)


@contextmanager
def room_for(what: str, section: int | None = None, step: int | None = None) -> Iterator[None]:
    """Inside, a want of memory is a MemoryRunError that says for `what`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryRunError) or not runtime.out_of_memory(error):
            raise
        raise MemoryRunError(
            f"There is not enough memory for {what}; sections that are finished are kept where the job has a folder. "
            "A smaller size, another dtype (bfloat16) or enable_tiling of the autoencoder needs less.",
            section,
            step,
        ) from error
