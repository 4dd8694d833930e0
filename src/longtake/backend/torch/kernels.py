"""The kernels that attention runs on, on PyTorch: what there is, which one is asked for, and a context that asks.

Everybody calls `ops.attention`; inside `attending` it runs on the kernel that is named there. That is known to the
thread alone, so that two streams beside each other run on their own. In compiled code the kernel is an operator of
ours, which looks at its run what is asked: another kernel compiles nothing anew.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from longtake.errors import BackendError

__all__ = ["attending", "check", "chosen"]

Kernel = Callable[[Tensor, Tensor, Tensor, "Tensor | None", bool, "float | None"], Tensor]
"""(query, key, value, mask, causal, scale) -> attention over (B, heads, L, D)."""

SDPA = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
"""PyTorch's own, fastest first where cuDNN is fastest."""
PACKAGES = {
    "sage": "sageattention",
    "fa3": "flash_attn_interface",
    "flash-attn": "flash_attn",
    "xformers": "xformers",
}
"""Kernels of other libraries, by the module that they need."""
HALF_ONLY = ("cudnn", "flash", "sage", "fa3", "flash-attn")
"""Those that compute nothing but half precision on CUDA."""
CUDNN_FIRST = (9, 10)
"""Compute capabilities (Hopper, Blackwell) on which cuDNN is up to twice as fast as PyTorch's first choice."""


def native(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """PyTorch's attention, by whichever of its kernels it takes."""
    gqa = key.shape[1] != query.shape[1]
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=gqa
    )


class _Here(threading.local):
    """The kernel of this thread's attention: PyTorch's own choice, or (`own`) a kernel that somebody asked for."""

    own = False
    kernel: Kernel = staticmethod(native)


here = _Here()


def found(device: Any) -> tuple[str, ...]:
    """The names of the kernels that there are for a device."""
    kind = torch.device(device).type
    if kind == "cpu":
        return ("native", "flash", "math")
    if kind != "cuda":
        return ("native",)
    own = [name for name in SDPA if name != "cudnn" or torch.backends.cudnn.is_available()]
    return ("native", *own, *(name for name, module in PACKAGES.items() if importlib.util.find_spec(module)))


def chosen(name: str, device: Any) -> str:
    """The kernel for a name: "auto" is the fastest that changes nothing beyond rounding, "native" PyTorch's choice."""
    if name != "auto":
        return name
    device = torch.device(device)
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] in CUDNN_FIRST
    return "cudnn first" if fast and "cudnn" in found(device) else "native"


def check(name: str, device: Any, dtype: Any = None) -> None:
    """Raise BackendError if attention cannot run on this kernel, on this device and in this dtype (or its name)."""
    device, there = torch.device(device), found(device)
    if name != "auto" and name not in there:
        known = name in ("native", *SDPA, *PACKAGES)
        missing = f"; it needs the package {PACKAGES[name]} and a CUDA device" if name in PACKAGES else ""
        what = "is not there" if known else "is not known"
        raise BackendError(
            f"The attention kernel {name!r} {what} for {device.type}{missing}; there are: auto, {', '.join(there)}."
        )
    wide = dtype is not None and str(dtype).removeprefix("torch.") == "float32"
    if name in HALF_ONLY and device.type == "cuda" and wide:
        raise BackendError(
            f"The attention kernel {name!r} computes half precision alone, and the network is float32; "
            "choose --dtype bfloat16, or another kernel."
        )


@contextmanager
def attending(name: str, device: Any) -> Iterator[None]:
    """Inside, in this thread, `ops.attention` runs on the kernel of this name; "auto" is the best for the device."""
    name = chosen(name, device)
    if name == "native" or torch.compiler.is_compiling():
        yield
        return
    check(name.removesuffix(" first"), device)
    with around(_kernel(name)):
        yield


@contextmanager
def around(kernel: Kernel) -> Iterator[None]:
    """Inside, and in this thread, `ops.attention` is this function."""
    _operator()
    before = here.own, here.kernel
    here.own, here.kernel = True, kernel
    try:
        yield
    finally:
        here.own, here.kernel = before


