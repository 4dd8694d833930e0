"""The needs and the cost of a job here, before anything is loaded: `longtake info MODEL --vram 6 --memory 24`.

Sizes come from headers, what lies where from `budget`, the times from `forecast`. Without probing nothing here loads a
framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from longtake.config import read_json
from longtake.errors import BackendError, ModelError
from longtake.job import Job
from longtake.machine import Machine, is_cpu
from longtake.named import named, places
from longtake.pipeline.allowance import free_memory
from longtake.pipeline.budget import GB, Layout, lay_out
from longtake.pipeline.forecast import Forecast, forecast, rates_told
from longtake.pipeline.sizes import read_sizes
from longtake.pipeline.working import Work, work_of
from longtake.plan.plans import plan_of
from longtake.weights.folder import model_source
from longtake.weights.hub import HubOptions, Part

SETTINGS = "_longtake"
ELSEWHERE = "the device"
"""The name of an accelerator that is not here."""
BUCKET = (608, 640)
"""The (width, height) of FramePack's table for a square picture, for a model that says no size."""


@dataclass(frozen=True)
class Device:
    """The place where the networks run: its name, its gigabytes that are allowed (None: a CPU), and if it is here."""

    name: str
    vram: float | None
    unknown: str = ""
    """Why its rates are not known; empty if it is here to be measured."""


@dataclass(frozen=True)
class Outlook:
    """A job's layout on a machine, and its times if the machine was measured; `rates` are a `probe.Rates`."""

    job: Job
    work: Work
    device: Device
    layout: Layout
    rates: Any
    times: Forecast | None

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of it in words."""
        job, lay = self.job, self.layout
        form = job.dtype if job.quantize == "none" else f"{job.dtype}, blocks in {job.quantize}"
        head = f"{job.width} x {job.height} pixels, {job.steps} steps, {form}, on {self.device.name}"
        peaks = f"expected peak: {_gb(lay.host_peak)} of main memory that cannot be dropped"
        if lay.vram is not None:
            peaks += f", {_gb(lay.device_peak)} on the device (of {_gb(lay.vram)})"
        if lay.mapped:
            peaks += f"; {_gb(lay.mapped)} of files are read, which the system keeps in memory as far as there is room"
        said = [head, *lay.sentences, peaks]
        if self.rates is not None:
            said.append(rates_told(self.rates))
        if self.times is not None:
            said += self.times.sentences
        else:
            said.append(f"how long it takes is not known: {self.device.unknown}")
        fits = "it fits" if lay.fits else f"it does not fit: {'; '.join(lay.lacking)}"
        return (*said, fits)

    def values(self) -> dict[str, Any]:
        """All of it as JSON values."""
        lay = self.layout
        return {
            "device": self.device.name,
            "width": self.job.width,
            "height": self.job.height,
            "steps": self.job.steps,
            "dtype": self.job.dtype,
            "quantize": self.job.quantize,
            "vram": lay.vram,
            "memory": lay.memory,
            "parts": {name: asdict(lies) for name, lies in lay.parts.items()},
            "tile": None if lay.tile is None else list(lay.tile),
            "device_peak": lay.device_peak,
            "host_peak": lay.host_peak,
            "mapped": lay.mapped,
            "fits": lay.fits,
            "lacking": list(lay.lacking),
            "rates": None if self.rates is None else asdict(self.rates),
            "times": None if self.times is None else asdict(replace(self.times, sentences=())),
            "sentences": list(self.sentences),
        }


def outlook(job: Job, machine: Machine, probe: bool = True, hub: HubOptions | None = None) -> Outlook:
    """The needs and the cost of the job; with `probe` the device is looked for and measured, in up to 3 seconds.

    Raises ModelError for a model that is not there, BackendError for a device that is not here, JobError for a size
    that cannot be.
    """
    device = _device(machine, probe)
    job = _settled(job, device, hub)
    job.check()
    sizes = read_sizes(job.model, job.parts, job.dtype, job.quantize, hub)
    if "transformer" not in sizes:
        raise ModelError(f"{job.model} has no transformer, so that it makes no videos; name a whole model.")
    work = work_of(job, plan_of(job))
    free = free_memory()
    memory = machine.memory if machine.memory is not None else None if free is None else free / GB
    layout = lay_out(sizes, work, device.vram, memory, device.name)
    rates = _rates(device, job, hub) if not device.unknown else None
    times = forecast(layout, sizes, work, rates) if rates is not None else None
    return Outlook(job, work, device, layout, rates, times)


def _device(machine: Machine, probe: bool) -> Device:
    """The device that is asked for, or found; one with an allowance and no accelerator here is a device elsewhere."""
    asked = machine.device
    if not probe:
        on_cpu = is_cpu(asked) or (asked == "auto" and machine.vram is None)
        name = "cpu" if on_cpu else ELSEWHERE if asked == "auto" else asked
        return Device(name, machine.vram, "nothing was measured (--no-probe)")
    from longtake.backend import runtime

    found = str(runtime.check_device(asked))
    if not is_cpu(found):
        return Device(found, machine.vram if machine.vram is not None else _free_on(found))
    if machine.vram is not None and asked == "auto":
        return Device(ELSEWHERE, machine.vram, "there is no accelerator here to measure")
    return Device("cpu", None)


def _free_on(device: str) -> float:
    from longtake.backend import transfer

    known = transfer.device_memory(device)
    if known is None:
        raise BackendError(f"The device {device} does not tell its free memory; give it by --vram GB.")
    return known[0] / GB


def _settled(job: Job, device: Device, hub: HubOptions | None) -> Job:
    """The job with a size and a dtype."""
    size = _own_size(job, hub)
    known = named(job.model)
    on_cpu = known.dtype if known is not None else "float32"
    dtype = job.dtype if job.dtype != "auto" else on_cpu if device.vram is None else "bfloat16"
    return replace(job, width=job.width or size[0], height=job.height or size[1], dtype=dtype)


def _own_size(job: Job, hub: HubOptions | None) -> tuple[int, int]:
    base, _ = places(job.model, job.parts)
    file = model_source(base, hub).fetch([Part(files=("model_index.json",))]) / "model_index.json"
    settings: Mapping[str, Any] = read_json(file).get(SETTINGS, {}) if file.is_file() else {}
    return settings.get("width", BUCKET[0]), settings.get("height", BUCKET[1])


def _rates(device: Device, job: Job, hub: HubOptions | None) -> Any:
    from longtake.pipeline.probe import measure

    return measure(device.name, job.dtype, _files(job, hub))


def _files(job: Job, hub: HubOptions | None) -> list[Path]:
    """The files of the transformer that are on this machine."""
    from longtake.weights import single
    from longtake.weights.folder import STEMS

    base, parts = places(job.model, job.parts)
    place = parts.get("transformer", base)
    file = single.locate(place, hub)
    if file is not None:
        return [file.path]
    source = model_source(place, hub)
    folder = "transformer" if source.has_folder("transformer") else ""
    return sorted((source.folder / folder).glob(f"{STEMS['diffusers']}*.safetensors"))


def _gb(count: float) -> str:
    return f"{count / GB:.1f} GB"
