"""Weights on their way between main memory and a device, on MindSpore: what a network holds, and a lane to carry it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mindspore as ms

from longtake.backend.mindspore import runtime

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


def held(module: Any) -> Iterator[tuple[str, Any, str, Any]]:
    """All tensors that the network holds: (name, the module that holds it, its name there, the tensor)."""
    for path, owner in module.cells_and_names():
        for key, tensor in owner._params.items():
            if tensor is not None:
                yield f"{path}.{key}" if path else key, owner, key, tensor


def put(owner: Any, key: str, tensor: Any) -> Any:
    """Let the module compute with this tensor from now on, without a copy; gives what it holds then."""
    # A Cell wants a Parameter, and a graph one with a name.
    own = runtime.parameter(tensor, key)
    owner._params[key] = own
    return own


def plain(tensor: Any) -> Any:
    """The tensor without what a network adds to it."""
    return tensor


def copied(tensor: Any) -> Any:
    """A tensor that stays when the next load comes: here each load has memory of its own."""
    return tensor


def version(tensor: Any) -> Any:
    """A value that is another when the tensor was written to: MindSpore does not tell, and it is the dtype alone."""
    return tensor.dtype


def lies_on(tensor: Any, device: Any) -> bool:
    """Tell if a tensor is on a device; one without a number is any of its kind."""
    there, wanted = (str(each).lower().partition(":") for each in (tensor.device, device))
    return there[0] == wanted[0] and wanted[2] in ("", there[2])


def size_of(tensor: Any, dtype: Any = None) -> int:
    """The bytes that a tensor takes in a buffer, in `dtype` if that is given."""
    width = 4 if dtype == ms.float32 else 2 if dtype in (ms.float16, ms.bfloat16) else tensor.itemsize
    count = width
    for side in tensor.shape:
        count *= side
    return count


def runnable(block: Any) -> Any:
    """The block, to be run with weights that were put into it a moment ago: eagerly, for a graph keeps its first."""
    return Eagerly(block)


class Eagerly:
    """A module in a form that is not compiled."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self._module(*inputs, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def device_memory(device: Any) -> tuple[int, int] | None:
    """Bytes of a device's memory that are free for us, and all of them; None of the CPU, and if it does not tell."""
    if str(device).split(":")[0].lower() == "cpu":
        return None
    try:
        facts = ms.hal.get_device_properties(0)
        kept = ms.runtime.memory_reserved() - ms.runtime.memory_allocated()
        return int(facts.free_memory + kept), int(facts.total_memory)
    except (RuntimeError, AttributeError, ValueError, TypeError):
        return None


def limit_memory(device: Any, count: int | None) -> None:
    """Nothing: MindSpore is told how much of the memory it may take at its start alone."""


def free_cache(device: Any) -> None:
    """Give back what the allocator keeps for later."""
    if runtime.target() != "CPU":
        ms.runtime.empty_cache()


def has_streams(device: Any) -> bool:
    """Tell if copies can go beside what a device computes."""
    return str(device).split(":")[0].lower() != "cpu"


Weight = tuple[Any, Any]
"""A tensor, and the dtype that it shall have there; None is its own."""


class Lane:
    """Carries the weights of one block at a time to the device, on a second stream where it has streams.

    `slots` loads are there at once, of `size` bytes at most; MindSpore's own pool holds them.
    """

    def __init__(self, device: Any, slots: int, size: int) -> None:
        self.device, self.size = device, size
        self._stream = None if runtime.target() == "CPU" else ms.runtime.Stream()
        self._used: list[Any] = [None] * slots

    def load(self, slot: int, weights: Sequence[Weight]) -> Callable[[], list[Any]]:
        """Begin to carry weights; a call of what this gives waits for them, on the device."""
        if self._stream is None:
            done = self._moved(weights)
            return lambda: done
        with ms.runtime.StreamCtx(self._stream):
            if self._used[slot] is not None:
                self._stream.wait_event(self._used[slot])
            done = self._moved(weights)
            event = self._stream.record_event()

        def arrived() -> list[Any]:
            ms.runtime.current_stream().wait_event(event)
            return done

        return arrived

    def leave(self, slot: int) -> None:
        """Say that all that computes with the load has been asked for; its memory is used anew after that."""
        if self._stream is not None:
            self._used[slot] = ms.runtime.current_stream().record_event()

    def close(self) -> None:
        """End: nothing is on its way any more."""
        if self._stream is not None:
            self._stream.synchronize()

    def _moved(self, weights: Sequence[Weight]) -> list[Any]:
        return [runtime.place(tensor, self.device, dtype) for tensor, dtype in weights]


def pinned(weights: Sequence[Weight]) -> list[Any] | None:
    """Copies of the weights in pinned memory, in the dtype that is wanted; None if there is no such memory."""
    try:
        return [runtime.place(tensor, None, dtype).pin_memory() for tensor, dtype in weights]
    except (RuntimeError, ValueError):
        return None
