"""The LoRAs of a job on its transformer, for as long as the job runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from longtake.errors import JobError
from longtake.job import Lora
from longtake.models import adapters
from longtake.weights.lora import DIFFUSERS_FILE, PEFT_FILE, find_file, read_lora

Strengths = Mapping[str, Sequence[float]]
"""By adapter: how strong it is in each section in the order of the video's time; the last one repeats."""


def free_name(transformer: Any, source: Any) -> str:
    """A name for an adapter that is not taken yet, after its file (or its folder, where files are all called alike)."""
    if isinstance(source, Mapping):
        stem = "lora"
    else:
        # Not resolved: the hub's cache links to files that are called by numbers.
        alike = source.name in (DIFFUSERS_FILE, PEFT_FILE)
        stem = source.absolute().parent.name if alike else source.stem
    stem = stem.replace(".", "_") or "lora"
    taken = set(adapters.names(transformer))
    candidates = (stem if number == 1 else f"{stem}_{number}" for number in range(1, len(taken) + 2))
    return next(name for name in candidates if name not in taken)


@contextmanager
def applied(loras: Sequence[Lora], transformer: Any) -> Iterator[dict[str, Sequence[float]]]:
    """Inside, the transformer has these LoRAs, at their first weights; gives what `Strengths` says of them.

    Everything is read before anything is attached. What was attached before stays, and stays in use.
    """
    if loras and not adapters.enabled(transformer):
        raise JobError(
            "This transformer's adapters are disabled, so that a LoRA would do nothing; enable_lora first."
        )
    attached: dict[str, Sequence[float]] = {}
    shapes = adapters.shapes(transformer) if loras else {}
    found = [find_file(lora.path) for lora in loras]
    read = [read_lora(file, shapes) for file in found]
    try:
        for lora, file, changes in zip(loras, found, read, strict=True):
            name = free_name(transformer, file)
            adapters.attach(transformer, name, changes, lora.weights[0])
            attached[name] = lora.weights
        yield attached
    finally:
        if attached:
            adapters.detach(transformer, attached)


def set_for_section(transformer: Any, strengths: Strengths, number: int) -> None:
    """Give each adapter its strength in the section that is `number` in the video's time."""
    now = {name: each[min(number, len(each) - 1)] for name, each in strengths.items() if len(each) > 1}
    if now:
        adapters.set_strengths(transformer, now)
