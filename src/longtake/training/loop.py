"""The training loop: evaluate, save, stop?, step, log. Its state lies in one safetensors file, so it can go on."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from longtake.backend import training


class Stage(Protocol):
    """What the loop needs to know of what is trained."""

    name: str
    rate: float
    average: float
    plain: tuple[str, ...]
    networks: dict[str, Any]

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Any, dict[str, float]]: ...

    def report(self, sheets: Path) -> dict[str, float]: ...


def learning_rate(peak: float, step: int, progress: float, warmup: int = 100, cooldown: float = 0.4) -> float:
    """Linear warm-up, a plateau, then a linear descent to zero over the last `cooldown` of the time."""
    return peak * min(1.0, (step + 1) / warmup, max(1e-3, (1 - progress) / cooldown))


def run(
    stage: Stage, folder: Path, minutes: float, seed: int = 0, resume: bool = True, report_every: float = 10.0
) -> dict[str, float]:
    """Train `stage` for `minutes` in all (those of earlier runs count in) and return the last report.

    Writes under `folder`: NAME.safetensors (all state), NAME.jsonl (the log), NAME-*.png (sample sheets).
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, log = folder / f"{stage.name}.safetensors", folder / f"{stage.name}.jsonl"
    parameters = {
        f"{key}/{name}": p for key, net in stage.networks.items() for name, p in net.named_parameters()
    }
    parameters = {name: p for name, p in parameters.items() if p.requires_grad}
    optimiser = training.Optimiser(parameters, average=stage.average, plain=stage.plain)
    spent = 0.0
    if resume and checkpoint.exists():
        tensors, metadata = training.load_tensors(checkpoint)
        optimiser.load_state(tensors)
        spent = float(metadata["seconds"])
    rng = np.random.default_rng((seed, optimiser.steps))
    reported = spent
    began = time.monotonic() - spent
    sums: dict[str, float] = {}
    counted = 0
    while True:
        spent = time.monotonic() - began
        progress = min(1.0, spent / (60 * minutes))
        if progress == 1.0 or spent - reported > 60 * report_every:
            reported = spent
            training.save_tensors(checkpoint, optimiser.state(), {"seconds": str(spent)})
            with optimiser.averaged():
                figures = stage.report(folder / f"{stage.name}-{optimiser.steps:06d}.png")
            write_line(log, {"step": optimiser.steps, "minutes": round(spent / 60, 2), **figures})
            if progress == 1.0:
                export(optimiser, stage)
                return figures
        loss, parts = stage.loss(rng, progress)
        rate = learning_rate(stage.rate, optimiser.steps, progress)
        norm = optimiser.step(loss, rate)
        if not math.isfinite(norm):
            raise FloatingPointError(f"The gradient of step {optimiser.steps} is not finite.")
        for key, value in {"loss": float(loss.detach()), "gradient": norm, **parts}.items():
            sums[key] = sums.get(key, 0.0) + value
        counted += 1
        if counted == 50:
            means = {key: float(f"{value / counted:.4g}") for key, value in sums.items()}
            write_line(log, {"step": optimiser.steps, "minutes": round(spent / 60, 2), "rate": rate, **means})
            sums, counted = {}, 0


def export(optimiser: Any, stage: Stage) -> None:
    """Leave the averages in the networks."""
    with optimiser.averaged():
        kept = {name: p.detach().clone() for name, p in optimiser.parameters.items()}
    for name, parameter in optimiser.parameters.items():
        training.fill(parameter, kept[name])


def write_line(path: Path, values: dict[str, Any]) -> None:
    """Append one JSON object to the log."""
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")
