"""The facts about a network of PyTorch: its place and dtype, its parts, and the changes that others made to it."""

from __future__ import annotations

from typing import Any

import torch

from longtake.errors import BackendError

__all__ = ["is_patched", "leaves", "note_place", "own_call", "placed", "touched"]

PLACE = "_longtake_place"


def note_place(model: torch.nn.Module, device: Any = None, dtype: Any = None) -> None:
    """Let the network know its device and dtype: by a buffer without values, which moves wherever the network moves."""
    model.register_buffer(PLACE, torch.zeros(0, device=device, dtype=dtype), persistent=False)


def placed(model: Any) -> torch.Tensor:
    """A tensor on the network's device and in its dtype: its first floating weight if it was never told."""
    found: torch.Tensor | None = getattr(model, PLACE, None)
    # Built without memory, and never told where its weights went.
    if found is None or found.device.type == "meta":
        floating = (weight for weight in model.parameters() if weight.is_floating_point())
        found = next(floating, found)
    if found is None:
        raise BackendError(f"{type(model).__name__} has no weights that could say its device and dtype.")
    return found


def leaves(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The modules that have weights of their own, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(weight is not None for weight in module._parameters.values())
    }


def touched(model: torch.nn.Module) -> bool:
    """Tell if somebody has hooked, patched or compiled the network or a module inside it."""
    if torch.nn.modules.module._has_any_global_hook():
        return True
    # By hand, since this is asked at every step: `model.modules()` alone takes longer than all of this.
    waiting, kinds = [model], set[type]()
    while waiting:
        module = waiting.pop()
        own = module.__dict__
        if (
            own["_forward_hooks"]
            or own["_forward_pre_hooks"]
            or own.get("_compiled_call_impl") is not None
            or ("forward" in own and is_patched(module, "forward"))
        ):
            return True
        kinds.add(type(module))
        waiting += [part for part in own["_modules"].values() if part is not None]
    # Many modules are of few classes.
    return not all(own_call(kind, "forward") for kind in kinds)


def is_patched(module: Any, method: str) -> bool:
    """Tell if an object has a method of that name that is not its class's (accelerate leaves the class's own in it)."""
    mine = vars(module).get(method)
    own = getattr(mine, "__self__", None) is module and mine.__func__ is getattr(type(module), method, None)
    return mine is not None and not own


def own_call(kind: type, method: str) -> bool:
    """Tell if a class's method, and its `__call__`, are those of its source, and nobody's patch."""
    found = (getattr(kind, method, None), kind.__call__)
    if _own.get((kind, method)) == found:
        return True
    owner = next((each for each in kind.__mro__ if method in vars(each)), None)
    if owner is None or kind.__call__ is not torch.nn.Module.__call__:
        return False
    function: Any = found[0]
    # A list of modules has no forward of its own.
    if owner is not torch.nn.Module and (
        getattr(function, "__module__", None) != owner.__module__
        or getattr(function, "__qualname__", None) != f"{owner.__qualname__}.{method}"
        or hasattr(function, "__wrapped__")
    ):
        return False
    _own[kind, method] = found
    return True


_own: dict[tuple[type, str], Any] = {}
