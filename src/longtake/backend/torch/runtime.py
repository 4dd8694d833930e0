"""The world around the networks, on PyTorch: dtypes, devices, files, compilation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Generator, no_grad
from torch.overrides import TorchFunctionMode

from longtake.errors import BackendError

__all__ = [
    "DTYPES",
    "Generator",
    "assign_weights",
    "check_device",
    "compiled",
    "dtype",
    "dtype_name",
    "empty_weights",
    "named_weights",
    "no_grad",
    "place",
    "randn",
    "randn_like",
    "read_safetensors",
    "seeded",
    "structure_changed",
    "to_bytes",
    "write",
]

COMPILED = "_longtake_compiled"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def dtype(name: Any) -> torch.dtype:
    """The framework's dtype for a name such as "bfloat16" (a dtype is returned as it is)."""
    if isinstance(name, torch.dtype) and name in DTYPES.values():
        return name
    if str(name) not in DTYPES:
        raise BackendError(f"Networks on PyTorch have no dtype {name!r}; they have {', '.join(DTYPES)}.")
    return DTYPES[str(name)]


def dtype_name(value: torch.dtype) -> str:
    """The name of a dtype, as in configs and safetensors: "float32", "bfloat16", …"""
    return str(value).removeprefix("torch.")


def check_device(device: Any) -> None:
    """Raise BackendError where networks cannot be put on `device`; None, where they are, always serves."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise BackendError(f"PyTorch cannot use the device {str(device)!r} here: {reason}.") from error


@contextmanager
def empty_weights() -> Iterator[None]:
    """Networks built inside hold shapes and no memory."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Draws no numbers for weights that have no memory; torch would load its compiler for that, 70 MB in a second."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.nn.init.normal_:
            return kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def place(tensor: torch.Tensor, device: Any = None, dtype: Any = None) -> torch.Tensor:
    """The tensor on `device` and in `dtype` (a name or the framework's own); None leaves either as it is."""
    return tensor.to(device=device, dtype=None if dtype is None else DTYPES.get(str(dtype), dtype))


def randn(
    shape: tuple[int, ...], generator: torch.Generator | None = None, dtype: str = "float32"
) -> torch.Tensor:
    """Normal noise, drawn on the generator's device; without one from the framework's own state, on the CPU."""
    device = "cpu" if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=DTYPES[dtype])


def seeded(seed: int) -> torch.Generator:
    """The framework's own generator, on the CPU."""
    return Generator().manual_seed(seed)


def randn_like(tensor: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Normal noise in the shape and dtype of `tensor`, drawn on the generator's device and moved."""
    device = tensor.device if generator is None else generator.device
    return torch.randn(tensor.shape, generator=generator, device=device, dtype=tensor.dtype).to(tensor.device)


def named_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The network's weights under their published names."""
    return model.state_dict()


def assign_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Make `weights` the network's own, without a copy; weights that are not named stay."""
    model.load_state_dict(weights, strict=False, assign=True)


def write(weight: torch.nn.Parameter, values: np.ndarray) -> None:
    """Put an array's values into a weight, in place, so that what was compiled around it sees them."""
    with no_grad():
        weight.copy_(torch.from_numpy(values))


def read_safetensors(
    file: Path, names: Iterable[str], dtype: torch.dtype | None = None, device: Any = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """The named tensors of a file, one at a time, floating ones in `dtype`; unchanged ones stay memory-mapped."""
    with safe_open(file, framework="pt") as opened:
        for name in names:
            tensor = opened.get_tensor(name)
            yield name, tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)


def to_bytes(tensor: torch.Tensor) -> memoryview:
    """The tensor's values as they lie in memory, row by row."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def compiled(model: torch.nn.Module, method: str) -> Callable[..., Any]:
    """The network's method, by `torch.compile` where LONGTAKE_GRAPH=1 asks for it: once for each set of shapes."""
    if not graph:
        return getattr(model, method)
    known = model.__dict__.setdefault(COMPILED, {})
    if method not in known:
        known[method] = torch.compile(getattr(model, method), dynamic=False)
    return known[method]


# Not by default: half a minute of compiling for each set of shapes saves a tenth to a fifth of each step.
graph = os.environ.get("LONGTAKE_GRAPH", "0") != "0"


def structure_changed(model: torch.nn.Module) -> None:
    """Tell that modules of the network were replaced, so that nothing compiled outlives them."""
    for part in model.modules():
        part.__dict__.pop(COMPILED, None)


def best_device() -> str:
    return "cpu"


def auto_dtype(device: Any) -> str:
    return "float32"


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError)
