"""The world around the networks, on PyTorch: dtypes, devices, files, compilation."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
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
    "auto_dtype",
    "best_device",
    "check_device",
    "compile_module",
    "compiled",
    "compiles",
    "dtype",
    "dtype_name",
    "empty_weights",
    "named_weights",
    "no_grad",
    "out_of_memory",
    "place",
    "randn",
    "randn_like",
    "read_safetensors",
    "seeded",
    "structure_changed",
    "to_bytes",
    "tracing",
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


def best_device() -> str:
    """The accelerator that PyTorch finds here ("cuda", "xpu", "npu", "mps" …), else "cpu"."""
    if hasattr(torch, "accelerator"):
        found = torch.accelerator.current_accelerator()
        return found.type if found is not None and torch.accelerator.is_available() else "cpu"
    backends = {name: getattr(torch, name, None) for name in ("cuda", "xpu", "npu", "mps")}
    return next((name for name, module in backends.items() if module and module.is_available()), "cpu")


def auto_dtype(device: Any) -> str:
    """The default dtype of networks on a device: float32 on CPUs, bfloat16 elsewhere.

    bfloat16 has the range of float32, which the published networks were trained with; they overflow float16. That is
    taken if a device has no bfloat16 at all (mps before macOS 14), since float32 would be twice the memory.
    """
    if torch.device(device).type == "cpu":
        return "float32"
    try:
        torch.zeros(1, device=device, dtype=torch.bfloat16)
    except (RuntimeError, TypeError):
        return "float16"
    return "bfloat16"


def check_device(device: Any) -> Any:
    """The device to put networks on: `device`, or the best one here for "auto"; None (they stay) is allowed too.

    Raises BackendError for a device that PyTorch cannot use here.
    """
    if isinstance(device, str) and device == "auto":
        return best_device()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise BackendError(f"PyTorch cannot use the device {str(device)!r} here: {reason}.") from error
    return device


def out_of_memory(error: BaseException) -> bool:
    """Tell if an error says that memory ran out, on an accelerator or on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(part in str(error).lower() for part in words)


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


# Whether all is compiled that can be: blocks, refiner, autoencoder. Not by default: half a minute of compiling for each
# set of shapes saves a tenth to a fifth of each step.
graph = os.environ.get("LONGTAKE_GRAPH", "0") != "0"


class Compiled:
    """The compiled form of one module, or None before its first call, and the options that it was asked for with.

    A copy of the module begins without the form, for it has weights of its own.
    """

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        self.options = options
        self.call: Any = None

    def __reduce__(self) -> Any:
        return (Compiled, (self.options,))


def compile_module(module: Any, **options: Any) -> None:
    """Let `compiled` compile this module, with torch.compile's options, of which `disable` lets it be."""
    module.__dict__[COMPILED] = Compiled(None if options.get("disable") else options)


def compiles(module: Any) -> bool:
    """Tell if `compiled` compiles this module."""
    known = module.__dict__.get(COMPILED)
    return graph or (known is not None and known.options is not None)


def compiled(module: Any) -> Any:
    """The module by `torch.compile`, if that was asked for; what is no module, or compiled already, as it is.

    Compiled once for each set of shapes, and from the second length of a sequence on for all lengths; modules of one
    class whose weights have the same shapes share what was compiled, since weights are inputs there.
    """
    if not isinstance(module, torch.nn.Module) or tracing() or not compiles(module):
        return module
    if hasattr(module, "_orig_mod"):
        return module
    known = module.__dict__.setdefault(COMPILED, Compiled())
    if known.call is None:
        # LONGTAKE_GRAPH compiles convolutions too, which are slower for sizes that are not known.
        options = {"dynamic": False} if known.options is None else known.options
        known.call = torch.compile(module, **{**_limit(), **options})
    return known.call


def _limit() -> dict[str, Any]:
    """The largest number of sets of shapes that are compiled, if this PyTorch takes one.

    Two prompts of other lengths make six graphs of the single blocks, and PyTorch's own limit is eight: beyond that it
    goes on without compiling.
    """
    return {"recompile_limit": 64} if "recompile_limit" in inspect.signature(torch.compile).parameters else {}


def structure_changed(model: torch.nn.Module) -> None:
    """Tell that modules of the network were replaced, so that nothing compiled outlives them."""
    for part in model.modules():
        known = part.__dict__.get(COMPILED)
        if known is not None:
            known.call = None


def tracing() -> bool:
    """Tell if the code that runs is being compiled as a whole, so that it cannot look at values."""
    return torch.compiler.is_compiling()