def compiled(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """The attention of `here` in code that is compiled: one operator, whatever it runs on."""
    return torch.ops.longtake.attention(query, key, value, mask, causal, scale).permute(0, 2, 1, 3)


# Kernels ------------------------------------------------------------------------------------------------------------


@functools.cache
def _kernel(name: str) -> Kernel:
    if name == "cudnn first":
        return functools.partial(_by_pytorch, None, tuple(SDPA.values()))
    if name in SDPA:
        return functools.partial(_by_pytorch, name, tuple(sorted(SDPA.values(), key=SDPA[name].__ne__)))
    return {"sage": _sage, "fa3": _fa3, "flash-attn": _flash_attn, "xformers": _xformers}[name]


# PyTorch keeps its order of kernels for the whole process: one thread at a time sets it, and sets it back.
_order = threading.RLock()


def _by_pytorch(
    only: str | None,
    order: tuple[SDPBackend, ...],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float | None,
) -> Tensor:
    """PyTorch's attention by its own kernels in this order; with `only`, BackendError if that one cannot do it."""
    # A CPU has no order, but two kernels that can be there or not.
    order = order[:1] if query.device.type == "cpu" and only == "math" else order
    with _order, sdpa_kernel(list(order), set_priority=True):
        if only is not None:
            gqa = key.shape[1] != query.shape[1]
            taken = torch._fused_sdp_choice(query, key, value, mask, 0.0, causal, scale=scale, enable_gqa=gqa)
            if taken != SDPA[only].value:
                raise _cannot(only, query, mask)
        return native(query, key, value, mask, causal, scale)


def _sage(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """SageAttention: queries and keys in int8, which changes frames beyond rounding."""
    from sageattention import sageattn

    _check_no_mask("sage", query, mask)
    return sageattn(query, key, value, tensor_layout="HND", is_causal=causal, sm_scale=scale)


def _fa3(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """FlashAttention 3, for Hopper."""
    from flash_attn_interface import flash_attn_func

    _check_no_mask("fa3", query, mask)
    seen = flash_attn_func(*_by_token(query, key, value), softmax_scale=scale, causal=causal)
    # Some releases return the sums of the softmax beside it.
    return (seen[0] if isinstance(seen, tuple) else seen).permute(0, 2, 1, 3)


def _flash_attn(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """FlashAttention 2."""
    from flash_attn import flash_attn_func

    _check_no_mask("flash-attn", query, mask)
    seen: Tensor = flash_attn_func(*_by_token(query, key, value), softmax_scale=scale, causal=causal)
    return seen.permute(0, 2, 1, 3)


def _xformers(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """xformers' attention."""
    import xformers.ops as xops

    _check_no_mask("xformers", query, mask)
    bias = xops.LowerTriangularMask() if causal else None
    seen: Tensor = xops.memory_efficient_attention(*_by_token(query, key, value), attn_bias=bias, scale=scale)
    return seen.permute(0, 2, 1, 3)


def _by_token(*tensors: Tensor) -> tuple[Tensor, ...]:
    """(B, heads, L, D) -> (B, L, heads, D)."""
    return tuple(each.permute(0, 2, 1, 3) for each in tensors)


def _check_no_mask(name: str, query: Tensor, mask: Tensor | None) -> None:
    if mask is not None:
        raise _cannot(name, query, mask)


def _cannot(name: str, query: Tensor, mask: Tensor | None) -> BackendError:
    masked = ", with a mask, since texts of several lengths lie side by side" if mask is not None else ""
    return BackendError(
        f"The attention kernel {name!r} cannot compute {query.shape[1]} heads of {query.shape[3]} in "
        f"{str(query.dtype).removeprefix('torch.')}{masked}; --attention auto takes one that can."
    )


# Compiled code --------------------------------------------------------------------------------------------------------


@functools.cache
def _operator() -> None:
    """Make `torch.ops.longtake.attention`; at its first use, since a program without kernels needs none."""

    def run(
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float | None
    ) -> Tensor:
        seen = here.kernel(query, key, value, mask, causal, scale)
        return seen.permute(0, 2, 1, 3).contiguous()

    def shape(
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float | None
    ) -> Tensor:
        batch, heads, length = query.shape[:3]
        return query.new_empty(batch, length, heads, value.shape[-1])

    schema = "(Tensor query, Tensor key, Tensor value, Tensor? mask, bool causal, float? scale) -> Tensor"
    torch.library.custom_op("longtake::attention", run, mutates_args=(), schema=schema).register_fake(shape)
