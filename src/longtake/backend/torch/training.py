"""The tools of training, on PyTorch: optimiser, mixed precision, the device to train on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from longtake.backend.torch import kernels
from longtake.backend.torch.runtime import dtype
from longtake.errors import RunError

__all__ = [
    "Optimiser",
    "autocast",
    "best_device",
    "channels_last",
    "dropping",
    "fill",
    "gathered",
    "gradient_error",
    "learning",
    "orthogonalised",
    "own",
    "recomputed",
    "seed_everything",
    "set_threads",
    "tensorboard",
    "whole",
]

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""The names under which AdamW keeps its state."""
TOGETHER = 1 << 22
"""Numbers that are orthogonalised in one go."""


def orthogonalised(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Roughly the nearest matrix with singular values 1 (Newton-Schulz; Jordan et al., Muon, 2024)."""
    flat = matrix.flatten(1).to(torch.bfloat16)
    tall = flat.shape[0] > flat.shape[1]
    x = flat.T if tall else flat
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.T if tall else x).to(matrix.dtype).view_as(matrix)


def all_orthogonalised(matrices: Sequence[torch.Tensor], steps: int = 5) -> list[torch.Tensor]:
    """`orthogonalised` of matrices of one shape, in one go: many small products are slower than one of all."""
    if any(type(matrix) is not torch.Tensor for matrix in matrices):  # shared out over processes
        return [orthogonalised(matrix, steps) for matrix in matrices]
    x = torch.stack([matrix.flatten(1).to(torch.bfloat16) for matrix in matrices])
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        square = torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, square, x, beta=3.4445)
    x = x.mT if tall else x
    return [one.to(matrix.dtype).view_as(matrix) for one, matrix in zip(x, matrices, strict=True)]


def alike(parameters: dict[str, torch.nn.Parameter]) -> list[list[str]]:
    """The names of parameters by shape, in lists of which none holds more than `TOGETHER` numbers but of one alone."""
    lists: list[list[str]] = []
    shapes: dict[tuple[int, ...], list[str]] = {}
    for name, parameter in parameters.items():
        found = shapes.get(tuple(parameter.shape))
        if found is None or (len(found) + 1) * parameter.numel() > TOGETHER:
            found = shapes[tuple(parameter.shape)] = []
            lists.append(found)
        found.append(name)
    return lists


class Optimiser:
    """Muon for matrices and convolutions, AdamW for the rest; clipping, and a moving average of the parameters.

    `plain` names parameters that AdamW takes in any case (embeddings, say); without `muon` it takes all of them, and
    the weight decay too. Muon's step is scaled to the size of AdamW's, so that one rate serves both (Liu et al., Muon
    is Scalable, 2025); torch.optim.Muon makes the same step up to bfloat16's rounding, of matrices alone. An `average`
    of 0 keeps none. `state` is all that is held here, by name, as a file of tensors takes it; after `load_state` the
    steps are those that would have followed.
    """

    def __init__(
        self,
        parameters: dict[str, torch.nn.Parameter],
        weight_decay: float = 0.01,
        average: float = 0.999,
        plain: tuple[str, ...] = (),
        muon: bool = True,
        betas: tuple[float, float] = (0.9, 0.98),
    ) -> None:
        self.parameters = parameters
        matrices = [n for n, p in parameters.items() if p.ndim > 1 and not any(word in n for word in plain)]
        self.muon = matrices if muon else []
        others = [p for n, p in parameters.items() if n not in set(self.muon)]
        decay = 0.0 if muon else weight_decay
        # An optimiser of no parameters is refused by torch.
        self.adam = (
            torch.optim.AdamW(others, lr=0.0, betas=betas, weight_decay=decay, fused=True) if others else None
        )
        self.momenta = {name: torch.zeros_like(parameters[name]) for name in self.muon}
        self.alike = alike({name: parameters[name] for name in self.muon})
        self.weight_decay = weight_decay
        self.decay = average
        self.averages = {name: p.detach().clone() for name, p in parameters.items()} if average else {}
        self.steps = 0

    def step(self, loss: torch.Tensor, rate: float, clip: float = 1.0) -> float:
        """One update down the gradient of `loss`; returns the norm of the gradient before clipping.

        Raises RunError for a gradient that is not finite, and updates nothing then.
        """
        self.add(loss)
        return self.update(float(loss.detach()), rate, clip)

    def add(self, loss: torch.Tensor) -> None:
        """Add the gradient of a part of the loss to those of its other parts."""
        loss.backward()

    def update(self, loss: float, rate: float, clip: float = 1.0) -> float:
        """One update down the gradients of a `loss` that were added; returns their norm before clipping."""
        norm = float(whole(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), clip)))
        if not math.isfinite(norm):
            self._forget_gradients()
            raise RunError(
                f"The gradient of step {self.steps} is not finite (loss {loss:g}) and was not used; "
                "the last checkpoint is whole; a lower learning rate, in another folder, is what to try.",
                step=self.steps,
            )
        if self.adam is not None:
            for group in self.adam.param_groups:
                group["lr"] = rate
            self.adam.step()
        with torch.no_grad():
            for names in self.alike:
                self._turn([name for name in names if self.parameters[name].grad is not None], rate)
            self.steps += 1
            decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
            if self.averages:
                torch._foreach_lerp_(list(self.averages.values()), list(self.parameters.values()), 1 - decay)
        self._forget_gradients()
        return norm

    def _turn(self, names: list[str], rate: float) -> None:
        """Muon's step of parameters of one shape."""
        parts = []
        for name in names:
            gradient, momentum = self.parameters[name].grad, self.momenta[name]
            assert gradient is not None
            momentum.lerp_(gradient, 0.05)
            parts.append(torch.lerp(gradient, momentum, 0.95))
        for name, update in zip(names, all_orthogonalised(parts) if parts else (), strict=True):
            parameter = self.parameters[name]
            size = max(parameter.shape[0], parameter[0].numel())
            parameter.mul_(1 - rate * self.weight_decay).add_(update, alpha=-0.2 * rate * size**0.5)

    def _forget_gradients(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self, keep: bool = True) -> dict[str, torch.Tensor]:
        """Parameters, their averages and the optimiser's moments, by name.

        What is shared out between processes is brought together by all of them, one tensor after the other, in the main
        memory of those that `keep` it.
        """
        tensors = {"steps": torch.tensor(self.steps)}
        for name, value in self._tensors():
            found = whole(value, keep)
            if keep:
                tensors[name] = found
        return tensors

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.parameters.items():
            yield f"parameter/{name}", parameter.detach()
            if self.averages:
                yield f"average/{name}", self.averages[name]
            if name in self.momenta:
                yield f"momentum/{name}", self.momenta[name]
            elif self.adam is not None:
                for key, value in self.adam.state.get(parameter, {}).items():
                    yield f"{key}/{name}", value

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` gave; ValueError if that was of other parameters."""
        held = {
            name.removeprefix("parameter/"): t.shape for name, t in tensors.items() if "parameter/" in name
        }
        mine = {name: parameter.shape for name, parameter in self.parameters.items()}
        if held != mine:
            other = sorted(name for name in {**held, **mine} if held.get(name) != mine.get(name))
            raise ValueError(f"it is of other networks; {len(other)} parameters differ, {other[0]!r} first.")
        self.steps = int(tensors["steps"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(_shared(tensors[f"parameter/{name}"], parameter))
                if self.averages:
                    self.averages[name].copy_(_shared(tensors[f"average/{name}"], parameter))
                if name in self.momenta:
                    self.momenta[name].copy_(tensors[f"momentum/{name}"])
                if self.adam is not None and f"step/{name}" in tensors:
                    self.adam.state[parameter] = {
                        key: _laid_out(tensors[f"{key}/{name}"], parameter) for key in MOMENTS
                    }

    def keep_averages(self) -> None:
        """Leave the averages in the parameters."""
        with torch.no_grad():
            for name, average in self.averages.items():
                self.parameters[name].copy_(average)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters hold their averages, if there are any."""
        kept = {name: self.parameters[name].detach().clone() for name in self.averages}
        self.keep_averages()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, values in kept.items():
                    self.parameters[name].copy_(values)


def _laid_out(values: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A copy of AdamW's state on the parameter's device, in its order of memory: fused steps walk both side by side."""
    if values.shape != parameter.shape:
        return values.to(parameter.device, copy=True)
    return torch.empty_like(parameter).copy_(_shared(values, parameter))


def whole(tensor: torch.Tensor, keep: bool = True) -> torch.Tensor:
    """The tensor, or, of one that is shared out between processes, all of it, in main memory if it is to `keep`."""
    if not hasattr(tensor, "full_tensor"):
        return tensor
    found: torch.Tensor = tensor.full_tensor()
    return found.cpu() if keep else found


def _shared(values: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """The values as they lie where the parameter does: its part of them, if that is shared out between processes."""
    if not hasattr(parameter, "full_tensor"):
        return values
    from torch.distributed.tensor import distribute_tensor

    place: Any = parameter
    return distribute_tensor(values.to(place.device), place.device_mesh, place.placements)


@contextmanager
def gathered(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Inside, the modules' own weights are whole, if they are shared out between processes, which all come here."""
    kept = [
        (module, name, weight)
        for module in modules
        for name, weight in module._parameters.items()
        if hasattr(weight, "full_tensor")
    ]
    for module, name, weight in kept:
        module._parameters[name] = torch.nn.Parameter(whole(weight.detach()), requires_grad=False)  # type: ignore[union-attr]
    try:
        yield
    finally:
        for module, name, weight in kept:
            module._parameters[name] = weight


def best_device() -> str:
    """The accelerator, if there is one, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def autocast(value: Any, device: Any, keeps: bool = True) -> Iterator[None]:
    """Inside, matrix products and convolutions of tensors on `device` work in the dtype `value`.

    PyTorch `keeps` the weights in that dtype until the end, in case that one is used again: half as much once more.
    Attention on a CPU keeps to float32: PyTorch's backward pass for half precision takes more than twice as long there.
    """
    kind = torch.device(device).type
    half = dtype(value) != torch.float32
    attention = kernels.around(_wide_attention) if half and kind == "cpu" else nullcontext()
    with attention, torch.autocast(kind, dtype(value), enabled=half, cache_enabled=keeps):
        yield


def _wide_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float | None,
) -> torch.Tensor:
    """PyTorch's attention in float32."""
    wide = mask if mask is None or mask.dtype == torch.bool else mask.float()
    with torch.autocast("cpu", enabled=False):
        seen = kernels.native(query.float(), key.float(), value.float(), wide, causal, scale)
    return seen.to(value.dtype)


def gradient_error(layer: Any, weight: torch.Tensor) -> float:
    """The distance of the gradient that a layer gives its input from that of its weight (O, I), as a share of it.

    Infinite if it gives none; 1 if it is zero, as that of rounding is.
    """
    x = torch.randn(32, weight.shape[1], device=weight.device, dtype=weight.dtype, requires_grad=True)
    wanted = torch.randn(32, weight.shape[0], device=weight.device, dtype=weight.dtype)
    made = layer(x)
    if not made.requires_grad:
        return math.inf
    made.backward(wanted)
    exact = wanted @ weight
    return math.inf if x.grad is None else float((x.grad - exact).norm() / exact.norm())


def recomputed(call: Any, *given: Any) -> Any:
    """`call(*given)`, of which nothing is kept for the gradient but what was given: the rest is made again for it.

    The second time goes by the same kernel of attention, the same mixed precision and the same random numbers, so
    gradients are equal bit for bit. (Chen et al., arXiv 1604.06174.)
    """
    if not torch.is_grad_enabled():
        return call(*given)
    # A gradient is computed in a thread of its own, later, where nobody has asked for a kernel.
    asked, kernel = kernels.here.own, kernels.here.kernel

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), kernels.around(kernel) if asked else nullcontext()

    return checkpoint(call, *given, use_reentrant=False, context_fn=contexts)


@contextmanager
def dropping(modules: Iterable[torch.nn.Module], chance: float) -> Iterator[None]:
    """Inside, each number that comes into one of these modules is left out by this chance, as in LoRA's paper.

    Where no gradient is asked for nothing is learnt, and nothing left out.
    """

    def drop(module: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        left = torch.nn.functional.dropout(given[0], chance) if torch.is_grad_enabled() else given[0]
        return (left, *given[1:])

    hooks = [module.register_forward_pre_hook(drop) for module in modules] if chance else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def learning(model: torch.nn.Module, chosen: Iterable[torch.nn.Parameter]) -> None:
    """Let these parameters learn, and no other of the model."""
    model.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)


def own(model: torch.nn.Module) -> None:
    """Give a network weights of its own, which may be written to: those that were read may lie in a file."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def set_threads(count: int) -> None:
    """Use `count` processor threads."""
    torch.set_num_threads(count)


def channels_last(value: Any) -> Any:
    """A network or a 5-D tensor with its channels innermost in memory: faster convolutions on CPUs."""
    return value.to(memory_format=torch.channels_last_3d)


def seed_everything(seed: int) -> None:
    """Seed the framework's global generator (for training)."""
    torch.manual_seed(seed)


def fill(parameter: Any, values: Any) -> None:
    """Put the array's values into a parameter."""
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(values))


def tensorboard(folder: Any, steps: int) -> Any:
    """A writer of TensorBoard's files; what they say of steps after this one is not shown."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=steps + 1)
