"""The LoRAs of a job on its transformer, for as long as the job runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from longtake.errors import JobError
from longtake.job import Lora
from longtake.models import adapters
from longtake.weights.lora import DIFFUSERS_FILE, PEFT_FILE, find_file, read_lora

OF_A_JOB = "job:"
"""How the names of adapters begin that a running job has attached, and that no other job may use."""


def free_name(transformer: Any, source: Any, prefix: str = "") -> str:
    """A name for an adapter that is not taken yet, after its file (or its folder, where files are all called alike)."""
    if isinstance(source, Mapping):
        stem = "lora"
    else:
        # Not resolved: the hub's cache links to files that are called by numbers.
        alike = source.name in (DIFFUSERS_FILE, PEFT_FILE)
        stem = source.absolute().parent.name if alike else source.stem
    stem = prefix + (stem.replace(".", "_") or "lora")
    taken = set(adapters.names(transformer))
    candidates = (stem if number == 1 else f"{stem}_{number}" for number in range(1, len(taken) + 2))
    return next(name for name in candidates if name not in taken)


@contextmanager
def applied(loras: Sequence[Lora], transformer: Any) -> Iterator[tuple[str, ...]]:
    """Inside, the transformer has these LoRAs, at no strength yet; gives the names of their adapters.

    Everything is read before anything is attached. What was attached before stays, and stays in use.
    """
    if loras and not adapters.enabled(transformer):
        raise JobError(
            "This transformer's adapters are disabled, so that a LoRA would do nothing; enable_lora first."
        )
    attached: list[str] = []
    shapes = adapters.shapes(transformer) if loras else {}
    files = [find_file(lora.path) for lora in loras]
    read = [read_lora(file, shapes) for file in files]
    try:
        for file, changes in zip(files, read, strict=True):
            name = free_name(transformer, file, OF_A_JOB)
            adapters.attach(transformer, name, changes, 0.0)
            attached.append(name)
        yield tuple(attached)
    finally:
        if attached:
            adapters.detach(transformer, attached)


def set_strengths(transformer: Any, own: Mapping[str, float]) -> None:
    """Give a job's own adapters their strengths, and those of other jobs none, so that no stream sees another's."""
    if not adapters.revision(transformer):
        return  # there never was an adapter
    present = [name for name in adapters.names(transformer) if name.startswith(OF_A_JOB)]
    if present:
        adapters.set_strengths(transformer, {name: own.get(name, 0.0) for name in present})
