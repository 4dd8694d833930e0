"""Every kind of video that can be written: how long a frame takes, how large it is, how near, and what memory it holds.

    python benchmarks/outputs.py [--size 640x608] [--frames 60]

Each is written in a process of its own, growing as `longtake generate` writes it: frames of the toy world, enlarged.
"memory" is how much more is held after all frames than after a third of them; it should be next to nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KINDS = ("a.mp4", "a.webm", "a.mov", "a.gif", "frames/")


def main() -> None:
    """Write the videos and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="640x608", metavar="WxH")
    parser.add_argument("--frames", type=int, default=60, help="default: 60")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    if args.one:
        print(json.dumps(measure(args.one, width, height, args.frames)))
        return
    print(f"{os.cpu_count()} cores, {args.frames} frames of {width} x {height}\n")
    print("| kind | ms a frame | MB a second of video | PSNR | memory |")
    print("| --- | --- | --- | --- | --- |")
    for kind in KINDS:
        words = [sys.executable, __file__, "--one", kind, "--size", args.size, "--frames", str(args.frames)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {kind} | {found['ms']:.0f} | {found['mb']:.2f} | {found['psnr']:.1f} | {found['memory_mb']:+.1f} MB |"
        )


def measure(kind: str, width: int, height: int, count: int) -> dict[str, float]:
    """The figures of one kind."""
    import numpy as np

    from longtake.picture import load_image
    from longtake.toyworld import render, scene_from_text
    from longtake.video import read_video, writer_for

    frames = render(scene_from_text("a penguin dances in the snow"), range(count), height, width)
    with tempfile.TemporaryDirectory() as folder:
        place, held, seconds = f"{folder}/{kind}", [], 0.0
        with writer_for(place, 30, growing=True) as writer:
            for number in range(count):
                begun = time.perf_counter()
                writer.write(frames[number : number + 1])
                seconds += time.perf_counter() - begun
                if number in (count // 3, count - 1):
                    held.append(resident_mb())
        files = sorted(Path(place).iterdir()) if Path(place).is_dir() else [Path(place)]
        size = sum(file.stat().st_size for file in files)
        back = (
            np.stack([load_image(file) for file in files]) if Path(place).is_dir() else read_video(place)[0]
        )
    error = np.mean((back[:, :height, :width].astype(float) - frames) ** 2)
    return {
        "ms": 1000 * seconds / count,
        "mb": size / 1e6 / (count / 30),
        "psnr": float(10 * np.log10(255**2 / error)) if error else float("inf"),
        "memory_mb": held[1] - held[0],
    }


def resident_mb() -> float:
    """The memory that this process holds now, as Linux tells it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
