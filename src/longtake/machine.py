"""Machine: how a job runs here, as JSON-able data. Nothing of it is asked of the video, and no frame is another for it.

Kernels and places round differently, so that frames agree as two devices' frames do; what changes them beyond that is a
field of `longtake.job.Job`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from longtake.option import NAME, option

MOST = 100_000
"""Gigabytes; no machine has more."""


@dataclass(frozen=True)
class Machine:
    """The device of the networks, the memory that they may take, and the kernels that they run on.

    `vram` and `memory` are gigabytes (10^9 bytes) of the device's and of main memory; None is what is free.
    """

    device: str = option(
        "auto",
        "where the networks run: cpu, cuda, cuda:1, mps, … (default: an accelerator if there is one, else cpu)",
        metavar="NAME", group="machine", least=1, most=NAME,
    )  # fmt: skip
    vram: float | None = option(
        None, "the device's memory to use, in GB (default: what is free)",
        kind=float, metavar="GB", group="machine", least=0.001, most=MOST,
    )  # fmt: skip
    memory: float | None = option(
        None, "the main memory to use, in GB (default: what is free)",
        kind=float, metavar="GB", group="machine", least=0.001, most=MOST,
    )  # fmt: skip
    attention: str = option(
        "auto", "the attention kernel: native, cudnn, flash, efficient, math, fa3, flash-attn, xformers or sage "
        "(default: auto, the fastest exact one that is there)",
        metavar="NAME", group="machine", least=1, most=NAME,
    )  # fmt: skip
    compile: bool = option(
        False, "compile the transformer's blocks, one by one, at their first run", group="machine"
    )

    def check(self) -> None:
        """Raise JobError for the first thing that cannot be, in one sentence."""
        for each in dataclasses.fields(self):
            each.metadata["option"].check(each.name, getattr(self, each.name))


def is_cpu(device: Any) -> bool:
    """Tell if a device, by its name or as a framework has it, is the CPU; so is None, for files are read there.

    >>> is_cpu("cpu"), is_cpu("CPU:0"), is_cpu(None), is_cpu("cuda:1")
    (True, True, True, False)
    """
    return str("cpu" if device is None else device).lower().startswith("cpu")
