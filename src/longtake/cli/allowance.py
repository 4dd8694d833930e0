"""The refusal of a job that cannot be done within the memory that is allowed, before its model loads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from longtake.errors import BackendError, JobError
from longtake.machine import is_cpu
from longtake.pipeline.budget import lay_out
from longtake.pipeline.sizes import read_sizes
from longtake.pipeline.working import work_of
from longtake.plan.plans import plan_of

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.machine import Machine

LEAST = (256, 256)
"""Pixels of a job that leaves its size to the model: few, since only what can never be is refused here."""


def check_allowance(job: Job, machine: Machine) -> None:
    """Raise JobError if the headers of the job's model say that it cannot run within `machine.vram` or `.memory`.

    Once it is loaded this is computed again with the video's own size and what is there (`Placed.prepare`).
    """
    on_cpu = is_cpu(machine.device)
    if machine.vram is not None and on_cpu:
        raise BackendError(
            f"--vram {machine.vram:g} limits an accelerator's memory, and --device is {machine.device}; leave it out."
        )
    if machine.vram is None and not (machine.memory is not None and on_cpu):
        return
    sized = replace(job, width=job.width or LEAST[0], height=job.height or LEAST[1])
    dtype = job.dtype if job.dtype != "auto" else "float32" if on_cpu else "bfloat16"
    sizes = read_sizes(job.model, job.parts, dtype, job.quantize)
    layout = lay_out(sizes, work_of(sized, plan_of(sized)), machine.vram, machine.memory, machine.device)
    if layout.lacking:
        device = "the accelerator" if machine.device == "auto" else machine.device
        sentence = layout.lacking[0].replace("auto needs", f"{device} needs")
        raise JobError(f"{sentence[0].upper()}{sentence[1:]}.")
