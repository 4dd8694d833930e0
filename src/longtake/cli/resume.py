"""`longtake resume`: go on with a job whose process ended, from its last finished section."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.cli.generate import SECONDS, Files, load, make
from longtake.cli.options import add_device, mute_hub

if TYPE_CHECKING:
    from longtake.jobs.folder import JobFolder


def add_parser(verbs: Any) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "resume", help="go on with a job that was stopped", description=__doc__, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    add_job(parser)


def add_job(parser: argparse.ArgumentParser) -> None:
    """What every verb on a job takes: its folder, where the model and the video are now, the device, and JSON."""
    parser.add_argument("folder", metavar="DIR", help="the folder that generate --job made")
    parser.add_argument("-o", "--output", metavar="OUT.mp4", help="the video (default: where the job has it)")
    parser.add_argument(
        "--model", metavar="FOLDER_OR_NAME", help="where the job's model is now (default: where it was)"
    )
    add_device(parser)
    parser.add_argument(
        "--json", action="store_true", help="one JSON object for each event on standard output"
    )


def run(args: argparse.Namespace) -> None:
    """Make what the job lacks, and its video."""
    with opened(args) as folder:
        go_on(folder, args)


@contextlib.contextmanager
def opened(args: argparse.Namespace) -> Iterator[JobFolder]:
    """The job's folder, once it is sure that the job can go on here."""
    from longtake.jobs.folder import JobFolder, read_job
    from longtake.weights.fingerprint import fingerprint

    mute_hub(args.json)
    job, _ = read_job(Path(args.folder))
    with JobFolder.open(args.folder, fingerprint(args.model or job.model)) as folder:
        files_of(folder, args)  # refused before anything is changed
        yield folder


def go_on(folder: JobFolder, args: argparse.Namespace) -> None:
    """Load the model, make the sections that are missing, and write the video anew."""
    from longtake.cli.progress import Progress, style_for

    files = files_of(folder, args)
    folder.log("resumed")
    progress = Progress(style_for(args.json))
    seconds = dict.fromkeys(SECONDS, 0.0)
    _, networks = load(
        folder.job, args.model or folder.job.model, args.device, folder.picture, progress, seconds
    )
    make(folder.job, networks, files, progress, seconds, folder=folder)


def files_of(folder: JobFolder, args: argparse.Namespace) -> Files:
    """What the job writes, by its own settings and -o."""
    from longtake.jobs.folder import VIDEO
    from longtake.video import CRF, check_writable

    video = folder.made.video
    output = check_writable(args.output or video.get("file") or folder.path / VIDEO, ".mp4")
    sheet = check_writable(video["sheet"], ".png") if video.get("sheet") else None
    return Files(output, sheet, video.get("zoom", 1), video.get("crf", CRF))
