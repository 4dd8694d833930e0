"""Several processes that compute together: refused on MindSpore.

Ulysses needs `all_to_all_single`, which MindSpore 2.10 has no kernel for on a CPU (of its collectives, `broadcast` and
`all_reduce` ran there between two processes of msrun; `all_gather_into_tensor` and `all_to_all_single` are
"unregistered"), and there was no Ascend to try it on.
"""

from __future__ import annotations

from typing import Any

from longtake.errors import BackendError

__all__ = ["Ranks", "join"]


class Ranks:
    """The processes of one run; there are none on MindSpore."""

    def __init__(self, rank: int, size: int, device: str, store: Any) -> None:
        raise _refusal(size)


def join(rank: int, size: int, device: str | None = None, store: Any = None) -> Ranks:
    """Raises BackendError."""
    raise _refusal(size)


def _refusal(size: int) -> BackendError:
    return BackendError(
        f"{size} processes were started, and on MindSpore a video is made by one; start one alone, or run on PyTorch."
    )
