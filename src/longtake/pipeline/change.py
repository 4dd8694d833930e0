"""The measures of the step caches: the change of tensors, as numbers."""

from __future__ import annotations

import math
from typing import Any

from longtake.backend import ops, runtime

Tensor = Any


def relative(now: Tensor, before: Tensor) -> float:
    """The mean change as a share of the mean size before; infinite if that is nothing."""
    change, size = numbers(mean(now - before), mean(before))
    return change / size if size else math.inf


def mean(values: Tensor) -> Tensor:
    """The mean of the absolute values (1,), float32, where they lie."""
    return runtime.place(values, dtype="float32").abs().mean().reshape(1)


def numbers(*values: Tensor) -> list[float]:
    """Tensors of one value each as numbers: the one moment when the device is waited for."""
    return [float(number) for number in ops.to_numpy(ops.cat(list(values), 0))]


def lengths(values: Tensor) -> Tensor:
    """The length of each vector (B, L, D) -> (B, L), float32."""
    values = runtime.place(values, dtype="float32")
    return (values * values).sum(-1) ** 0.5
