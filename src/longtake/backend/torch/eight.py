"""The arithmetic of weights in 8 bits, on PyTorch: made, widened, multiplied.

A weight (O, I) is its codes (O, I), in int8 or an 8-bit float, times a step for each row (O, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtake.backend.torch import runtime
from longtake.errors import BackendError

__all__ = ["check", "codes", "finite", "multiply", "read_code", "steps", "through", "widened"]

LARGEST = {"int8": 127.0, "float8_e4m3fn": 448.0}
"""The largest code of each kind that weights are made into."""
KINDS = {"int8": torch.int8, "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
PIECE = 2**18
"""So many values of a weight are worked on at once when it is made: they stay in a processor's cache, and an allocator
takes memory for such pieces apart from that of whole weights, so that no holes are left between these."""
PRODUCTS = 2**26
"""So many results of a product of codes are held at once, each in 4 bytes."""


def steps(weight: Tensor, kind: str) -> Tensor:
    """The step of each row, (O, 1) float32, so that its largest value has the largest code; not finite if one is not.

    Each is a bfloat16 number, rounded up: no dtype that a network computes in rounds it again. A row of zeros has 1.
    """
    highest = torch.cat([rows.float().abs().amax(1, keepdim=True) for rows in _rows(weight)])
    bits = (highest / LARGEST[kind]).view(torch.int32)
    step = ((bits + 0xFFFF) & -0x10000).view(torch.float32)
    return torch.where(step == 0, 1.0, step)


def codes(weight: Tensor, step: Tensor, kind: str) -> Tensor:
    """The codes of a weight (O, I) for its steps (O, 1), each the nearest; of two as near, the even one."""
    made = torch.empty(weight.shape, dtype=KINDS[kind], device=weight.device)
    for rows, own, place in zip(_rows(weight), _rows(step, weight), _rows(made), strict=True):
        exact = rows.float() / own
        place.copy_(exact.round_() if kind == "int8" else exact)
    return made


def finite(code: Tensor, kind: str) -> bool:
    """Tell if all codes, of any kind, are numbers."""
    if kind == "int8":
        return True
    # Without the sign, what is no number has the highest bytes.
    first = 0x7F << 1 if kind == "float8_e4m3fn" else 0x7C << 1
    return all(int((rows << 1).max()) < first for rows in _rows(code.view(torch.uint8)) if rows.numel())


def read_code(file: Path, name: str, device: Any = None) -> Tensor:
    """The codes of a weight in a file; mapped if the device is the CPU."""
    return next(runtime.read_safetensors(file, [name], None, device))[1]


def widened(code: Tensor, step: Tensor, kind: str) -> Tensor:
    """The numbers that these codes stand for, in the dtype of the steps."""
    if kind == "int8" or code.device.type != "cpu":
        return code.to(step.dtype).mul_(step)
    # PyTorch's own cast takes five times as long. The bits of a float8 are some of a float16.
    half = code.view(torch.int8).to(torch.int16)
    if kind == "float8_e5m2":
        return (half << 8).view(torch.float16).to(step.dtype).mul_(step)
    half = ((half << 7) & -0x4001).view(
        torch.float16
    )  # the sign's copy is taken out; the exponent is 8 too small
    return half.to(step.dtype).mul_(256).mul_(step)


def multiply(x: Tensor, code: Tensor, step: Tensor, bias: Tensor | None, kind: str) -> Tensor:
    """x · weightᵀ + bias, where the activations (…, I) get codes too, one step for each token: 8-bit products.

    Rounding has no gradient; what comes back to `x` is that of the product with the widened weight.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        made: Tensor = _Product.apply(x, code, step, bias, kind)  # type: ignore[no-untyped-call]
        return made
    return _multiply(x, code, step, bias, kind)


