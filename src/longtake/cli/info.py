"""`longtake info`: what a model's folder holds, how far a job is, or which job made a video."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from longtake.cli.options import mute_hub


def add_parser(verbs: Any) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "info",
        help="what a model holds, how far a job is, or which job made a video",
        description=__doc__,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "model",
        metavar="MODEL",
        help='a folder, "embedded", owner/name on the hub, a job\'s folder, or a video (.mp4)',
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, with the configs")


def run(args: argparse.Namespace) -> None:
    """Print what the headers say; no weights are read."""
    if Path(args.model).suffix.lower() == ".mp4":
        facts = _video(args.model)
    else:
        facts = _job(args.model) if (Path(args.model) / "job.json").is_file() else _model(args.model)
    print(json.dumps(facts, ensure_ascii=False) if args.json else _text(facts))


def _video(path: str) -> dict[str, Any]:
    import dataclasses

    from longtake.video import read_metadata

    facts = dataclasses.asdict(read_metadata(path))
    if facts["job"]:
        del facts["comment"]  # it is the job's JSON
    return {"file": path, **facts}


def _job(path: str) -> dict[str, Any]:
    from longtake.jobs.folder import describe_job

    return describe_job(path)


def _model(name: str) -> dict[str, Any]:
    from longtake.weights.folder import describe

    mute_hub()
    return describe(name)


def _text(facts: dict[str, Any]) -> str:
    if "states" in facts:
        by_state: dict[str, list[str]] = {}
        for number, state in facts.pop("states").items():
            by_state.setdefault(state, []).append(number)
        facts |= {f"sections {state}": " ".join(numbers) for state, numbers in by_state.items()}
    if "parts" not in facts:
        job, head = facts.pop("job") or {}, "the job" if "running" in facts else "made by the job"
        return "\n".join([*_pairs(facts), *(["", head] if job else []), *_pairs(job)])
    rows = [("part", "class", "parameters", "dtype", "MB")]
    for name, part in facts["parts"].items():
        count = f"{part['parameters']:,}" if "parameters" in part else ""
        rows.append(
            (name, part["class"], count, ", ".join(part.get("dtypes", ())), _megabytes(part["bytes"]))
        )
    rows.append(("total", "", f"{facts['parameters']:,}", "", _megabytes(facts["bytes"])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{facts.get('repository', facts['folder'])}: {facts['class']}"]
    for part_name, kind, count, dtypes, size in rows:
        cells = (
            part_name.ljust(widths[0]),
            kind.ljust(widths[1]),
            count.rjust(widths[2]),
            dtypes.ljust(widths[3]),
        )
        lines.append("  ".join((*cells, size.rjust(widths[4]))))
    return "\n".join(lines)


def _pairs(facts: dict[str, Any]) -> list[str]:
    return [f"{name:16} {value}" for name, value in facts.items() if value not in ("", None)]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"
