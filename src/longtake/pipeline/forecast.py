"""The seconds of a section, computed from what lies where, the arithmetic, and the rates of the machine. Pure.

forecast(layout, sizes, work, rates)   # rates: longtake.pipeline.probe.Rates, or any of the same fields
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longtake.pipeline.budget import Layout, gigabytes
from longtake.pipeline.flops import PICTURE, Operations, decode_operations, step_operations
from longtake.pipeline.sizes import Sizes
from longtake.pipeline.working import Work

LATENT_FRAMES = 4
"""Frames of a video that one latent frame becomes."""
PINNED = 2.0
"""A device reads pinned memory so many times as fast as plain memory, which is measured."""


@dataclass(frozen=True)
class Forecast:
    """Seconds of one step and one section, with the share of each; `bound` is what the steps wait for.

    `computing` and `moving` are one step's: they go on beside each other on a device, one after the other on a CPU.
    """

    step: float
    section: float
    frame: float
    decoding: float
    computing: float
    moving: float
    bound: str
    operations: float
    """Of one step."""
    sentences: tuple[str, ...]


def forecast(layout: Layout, sizes: Mapping[str, Sizes], work: Work, rates: Any) -> Forecast | None:
    """The times of a job whose `rates` were measured on the device of the layout; None without a known transformer."""
    each = sizes.get("transformer")
    if each is None or each.config is None:
        return None
    seen = sizes["image_encoder"].config if "image_encoder" in sizes else None
    picture = PICTURE if seen is None else (seen.image_size // seen.patch_size) ** 2
    pass_ = step_operations(each.config, work, picture)
    computing = work.branches * _seconds(pass_, rates)
    moving, way = _moved(layout, each, rates)
    moving *= work.branches
    step = max(computing, moving) if layout.vram is not None else computing + moving
    bound = "arithmetic" if computing >= moving else way
    decoding = 0.0
    vae = sizes.get("vae")
    frames = work.window * LATENT_FRAMES
    if vae is not None and vae.config is not None:
        decoding = _seconds(decode_operations(vae.config, work.width, work.height, frames, work.rows), rates)
    section = work.steps * step + decoding
    found = Forecast(
        step, section, section / frames, decoding, computing, moving, bound, work.branches * pass_.total, ()
    )
    return _told(found, work)


def _seconds(operations: Operations, rates: Any) -> float:
    return (
        operations.linear / rates.matrix
        + operations.attention / rates.attention
        + operations.convolution / rates.convolution
    )


def _moved(layout: Layout, each: Sizes, rates: Any) -> tuple[float, str]:
    """Seconds of a pass for weights that are not where they are used, and the way that they come."""
    lies = layout.parts["transformer"]
    room = None if layout.memory is None else layout.memory - layout.host_peak
    # A file that fits beside everything else stays in memory after its first reading; a larger one is read at each
    # pass, all of it, since its beginning is forgotten when its end is read.
    read = lies.source == "mapped" and lies.how != "whole" and room is not None and lies.mapped > room
    disk = lies.mapped / rates.disk if read and rates.disk else 0.0
    upload = 0.0
    if layout.vram is not None and lies.streamed and rates.upload:
        share = lies.streamed / max(1, lies.blocks)
        rate = rates.upload * (PINNED if lies.source == "pinned" else 1.0)
        upload = share * sum(each.blocks) / rate
        disk *= share
    return max(disk, upload), "the disk" if disk >= upload else "the way to the device"


def _told(found: Forecast, work: Work) -> Forecast:
    arithmetic = f"{found.operations / 1e12:.3g} TFLOP a step"
    said = [
        f"a step takes about {seconds(found.step)} ({arithmetic}; {found.bound} decides), a section of {work.steps} "
        f"steps and {work.window * LATENT_FRAMES} frames about {seconds(found.section)}, decoding "
        f"({seconds(found.decoding)}) included: {seconds(found.frame)} a frame"
    ]
    if found.moving > found.computing:
        said.append(
            f"computing alone would take {seconds(found.computing)} a step: more memory or 8 bits (--quantize) would "
            "bring it nearer to that"
        )
    return Forecast(**{**found.__dict__, "sentences": tuple(said)})


def seconds(value: float) -> str:
    """A time in words.

    >>> seconds(0.53), seconds(38.4), seconds(754), seconds(8000)
    ('0.53 s', '38 s', '13 min', '2.2 h')
    """
    for unit, size in (("h", 3600), ("min", 60)):
        if value >= 2 * size:
            return f"{value / size:.2g} {unit}"
    return f"{value:.2g} s"


def rates_told(rates: Any) -> str:
    """The measured rates, in words."""
    said = [
        f"{rates.matrix / 1e12:.3g} TFLOP/s in products of matrices",
        f"{rates.attention / 1e12:.3g} in attention",
    ]
    said.append(f"{rates.convolution / 1e12:.3g} in convolutions")
    if rates.upload:
        said.append(f"{gigabytes(rates.upload)}/s to the device")
    if rates.disk:
        said.append(f"{gigabytes(rates.disk)}/s from the disk")
    return f"measured in {rates.seconds:.1f} s: {', '.join(said)}"
