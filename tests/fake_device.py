"""An accelerator that is not there: tensors that say "npu", lie on the CPU, and count what goes to and fro.

    with accelerator() as traffic:
        network.to("npu")
        network(...)                 # a tensor that was left on the CPU is an error, as it would be there
    traffic.uploads, traffic.downloads, traffic.waits
    traffic.bytes, traffic.peak      # what lies there now, and the most that ever did
    traffic.room = 10**6             # more than that, and it is out of memory

The values are real, so that code which reads latents, masks or pictures runs as it is, and what comes out can be
compared with what a CPU makes. `waits` are the places where a program has to wait for the device: values that are read
by the host, shapes that depend on values.
"""

from __future__ import annotations

import functools
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "npu"
# What cannot be computed before the device is done: its values are read, or decide the shape of the result.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "_unique2")


@dataclass
class Traffic:
    """What went between the host and the device: for each time the line of ours that asked for it."""

    uploads: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    bytes: int = 0
    peak: int = 0
    room: int | None = None
    storages: dict[int, int] = field(default_factory=dict)
    """How many tensors look into each piece of its memory."""

    def hold(self, near: torch.Tensor) -> int:
        """Count a tensor that is there now; the piece of memory that it looks into."""
        storage = near.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if size and place not in self.storages:
            if self.room is not None and self.bytes + size > self.room:
                raise torch.OutOfMemoryError(
                    f"{NAME} out of memory: {self.bytes + size} bytes of {self.room}"
                )
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
        self.storages[place] = self.storages.get(place, 0) + 1
        return place

    def leave(self, place: int, size: int) -> None:
        """Count a tensor that is gone."""
        self.storages[place] -= 1
        if not self.storages[place]:
            del self.storages[place]
            self.bytes -= size

    def clear(self) -> None:
        """Begin to count anew."""
        for each in (self.uploads, self.downloads, self.waits):
            each.clear()

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many uploads, downloads, waits."""
        return len(self.uploads), len(self.downloads), len(self.waits)


class Far(torch.Tensor):
    """A tensor that says that it is on the accelerator; `near` has its values."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor, requires_grad: bool = False) -> Far:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=NAME,
            requires_grad=requires_grad,
        )
        made.near = near
        if _now is not None:
            place, size = _now.hold(near), near.untyped_storage().nbytes()
            # The storage lives as long as the last tensor that looks into it, so that no other takes its place.
            weakref.finalize(made, _left, _now, place, size, near.untyped_storage())
        return made

    def tolist(self) -> Any:
        """The values, for which the program waits."""
        if _now is not None:
            _now.waits.append(_place())
        return self.near.tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Far({self.near!r})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {}, None)


_now: Traffic | None = None


def _left(traffic: Traffic, place: int, size: int, storage: Any) -> None:
    traffic.leave(place, size)


class _Device(TorchDispatchMode):
    """Sends every operation where its tensors are."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self.traffic = traffic

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {}, self.traffic)


def _run(function: Any, args: Any, kwargs: dict[str, Any], traffic: Traffic | None) -> Any:
    name = function._schema.name.removeprefix("aten::")
    given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    far = [x for x in given if isinstance(x, Far)]
    asked = kwargs.get("device")
    to_far = bool(far) if asked is None else torch.device(asked).type == NAME
    crosses = name in ("_to_copy", "copy_") or function is torch.ops.prim.device.default
    if far and not crosses:
        left = [x for x in given if not isinstance(x, Far) and x.ndim > 0]
        if left:
            raise RuntimeError(
                f"{name}: expected all tensors to be on the same device, but found {NAME} and cpu "
                f"({tuple(left[0].shape)}, at {_place()})"
            )
    if traffic is not None and far and name in WAITING:
        traffic.waits.append(_place())
    if traffic is not None and far and name == "index" and _by_truth(args[1]):
        traffic.waits.append(_place())
    if traffic is not None and name in ("_to_copy", "copy_"):
        came_far = isinstance(args[1 if name == "copy_" else 0], Far)
        goes_far = isinstance(args[0], Far) if name == "copy_" else to_far
        if came_far and not goes_far:
            traffic.downloads.append(_place())
        if goes_far and not came_far:
            traffic.uploads.append(_place())
    if name == "copy_":
        to_far = isinstance(args[0], Far)
    kwargs = {key: torch.device("cpu") if key == "device" else value for key, value in kwargs.items()}
    kwargs.pop("pin_memory", None)
    near_args, near_kwargs = tree_map(_near, (args, kwargs))
    with torch._C._DisableTorchDispatch():
        out = function(*near_args, **near_kwargs)
    if name.endswith("_") and not name.startswith("__") and isinstance(args[0], torch.Tensor):
        return args[0]
    return tree_map(lambda x: Far(x) if isinstance(x, torch.Tensor) and to_far else x, out)


def _near(x: Any) -> Any:
    return x.near if isinstance(x, Far) else x


def _by_truth(indices: Any) -> bool:
    return any(isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8) for x in indices)


def _place() -> str:
    """The line of the package, or of a test, that asked."""
    for frame in reversed(traceback.extract_stack()):
        if (
            "longtake" in frame.filename or "/tests/" in frame.filename
        ) and "fake_device" not in frame.filename:
            return f"{frame.filename.rsplit('/', 2)[-1]}:{frame.lineno} {frame.line}"
    return "?"


class _Hook(backend_registration._DummyPrivateUse1Hook):
    """Says whether the device is there: inside `accelerator` alone."""

    there = False

    def is_available(self) -> bool:
        return _Hook.there


class _Module(backend_registration._DummyBackendModule):
    """torch.npu."""

    def is_available(self) -> bool:
        return _Hook.there

    def device_count(self) -> int:
        return int(_Hook.there)


_hook = _Hook()


@functools.cache
def _known_to_torch() -> None:
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module(), _hook)


@contextmanager
def accelerator() -> Iterator[Traffic]:
    """Inside, PyTorch has a device "npu"; gives the traffic to it."""
    _known_to_torch()
    traffic = Traffic()
    global _now
    _Hook.there, _now = True, traffic
    try:
        with _Device(traffic):
            yield traffic
    finally:
        _Hook.there, _now = False, None
