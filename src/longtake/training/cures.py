"""The memory of a training in words, and what would make it fit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from longtake.pipeline.budget import gigabytes
from longtake.training.memory import Run, needs, numbers_of, tokens_of


def sentences(config: Any, run: Run) -> tuple[str, ...]:
    """The needs of a training, in words."""
    found, work = needs(config, run), run.work
    form = (
        "float32"
        if run.whole
        else run.dtype + ("" if run.quantize == "none" else f", blocks in {run.quantize}")
    )
    learns = run.learns or numbers_of(config)
    shared = f", shared between {run.shared} devices" if run.shared > 1 else ""
    other = (
        f"{gigabytes(found.unchecked)} if nothing were computed twice"
        if run.recomputes
        else f"{gigabytes(found.checked)} with --gradient-checkpointing"
    )
    rows = "1 section" if work.rows == 1 else f"{work.rows} sections"
    return (
        f"the transformer has {numbers_of(config) / 1e9:.2f} G numbers ({form}), of which "
        f"{'all' if run.whole else f'a LoRA of {learns / 1e6:.1f} M'} learn{'' if run.whole else 's'} in float32",
        f"weights {gigabytes(found.weights)}, gradients {gigabytes(found.gradients)}, {run.optimiser} "
        f"{gigabytes(found.optimiser)}"
        + (f", averages {gigabytes(found.averages)}" if run.averages else "")
        + shared,
        f"{rows} at a time of {work.width} x {work.height} pixels, {tokens_of(config, work) // work.rows} tokens each: "
        f"activations {gigabytes(found.activations)} ({other})",
        f"in all about {gigabytes(found.total)}",
    )


def lacking(config: Any, run: Run, allowed: float) -> str | None:
    """The change by which a training would fit in so many bytes, in one sentence; None if it fits."""
    found = needs(config, run)
    if found.total <= allowed:
        return None
    cures = [told for changed, told in _changes(run) if needs(config, changed).total <= allowed]
    if not cures:
        cures = _together(config, run, allowed)
    return (
        f"This training needs about {gigabytes(found.total)}, and {gigabytes(allowed)} are there: "
        f"{'; or '.join(cures)}."
    )


def _changes(run: Run) -> Sequence[tuple[Run, str]]:
    """Single changes that save memory, the gentlest first."""
    found = []
    if not run.recomputes:
        found.append((replace(run, recomputes=True), "compute activations twice (--gradient-checkpointing)"))
    for rows in (run.work.rows // 2, run.work.rows // 4, 1):
        if 0 < rows < run.work.rows:
            fewer = replace(run, work=replace(run.work, rows=rows))
            found.append(
                (fewer, f"take --batch {rows} and --accumulate {-(-run.work.rows // rows)} times as many")
            )
    if not run.whole and run.quantize == "none":
        found.append((replace(run, quantize="int8"), "hold the blocks in 8 bits (--quantize int8)"))
    return found


def _together(config: Any, run: Run, allowed: float) -> list[str]:
    """The help where no single change does: all of them, then fewer pixels, then more devices."""
    least = replace(run, recomputes=True, work=replace(run.work, rows=1))
    if not run.whole:
        least = replace(least, quantize="int8" if run.quantize == "none" else run.quantize)
    words = ["--gradient-checkpointing", "--batch 1", *([] if run.whole else ["--quantize int8"])]
    if needs(config, least).total <= allowed:
        return [f"take {', '.join(words[:-1])} and {words[-1]} together"]
    for width, height in ((640, 384), (512, 320), (384, 256), (256, 256)):
        smaller = replace(least, work=replace(least.work, width=width, height=height))
        if width * height < run.work.width * run.work.height and needs(config, smaller).total <= allowed:
            return [f"take {', '.join(words)} and videos of {width} x {height} pixels"]
    if run.whole:
        for count in (2, 4, 8, 16, 32, 64):
            if needs(config, replace(least, shared=count)).total <= allowed:
                return [
                    f"share it between {count} such devices (accelerate's FSDP), with {' and '.join(words)}"
                ]
        return ["train a LoRA instead"]
    return [f"at least {gigabytes(needs(config, least).total)} are needed"]
