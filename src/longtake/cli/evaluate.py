"""`longtake evaluate`: measure how videos change with time: a model's on the toy world, or any video files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.cli.arms import FLOORS, RESULTS, Asked, asked_of
from longtake.cli.bars import Row
from longtake.cli.options import OPTIONS, add_job_options, add_json, add_machine, machine_of
from longtake.cli.pace import Pace, time_left
from longtake.errors import JobError
from longtake.job import Job
from longtake.plan.plans import PLANS

if TYPE_CHECKING:
    from longtake.cli.progress import Progress
    from longtake.evaluation.making import Arm, Progressed
    from longtake.evaluation.records import Record
    from longtake.evaluation.results import Results
    from longtake.pipeline.networks import Networks

USAGE = "WHAT [WHAT ...] [options]"
EXAMPLES = """\
longtake evaluate embedded --scenes 64 --seeds 3 --seconds 60 --sampling vanilla,inverted --plot --sheet
longtake evaluate embedded --arms arms.json --steps 10 -o study
longtake evaluate clip.mp4 other.mp4 --plot
longtake evaluate clip.mp4 --reference original.mp4
longtake evaluate study/results.json runs/second -o both --against vanilla
"""
FIELDS = tuple(
    OPTIONS.keys()
    - {"prompt", "model", "anchors", "sampling", "reference", "fps", "blend", "loop", "unforeseen"}
)
"""The fields of a job that options give to all arms; a file of arms may name every field."""

PLOT, SHEET, KEPT = "curves.png", "sheet.png", "videos"
STILLS = 9
"""Frames of a video on the sheet."""
SHOWN = 0.1
"""A log has a line for each so much of an arm."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The things to evaluate, the scenes for models, and the folder of the results."""
    parser.add_argument(
        "what",
        nargs="+",
        metavar="WHAT",
        help="a model (a folder, owner/name on the hub, or embedded); a video file or a folder of them; a results.json "
        "of an earlier evaluation, or its folder",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", default=Path("evaluation"),
        help="the results' folder; the same command goes on there with what it lacks (default: %(default)s)",
    )  # fmt: skip
    group = parser.add_argument_group("the toy world, for models")
    group.add_argument(
        "--scenes",
        type=int,
        default=42,
        metavar="N",
        help="scenes that no training saw (default: %(default)s)",
    )
    group.add_argument(
        "--first-scene", type=int, default=0, metavar="N", help="the first one's number (default: 0)"
    )
    group.add_argument(
        "--world", default="plain", metavar="NAME", help="what the first picture does not settle: plain (nothing), "
        "pan, light, guest, hidden, hidden guest, circles or change (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="videos of each scene (default: %(default)s)"
    )
    group.add_argument(
        "--batch", type=int, default=16, metavar="N", help="videos made at once (default: %(default)s)"
    )
    group.add_argument(
        "--sampling", dest="samplings", metavar="NAME[,NAME]",
        help=f"an arm for each: all, or some of {', '.join(PLANS)} (default: what the model was trained for)",
    )  # fmt: skip
    group.add_argument(
        "--arms", type=Path, metavar="FILE",
        help='arms in JSON: {"ours": {"steps": 10}, …}, each with what it has beside the options here',
    )  # fmt: skip
    group.add_argument(
        "--no-floor", action="store_true", help="without true videos, and these after the autoencoder"
    )
    group = parser.add_argument_group("video files")
    group.add_argument(
        "--reference", dest="standard", type=Path, metavar="VIDEO",
        help="compare with this video (default: with each one's own first second)",
    )  # fmt: skip
    group = parser.add_argument_group("the results")
    group.add_argument("--plot", action="store_true", help=f"write the curves to DIR/{PLOT} (longtake[plot])")
    group.add_argument("--sheet", action="store_true", help=f"write some frames of each video to DIR/{SHEET}")
    group.add_argument("--measures", metavar="NAME[,NAME]", help="what table and plot show (default: all)")
    group.add_argument(
        "--against", metavar="ARM", help="the arm that others are compared with (default: the first)"
    )
    add_job_options(parser, FIELDS)
    add_machine(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Check what is asked, make and measure what is not kept, and tell."""
    from longtake.cli.progress import progress_for
    from longtake.evaluation.pictures import check_plots
    from longtake.launched import launched
    from longtake.option import check_choice
    from longtake.toyworld import VARIANTS

    if launched()[1] > 1:
        raise JobError("An evaluation is one process; start it alone.")
    _check_numbers(args)
    check_choice("--world", args.world, VARIANTS)
    measures = _measures(args.measures)
    if args.plot:
        check_plots()
    asked, progress = asked_of(args), progress_for(args.json)
    from longtake.evaluation.records import Keep, Record

    telling, records = Telling(progress, asked.total(args)), list[Record]()
    keep = Keep(_folder(args.output) / KEPT) if asked.jobs or asked.clips else None
    try:
        for told in _evaluated(args, asked, keep, progress):
            if isinstance(told, Record):
                records.append(told)
                telling.record(told)
            else:
                telling.progressed(told)
    except KeyboardInterrupt:
        progress.clear()
        progress.say("what is measured is kept; the same command goes on")
        raise
    progress.clear()
    _finish(args, asked, records, measures, progress)


def _measures(text: str | None) -> Collection[str]:
    from longtake.evaluation.measures import MEASURES

    names = tuple(MEASURES) if text is None else tuple(text.split(","))
    for name in names:
        if name not in MEASURES:
            raise JobError(f"There is no measure {name!r}; there are: {', '.join(MEASURES)}.")
    return names


def _check_numbers(args: argparse.Namespace) -> None:
    for flag, value, least in (
        ("--scenes", args.scenes, 1),
        ("--first-scene", args.first_scene, 0),
        ("--seeds", args.seeds, 1),
        ("--batch", args.batch, 1),
    ):
        if value < least:
            raise JobError(f"{flag} must be at least {least}; {value} was asked for.")


def _folder(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise JobError(f"{path} is a file; results need a folder.")
    return path


# Making and measuring -------------------------------------------------------------------------------------------------


def _evaluated(args: argparse.Namespace, asked: Asked, keep: Any, progress: Progress) -> Iterator[Any]:
    from longtake.evaluation.clips import evaluate_clips

    stills = STILLS if args.sheet else 0
    if asked.jobs:
        yield from _made(args, asked.jobs, keep, progress, stills)
    if asked.clips:
        yield from evaluate_clips(
            asked.clips, reference=args.standard, window=args.window, keep=keep, stills=stills
        )


def _made(
    args: argparse.Namespace, arms: list[Arm], keep: Any, progress: Progress, stills: int
) -> Iterator[Any]:
    from longtake.cli.make import load
    from longtake.evaluation.making import evaluate_videos, floor_records, sized, true_records
    from longtake.toy.judge import held_out_scenes, through_autoencoder

    loaded: dict[str, Networks] = {}

    def networks_of(job: Job) -> Networks:
        key = json.dumps([job.model, dict(job.parts), job.dtype, job.quantize], sort_keys=True)
        if key not in loaded:
            loaded.clear()  # one at a time is in memory
            loaded[key] = load(job, machine_of(args), progress)
        return loaded[key]

    first = args.first_scene
    scenes = dict(enumerate(held_out_scenes(args.scenes, first, args.world), first))
    job = arms[0].job
    if not args.no_floor:
        networks = networks_of(job)
        made = sized(job, networks)
        size = (made.width or 0, made.height or 0)
        section = 4 * job.window
        seams = range(1 + section, job.frames, section)
        yield from true_records(
            scenes, job.frames, size, keep=keep, stills=stills, seams=seams, section=section
        )
        yield from floor_records(
            scenes, job.frames, size, lambda true: through_autoencoder(networks.vae, true), section
        )
    seeds = range(args.seeds)
    yield from evaluate_videos(arms, networks_of, scenes, seeds, batch=args.batch, keep=keep, stills=stills)


class Telling:
    """The telling of an evaluation: its share that is done, and the time left by the rate of what takes time."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total
        self._pace: Pace | None = None
        self._arms: dict[str, float] = {}
        self._said: dict[str, int] = {}

    def record(self, record: Record) -> None:
        """Tell of a finished video."""
        self._progress.emit(
            "video", arm=record.arm, scene=record.scene, seed=record.seed, asked=record.asked, seen=record.seen,
            lost=record.lost,
        )  # fmt: skip

    def progressed(self, at: Progressed) -> None:
        """Tell how far an arm is."""
        if at.arm not in FLOORS:
            self._pace = self._pace or Pace(self._total)
            if at.arm in self._arms:
                self._pace.at(self._pace.done + at.done - self._arms[at.arm])
            else:  # what was kept comes before an arm's first step
                self._pace.skip(at.done)
            self._arms[at.arm] = at.done
        left = None if self._pace is None else self._pace.left
        self._progress.emit(
            "progressed", arm=at.arm, done=round(at.done, 3), total=at.total,
            seconds_left=None if left is None else round(left, 1),
        )  # fmt: skip
        text = f"{at.arm}: {at.done:.1f} of {at.total} videos  {time_left(left)}"
        self._progress.show(Row(text, at.done, at.total))
        step = int(at.done / at.total / SHOWN)
        if self._progress.style == "log" and step > self._said.get(at.arm, 0):
            self._said[at.arm] = step
            self._progress.say(text)


# The results ----------------------------------------------------------------------------------------------------------


def _finish(
    args: argparse.Namespace,
    asked: Asked,
    records: list[Record],
    measures: Collection[str],
    progress: Progress,
) -> None:
    from longtake.evaluation.pictures import plot, sheet
    from longtake.evaluation.results import differences, merged, write_results
    from longtake.evaluation.table import table

    own = results_of(records, asked)
    results = merged([("", own), *asked.earlier])
    base = args.against or _base(results)
    folder = _folder(args.output)
    from longtake import disk

    disk.make_folder(folder)
    write_results(folder / RESULTS, results, base)
    files = [folder / RESULTS]
    if args.plot:
        plot(results, folder / PLOT, measures)
        files.append(folder / PLOT)
    rows = sheet(records, folder / SHEET) if args.sheet else []
    if rows:
        files.append(folder / SHEET)
    progress.emit("done", files=[str(file) for file in files], arms=list(results), against=base)
    if progress.style == "json":
        return
    print(table(results, measures, differences(results, base) if base else None, base))
    print()
    print(f"{', '.join(map(str, files))}" + (f"; rows of the sheet: {', '.join(rows)}" if rows else ""))


def results_of(records: Iterable[Record], asked: Asked) -> Results:
    """The results of what was made and measured now."""
    from longtake.evaluation.results import arm_of

    of: dict[str, Any] = {arm.name: {"job": arm.job.values(), "weights": arm.model} for arm in asked.jobs}
    of |= {arm.name: {"files": [str(file) for file in arm.files]} for arm in asked.clips}
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.arm, []).append(record)
    return {name: arm_of(group, of.get(name, {"what": name})) for name, group in groups.items()}


def _base(results: Results) -> str | None:
    """The first arm that is no truth, if there is something to compare with it."""
    made = [name for name in results if name not in FLOORS]
    return made[0] if made and len(results) > 1 else None
