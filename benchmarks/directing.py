"""Does a video do what its timeline says? Prompts in time, key frames and loops, on the toy world with its known truth.

    python benchmarks/directing.py prompts --scenes 64
    python benchmarks/directing.py keyframes loops --scenes 64 --steps 8 --dtype bfloat16

prompts: each scene is asked for another motion from a second on. The motion is told from three seconds of frames, every
fifth of a second; the first stretch from which on it is the new one says when it came, and true videos say where that
stretch lies for a change that comes at once. keyframes: the scene's own true picture of a second in the middle is asked
for there; the same video without it stands beside. loops: the step from the last frame to the first against the steps
beside it. One line a way of making; figures are means over scenes, with bootstrap intervals of 95 %.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from longtake import toyworld
from longtake.evaluation.asked import spans
from longtake.evaluation.scenes import frame_psnr
from longtake.events import FramesReady
from longtake.job import Anchor, Job
from longtake.machine import Machine
from longtake.picture import contact_sheet, save_picture, spread
from longtake.pipeline.loading import load_networks
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.pipeline.prepare import Inputs
from longtake.plan.plans import plan_of
from longtake.toy.judge import held_out_scenes

SECONDS = 8.0
CHANGE = 4.0
FIRST_SCENE = 2000
LOOK, HOP = 90, 6
"""Frames of which a motion is told, and from one such stretch to the next."""
SECTION = 36
BESIDE = 15
"""Frames on each side of a seam that its step is compared with."""

Rows = dict[str, list[float]]


def made(job: Job, networks: Networks, inputs: Inputs) -> np.ndarray:
    """The frames (T, H, W, 3) of one video."""
    pieces = [event.frames[0] for event in generate(job, networks, inputs) if isinstance(event, FramesReady)]
    return np.concatenate(pieces)


def first_of(scene: toyworld.Scene) -> np.ndarray:
    """The scene's first true picture."""
    return np.asarray(toyworld.render(scene, [0])[0])


def identity(frames: np.ndarray, scene: toyworld.Scene, first: int = 0) -> dict[str, float]:
    """The character's errors in some frames, the first of which has this number."""
    found = toyworld.measure(frames, scene, first)
    return {
        "size": float(np.mean(found.size_error)),
        "colour": float(np.mean(found.colour_error)),
        "look": float(np.mean(found.look_error)),
    }


# Prompts in time ------------------------------------------------------------------------------------------------------


def came(frames: np.ndarray, scene: toyworld.Scene, change: int) -> float:
    """The frame from which on three seconds show the new motion and keep to it; NaN if that never comes."""
    found = toyworld.measure(frames, scene)
    new = scene.then[-1][1]
    starts = np.arange(change - SECTION, len(frames) - LOOK + 1, HOP)
    shows = [toyworld.motion_of(found[at : at + LOOK], scene, frames.shape[1:3]) == new for at in starts]
    for number, start in enumerate(starts):
        if all(shows[number:]) and shows[number:]:
            return float(start)
    return float("nan")


def changing_scenes(count: int) -> Iterator[toyworld.Scene]:
    """Scenes that are asked for another motion at CHANGE."""
    for number, scene in enumerate(held_out_scenes(count, FIRST_SCENE)):
        rng = np.random.default_rng((number, 11))
        yield toyworld.changing(scene, rng, 1 + round(CHANGE * toyworld.FPS))


