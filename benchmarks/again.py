"""One part of a long video again: the seconds and the sections of redo, undo, extend and resume, against a new video.

    python benchmarks/again.py [--sections 50] [--steps 10] [--size 64] [--sampling inverted vanilla]

Each command is a process of its own, as a user starts it, with the embedded model. A section counts as made if steps
were made for it, and a frame if it was decoded. For each sampling the section in the middle is made again, this is
undone, the video is made longer by two sections (a vanilla one at its end, an inverted one at its beginning) and
resumed. The longer video is compared, frame by frame, with one whose pieces were all made anew. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPT = "A penguin walks to the right in the snow."
WINDOW = 36


def main() -> None:
    """Measure each sampling, print a table and a last line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sections", type=int, default=50)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--sampling", nargs="+", default=["inverted", "vanilla"])
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        picture = place / "first.png"
        called("scene", "a penguin in the snow", "-o", picture)
        for sampling in args.sampling:
            found[sampling] = measured(place, picture, sampling, args)
    print(json.dumps(found))


def measured(place: Path, picture: Path, sampling: str, args: argparse.Namespace) -> dict[str, Any]:
    """What each command cost, by its name."""
    job, frames = place / sampling, WINDOW * args.sections + 1
    asked = ["--frames", frames, "--steps", args.steps, "--size", args.size, "--sampling", sampling]
    before = ["--before"] if sampling == "inverted" else []
    commands: dict[str, list[Any]] = {
        "new": ["generate", picture, PROMPT, *asked, "--job", job],
        "redo": ["redo", job, "--section", args.sections // 2],
        "undo": ["undo", job],
        "extend": ["extend", job, "--frames", 2 * WINDOW, *before],
        "resume": ["resume", job],
    }
    costs = {}
    for name, words in commands.items():
        costs[name] = cost = costs_of(*words)
        print(
            f"{sampling:9} {name:7} {cost['seconds']:7.1f} s ({cost['cpu']:.1f} s of CPU)  {cost['sections']:3} "
            f"sections made, {cost['frames']:5} frames decoded  {cost['parts']}",
            flush=True,
        )
    costs["pieces"] = sizes(job)
    shutil.rmtree(job / "pieces")
    once = hash_of(job / "video.mp4")
    costs["anew"] = costs_of("resume", job)
    costs["the same"] = once == hash_of(job / "video.mp4")
    print(
        f"{sampling:9} the longer video equals one of new pieces: {costs['the same']}  {costs['pieces']}",
        flush=True,
    )
    return costs


def costs_of(*words: Any) -> dict[str, Any]:
    """The seconds of a command, the sections that it made, and the frames that it decoded."""
    begun, worked = time.perf_counter(), cpu_seconds()
    events = [json.loads(line) for line in called(*words, "--json").splitlines()]
    seconds, worked = time.perf_counter() - begun, cpu_seconds() - worked
    made = [event for event in events if event["event"] == "section_done" and not event["kept"]]
    frames = sum(event["count"] for event in events if event["event"] == "frames_ready")
    parts = next(event["seconds"] for event in reversed(events) if event["event"] == "done")
    costs = {"seconds": round(seconds, 1), "cpu": round(worked, 1), "sections": len(made)}
    return {**costs, "frames": frames, "parts": parts}


def cpu_seconds() -> float:
    """Seconds that processors have worked for commands that ended, which say more than a clock on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def called(*words: Any) -> str:
    """What a command of longtake printed."""
    command = [sys.executable, "-m", "longtake", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout


def sizes(job: Path) -> dict[str, int]:
    """Kilobytes of the video, and of all pieces, sections and takes."""
    found = {"video": (job / "video.mp4").stat().st_size // 1000}
    for name in ("pieces", "sections", "takes"):
        found[name] = sum(file.stat().st_size for file in (job / name).glob("*")) // 1000
    return found


def hash_of(video: Path) -> str:
    """A hash of the decoded frames."""
    import hashlib

    from longtake.video import stream_video

    digest = hashlib.sha256()
    for frame in stream_video(video):
        digest.update(frame.tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
