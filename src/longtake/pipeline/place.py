"""`place`: networks within an allowance of memory, whatever they were loaded as."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from longtake.backend import runtime
from longtake.machine import Machine
from longtake.pipeline.networks import NETWORKS, Networks
from longtake.pipeline.placed import Form, Placed, check_vram, placement_of
from longtake.pipeline.placement import Resident


def place(
    networks: Networks,
    vram_gb: float | None = None,
    memory_gb: float | None = None,
    device: Any = None,
    form: Form | None = None,
) -> Networks:
    """The same networks, brought to `device` (an accelerator if there is one) while they run, within these gigabytes.

    What is not said is what is free when a job begins. From now on their weights lie in main memory; what stays on the
    device, what comes block by block and from where is computed for each job, and told by its `Moved` event
    (docs/placement.md). Networks that are not longtake's own stay where they are.

    Raises BackendError for a device that is not here, and for `vram_gb` without an accelerator; JobError for other
    gigabytes than there can be.
    """
    Machine(vram=vram_gb, memory=memory_gb).check()
    device = runtime.check_device("auto" if device is None else device)
    check_vram(vram_gb, device)
    parts = {name: getattr(networks, name) for name in NETWORKS}
    before = placement_of(parts)
    if before is not None:
        before.release()
    placed = Placed(parts, device, vram_gb, memory_gb, form)
    return replace(networks, placement=placed)


def unplace(networks: Networks) -> Networks:
    """The same networks in main memory, each an ordinary one again."""
    before = placement_of({name: getattr(networks, name) for name in NETWORKS})
    if before is not None:
        before.release()
    return replace(networks, placement=Resident())
