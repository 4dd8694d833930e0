"""The world around the networks, on MindSpore: dtypes, devices, files, compilation."""

from __future__ import annotations

import functools
import json
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor
from mindspore.nn import Cell
from numpy.random import Generator

from longtake.errors import BackendError, LongtakeWarning

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

DTYPES = {"float32": ms.float32, "float16": ms.float16, "bfloat16": ms.bfloat16}
NUMPY = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
COMPILED = "_longtake_compiled"


def is_dtype(value: Any) -> bool:
    """Tell if the value is, or names, one of the dtypes that networks can have."""
    return any(value is known or value == known for known in (*DTYPES.values(), *DTYPES))


def dtype(name: Any) -> Any:
    """The framework's dtype for a name such as "float16" (a dtype is returned as it is).

    On a CPU it is float32 for bfloat16, which has no kernels there, with one LongtakeWarning.
    """
    found = DTYPES.get(str(name)) if isinstance(name, str) else name
    if not any(found is known or found == known for known in DTYPES.values()):
        raise BackendError(f"Networks on MindSpore have no dtype {name!r}; they have {', '.join(DTYPES)}.")
    if found == ms.bfloat16 and target() == "CPU":
        _tell_no_bfloat16()
        return ms.float32
    return found


@functools.cache  # once in a process: a script names its dtype for each network
def _tell_no_bfloat16() -> None:
    note = "MindSpore computes no bfloat16 on a CPU; float32 is taken in its place."
    warnings.warn(note, LongtakeWarning, stacklevel=3)


def dtype_name(value: Any) -> str:
    """The name of a dtype, as in configs and safetensors: "float32", "bfloat16", …"""
    return str(value).lower()


def target() -> str:
    """The device that MindSpore was set up for: "Ascend", "CPU", …"""
    return str(ms.get_context("device_target"))


def best_device() -> str:
    """The device that MindSpore was set up for: an accelerator if it has one."""
    return target()


def auto_dtype(device: Any) -> str:
    """The default dtype of networks on a device: float32 on CPUs, bfloat16 elsewhere."""
    return "float32" if str(device).split(":")[0].lower() == "cpu" else "bfloat16"


def check_device(device: Any) -> Any:
    """The device to put networks on: `device`, or MindSpore's own for "auto"; None (they stay) is allowed too.

    Raises BackendError for a device that MindSpore was not set up for.
    """
    if isinstance(device, str) and device == "auto":
        return best_device()
    # By name: a tensor that was put on a device without its libraries fails later, at another line.
    if device is not None and str(device).split(":")[0].lower() not in ("cpu", target().lower()):
        raise _not_here(device)
    return device


def out_of_memory(error: BaseException) -> bool:
    """Tell if an error says that memory ran out, on an accelerator or on the CPU."""
    words = (
        "out of memory",
        "memory not enough",
        "not enough memory",
        "allocate memory failed",
        "malloc failed",
    )
    wrong = isinstance(error, RuntimeError) and any(part in str(error).lower() for part in words)
    return isinstance(error, MemoryError) or wrong


def _not_here(device: Any) -> BackendError:
    return BackendError(f"MindSpore cannot use the device {str(device)!r} here; it has {target()}.")


_empty = False


@contextmanager
def empty_weights() -> Iterator[None]:
    """Networks built inside hold shapes and no memory."""
    global _empty
    _empty = True
    try:
        yield
    finally:
        _empty = False


def weights_are_empty() -> bool:
    """Tell if a network is being built that holds no memory."""
    return _empty


def no_grad() -> Any:
    """Nothing to switch off: MindSpore derives functions on request alone."""
    return nullcontext()


def place(tensor: Tensor, device: Any = None, dtype: Any = None) -> Tensor:
    """The tensor on `device` and in `dtype` (a name or the framework's own); None leaves either as it is."""
    if dtype is not None:
        tensor = tensor.astype(DTYPES.get(str(dtype), dtype))
    if device is not None and str(device).lower() != str(tensor.device).split(":")[0].lower():
        try:
            tensor = tensor.to(device)
        except (RuntimeError, TypeError, ValueError) as error:
            raise _not_here(device) from error
    return tensor


def randn(shape: tuple[int, ...], generator: Generator | None = None, dtype: str = "float32") -> Tensor:
    """Normal noise from numpy (MindSpore's CPU generator has no kernel), drawn in float64 and rounded."""
    drawn = (np.random.default_rng() if generator is None else generator).standard_normal(shape)
    return Tensor(drawn.astype(np.float32)).astype(DTYPES[dtype])


def seeded(seed: int) -> Generator:
    """numpy's generator of a seed."""
    return np.random.Generator(np.random.PCG64(seed))


def randn_like(tensor: Tensor, generator: Generator | None = None) -> Tensor:
    """Normal noise in the shape and dtype of `tensor`."""
    return randn(tensor.shape, generator).astype(tensor.dtype)


def named_weights(model: Cell) -> dict[str, Parameter]:
    """The network's weights under their published names."""
    return dict(model.parameters_and_names())


def assign_weights(model: Cell, weights: Mapping[str, Tensor]) -> None:
    """Make `weights` the network's own, without a copy; weights that are not named stay."""
    cells = dict(model.cells_and_names())
    for name, value in weights.items():
        owner, _, own = name.rpartition(".")
        setattr(cells[owner], own, parameter(value, name))