def _multiply(x: Tensor, code: Tensor, step: Tensor, bias: Tensor | None, kind: str) -> Tensor:
    flat = x.reshape(-1, x.shape[-1])
    rows = max(32, PRODUCTS // code.shape[0])
    pieces = []
    for piece in flat.split(rows):
        wide = piece.float()
        own = (wide.abs().amax(1, keepdim=True) / LARGEST[kind]).clamp_min(1e-30)
        exact = wide / own
        if kind == "int8":
            out = _int8(exact.round_().to(torch.int8), code).float().mul_(own).mul_(step.float().T)
        else:
            out = _float8(exact.to(KINDS[kind]), code, own, step.float())
        pieces.append((out if bias is None else out.add_(bias)).to(x.dtype))
    joined = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
    return joined.reshape(*x.shape[:-1], code.shape[0])


def _int8(a: Tensor, b: Tensor) -> Tensor:
    """Sums in int32."""
    if a.device.type != "cuda":
        return torch._int_mm(a, b.T)
    return torch._int_mm(_even(a, 32), _even(b, 16).T)[: a.shape[0], : b.shape[0]]


def _float8(a: Tensor, b: Tensor, a_step: Tensor, b_step: Tensor) -> Tensor:
    """NVIDIA's kernel with steps by row gives bfloat16 alone, and adds in less than float32 where that is faster."""
    if a.device.type != "cuda":
        return torch._scaled_mm(a, b.T, a_step, b_step.T.contiguous(), out_dtype=torch.float32)
    wide, steps = _even(b, 16), _even(b_step, 16, side=1)
    out = torch._scaled_mm(
        _even(a, 1), wide.T, scale_a=a_step, scale_b=steps.T.contiguous(), out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )  # fmt: skip
    return out[:, : b.shape[0]]


def _even(x: Tensor, rows: int, side: int = 16) -> Tensor:
    """`x` with zeros behind, to multiples of so many rows and columns: NVIDIA's kernels take no others."""
    more = (-x.shape[0] % rows, -x.shape[1] % side)
    if more == (0, 0):
        return x
    # Of 8-bit floats the bytes: their zero is 0, and they cannot be padded themselves.
    bare = x.view(torch.uint8) if x.itemsize == 1 else x
    return torch.nn.functional.pad(bare, (0, more[1], 0, more[0])).view(x.dtype)


class _Product(torch.autograd.Function):
    """`_multiply` with a gradient for its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, code: Tensor, step: Tensor, bias: Tensor | None, kind: str) -> Tensor:
        ctx.save_for_backward(code, step)
        ctx.kind = kind
        return _multiply(x, code, step, bias, kind)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        code, step = ctx.saved_tensors
        return gradients[0] @ widened(code, step.to(gradients[0].dtype), ctx.kind), None, None, None, None


def through(x: Tensor, product: Callable[[Tensor], Tensor], full: Callable[[], Tensor]) -> Tensor:
    """`product(x)`, the product of x (…, I) with a weight (O, I) that `full` widens; what is before it may learn.

    PyTorch would keep the widened weight of every layer for the gradient of `x`, which is the whole network in numbers
    of 16 bits; here it is widened again when that gradient comes. The weight itself gets none.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return product(x)
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    made: Tensor = _Through.apply(x, product, full)  # type: ignore[no-untyped-call]
    return made


class _Through(torch.autograd.Function):
    """A product with a weight that is widened twice and never kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, product: Callable[[Tensor], Tensor], full: Callable[[], Tensor]
    ) -> Tensor:
        ctx.full = full
        return product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0] @ ctx.full().to(gradients[0].dtype), None, None


def check(kind: str, device: Any, dynamic: bool) -> None:
    """Raise BackendError if weights of this kind cannot be used on the device: a small product is tried there."""
    where = torch.device("cpu" if device is None else device)
    words = "multiplies numbers of 8 bits" if dynamic else "holds weights in 8 bits"
    try:
        with torch.no_grad():
            x = torch.ones(32, 32, device=where)
            step = steps(x, kind)
            code = codes(x, step, kind)
            made = multiply(x, code, step, None, kind) if dynamic else x @ widened(code, step, kind).T
            float(made.sum())
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        other = "the form without -dynamic" if dynamic else "int8, or no quantisation"
        raise BackendError(
            f"This form {words} ({kind}), which PyTorch cannot on {str(where)!r} here ({reason}); take {other}."
        ) from error


def _rows(tensor: Tensor, like: Tensor | None = None) -> tuple[Tensor, ...]:
    """The tensor in pieces of some rows; as many rows as pieces of `like` have."""
    width = max(1, (tensor if like is None else like).shape[1])
    return tensor.split(max(1, PIECE // width))
