"""What a network of MindSpore knows of itself, and what others have done to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Tensor
from mindspore.nn import Cell

from longtake.backend.mindspore.runtime import place
from longtake.errors import BackendError

__all__ = ["is_patched", "leaves", "note_place", "own_call", "placed", "touched"]

PLACE = "_longtake_place"


def note_place(model: Cell, device: Any = None, dtype: Any = None) -> None:
    """Let the network know its device and dtype."""
    # Past Cell's own bookkeeping of attributes: this is no weight.
    model.__dict__[PLACE] = place(Tensor(np.zeros(1, np.float32)), device, dtype)


def placed(model: Any) -> Tensor:
    """A tensor on the network's device and in its dtype: its first floating weight if it was never told."""
    found = model.__dict__.get(PLACE)
    if found is None:
        found = next((weight for weight in model.get_parameters() if weight.is_floating_point()), None)
    if found is None:
        raise BackendError(f"{type(model).__name__} has no weights that could say its device and dtype.")
    return found


def leaves(model: Cell) -> dict[str, Cell]:
    """The modules that have weights of their own, by name."""
    return {name: cell for name, cell in model.cells_and_names() if cell._params}


def touched(model: Cell) -> bool:
    """Whether somebody has hooked or patched the network or a module inside it."""
    return any(_is_touched(cell) for _, cell in model.cells_and_names())


def _is_touched(cell: Cell) -> bool:
    own = cell.__dict__
    hooks = ("_lazy_forward_hook", "_lazy_forward_pre_hook", "_forward_hook", "_forward_pre_hook")
    return (
        any(own.get(name) for name in hooks)
        or is_patched(cell, "construct")
        or is_patched(cell, "forward")
        or not own_call(type(cell), "construct")
    )


def is_patched(module: Any, method: str) -> bool:
    """Whether an object has another method of that name than its class."""
    mine = vars(module).get(method)
    own = getattr(mine, "__self__", None) is module and mine.__func__ is getattr(type(module), method, None)
    return mine is not None and not own


def own_call(kind: type, method: str) -> bool:
    """Whether a class's method is that of its source, and nobody's patch. Raises BackendError for a patch of `forward`.

    MindSpore calls `construct`, so that a class whose `forward` is replaced afterwards would be passed by in silence.
    """
    name = "forward" if hasattr(kind, "forward") else method
    found = (getattr(kind, method, None), getattr(kind, name, None))
    if _own.get((kind, method)) == found:
        return True
    if method == "construct" and name == "forward" and not _is_own(kind, "forward"):
        raise BackendError(
            f"The forward of {kind.__name__} was replaced, and MindSpore calls construct; replace that one."
        )
    if not _is_own(kind, method):
        return False
    _own[kind, method] = found
    return True


def _is_own(kind: type, method: str) -> bool:
    owner = next((each for each in kind.__mro__ if method in vars(each)), None)
    if owner is None:
        return True
    function = vars(owner)[method]
    names = (f"{owner.__qualname__}.{method}", f"{owner.__qualname__}.forward")
    return (
        getattr(function, "__module__", None) == owner.__module__
        and getattr(function, "__qualname__", None) in names
        and not hasattr(function, "__wrapped__")
    )


_own: dict[tuple[type, str], Any] = {}
