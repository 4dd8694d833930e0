"""The arithmetic of weights in 8 bits, on MindSpore: made, widened; not multiplied.

A weight (O, I) is its codes (O, I) times a step for each row (O, 1). Codes of 8-bit floats lie as bytes, uint8, since
MindSpore casts none on a CPU: a table has the number of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from mindspore import ops as native

from longtake import fp8
from longtake.backend.mindspore import ops, runtime
from longtake.errors import BackendError

__all__ = ["check", "codes", "finite", "multiply", "read_code", "steps", "through", "widened"]

LARGEST = {"int8": 127.0, "float8_e4m3fn": 448.0}
"""The largest code of each kind that weights are made into."""
PIECE = 2**18
"""So many values of a weight are worked on at once when it is made: they stay in a processor's cache."""


def steps(weight: Tensor, kind: str) -> Tensor:
    """The step of each row, (O, 1) float32, so that its largest value has the largest code; not finite if one is not.

    Each is a bfloat16 number, rounded up: no dtype that a network computes in rounds it again. A row of zeros has 1.
    """
    highest = np.concatenate([np.abs(rows).max(1, keepdims=True) for rows in _rows(ops.to_numpy(weight))])
    bits = (highest.astype(np.float32) / np.float32(LARGEST[kind])).view(np.uint32).astype(np.uint64)
    step = ((bits + 0xFFFF) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return Tensor.from_numpy(np.where(step == 0, np.float32(1), step))


def codes(weight: Tensor, step: Tensor, kind: str) -> Tensor:
    """The codes of a weight (O, I) for its steps (O, 1), each the nearest; of two as near, the even one."""
    values, own = ops.to_numpy(weight), ops.to_numpy(step).astype(np.float32)
    made = np.empty(values.shape, np.int8 if kind == "int8" else np.uint8)
    start = 0
    for rows in _rows(values):
        stop = start + len(rows)
        exact = rows.astype(np.float32) / own[start:stop]
        made[start:stop] = np.rint(exact) if kind == "int8" else fp8.encode(exact)
        start = stop
    return Tensor.from_numpy(made)


def finite(code: Tensor, kind: str) -> bool:
    """Tell if all codes, of any kind, are numbers."""
    if kind == "int8":
        return True
    known = np.isfinite(fp8.TABLES[kind])
    return all(bool(known[rows].all()) for rows in _rows(code.asnumpy()))


def read_code(file: Path, name: str, device: Any = None) -> Tensor:
    """The codes of a weight in a file; mapped if the device is the CPU."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        entry = json.loads(opened.read(length))[name]
    begin, end = (8 + length + offset for offset in entry["data_offsets"])
    kind = np.int8 if entry["dtype"] == "I8" else np.uint8
    mapped = np.memmap(file, kind, mode="c")[begin:end]
    return runtime.place(Tensor.from_numpy(mapped.reshape(entry["shape"])), device)


def widened(code: Tensor, step: Tensor, kind: str) -> Tensor:
    """The numbers that these codes stand for, in the dtype of the steps."""
    if kind == "int8":
        return code.astype(step.dtype) * step
    table = Tensor(fp8.TABLES[kind]).astype(step.dtype)
    return native.gather(table, code.astype(ms.int32).reshape(-1), 0).reshape(code.shape) * step


def multiply(x: Tensor, code: Tensor, step: Tensor, bias: Tensor | None, kind: str) -> Tensor:
    """Refused: MindSpore's product of int8 overflows on a CPU, and Ascend's kernels were never tried."""
    raise _no_products(kind)


def through(x: Tensor, product: Callable[[Tensor], Tensor], full: Callable[[], Tensor]) -> Tensor:
    """`product(x)`: nothing is trained on MindSpore."""
    return product(x)


def check(kind: str, device: Any, dynamic: bool) -> None:
    """Raise BackendError if weights of this kind cannot be used on the device."""
    if dynamic:
        raise _no_products(kind)


def _no_products(kind: str) -> BackendError:
    return BackendError(
        f"This form multiplies numbers of 8 bits ({kind}), which is not done on MindSpore: its product of int8 "
        "overflows on a CPU, and Ascend's kernels were never tried; take the form without -dynamic."
    )


def _rows(array: np.ndarray) -> list[np.ndarray]:
    """The array in pieces of some rows."""
    count = max(1, PIECE // max(1, array.shape[1]))
    return [array[start : start + count] for start in range(0, len(array), count)]