def prompts(job: Job, networks: Networks, count: int, sheets: Path | None) -> None:
    """Changes of the prompt, with the history as it is and without what lies far, in the orders that there are."""
    change, total = 1 + round(CHANGE * toyworld.FPS), job.frames
    scenes = list(changing_scenes(count))
    truth = [came(np.asarray(toyworld.render(each, range(total))), each, change) for each in scenes]
    usual = float(np.nanmedian(np.array(truth)))
    told("prompts", "true videos", {"found": [float(not np.isnan(each)) for each in truth]}, usual=usual)
    for sampling in ("vanilla", "inverted", "endpoint"):
        for history, blend in (("", 0), ("forget", 0), ("", 2)):
            if history == "forget" and sampling == "endpoint":
                continue
            rows: Rows = {name: [] for name in ("in_section", "ever", "late", "look_before", "look_after")}
            shown = []
            for number, scene in enumerate(scenes):
                asked = replace(
                    job, sampling=sampling, history=history, blend=blend, prompts=spans(scene, toyworld.FPS),
                    seed=number,
                )  # fmt: skip
                frames = made(asked, networks, Inputs(picture=first_of(scene)))
                late = (came(frames, scene, change) - usual) / toyworld.FPS
                rows["in_section"].append(float(late < SECTION / toyworld.FPS))
                rows["ever"].append(float(not np.isnan(late)))
                rows["late"].append(max(0.0, late))
                for name, part in (("before", slice(0, change)), ("after", slice(change, None))):
                    rows[f"look_{name}"].append(identity(frames[part], scene, part.start)["look"])
                shown.append(frames)
            name = f"{sampling} {history or 'as it is'}" + (f" blend {blend}" if blend else "")
            told("prompts", name, rows)
            keep_sheet(shown, sheets, f"prompts-{name}")


# Key frames -----------------------------------------------------------------------------------------------------------


def keyframes(job: Job, networks: Networks, count: int, sheets: Path | None) -> None:
    """The scene's true picture of CHANGE, asked for there, against the same video without it."""
    scenes = held_out_scenes(count, FIRST_SCENE)
    for sampling in ("inverted", "endpoint", "planned", "vanilla"):
        for asked_for in (False, True):
            rows: Rows = {
                name: []
                for name in (
                    "psnr",
                    "look_there",
                    "right_before",
                    "right_after",
                    "step_in",
                    "step_out",
                    "look",
                )
            }
            shown = []
            for number, scene in enumerate(scenes):
                anchors = (Anchor(0.0, "first"), *((Anchor(CHANGE, "there"),) if asked_for else ()))
                asked = replace(
                    job, sampling=sampling, anchors=anchors, prompt=toyworld.prompt(scene), seed=number,
                    unforeseen="restart",
                )  # fmt: skip
                plan = plan_of(asked)
                at = plan.shown(plan.anchors[-1])[0] if asked_for else round(CHANGE * toyworld.FPS)
                there = np.asarray(toyworld.render(scene, [at])[0])
                inputs = Inputs(
                    picture=first_of(scene), pictures={CHANGE: there} if asked_for else {}
                )  # fmt: skip
                frames = made(asked, networks, inputs)
                add_keyframe(rows, frames, scene, at, there)
                shown.append(frames)
            name = f"{sampling} {'with' if asked_for else 'without'} it"
            told("keyframes", name, rows)
            keep_sheet(shown, sheets, f"keyframes-{name}")


def add_keyframe(rows: Rows, frames: np.ndarray, scene: toyworld.Scene, at: int, there: np.ndarray) -> None:
    """Measure one video around the frame `at`, where the picture `there` is asked for."""
    rows["psnr"].append(float(frame_psnr(frames[at : at + 1], there[None])[0]))
    rows["look_there"].append(identity(frames[at : at + 1], scene, at)["look"])
    found = toyworld.measure(frames, scene)
    for name, part in (("right_before", slice(max(0, at - LOOK), at)), ("right_after", slice(at, at + LOOK))):
        rows[name].append(float(toyworld.motion_of(found[part], scene, frames.shape[1:3]) == scene.motion))
    rows["look"].append(float(np.mean(found.look_error)))
    steps = step_sizes(frames)
    beside = np.concatenate((steps[at - 1 - BESIDE : at - 1], steps[at + 1 : at + 1 + BESIDE]))
    rows["step_in"].append(ratio(steps[at - 1], beside))
    rows["step_out"].append(ratio(steps[at], beside))


# Loops ----------------------------------------------------------------------------------------------------------------


