"""The room for a training: what is counted (`memory`) against what this machine has."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from longtake.backend import runtime, transfer
from longtake.errors import JobError, LongtakeWarning
from longtake.machine import Machine, is_cpu
from longtake.models.transformer import SLOTS
from longtake.pipeline.allowance import free_memory
from longtake.pipeline.budget import GB, gigabytes
from longtake.pipeline.working import Work
from longtake.plan.layout import LATENT_PIXELS
from longtake.plan.plans import kind_named
from longtake.training import cures, memory
from longtake.training.memory import Run
from longtake.training.settings import Settings

SECTIONS = 3
"""Sections of a plan that see all that any of its sections sees."""
Size = tuple[int, int]
"""Width and height in pixels."""


def run_of(
    settings: Settings,
    samplings: Sequence[str],
    size: Size,
    learns: int,
    dtype: str,
    quantize: str = "none",
    device: Any = "cpu",
    shared: int = 1,
) -> Run:
    """The demand of a fine-tuning on one device's memory; `dtype` is that of the transformer's weights."""
    computes = dtype
    if dtype == "float32" and settings.precision != "float32":
        computes = runtime.auto_dtype(device) if settings.precision == "auto" else settings.precision
    return Run(
        Work(*size, settings.window, seen(samplings, settings.window), settings.batch),
        dtype, quantize, learns, 0 if settings.whole else settings.rank, computes, settings.optimiser,
        settings.average > 0, settings.gradient_checkpointing, is_cpu(device), shared,
    )  # fmt: skip


def seen(samplings: Iterable[str], window: int) -> dict[int, int]:
    """The most clean frames that a section of these plans sees, by scale.

    >>> seen(["inverted"], 9), seen(["repeat"], 9)
    ({1: 2, 2: 2, 4: 16}, {1: 1})
    """
    found: dict[int, int] = {}
    for name in samplings:
        for section in kind_named(name).lay_out(SECTIONS, window, False):
            for scale, slot in section.slots.items():
                found[scale] = max(found.get(scale, 0), len(slot.frames))
    return {scale: found[scale] for scale in sorted(found) if scale in SLOTS}


def largest(shapes: Iterable[tuple[int, ...]]) -> Size:
    """The size of the largest of latents (…, h, w), in pixels."""
    height, width = max((shape[-2:] for shape in shapes), key=lambda sides: sides[0] * sides[1])
    return width * LATENT_PIXELS, height * LATENT_PIXELS


def allowed(machine: Machine, device: Any) -> float | None:
    """The bytes that a training may take on the device; None if nobody knows."""
    if is_cpu(device):
        return free_memory() if machine.memory is None else machine.memory * GB
    if machine.vram is not None:
        return machine.vram * GB
    known = transfer.device_memory(device)
    return None if known is None else float(known[0])


def reckoned(config: Any, run: Run, room: float | None) -> tuple[str, ...]:
    """The needs of the training, in words. Raises JobError if what is counted exactly is more than there is.

    If it is too much with the activations, which are counted to about a fifth, it is a warning.
    """
    lacking = None if room is None else cures.lacking(config, run, room)
    if lacking is not None:
        assert room is not None
        if memory.needs(config, run).kept > room:
            raise JobError(lacking)
        warnings.warn(lacking, LongtakeWarning, stacklevel=3)
    there = () if room is None else (f"{gigabytes(room)} are there",)
    return (*cures.sentences(config, run), *there)