def parameter(value: Tensor, name: str) -> Parameter:
    """The tensor as a weight, without a copy: a Parameter that is made of one would copy what is mapped from a file."""
    if isinstance(value, Parameter):
        return value
    made = Parameter(Tensor(np.zeros(1, np.float32)).astype(value.dtype), name=name)
    made.set_data(value)
    return made


_one_graph = threading.RLock()


class Graph(Cell):
    """A module as a Cell of its own, compiled to a graph.

    Not `ms.jit`: what that compiles in eager mode goes on with the weights of its first call, whatever is written to
    them later (MindSpore 2.10), and each of its calls takes 1 ms more.
    """

    def __init__(self, module: Cell) -> None:
        super().__init__(auto_prefix=False)
        self.module = module

    def construct(self, *inputs: Any) -> Any:
        return self.module(*inputs)


class Compiled:
    """A module that is compiled; a copy of the module begins without, for it has weights of its own."""

    def __init__(self, module: Any = None) -> None:
        self.module = module
        self.graph = None if module is None else Graph(module)

    def __call__(self, *inputs: Any) -> Any:
        """The module's output; it is compiled at the first call for each set of shapes."""
        # This is what calling a Cell does in graph mode. The mode itself is the whole process's, so the user's: other
        # threads compute meanwhile, and code between two steps is not ours. MindSpore compiles one graph at a time.
        with _one_graph:
            return self.graph.compile_and_run(*map(_variable, inputs))  # type: ignore[union-attr]

    def __getattr__(self, name: str) -> Any:
        if name in ("module", "graph"):
            raise AttributeError(name)
        return getattr(self.module, name)

    def __reduce__(self) -> Any:
        return (Compiled, ())


def _variable(value: Any) -> Any:
    """A tuple of tensors as one whose values may change: MindSpore compiles those of a plain one into the graph."""
    tensors = isinstance(value, tuple) and value and all(isinstance(one, Tensor) for one in value)
    return ms.mutable(value) if tensors else value


def compile_module(module: Any, **options: Any) -> None:
    """Graphs are made unasked. Raises BackendError for options, and if LONGTAKE_GRAPH=0 forbids it."""
    if options:
        raise BackendError(
            f"MindSpore compiles blocks to graphs by itself, without options; {', '.join(options)} is torch.compile's."
        )
    if not graph:
        raise BackendError(
            "Compilation is asked for, and LONGTAKE_GRAPH=0 forbids it; leave one of them out."
        )


def compiles(module: Any) -> bool:
    """Tell if `compiled` compiles this module."""
    return graph


def compiled(module: Any) -> Any:
    """The module as a graph, but for LONGTAKE_GRAPH=0; what is no module as it is."""
    if not graph or not isinstance(module, Cell):
        return module
    known = module.__dict__.get(COMPILED)
    if known is None or known.module is not module:
        known = module.__dict__[COMPILED] = Compiled(module)
    return known


# LONGTAKE_GRAPH=0 runs everything eagerly, as tests of many small shapes do.
graph = os.environ.get("LONGTAKE_GRAPH", "1") != "0"


def structure_changed(model: Cell) -> None:
    """Tell that modules or weights of the network were replaced, so that nothing compiled outlives them."""
    for _, cell in model.cells_and_names():
        cell.__dict__.pop(COMPILED, None)
    for name, weight in model.parameters_and_names():
        weight.name = name  # a graph wants every weight to have a name of its own


def tracing() -> bool:
    """Tell if the code that runs is being compiled as a whole: never here, since blocks are compiled one by one."""
    return False


def write(weight: Parameter, values: np.ndarray) -> None:
    """Put an array's values into a weight, in place, so that what was compiled around it sees them."""
    weight.set_data(Tensor(values).astype(weight.dtype))


def read_safetensors(
    file: Path, names: Iterable[str], dtype: Any = None, device: Any = None
) -> Iterator[tuple[str, Tensor]]:
    """The named tensors of a file, one at a time, floating ones in `dtype`; unchanged ones stay memory-mapped."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    mapped = np.memmap(file, np.uint8, mode="c")
    for name in names:
        entry = header[name]
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensor = _tensor(mapped[begin:end], entry["dtype"], entry["shape"])
        yield name, place(tensor, device, dtype if tensor.is_floating_point() else None)


def _tensor(data: np.ndarray, code: str, shape: list[int]) -> Tensor:
    if code == "BF16":
        # numpy has no bfloat16: its 16 bits are the upper half of a float32.
        wide = (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
        return Tensor.from_numpy(wide).astype(ms.bfloat16)
    if code in ("F8_E4M3", "F8_E5M2"):
        return Tensor.from_numpy(_from_8_bits(data, code).reshape(shape))
    return Tensor.from_numpy(data.view(NUMPY[code]).reshape(shape))


def _from_8_bits(data: np.ndarray, code: str) -> np.ndarray:
    """8-bit floats as float32; float16 has the bits of either, and 8 more in the exponent's bias than E4M3."""
    bits = data.astype(np.uint16)
    if code == "F8_E5M2":
        return (bits << 8).view(np.float16).astype(np.float32)
    wide = ((bits & 0x80) << 8 | (bits & 0x7F) << 7).view(np.float16).astype(np.float32) * 256
    return np.where(bits & 0x7F == 0x7F, np.float32(np.nan), wide)


def to_bytes(tensor: Tensor) -> memoryview:
    """The tensor's values as they lie in memory, row by row."""
    return np.asarray(tensor.asnumpy(), order="C").reshape(-1).view(np.uint8).data
