"""One job under several placements, each in a process of its own: time, and the memory that the kernel cannot drop.

    python benchmarks/random_model.py MODEL
    python benchmarks/placements.py MODEL [--options "--memory 6" "--memory 24 --quantize int8" …] [--limit 8]

The job is short and small (`longtake generate` of 37 frames, 64 x 64, 1 step, bfloat16), so that what it takes is the
reading of the weights. "anonymous" is the most that the process held of memory that is no file's (Linux:
/proc/PID/smaps_rollup, looked at ten times a second); "resident" counts the files' pages too, which the kernel drops
when it needs room. `--limit` runs each in a memory cgroup of so many GB, whose limit counts both, with nothing of the
files in memory before; it needs root's rights. Each runs `--rounds` times, in turns; the table has medians, and the
ratio of time to the first row's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from longtake import toyworld

PROMPT = "A penguin dances in the snow."
JOB = ["--dtype", "bfloat16", "--steps", "1", "--frames", "37", "--size", "64x64", "--json"]
CGROUPS = Path("/sys/fs/cgroup")


@contextmanager
def group(limit: float | None) -> Iterator[Path | None]:
    """A memory cgroup with a limit in GB (version 2, else 1), or None if no limit is asked for."""
    if limit is None:
        yield None
        return
    second = (CGROUPS / "cgroup.controllers").exists()
    place = (CGROUPS if second else CGROUPS / "memory") / f"longtake-{os.getpid()}"
    place.mkdir()
    # A page counts for the group that read it first; what earlier runs left in memory would be free.
    Path("/proc/sys/vm/drop_caches").write_text("1")
    try:
        size = str(int(limit * 1e9))
        (place / ("memory.max" if second else "memory.limit_in_bytes")).write_text(size)
        yield place
    finally:
        place.rmdir()


def run(
    options: list[str], model: Path, python: str, source: str | None, within: Path | None
) -> dict[str, float]:
    """Seconds and peaks of one run."""
    with tempfile.TemporaryDirectory() as folder:
        picture, video = Path(folder, "first.png"), Path(folder, "out.mp4")
        Image.fromarray(toyworld.render(toyworld.scene_from_text(PROMPT), range(1))[0]).save(picture)
        command = [python, "-m", "longtake", "generate", str(picture), PROMPT, "-o", str(video)]
        command += ["--model", str(model), *JOB, *options]
        environment = {**os.environ, **({"PYTHONPATH": source} if source else {})}
        begun = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=(lambda: (within / "cgroup.procs").write_text("0")) if within else None,
        )
        peaks = {"anonymous": 0.0, "resident": 0.0}
        while process.poll() is None:
            for name, value in memory_of(process.pid).items():
                peaks[name] = max(peaks[name], value)
            time.sleep(0.1)
        seconds = time.perf_counter() - begun
        said = process.stderr.read().strip() if process.stderr else ""
        if process.returncode:
            raise SystemExit(f"{shlex.join(command)}: exit {process.returncode}: {said[-2000:]}")
    return {"seconds": seconds, **peaks}


def memory_of(process: int) -> dict[str, float]:
    """GB of a process: what is no file's, and all; nothing if it has ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except (OSError, ProcessLookupError):
        return {}
    kilobytes = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return {"anonymous": kilobytes["Anonymous"] * 1.024e-6, "resident": kilobytes["Rss"] * 1.024e-6}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--options", nargs="+", default=["", "--memory 6"], metavar="OPTIONS")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=float, metavar="GB", help="of a cgroup around each run")
    parser.add_argument(
        "--before", metavar="SRC", help="the src folder of another checkout, as the first row"
    )
    args = parser.parse_args()
    rows = [*([("before", [], args.before)] if args.before else [])]
    rows += [(options or "(default)", shlex.split(options), None) for options in args.options]
    found: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in rows}
    for _ in range(args.rounds):
        for name, options, source in rows:
            with group(args.limit) as within:
                found[name].append(run(options, args.model, sys.executable, source, within))
            print(f"{name}: {found[name][-1]}", file=sys.stderr, flush=True)
    table = {
        name: {key: statistics.median(each[key] for each in runs) for key in runs[0]}
        for name, runs in found.items()
    }
    first = next(iter(table.values()))["seconds"]
    print("| options | seconds | ratio | anonymous, GB | resident, GB |\n| --- | --- | --- | --- | --- |")
    for name, row in table.items():
        print(
            f"| {name} | {row['seconds']:.0f} | {row['seconds'] / first:.2f} | {row['anonymous']:.2f} | "
            f"{row['resident']:.1f} |"
        )
    print(json.dumps({"limit_gb": args.limit, "rounds": args.rounds, "rows": table}))


if __name__ == "__main__":
    main()
