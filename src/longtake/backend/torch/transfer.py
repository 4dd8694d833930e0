"""Weights on their way between main memory and a device, on PyTorch: what a network holds, and a lane to carry it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from longtake.backend.torch.modules import PLACE

__all__ = [
    "Lane",
    "copied",
    "device_memory",
    "free_cache",
    "has_streams",
    "held",
    "lies_on",
    "limit_memory",
    "pinned",
    "plain",
    "put",
    "runnable",
    "size_of",
    "version",
]

CONTEXT = 400_000_000
"""Bytes of a device that CUDA takes for itself."""
ALIGNED = 256
"""Weights in one buffer begin at multiples of so many bytes."""


def held(module: Any) -> Iterator[tuple[str, Any, str, Any]]:
    """All tensors that the network holds: (name, the module that holds it, its name there, the tensor)."""
    for path, owner in module.named_modules():
        for box in (owner._parameters, owner._buffers):
            for key, tensor in box.items():
                if tensor is not None and key != PLACE:
                    yield f"{path}.{key}" if path else key, owner, key, tensor


def put(owner: Any, key: str, tensor: Any) -> Any:
    """Let the module compute with this tensor from now on, without a copy; gives what it holds then."""
    box = owner._parameters if key in owner._parameters else owner._buffers
    box[key] = tensor
    return tensor


def plain(tensor: Any) -> Any:
    """The tensor without what a network adds to it."""
    return tensor.detach()


def copied(tensor: Any) -> Any:
    """A copy that stays when the buffer is filled anew."""
    return tensor.clone()


def version(tensor: Any) -> Any:
    """A value that is another when the tensor was written to, or given other values."""
    place = tensor.untyped_storage().data_ptr() if _is_plain(tensor) else id(tensor)
    return 0 if tensor.is_inference() else tensor._version, tensor.dtype, place


def _is_plain(tensor: Any) -> bool:
    """Tell if a tensor's values are bytes in memory, and it is none of a library's own class."""
    return type(tensor) in (torch.Tensor, torch.nn.Parameter)


def lies_on(tensor: Any, device: Any) -> bool:
    """Tell if a tensor is on a device; one without a number is any of its kind."""
    wanted = torch.device(device)
    there = tensor.device
    return bool(there.type == wanted.type and (wanted.index is None or there.index in (None, wanted.index)))


def size_of(tensor: Any, dtype: Any = None) -> int:
    """The bytes that a tensor takes in a buffer, in `dtype` if that is given."""
    width = (
        tensor.element_size() if dtype is None else torch.empty(0, dtype=dtype, device="meta").element_size()
    )
    return -(-tensor.numel() * width // ALIGNED) * ALIGNED


def runnable(block: Any) -> Any:
    """The block, to be run with weights that were put into it a moment ago."""
    return block


def device_memory(device: Any) -> tuple[int, int] | None:
    """Bytes of a device's memory that are free for us, and all of them; None of the CPU, and if it does not tell."""
    wanted = torch.device(device)
    if wanted.type == "cpu":
        return None
    try:
        if wanted.type == "mps":
            most = int(torch.mps.recommended_max_memory())
            return most - int(torch.mps.current_allocated_memory()), most
        index = torch.accelerator.current_device_index() if wanted.index is None else wanted.index
        free, total = torch.accelerator.get_memory_info(index)
        # What our own allocator keeps and does not use is free for us too.
        kept = torch.accelerator.memory_reserved(index) - torch.accelerator.memory_allocated(index)
        return int(free + kept), int(total)
    except (RuntimeError, AttributeError, AssertionError, NotImplementedError, ValueError):
        return None


def limit_memory(device: Any, count: int | None) -> None:
    """Let this process take no more than `count` bytes of a device's memory, where that can be said; None: all."""
    wanted = torch.device(device)
    known = device_memory(device)
    if wanted.type == "cuda" and known is not None:
        # Its own context is no memory of the allocator's.
        share = 1.0 if count is None else min(1.0, max(count - CONTEXT, 0) / known[1])
        torch.cuda.set_per_process_memory_fraction(share, wanted)


def free_cache(device: Any) -> None:
    """Give back what the allocator keeps for later."""
    kind = torch.device(device).type
    if kind == "mps":
        torch.mps.empty_cache()
    elif kind != "cpu" and hasattr(torch.get_device_module(kind), "empty_cache"):
        torch.get_device_module(kind).empty_cache()


Weight = tuple[Any, Any]
"""A tensor, and the dtype that it shall have there; None is its own."""


