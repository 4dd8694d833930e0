"""`longtake show`: tell which job made a video: what was asked, and when in the video it holds."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from typing import Any

from longtake.cli.like import job_like
from longtake.job import KEYS, Job

USAGE = "VIDEO [options]"
EXAMPLES = """\
longtake show penguin.mp4
longtake show frames/00012.png
longtake show penguin.webm --json
"""
TOLD = (
    "prompt",
    "negative_prompt",
    "prompts",
    "anchors",
    "loras",
    "changes",
    "clip",
    "frames",
    "fps",
    "width",
    "height",
)
"""The fields with lines of their own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The video."""
    parser.add_argument(
        "video",
        metavar="VIDEO",
        help="any that longtake wrote: MP4, WebM, MOV, GIF, a PNG or a folder of them; or a job's folder",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the job as JSON, which generate --like and Job.from_json read",
    )


def run(args: argparse.Namespace) -> None:
    """Print the job of a video."""
    job, _ = job_like(args.video)
    print(job.to_json() if args.json else "\n".join(lines(job, args.video)))


def lines(job: Job, name: str) -> Iterator[str]:
    """The lines that tell a job: its length, what is said, shown and weighed at which time, and all that is unusual.

    >>> from longtake.job import PromptSpan
    >>> print(*lines(Job("A penguin", seed=3, prompts=(PromptSpan("it jumps", 2.0),)), "a.mp4"), sep="\\n")
    a.mp4: 145 frames, 4.8 s at 30 fps
    prompt         A penguin
    2 s on         it jumps
    model          embedded
    sampling       inverted
    steps          25
    seed           3
    <BLANKLINE>
    longtake generate --like a.mp4
    """
    size = f", {job.width} x {job.height}" if job.width and job.height else ""
    yield f"{name}: {job.frames} frames, {job.frames / job.fps:.1f} s at {job.fps} fps{size}"
    rows = [("prompt", job.prompt), ("not", job.negative_prompt), *in_time(job), *_others(job)]
    yield from (f"{what:14} {_printable(said)}" for what, said in rows if said not in ("", None))
    yield ""
    yield f"longtake generate --like {shlex.quote(name)}"


def in_time(job: Job) -> list[tuple[str, str]]:
    """All that stands at a time of the video, or holds for a while, in the order of time: (when, what)."""
    found: list[tuple[float, str, str]] = []
    for span in job.prompts:
        seed = "" if span.seed is None else f" (seed {span.seed})"
        found.append((span.start, _while(span.start, span.end), f"{span.text}{seed}"))
    for anchor in job.anchors:
        strength = "" if anchor.strength == 1 else f" (strength {anchor.strength:g})"
        at = job.frames / job.fps if anchor.at == "end" else float(anchor.at)
        when = "the end" if anchor.at == "end" else f"at {anchor.at:g} s"
        found.append((at, when, f"picture {anchor.image}{strength}"))
    for lora in job.loras:
        for weight in lora.weights:
            if not isinstance(weight, int | float):
                told = f"LoRA {lora.path} x {weight.weight:g}"
                found.append((weight.start, _while(weight.start, weight.end), told))
    return [(when, what) for _, when, what in sorted(found, key=lambda row: row[0])]


def _printable(said: Any) -> str:
    """A value on one line, without what would move a terminal's cursor: the video may be a stranger's."""
    return "".join(letter if letter.isprintable() else " " for letter in str(said))


def _while(start: float, end: float | None) -> str:
    return f"{start:g} s on" if end is None else f"{start:g} to {end:g} s"


def _others(job: Job) -> Iterator[tuple[str, Any]]:
    """The other fields: what nearly every job says, and what differs from the default."""
    if job.clip is not None:
        yield "goes on from", job.clip.video
    for lora in job.loras:
        weights = [f"{weight:g}" for weight in lora.weights if isinstance(weight, int | float)]
        if weights:
            yield "LoRA", f"{lora.path} x {', '.join(weights)}"
    for change in job.changes:
        said = [f"seed {change.seed}" if change.seed is not None else "", change.prompt or ""]
        yield f"section {change.section}", ", ".join(filter(None, said))
    plain = Job("", model=job.model, parts=job.parts)
    for name in job.__dataclass_fields__:
        value = getattr(job, name)
        if name not in TOLD and (name in ("model", "sampling", "steps") or value != getattr(plain, name)):
            told = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
            yield KEYS.get(name, name).replace("_", " "), told
