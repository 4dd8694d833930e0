"""`longtake takes`: list the takes of a job's sections, show them on a sheet, and choose which one the video uses."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.cli.change import Change, add_keep
from longtake.cli.place import add_place, place_of
from longtake.errors import JobError
from longtake.machine import Machine

if TYPE_CHECKING:
    from longtake.jobs.folder import JobFolder
    from longtake.jobs.takes import Take

USAGE = "DIR [--section N [--use TAKE]] [--sheet FILE.png] [options]"
EXAMPLES = """\
longtake takes penguin
longtake takes penguin --section 3 --sheet takes.png
longtake takes penguin --section 3 --use 2
"""
PICTURES = 6
"""Pictures of a take on the sheet: a row for each take."""
ROWS, HEIGHT = 300, 96
"""Most takes on a sheet, and the least height of a picture there, in pixels."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every verb on a job, and which take."""
    add_place(parser)
    parser.add_argument(
        "--section",
        type=int,
        metavar="N",
        help="the takes of this section alone, by its place in the video, 0 first",
    )
    parser.add_argument(
        "--use",
        metavar="TAKE",
        help="use this take of the section, by its number in the list or by how its name begins; with it what it was "
        "made after, and what does not fit it is made again",
    )
    parser.add_argument(
        "--sheet",
        metavar="FILE.png",
        help="also write a contact sheet, a row for each take in the list's order",
    )
    add_keep(parser)


def run(args: argparse.Namespace) -> None:
    """List the takes, or use one and make what the video lacks then."""
    if args.use is not None:
        _use(args)
        return
    if args.keep_takes is not None or args.output is not None or place_of(args).machine != Machine():
        raise JobError(
            "A list makes nothing; --keep-takes, --output and this machine's options go with --use."
        )
    found = takes_in(args.folder, args.section)
    if args.sheet is not None:
        _write_sheet(args, found)
    if args.json:
        listed = {str(number): [take.values() for take in takes] for number, takes in found.items()}
        print(json.dumps({"folder": str(Path(args.folder).resolve()), "takes": listed}, ensure_ascii=False))
    else:
        print("\n".join(_lines(found)))


def takes_in(folder: str, section: int | None) -> dict[int, list[Take]]:
    """All takes of each section that has some, or of one; reads only. JobError for a section that is not there."""
    from longtake.jobs.state import recipes
    from longtake.jobs.stored import read_job
    from longtake.jobs.takes import takes_of
    from longtake.plan.timeline import check_section

    place = Path(folder).resolve()
    found = recipes(place, *read_job(place))
    if section is not None:
        check_section(found.plan.count, section)
    numbers = range(found.plan.count) if section is None else [section]
    takes = {number: takes_of(place, found, number) for number in numbers}
    return {number: each for number, each in takes.items() if each}


def _use(args: argparse.Namespace) -> None:
    from longtake.cli.make import go_on
    from longtake.cli.progress import progress_for
    from longtake.jobs.takes import chosen
    from longtake.plan.timeline import check_section

    if args.section is None:
        raise JobError("--use chooses a take of one section; name it by --section N.")
    if args.sheet is not None:
        raise JobError("--sheet shows the takes of a list; leave it out beside --use.")

    def change(folder: JobFolder) -> Change:
        check_section(folder.sections, args.section)
        return Change(
            folder.using(chosen(args.section, folder.takes(args.section), args.use)), {}, args.keep_takes
        )

    go_on(place_of(args), change, progress_for(args.json))


def _lines(found: dict[int, list[Take]]) -> list[str]:
    """The list for people."""
    from longtake.cli.info import aligned

    if not found:
        return ["no section is made yet"]
    rows: list[Sequence[str]] = [("section", "take", "", "name", "seed", "prompt")]
    for number, takes in found.items():
        for place, take in enumerate(takes, 1):
            head = str(number) if place == 1 else ""
            seed, used = "" if take.seed is None else str(take.seed), "in use" if take.used else ""
            rows.append((head, str(place), used, take.recipe[:8], seed, _short(take.prompt or "")))
    return aligned(rows, ">><<><")


def _short(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _write_sheet(args: argparse.Namespace, found: dict[int, list[Take]]) -> None:
    """A row of pictures for each take: its latents by the projection to colours, so that no network is loaded."""
    from longtake.jobs.stored import read_job
    from longtake.picture import contact_sheet, save_picture
    from longtake.pipeline.loading import model_settings
    from longtake.video import check_writable

    target = check_writable(args.sheet, ".png")
    rows = [(place, take) for takes in found.values() for place, take in enumerate(takes, 1)]
    if not rows:
        raise JobError("No section is made yet, so there is nothing to show.")
    if len(rows) > ROWS:
        raise JobError(
            f"A sheet shows up to {ROWS} takes, and there are {len(rows)}; choose one by --section N."
        )
    job, _ = read_job(Path(args.folder))
    settings = model_settings(args.model or job.model)
    pictures = [picture for _, take in rows for picture in _pictures(take, settings)]
    zoom = max(1, HEIGHT // min(pictures[0].shape[:2]))
    captions = {
        PICTURES * row: f"section {take.number}, take {place}{' (in use)' if take.used else ''}"
        for row, (place, take) in enumerate(rows)
    }
    save_picture(contact_sheet(pictures, columns=PICTURES, zoom=zoom, captions=captions), target)


def _pictures(take: Take, settings: dict[str, Any]) -> list[Any]:
    """So many pictures of a take as a row of the sheet has; white where there are no more."""
    from longtake.jobs import section
    from longtake.picture import spread
    from longtake.pipeline.preview import projected

    latents, _ = section.read(take.file)
    if latents is None:
        raise JobError(
            f"{take.file} is damaged; take it away, or make the section again by: longtake resume DIR."
        )
    frames = projected(latents[:1], settings)[0]
    shown = [frames[number] for number in spread(len(frames), PICTURES)]
    return shown + [frames[0] * 0 + 255] * (PICTURES - len(shown))
