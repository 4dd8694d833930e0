"""The framework, chosen once per process: `from longtake.backend import nn, ops, runtime`.

`nn` holds weights, `ops` does not, `runtime` is the world (devices, dtypes, files). Names, argument order and
defaults are torch's. The choice: LONGTAKE_BACKEND, else the framework that the program has imported already, else
torch. Refusals, so that this room stays small: nothing that no model uses, no tensor subclass, no patching of a
framework, no einsum, no writes in place; arithmetic, `reshape`, `permute`, `flatten`, `chunk`, `split`,
`mean(-1, keepdim=True)` and slicing are used as methods of the framework's own tensors.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING

from longtake.errors import BackendError

FRAMEWORKS = ("torch",)


def choose() -> str:
    """The framework's name: what LONGTAKE_BACKEND says, else one already imported, else one installed."""
    asked = os.environ.get("LONGTAKE_BACKEND")
    if asked:
        if asked not in FRAMEWORKS:
            raise BackendError(f"LONGTAKE_BACKEND is {asked!r}; known backends: {', '.join(FRAMEWORKS)}.")
        return asked
    for found in (lambda name: name in sys.modules, importlib.util.find_spec):
        for framework in FRAMEWORKS:
            if found(framework):
                return framework
    raise BackendError('No framework is installed; install PyTorch with: pip install "longtake[torch]".')


name = choose()
if TYPE_CHECKING:
    from longtake.backend.torch import nn, ops, runtime
else:
    try:
        nn = importlib.import_module(f"longtake.backend.{name}.nn")
        ops = importlib.import_module(f"longtake.backend.{name}.ops")
        runtime = importlib.import_module(f"longtake.backend.{name}.runtime")
    except ModuleNotFoundError as error:
        raise BackendError(f"The {name} backend needs {error.name}, which is not installed.") from error

__all__ = ["name", "nn", "ops", "runtime"]
