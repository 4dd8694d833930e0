"""Several processes that compute together, each on a device of its own: who is who, and what they exchange.

Attention is shared by Ulysses (Jacobs et al., DeepSpeed Ulysses, 2023): everywhere else a process holds a part of each
sequence with all heads, in attention all of it with a part of the heads. Two exchanges lead there and back.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from longtake.backend.torch import kernels
from longtake.backend.torch.runtime import best_device, out_of_memory
from longtake.errors import BackendError, LostRunError

__all__ = ["Ranks", "join"]

LONG = timedelta(days=2)
"""The time for which a process waits for another, whose start may be a download; one that dies is noticed at once."""
DEVICE, SPOKEN = "longtake/device", "longtake/spoken"


class Ranks:
    """The processes of one run: this one's number `rank`, how many there are (`size`), and this one's `device`."""

    def __init__(self, rank: int, size: int, device: str, store: Any) -> None:
        self.rank, self.size, self.device = rank, size, device
        self._store = store

    def share(self, value: Any) -> Any:
        """Process 0's value, in every process: anything that can be pickled."""
        data = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8) if self.rank == 0 else None
        length = torch.tensor([0 if data is None else len(data)])
        self._do(dist.broadcast, length, 0)
        data = torch.empty(int(length), dtype=torch.uint8) if data is None else data
        self._do(dist.broadcast, data, 0)
        return pickle.loads(data.numpy().tobytes())

    def broadcast(self, tensor: Tensor | None, source: int, like: Tensor) -> Tensor:
        """The tensor (5-D, in the dtype of `like`) of the process `source`, in every process; others give None."""
        shape = torch.tensor([0] * 5 if tensor is None else tensor.shape)
        self._do(dist.broadcast, shape, source)
        found = like.new_empty(shape.tolist()) if tensor is None else tensor.contiguous()
        self._do(dist.broadcast, found, source)
        return found

    def gathered(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """(B, n, D) of each process, n as `lengths` has it -> (size, B, longest, D), in every process."""
        batch, length, dim = x.shape
        longest = max(lengths)
        filled = x if length == longest else torch.cat([x, x.new_zeros(batch, longest - length, dim)], 1)
        parts = [filled.new_empty(filled.shape) for _ in range(self.size)]
        self._do(dist.all_gather, parts, filled.contiguous())
        return torch.stack(parts)

    def attention(self, lengths: Sequence[int]) -> AbstractContextManager[None]:
        """Inside, `ops.attention` is that of the whole sequence, of which each process has so many tokens.

        The whole is the parts one behind the other; that is the order of a mask.
        """
        inner = kernels.here.kernel

        def shared(
            query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float | None
        ) -> Tensor:
            q, k, v = (self._by_heads(x, lengths) for x in (query, key, value))
            return self._by_tokens(inner(q, k, v, mask, causal, scale), lengths)

        return kernels.around(shared)

    def _by_heads(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """(B, H, n, E), this process's tokens -> (B, H / size, all tokens, E), its heads."""
        batch, heads, length, dim = x.shape
        mine = heads // self.size
        # One row for each token: what goes to the first process, then what goes to the second …
        sent = x.reshape(batch, self.size, mine, length, dim).permute(1, 3, 0, 2, 4)
        sent = sent.reshape(self.size * length, batch * mine * dim)
        taken = sent.new_empty(sum(lengths), sent.shape[1])
        self._do(dist.all_to_all_single, taken, sent, list(lengths), [length] * self.size)
        return taken.reshape(-1, batch, mine, dim).permute(1, 2, 0, 3)

    def _by_tokens(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """The way back: (B, H / size, all tokens, E) -> (B, H, n, E)."""
        batch, mine, _, dim = x.shape
        length = lengths[self.rank]
        sent = x.permute(2, 0, 1, 3).reshape(-1, batch * mine * dim)
        taken = sent.new_empty(self.size * length, sent.shape[1])
        self._do(dist.all_to_all_single, taken, sent, [length] * self.size, list(lengths))
        taken = taken.reshape(self.size, length, batch, mine, dim).permute(2, 0, 3, 1, 4)
        return taken.reshape(batch, self.size * mine, length, dim)

    def may_speak(self) -> bool:
        """Tell if this process is the first that asks: one sentence says why all of them end."""
        try:
            return bool(self._store.add(SPOKEN, 1) == 1)
        except RuntimeError:  # what the store lay in has ended
            return self.rank == 0

    def close(self) -> None:
        """Leave the others."""
        dist.destroy_process_group()

    def _do(self, exchange: Any, *given: Any) -> None:
        try:
            exchange(*given)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise LostRunError(
                "Another process of this run has ended, and its part of the work is missing; what the job's folder has "
                "is kept."
            ) from error


def join(rank: int, size: int, device: str | None = None, store: Any = None) -> Ranks:
    """Meet the other processes; `device` is what process 0 asks for, and the others are told of it.

    `store` is where they meet, if that is not what the launcher says. Raises BackendError if there are too few devices.
    """
    if not dist.is_available():
        raise BackendError("This PyTorch was built without torch.distributed; start one process alone.")
    if store is None:
        store, _, _ = next(iter(rendezvous("env://", rank, size, timeout=LONG)))
    store.set_timeout(LONG)
    if rank == 0:
        store.set(DEVICE, device or "auto")
    place = _device(store.get(DEVICE).decode(), rank, size)
    kind = torch.device(place).type
    kinds = "gloo" if kind == "cpu" else f"cpu:gloo,{kind}:{dist.get_default_backend_for_device(kind)}"
    dist.init_process_group(
        kinds, store=PrefixStore("longtake", store), rank=rank, world_size=size, timeout=LONG
    )
    return Ranks(rank, size, place, store)


def _device(asked: str, rank: int, size: int) -> str:
    """This process's own device; BackendError if all were to share one, or if there are not enough."""
    kind = best_device() if asked == "auto" else asked
    if torch.device(kind).type == "cpu":
        return "cpu"
    if torch.device(kind).index is not None:
        raise BackendError(
            f"{size} processes were started, and each has a device of its own; {asked!r} names one: leave its "
            "number out."
        )
    there, own = torch.accelerator.device_count(), int(os.environ.get("LOCAL_RANK", rank))
    if own >= there:
        raise BackendError(
            f"{size} processes were started, and there are {there} devices; start at most one for each."
        )
    torch.accelerator.set_device_index(own)
    return f"{kind}:{own}"