class Lane:
    """Carries the weights of one block at a time into one of `slots` buffers of `size` bytes on the device.

    Where the device has streams it does so beside what is computed, from pinned memory by itself and from other memory
    by a thread through a pinned buffer. The memory that it takes is that of its buffers. Tensors of a library's own
    class (torchao's, for instance) have no bytes of their own to carry; they are moved one by one.
    """

    def __init__(self, device: Any, slots: int, size: int) -> None:
        self.device, self.size = _exact(torch.device(device)), size
        self._streams = has_streams(self.device)
        self._buffers = [torch.empty(size, dtype=torch.uint8, device=self.device) for _ in range(slots)]
        # The buffers' memory may be what something on the device still computes with at this moment.
        self._used: list[Any] = [self._now()] * slots
        self._sent: list[Any] = [None] * slots
        self._staging: list[Any] = [None] * slots
        self._stream = torch.Stream(device=self.device) if self._streams else None
        self._thread = ThreadPoolExecutor(1, "longtake-weights") if self._streams else None

    def load(self, slot: int, weights: Sequence[Weight]) -> Callable[[], list[Any]]:
        """Begin to carry weights into a buffer; a call of what this gives waits for them, on the device."""
        if self._stream is None or self._thread is None:
            done = self._fill(slot, weights, None)
            return lambda: done
        if all(tensor.is_pinned() or _lies_there(tensor, self.device) for tensor, _ in weights):
            tensors, event = self._send(slot, weights)
            return lambda: _after(event, tensors, self.device)
        coming: Future[Any] = self._thread.submit(self._stage, slot, list(weights))

        def arrived() -> list[Any]:
            tensors, event = coming.result()
            return _after(event, tensors, self.device)

        return arrived

    def leave(self, slot: int) -> None:
        """Say that all that computes with the buffer has been asked for; it is filled anew only when that is done."""
        self._used[slot] = self._now()

    def _now(self) -> Any:
        """The moment when all is computed that has been asked for; None where copies wait anyway."""
        if not self._streams:
            return None
        event = torch.Event(device=self.device)
        event.record(torch.accelerator.current_stream(self.device))
        return event

    def close(self) -> None:
        """End: nothing is on its way any more."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        if self._stream is not None:
            self._stream.synchronize()
        self._buffers, self._staging = [], []

    @torch.no_grad()
    def _send(self, slot: int, weights: Sequence[Weight]) -> tuple[list[Any], Any]:
        """Ask the second stream for the copies."""
        assert self._stream is not None
        with self._stream:
            if self._used[slot] is not None:
                self._stream.wait_event(self._used[slot])
            tensors = self._fill(slot, weights, True)
            event = torch.Event(device=self.device)
            event.record(self._stream)
        self._sent[slot] = event
        return tensors, event

    @torch.no_grad()
    def _stage(self, slot: int, weights: list[Weight]) -> tuple[list[Any], Any]:
        """In the thread: through the slot's pinned buffer, in the dtype that is wanted there."""
        if self._sent[slot] is not None:
            self._sent[slot].synchronize()  # it still reads the buffer
        if self._staging[slot] is None:
            self._staging[slot] = torch.empty(self.size, dtype=torch.uint8, pin_memory=True)
        staged = _views(self._staging[slot], weights)
        for view, (tensor, _) in zip(staged, weights, strict=True):
            if view is not None:
                view.copy_(tensor)
        ready = [
            (tensor if view is None else view, dtype)
            for view, (tensor, dtype) in zip(staged, weights, strict=True)
        ]
        with _numbered(self.device):
            return self._send(slot, ready)

    @torch.no_grad()
    def _fill(self, slot: int, weights: Sequence[Weight], apart: bool | None) -> list[Any]:
        views = _views(self._buffers[slot], weights)
        done = []
        for view, (tensor, dtype) in zip(views, weights, strict=True):
            if view is None:
                done.append(tensor.detach().to(self.device, dtype, non_blocking=bool(apart)))
            else:
                done.append(view.copy_(tensor, non_blocking=bool(apart)))
        return done


def _views(buffer: Any, weights: Sequence[Weight]) -> list[Any]:
    """A place in the buffer for each plain tensor, None for any other."""
    found: list[Any] = []
    begin = 0
    for tensor, dtype in weights:
        if not _is_plain(tensor):
            found.append(None)
            continue
        kind = tensor.dtype if dtype is None else dtype
        count = tensor.numel() * torch.empty(0, dtype=kind, device="meta").element_size()
        found.append(buffer[begin : begin + count].view(kind).view(tensor.shape))
        begin += size_of(tensor, kind)
    return found


def _lies_there(tensor: Any, device: torch.device) -> bool:
    return bool(tensor.device.type == device.type)


def _after(event: Any, tensors: list[Any], device: torch.device) -> list[Any]:
    torch.accelerator.current_stream(device).wait_event(event)
    return tensors


def has_streams(device: Any) -> bool:
    """Tell if copies can go beside what a device computes."""
    kind = torch.device(device).type
    return kind != "cpu" and hasattr(torch.get_device_module(kind), "Stream")


def _exact(device: torch.device) -> torch.device:
    """The device with its number, which another thread would not know."""
    if device.index is not None or not has_streams(device):
        return device
    return torch.device(device.type, torch.accelerator.current_device_index())


def _numbered(device: torch.device) -> Any:
    """Inside, this thread's device is that one; a new thread begins with the first."""
    if device.index is None:
        return contextlib.nullcontext()
    return torch.accelerator.device_index(device.index)


def pinned(weights: Sequence[Weight]) -> list[Any] | None:
    """Copies of the weights in pinned memory, in the dtype that is wanted; None if there is no such memory."""
    try:
        size = sum(size_of(tensor, dtype) for tensor, dtype in weights)
        views = _views(torch.empty(size, dtype=torch.uint8, pin_memory=True), weights)
        with torch.no_grad():
            return [
                tensor if view is None else view.copy_(tensor)
                for view, (tensor, _) in zip(views, weights, strict=True)
            ]
    except RuntimeError:
        return None
