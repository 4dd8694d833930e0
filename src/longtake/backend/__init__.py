"""The framework, chosen once per process: `from longtake.backend import nn, ops, runtime`.

`nn` holds weights, `ops` does not, `runtime` is the world (devices, dtypes, files), `modules` says what a network knows
of itself and what others have done to it, `kernels` what attention runs on, `parallel` how processes compute together,
`transfer` carries weights to a device and back, `eight` is the arithmetic of weights in 8 bits, `thirdparty` makes
quantised layers of other libraries. Names, argument order and defaults are torch's. The choice: LONGTAKE_BACKEND, else
the framework that the program has imported already, else torch, else mindspore. Refusals, so that this room stays
small: nothing that no model uses, no tensor subclass, no patching of a framework, no einsum, no writes in place;
arithmetic, `reshape`, `permute`, `flatten`, `chunk`, `split`, `mean(-1, keepdim=True)` and slicing are used as methods
of the framework's own tensors. `training` (optimiser, mixed precision) exists on PyTorch alone, and is imported when it
is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

from longtake.errors import BackendError

FRAMEWORKS = ("torch", "mindspore")


def choose() -> str:
    """The framework's name: what LONGTAKE_BACKEND says, else one already imported, else one installed.

    Of two that are imported it is MindSpore: many libraries import torch by themselves, none imports MindSpore.
    """
    asked = os.environ.get("LONGTAKE_BACKEND")
    if asked:
        if asked not in FRAMEWORKS:
            raise BackendError(f"LONGTAKE_BACKEND is {asked!r}; known backends: {', '.join(FRAMEWORKS)}.")
        return asked
    for framework in reversed(FRAMEWORKS):
        if framework in sys.modules:
            return framework
    for framework in FRAMEWORKS:
        if importlib.util.find_spec(framework):
            return framework
    raise BackendError(
        'No framework is installed; install PyTorch with: pip install "longtake[torch]", '
        'or MindSpore with: pip install "longtake[mindspore]".'
    )


name = choose()
if TYPE_CHECKING:
    from longtake.backend.torch import (
        eight,
        kernels,
        modules,
        nn,
        ops,
        parallel,
        runtime,
        thirdparty,
        training,
        transfer,
    )
else:
    try:
        nn = importlib.import_module(f"longtake.backend.{name}.nn")
        ops = importlib.import_module(f"longtake.backend.{name}.ops")
        runtime = importlib.import_module(f"longtake.backend.{name}.runtime")
        modules = importlib.import_module(f"longtake.backend.{name}.modules")
        eight = importlib.import_module(f"longtake.backend.{name}.eight")
        thirdparty = importlib.import_module(f"longtake.backend.{name}.thirdparty")
        kernels = importlib.import_module(f"longtake.backend.{name}.kernels")
        parallel = importlib.import_module(f"longtake.backend.{name}.parallel")
        transfer = importlib.import_module(f"longtake.backend.{name}.transfer")
    except ModuleNotFoundError as error:
        raise BackendError(f"The {name} backend needs {error.name}, which is not installed.") from error


def __getattr__(attribute: str) -> Any:
    if attribute != "training":
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    if name != "torch":
        raise BackendError(
            f"Training runs on PyTorch alone, and the backend is {name}; set LONGTAKE_BACKEND=torch."
        )
    return importlib.import_module("longtake.backend.torch.training")


__all__ = [
    "eight", "kernels", "modules", "name", "nn", "ops", "parallel", "runtime", "thirdparty", "training", "transfer",
]  # fmt: skip
