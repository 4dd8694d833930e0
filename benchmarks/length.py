"""Does the cost of a section grow with the video? Peak memory, time by section and total time at several lengths.

    python benchmarks/length.py [--seconds 10 60 600] [--steps 2] [--sampling vanilla inverted]

Every video is made in a process of its own, from the embedded model, and written to a file as `longtake generate`
writes it. "start" and "end" are the medians of the time by section over the first and the last fifth of the sections
(the very first left out: it warms up), for the whole of the work that is done section by section: sampling and, in a
vanilla video, decoding and writing. An inverted video is decoded and written at the end: "frames/s" compares the
first and the last fifth of its frames likewise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path


def main() -> None:
    """Make the videos and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 60, 600], help="lengths of video")
    parser.add_argument("--steps", type=int, default=2, help="steps by section (default: 2)")
    parser.add_argument("--sampling", nargs="+", default=["vanilla", "inverted"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(**json.loads(args.one))))
        return
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {args.steps} steps, 64 x 64 pixels\n"
    )
    print(
        "| sampling | video | sections | peak memory | section, start | section, end | frames/s, start | end | total |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    summary = []
    for sampling in args.sampling:
        shortest: dict[str, float] | None = None
        for seconds in args.seconds:
            asked = {"sampling": sampling, "frames": round(30 * seconds) + 1, "steps": args.steps}
            done = subprocess.run(
                [sys.executable, __file__, "--one", json.dumps(asked)],
                check=True,
                capture_output=True,
                text=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            shortest = shortest or found
            summary.append({**asked, **found})
            print(
                f"| {sampling} | {seconds:g} s | {found['sections']:.0f} "
                f"| {found['peak_mb']:.0f} MB ({found['peak_mb'] / shortest['peak_mb']:.3f}x) "
                f"| {1000 * found['start']:.0f} ms | {1000 * found['end']:.0f} ms "
                f"({found['end'] / found['start']:.3f}x) "
                f"| {found['rate_start']:.0f} | {found['rate_end']:.0f} "
                f"| {found['total']:.1f} s ({1000 * found['total'] / found['frames']:.1f} ms a frame) |",
                flush=True,
            )
    print(json.dumps(summary))


def measure(sampling: str, frames: int, steps: int) -> dict[str, float]:
    """One video; its figures."""
    from longtake import toyworld
    from longtake.events import FramesReady, SectionDone
    from longtake.job import Job
    from longtake.pipeline.loading import load_networks
    from longtake.pipeline.loop import generate
    from longtake.pipeline.prepare import Inputs
    from longtake.video import VideoWriter

    networks = load_networks("embedded")
    scene = toyworld.scene_from_text("A penguin dances in the snow.")
    picture = toyworld.render(scene, range(1))[0]
    job = Job(prompt="A penguin dances in the snow.", frames=frames, sampling=sampling, steps=steps)
    made, ready = [], []
    begin = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        VideoWriter(Path(folder, "a.mp4"), 30, growing=True) as writer,
    ):
        for event in generate(job, networks, Inputs(picture)):
            if isinstance(event, FramesReady):
                writer.write(event.frames[0])
                ready.append((event.start + event.frames.shape[1], time.perf_counter()))
            if isinstance(event, SectionDone):
                made.append(time.perf_counter())
    total = time.perf_counter() - begin
    spent = [after - before for before, after in pairwise(made)]
    fifth = max(1, len(spent) // 5)
    return {
        "sections": len(made),
        "frames": frames,
        "start": statistics.median(spent[:fifth]),
        "end": statistics.median(spent[-fifth:]),
        "rate_start": _rate(ready[: max(2, len(ready) // 5)]),
        "rate_end": _rate(ready[-max(2, len(ready) // 5) :]),
        "total": total,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _rate(ready: list[tuple[int, float]]) -> float:
    (first, begin), (last, end) = ready[0], ready[-1]
    return (last - first) / max(end - begin, 1e-9)


if __name__ == "__main__":
    main()
