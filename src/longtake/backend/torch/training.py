"""The tools of training, on PyTorch: optimiser, mixed precision, the device to train on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
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
    "gradient_error",
    "learning",
    "orthogonalised",
    "own",
    "recomputed",
    "seed_everything",
    "set_threads",
    "tensorboard",
]

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""The names under which AdamW keeps its state."""


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


class Optimiser:
    """Muon for matrices and convolutions, AdamW for the rest; clipping, and a moving average of the parameters.

    `plain` names parameters that AdamW takes in any case (embeddings, say); without `muon` it takes all of them, and
    the weight decay too. Muon's step is scaled to the size of AdamW's, so that one rate serves both (Liu et al., Muon
    is Scalable, 2025); torch.optim.Muon makes the same step, of matrices alone. An `average` of 0 keeps none. `state`
    is all that is held here, by name, as a file of tensors takes it; after `load_state` the steps are those that would
    have followed.
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
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), clip))
        if not math.isfinite(norm):
            self._forget_gradients()
            raise RunError(
                f"The gradient of step {self.steps} is not finite (loss {loss:g}) and was not used; "
                "go on from the last checkpoint with a lower learning rate.",
                step=self.steps,
            )
        if self.adam is not None:
            for group in self.adam.param_groups:
                group["lr"] = rate
            self.adam.step()
        with torch.no_grad():
            for name in self.muon:
                parameter, momentum = self.parameters[name], self.momenta[name]
                if parameter.grad is None:
                    continue
                momentum.lerp_(parameter.grad, 0.05)
                size = max(parameter.shape[0], parameter[0].numel())
                update = orthogonalised(torch.lerp(parameter.grad, momentum, 0.95))
                parameter.mul_(1 - rate * self.weight_decay).add_(update, alpha=-0.2 * rate * size**0.5)
            self.steps += 1
            decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
            if self.averages:
                torch._foreach_lerp_(list(self.averages.values()), list(self.parameters.values()), 1 - decay)
        self._forget_gradients()
        return norm

    def _forget_gradients(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, torch.Tensor]:
        """Parameters, their averages and the optimiser's moments, by name."""
        tensors = {"steps": torch.tensor(self.steps)}
        for name, parameter in self.parameters.items():
            tensors[f"parameter/{name}"] = parameter.detach()
            if self.averages:
                tensors[f"average/{name}"] = self.averages[name]
            if name in self.momenta:
                tensors[f"momentum/{name}"] = self.momenta[name]
            elif self.adam is not None:
                for key, value in self.adam.state.get(parameter, {}).items():
                    tensors[f"{key}/{name}"] = value
        return tensors

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
                parameter.copy_(tensors[f"parameter/{name}"])
                if self.averages:
                    self.averages[name].copy_(tensors[f"average/{name}"])
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
    return torch.empty_like(parameter).copy_(values)


def best_device() -> str:
    """The accelerator, if there is one, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def autocast(value: Any, device: Any) -> Iterator[None]:
    """Inside, matrix products and convolutions of tensors on `device` work in the dtype `value`.

    Attention on a CPU keeps to float32: PyTorch's backward pass for half precision takes more than twice as long there.
    """
    kind = torch.device(device).type
    with ExitStack() as stack:
        if kind == "cpu":
            stack.enter_context(kernels.around(_wide_attention))
        stack.enter_context(torch.autocast(kind, dtype(value), enabled=dtype(value) != torch.float32))
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
