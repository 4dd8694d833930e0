"""What training takes, on PyTorch: optimiser, mixed precision, checkpoints of tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from longtake.backend.torch.runtime import dtype

__all__ = [
    "Optimiser",
    "autocast",
    "channels_last",
    "fill",
    "load_tensors",
    "orthogonalised",
    "save_tensors",
    "seed_everything",
    "set_threads",
]


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

    `plain` names parameters that AdamW takes in any case (embeddings, say). Muon's step is scaled to the size of
    AdamW's, so that one rate serves both (Liu et al., Muon is Scalable, 2025). Everything held here can be written
    to, and read from, a safetensors file (`state`, `load_state`).
    """

    def __init__(
        self,
        parameters: dict[str, torch.nn.Parameter],
        weight_decay: float = 0.01,
        average: float = 0.999,
        plain: tuple[str, ...] = (),
    ) -> None:
        self.parameters = parameters
        self.muon = [n for n, p in parameters.items() if p.ndim > 1 and not any(word in n for word in plain)]
        others = [p for n, p in parameters.items() if n not in set(self.muon)]
        self.adam = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.momenta = {name: torch.zeros_like(parameters[name]) for name in self.muon}
        self.weight_decay = weight_decay
        self.decay = average
        self.averages = {name: p.detach().clone() for name, p in parameters.items()}
        self.steps = 0

    def step(self, loss: torch.Tensor, rate: float, clip: float = 1.0) -> float:
        """One update down the gradient of `loss`; returns the norm of the gradient before clipping."""
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), clip)
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
            for parameter in self.parameters.values():
                parameter.grad = None
            self.steps += 1
            decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
            torch._foreach_lerp_(list(self.averages.values()), list(self.parameters.values()), 1 - decay)
        return float(norm)

    def state(self) -> dict[str, torch.Tensor]:
        """Parameters, their averages and the optimiser's moments, by name."""
        tensors = {"steps": torch.tensor(self.steps)}
        for name, parameter in self.parameters.items():
            tensors[f"parameter/{name}"] = parameter.detach()
            tensors[f"average/{name}"] = self.averages[name]
            if name in self.momenta:
                tensors[f"momentum/{name}"] = self.momenta[name]
            for key, value in self.adam.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = value
        return tensors

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        self.steps = int(tensors["steps"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"parameter/{name}"])
                self.averages[name].copy_(tensors[f"average/{name}"])
                if name in self.momenta:
                    self.momenta[name].copy_(tensors[f"momentum/{name}"])
                if f"step/{name}" in tensors:
                    moments = ("step", "exp_avg", "exp_avg_sq")
                    self.adam.state[parameter] = {key: tensors[f"{key}/{name}"].clone() for key in moments}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters hold their averages."""
        kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.averages[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(kept[name])


def best_device() -> str:
    """The accelerator where there is one, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def autocast(value: Any) -> Any:
    """Inside, matrix products and convolutions work in the dtype `value`."""
    device = best_device()
    return torch.autocast(device, dtype(value), enabled=dtype(value) != torch.float32)


def set_threads(count: int) -> None:
    """Use `count` processor threads."""
    torch.set_num_threads(count)


def channels_last(value: Any) -> Any:
    """A network or a 5-D tensor with its channels innermost in memory: faster convolutions on CPUs."""
    return value.to(memory_format=torch.channels_last_3d)


def seed_everything(seed: int) -> None:
    """Seed the framework's global generator (for training)."""
    torch.manual_seed(seed)


def save_tensors(path: Any, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file at once: a reader sees the old file or the new one, never a half."""
    from safetensors.torch import save_file

    partial = f"{path}.partial"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata)
    os.replace(partial, path)


def load_tensors(path: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def fill(parameter: Any, values: Any) -> None:
    """Put the array's values into a parameter."""
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(values))
