"""Networks of PyTorch beside the process's own framework: a text encoder of transformers, say, under MindSpore.

Where both are PyTorch nothing is converted; otherwise values cross as numpy arrays. PyTorch is never imported here: a
network of it that somebody hands over has loaded it.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from longtake import backend
from longtake.backend import ops, runtime
from longtake.errors import BackendError


def framework_of(network: Any) -> str:
    """The framework whose weights the network has; the process's own where that does not show.

    >>> framework_of(print) == backend.name
    True
    """
    weights = getattr(network, "parameters", None)
    first = next(iter(weights()), None) if callable(weights) else None
    # All its ancestors, since quantised weights are of other libraries' classes.
    rooms = {kind.__module__.partition(".")[0] for kind in type(first).__mro__}
    return next((name for name in backend.FRAMEWORKS if name in rooms), backend.name)


def dtype_name_of(network: Any) -> str:
    """The dtype of a network of either framework, such as "bfloat16"."""
    return str(network.dtype).rpartition(".")[2].lower()


def is_foreign(network: Any) -> bool:
    """Whether the network is of another framework than the process's."""
    return framework_of(network) != backend.name


def device_of(network: Any) -> Any:
    """Where the network's inputs go: the device that an offloading hook on it or in it runs it on, else its own.

    Between two calls accelerate's hooks keep the weights on the CPU, or on a device without memory ("meta").
    """
    modules = getattr(network, "modules", None)
    for module in modules() if callable(modules) else ():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            # An accelerator goes by its bare number there.
            return _torch().device(device)
    return network.device


def check(network: Any, part: str, may_cross: bool = False) -> None:
    """Raise BackendError where the network is of another framework, unless it is PyTorch and its values `may_cross`."""
    name = framework_of(network)
    if name != backend.name and not (may_cross and name == "torch"):
        raise BackendError(
            f"The {part} is a network of {name}, and longtake runs on {backend.name} here; "
            f"load it through longtake, or set LONGTAKE_BACKEND={name} for all of it."
        )


def given(array: np.ndarray, network: Any, as_weights: bool = False) -> Any:
    """The array as a tensor that the network takes, on its device; `as_weights`: in the dtype of its weights."""
    dtype = network.dtype if as_weights else None
    if not is_foreign(network):
        return runtime.place(ops.from_numpy(array), device_of(network), dtype)
    tensor = _torch().from_numpy(np.ascontiguousarray(array))
    return tensor.to(device=device_of(network), dtype=dtype)


def taken(value: Any) -> Any:
    """What a network gave, as a tensor of the process's framework: the very same where it is one."""
    return value if isinstance(value, ops.Tensor) else ops.from_numpy(array_of(value))


def array_of(value: Any) -> np.ndarray:
    """A tensor of either framework, or an array, as an array; half precision comes as float32."""
    if isinstance(value, ops.Tensor):
        return ops.to_numpy(value)
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # numpy has no bfloat16.
        value = value.float() if value.is_floating_point() else value
    return np.asarray(value)


def no_grad(network: Any) -> AbstractContextManager[Any]:
    """Inside, calls of the network keep nothing for a backward pass."""
    no_grad: AbstractContextManager[Any] = _torch().no_grad() if is_foreign(network) else runtime.no_grad()
    return no_grad


def move(network: Any, device: Any = None, dtype: Any = None) -> None:
    """Move the network to a device, a dtype (the process's own), or both. Raises BackendError where it cannot go."""
    if dtype is not None and is_foreign(network):
        dtype = getattr(_torch(), runtime.dtype_name(dtype))
    asked = {"device": device, "dtype": dtype}
    try:
        network.to(**{name: value for name, value in asked.items() if value is not None})
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        # No device of that name, none at all, or no room on it.
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise BackendError(f"A network cannot move to {device or dtype} here: {reason}.") from error


def _torch() -> Any:
    return sys.modules["torch"]
