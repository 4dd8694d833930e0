"""The layers that hold weights, on MindSpore: Cells with torch's names, so that files and model code are the same.

MindSpore's own norms and embeddings name their weights gamma, beta and embedding_table, and several of its layers have
no kernel on CPUs; these are built on `ops`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, mint
from mindspore.common.initializer import Zero
from mindspore.nn import Cell, CellList, SequentialCell

from longtake.backend.mindspore import modules, ops, runtime

__all__ = [
    "Coded",
    "Conv2d",
    "Conv3d",
    "Embedding",
    "GroupNorm",
    "Identity",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleList",
    "Parameter",
    "RMSNorm",
    "Sequential",
]


class Eager(Cell):
    """A Cell that runs eagerly, whatever mode the user set for the process.

    In graph mode MindSpore would compile every call, whole networks with all their checks and numpy, and an error of
    ours would come out of its parser as a RuntimeError. What is worth compiling is compiled by `runtime.compiled`.
    """

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if ms.get_context("mode") == ms.PYNATIVE_MODE:
            return super().__call__(*inputs, **named)
        return self._run_construct(*inputs, **named)  # with the hooks, as eager mode calls it


class Module(Eager):
    """A Cell that is written as torch's modules are: `forward`, `parameters`, `eval`, `to`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in vars(cls):
            cls.construct = vars(cls)["forward"]

    def parameters(self) -> Iterator[Parameter]:
        """All weights."""
        return iter(self.get_parameters())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All weights with their names."""
        return iter(self.parameters_and_names())

    def named_modules(self) -> Iterator[tuple[str, Cell]]:
        """This module and all inside it, with their names."""
        return iter(self.cells_and_names())

    def train(self, mode: bool = True) -> Module:
        """Set the training mode, which no network here looks at."""
        self.set_train(mode)
        return self

    def eval(self) -> Module:
        """Set the mode of inference."""
        return self.train(False)

    def to(self, device: Any = None, dtype: Any = None) -> Module:
        """Put all weights on a device, in a dtype, or both."""
        if device is not None and dtype is None and runtime.is_dtype(device):
            device, dtype = None, device
        dtype = None if dtype is None else runtime.dtype(dtype)
        # New Parameters, so that no kernel can go on with the old dtype.
        moved = {
            name: runtime.place(weight, device, dtype if weight.is_floating_point() else None)
            for name, weight in self.parameters_and_names()
        }
        runtime.assign_weights(self, moved)
        runtime.structure_changed(self)
        for _, cell in self.cells_and_names():
            if modules.PLACE in cell.__dict__:
                here = modules.placed(cell)
                modules.note_place(cell, here.device if device is None else device, dtype or here.dtype)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        """As torch's modules: a `forward` that is given to one object is what its call runs."""
        super().__setattr__(name, value)
        if name == "forward":
            super().__setattr__("construct", value)


class Coded(Module):
    """A module whose `weight` is a code of its numbers in 8 bits: it goes along with the module, in its own dtype."""


class ModuleList(CellList):
    """A list of modules."""


class Sequential(Eager, SequentialCell):
    """Modules one after the other."""


class Identity(Module):
    """Gives back what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Linear(Module):
    """x · weightᵀ + bias, weight (out, in)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = _uniform((out_features, in_features), bound)
        self.bias = _uniform((out_features,), bound) if bias else None

    def forward(self, input: Tensor) -> Tensor:
        return ops.linear(input, self.weight, self.bias)


class Conv2d(Module):
    """A convolution without padding, weight (out, in, h, w)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        kernel = _sides(kernel_size, 2)
        bound = 1 / math.sqrt(in_channels * math.prod(kernel))
        self.stride = _sides(stride, 2)
        self.weight = _uniform((out_channels, in_channels, *kernel), bound)
        self.bias = _uniform((out_channels,), bound)

    def forward(self, input: Tensor) -> Tensor:
        return ops.conv2d(input, self.weight, self.bias, self.stride)


class Conv3d(Module):
    """A convolution over time and space without padding, weight (out, in, t, h, w)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        kernel = _sides(kernel_size, 3)
        bound = 1 / math.sqrt(in_channels * math.prod(kernel))
        self.stride = _sides(stride, 3)
        self.weight = _uniform((out_channels, in_channels, *kernel), bound)
        self.bias = _uniform((out_channels,), bound)

    def forward(self, input: Tensor) -> Tensor:
        return ops.conv3d(input, self.weight, self.bias, self.stride)


class Embedding(Module):
    """A table of vectors."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = _uniform((num_embeddings, embedding_dim), math.sqrt(3))

    def forward(self, input: Tensor) -> Tensor:
        return ops.index_select(self.weight, 0, input.reshape(-1)).reshape(*input.shape, -1)


class LayerNorm(Module):
    """Zero mean and unit variance over the last axis, then, unless not wanted, weight and bias."""

    def __init__(self, normalized_shape: int, eps: float = 1e-5, elementwise_affine: bool = True) -> None:
        super().__init__()
        self.eps, self.size, self.affine = eps, normalized_shape, elementwise_affine
        if elementwise_affine:
            self.weight = _constant((normalized_shape,), 1.0)
            self.bias = _constant((normalized_shape,), 0.0)

    def forward(self, input: Tensor) -> Tensor:
        if self.affine:
            return ops.layer_norm(input, self.weight, self.bias, self.eps)
        weight, bias = ops.ones(self.size).astype(input.dtype), ops.zeros(self.size).astype(input.dtype)
        return ops.layer_norm(input, weight, bias, self.eps)


class RMSNorm(Module):
    """Unit mean square over the last axis, then the weight."""

    def __init__(self, normalized_shape: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = _constant((normalized_shape,), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.astype(ms.float32)
        return (wide * mint.rsqrt((wide * wide).mean(-1, keep_dims=True) + self.eps)).astype(
            x.dtype
        ) * self.weight


class GroupNorm(Module):
    """Zero mean and unit variance over groups of channels, then weight and bias."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.weight = _constant((num_channels,), 1.0)
        self.bias = _constant((num_channels,), 0.0)

    def forward(self, input: Tensor) -> Tensor:
        return ops.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def _uniform(shape: tuple[int, ...], bound: float) -> Parameter:
    if runtime.weights_are_empty():
        return _constant(shape, 0.0)
    values = np.random.default_rng().uniform(-bound, bound, shape)
    return Parameter(Tensor.from_numpy(values.astype(np.float32)))


def _constant(shape: tuple[int, ...], value: float) -> Parameter:
    if runtime.weights_are_empty():
        return Parameter(Tensor(shape=shape, dtype=ms.float32, init=Zero()))
    return Parameter(Tensor.from_numpy(np.full(shape, value, np.float32)))


def _sides(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)
