"""`longtake info`: what a model's folder holds, how far a job is, or which job made a video."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longtake.cli.options import SIZE, add_json, add_option, machine_of, mute_hub, parts_of, size
from longtake.errors import JobError
from longtake.named import places

USAGE = "WHAT [options]"
EXAMPLES = """\
longtake info embedded
longtake info penguin.mp4
longtake info penguin --json
longtake info framepack --vram 6 --memory 24
longtake info framepack --device cpu --size 480x640 --steps 10 --quantize int8 --no-probe
"""

PLAN = ("steps", "window", "cfg_scale", "dtype", "quantize")
MEMORY = ("device", "vram", "memory")
VIDEOS = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif", ".png")
"""As in longtake.video, which imports FFmpeg."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A model, a job or a video."""
    parser.add_argument(
        "what",
        metavar="WHAT",
        help='a model: a folder, "embedded" or owner/name on the hub; a job\'s folder; or a video',
    )
    add_option(
        parser, "parts", "where one part of the model is, if it is elsewhere; may be given several times"
    )
    add_json(parser, "print one JSON object, with the configs")
    plan = parser.add_argument_group(
        "what it would take",
        "Any of these asks for what lies where, the expected peaks of both memories, and the seconds of a section on "
        "this machine, from its rates, which are measured in a moment.",
    )
    for name in MEMORY:
        add_option(plan, name)
    plan.add_argument(
        "--size", type=size, metavar="WxH", help=f"{SIZE} (default: the model's own, else 608x640)"
    )
    for name in PLAN:
        add_option(plan, name)
    plan.add_argument(
        "--no-probe",
        dest="probe",
        action="store_false",
        default=None,
        help="measure nothing, load no framework",
    )


def run(args: argparse.Namespace) -> None:
    """Print what the headers say, and what a job would take if that is asked for; no weights are read."""
    parts = parts_of(args.parts or ())
    facts = facts_of(args.what, parts)
    asked = {name: getattr(args, name) for name in (*MEMORY, *PLAN, "size", "probe")}
    if any(value is not None for value in asked.values()):
        if "parts" not in facts:
            raise JobError(f"What a job would take is asked of a model; {args.what} is none.")
        facts["plan"] = _plan(args, parts)
    print(json.dumps(facts, ensure_ascii=False) if args.json else _text(facts))


def _plan(args: argparse.Namespace, parts: Mapping[str, str]) -> dict[str, Any]:
    """The needs of a job of the model, as JSON values."""
    from longtake.job import Job
    from longtake.pipeline.outlook import outlook

    given = {name: getattr(args, name) for name in PLAN if getattr(args, name) is not None}
    width, height = args.size or (None, None)
    job = Job("", model=args.what, parts=parts, width=width, height=height, **given)
    job.check()
    return outlook(job, machine_of(args), args.probe is not False).values()


def facts_of(what: str, parts: Mapping[str, str]) -> dict[str, Any]:
    """The facts of a model with its parts, of a job or of a video, as JSON values."""
    job = (Path(what) / "job.json").is_file()
    video = not job and is_video(what)
    if parts and (video or job):
        raise JobError(f"--part names a part of a model; {what} is a {'video' if video else 'job'}.")
    return _video(what) if video else _job(what) if job else _model(what, parts)


def describe_model(model: str, parts: Mapping[str, str]) -> dict[str, Any]:
    """The facts in a model's headers, with those of its `parts` that are elsewhere; ModelError if one is wrong."""
    from longtake.weights.folder import describe, describe_part

    base, elsewhere = places(model, parts)
    facts = describe(base, without=elsewhere)
    for name, place in elsewhere.items():
        facts["parts"] = {**facts["parts"], name: {**describe_part(name, place), "from": place}}
    if base != model:
        facts = {"name": model, **facts}
    facts["parameters"] = sum(part.get("parameters", 0) for part in facts["parts"].values())
    facts["bytes"] = sum(part["bytes"] for part in facts["parts"].values())
    return facts


def is_video(name: str) -> bool:
    """Tell if a name is a video's: a file that can be one, a PNG, or a folder of numbered PNGs."""
    if Path(name).is_dir():
        inside = [each.name for each in Path(name).iterdir()]
        return any(each.lower().endswith(".png") for each in inside) and "model_index.json" not in inside
    return Path(name).suffix.lower() in VIDEOS


def _video(path: str) -> dict[str, Any]:
    import dataclasses

    from longtake.video import read_metadata

    found = read_metadata(path)
    facts = dataclasses.asdict(found)
    if found.job is not None:
        facts["job"] = found.job.values()
        del facts["comment"]  # it is the job's JSON
    return {"file": path, **facts}


def _job(path: str) -> dict[str, Any]:
    from longtake.jobs.state import describe_job

    return describe_job(path)


def _model(name: str, parts: Mapping[str, str]) -> dict[str, Any]:
    mute_hub()
    return describe_model(name, parts)


def _text(facts: dict[str, Any]) -> str:
    if "states" in facts:
        by_state: dict[str, list[str]] = {}
        for number, state in facts.pop("states").items():
            by_state.setdefault(state, []).append(number)
        facts |= {f"sections {state}": " ".join(numbers) for state, numbers in by_state.items()}
    if "parts" not in facts:
        job, head = facts.pop("job") or {}, "the job" if "running" in facts else "made by the job"
        return "\n".join([*_pairs(facts), *(["", head] if job else []), *_pairs(job)])
    rows = [("part", "class", "parameters", "dtype", "MB", "from")]
    for name, part in facts["parts"].items():
        count = f"{part['parameters']:,}" if "parameters" in part else ""
        dtypes, size = ", ".join(part.get("dtypes", ())), _megabytes(part["bytes"])
        rows.append((name, part["class"], count, dtypes, size, part.get("from", "")))
    rows.append(("total", "", f"{facts['parameters']:,}", "", _megabytes(facts["bytes"]), ""))
    plan = facts.get("plan")
    said = ["", *(f"- {sentence}" for sentence in plan["sentences"])] if plan else []
    head = f"{facts.get('name', facts.get('repository', facts['folder']))}: {facts['class']}"
    return "\n".join([head, *aligned(rows, "<<><><"), *said])


def aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Rows as lines, each column to its side; a column that has only its head is left out."""
    columns = [
        (column, side) for column, side in zip(zip(*rows, strict=True), sides, strict=True) if any(column[1:])
    ]
    widths = [max(map(len, column)) for column, _ in columns]
    cells = [
        [f"{cell:{side}{width}}" for cell in column]
        for (column, side), width in zip(columns, widths, strict=True)
    ]
    return ["  ".join(line).rstrip() for line in zip(*cells, strict=True)]


def _pairs(facts: dict[str, Any]) -> list[str]:
    """Facts as lines, without those that say nothing; what holds several values is written as JSON."""
    said = {name: value for name, value in facts.items() if value not in ("", None, [], {}, ())}
    return [
        f"{name:16} {json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict) else value}"
        for name, value in said.items()
    ]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"