def loops(job: Job, networks: Networks, count: int, sheets: Path | None) -> None:
    """Videos whose end meets their beginning, and ordinary ones beside."""
    scenes = held_out_scenes(count, FIRST_SCENE)
    for sampling in ("inverted", "endpoint", "planned"):
        for loop in (False, True):
            rows: Rows = {name: [] for name in ("seam", "right", "look")}
            shown = []
            for number, scene in enumerate(scenes):
                asked = replace(job, sampling=sampling, loop=loop, prompt=toyworld.prompt(scene), seed=number)
                frames = made(asked, networks, Inputs(picture=first_of(scene)))
                steps = step_sizes(np.concatenate((frames, frames[:1])))
                beside = np.concatenate((steps[-1 - BESIDE : -1], steps[:BESIDE]))
                rows["seam"].append(ratio(steps[-1], beside))
                found = toyworld.measure(frames, scene)
                rows["right"].append(
                    float(toyworld.motion_of(found, scene, frames.shape[1:3]) == scene.motion)
                )
                rows["look"].append(float(np.mean(found.look_error)))
                shown.append(np.concatenate((frames[-48:], frames[:48])))
            name = f"{sampling} {'looped' if loop else 'not looped'}"
            told("loops", name, rows)
            keep_sheet(shown, sheets, f"loops-{name}")


def step_sizes(frames: np.ndarray) -> np.ndarray:
    """(T - 1,): the mean absolute difference of each frame to the next, in [0, 1]."""
    return np.abs(np.diff(frames.astype(np.int16), axis=0)).mean((1, 2, 3)) / 255


def ratio(step: float, beside: np.ndarray) -> float:
    """A step over the mean of those beside it; a change of a quarter of a value counts as none."""
    least = 0.25 / 255
    return float((step + least) / (beside.mean() + least))


# Telling --------------------------------------------------------------------------------------------------------------


def told(group: str, name: str, rows: Rows, **facts: Any) -> None:
    """Print a line: the mean of each column, NaN left out, and its interval."""
    found = {column: interval(np.array(values)) for column, values in rows.items()}
    words = "  ".join(
        f"{column} {mean:.3f} [{low:.3f} {high:.3f}]" for column, (mean, low, high) in found.items()
    )
    print(f"{group:10} {name:28} {words}", *(f"{key}={value}" for key, value in facts.items()), flush=True)
    print(json.dumps({"group": group, "name": name, **found, **facts}), file=LOG, flush=True)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean, and where 95 % of the means of scenes drawn anew lie."""
    values = values[~np.isnan(values)]
    if not len(values):
        return (float("nan"),) * 3
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    return float(values.mean()), *(float(each) for each in np.quantile(drawn, (0.025, 0.975)))


def keep_sheet(videos: Sequence[np.ndarray], folder: Path | None, name: str) -> None:
    """Twelve frames of each of the first eight videos."""
    if folder is not None:
        frames = [video[at] for video in videos[:8] for at in spread(len(video), 12)]
        save_picture(contact_sheet(frames, columns=12), folder / f"{name.replace(' ', '-')}.png")


GROUPS: dict[str, Callable[[Job, Networks, int, Path | None], None]] = {
    "prompts": prompts, "keyframes": keyframes, "loops": loops
}  # fmt: skip


def main() -> None:
    """Make and measure the groups that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("group", nargs="+", choices=GROUPS)
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--folder", type=Path, default=Path("runs/directing"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    networks = load_networks(args.model, args.dtype, machine=Machine())
    job = Job(
        "", model=args.model, steps=args.steps, frames=1 + round(SECONDS * toyworld.FPS), width=64, height=64,
        dtype=args.dtype, decoding="causal",
    )  # fmt: skip
    global LOG
    with (args.folder / "figures.jsonl").open("a") as LOG:
        for group in args.group:
            begun = time.perf_counter()
            GROUPS[group](job, networks, args.scenes, args.folder)
            print(f"{group}: {args.scenes} scenes in {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
