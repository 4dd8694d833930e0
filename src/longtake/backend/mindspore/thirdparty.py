"""Linear layers in the forms of other libraries: none of them knows MindSpore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longtake.errors import BackendError

__all__ = ["of_bitsandbytes", "of_torchao"]


def of_torchao(layer: Any, config: Any) -> Any:
    """Refused."""
    raise _of_torch("torchao")


def of_bitsandbytes(layer: Any, settings: Mapping[str, Any]) -> Any:
    """Refused."""
    raise _of_torch("bitsandbytes")


def _of_torch(name: str) -> BackendError:
    return BackendError(
        f"{name} is a library of PyTorch's, and longtake runs on MindSpore here; take longtake's own form: "
        "{'quant_method': 'longtake', 'form': 'int8'}."
    )
