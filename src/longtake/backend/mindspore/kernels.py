"""The kernels that attention runs on, on MindSpore: the device's one, and nothing to choose.

On Ascend it is `flash_attention_score`, elsewhere products and softmax; graphs are compiled around it (`ops.flash`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from longtake.backend.mindspore import ops
from longtake.errors import BackendError

__all__ = ["attending", "check", "chosen"]


def found(device: Any) -> tuple[str, ...]:
    """The names of the kernels that there are for a device."""
    return ("native", "flash" if ops.flash else "math")


def chosen(name: str, device: Any) -> str:
    """The kernel for a name: "auto" and "native" are the device's one."""
    return found(device)[1] if name in ("auto", "native") else name


def check(name: str, device: Any, dtype: Any = None) -> None:
    """Raise BackendError if attention cannot run on this kernel, on this device and in this dtype."""
    there = found(device)
    if name != "auto" and name not in there:
        raise BackendError(
            f"The attention kernel {name!r} is not there on MindSpore, which has one for each device; "
            f"there are: auto, {', '.join(there)}."
        )


def attending(name: str, device: Any) -> AbstractContextManager[None]:
    """Inside, `ops.attention` runs on the kernel of this name: on the one that there is."""
    check(name, device)
    return nullcontext()
