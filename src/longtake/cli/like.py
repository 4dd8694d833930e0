"""`--like`, `--preset` and `--save-preset`: settings that come from a file, where the command does not give them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from longtake.cli.info import VIDEOS
from longtake.cli.presets import check_preset, read_preset, write_preset
from longtake.errors import JobError
from longtake.job import Anchor, Job
from longtake.spans import in_order

LENGTH, SIZE = ("frames", "seconds"), ("width", "height", "size")
TRAINED = ("sampling", "steps", "guidance")
"""The fields of a job whose defaults are its model's."""


def add_like(parser: Any) -> None:
    """The options of settings that come from a file."""
    group = parser.add_argument_group(
        "settings from files", "What the command gives goes before all of them."
    )
    group.add_argument(
        "--like",
        metavar="VIDEO",
        help="all that this video was made by (any that longtake wrote, a job's folder, or a job as JSON); PICTURE "
        "and PROMPT may be left out then",
    )
    group.add_argument(
        "--preset",
        dest="presets",
        action="append",
        metavar="FILE",
        help="settings from a file, JSON or TOML (docs/outputs.md); may be given several times, the last goes first",
    )
    group.add_argument(
        "--save-preset",
        metavar="FILE.json",
        help="write the settings of this command to a file, and make nothing if there is no PROMPT",
    )


def filled(args: argparse.Namespace) -> bool:
    """Fill in what the command does not give, and write a preset if that is asked for; False if that was all."""
    saved = None if args.save_preset is None else check_preset(args.save_preset)
    for name in reversed(args.presets or ()):
        _fill(args, read_preset(Path(name)))
    if saved is not None:
        write_preset(saved, args)
    if args.like is not None:
        job, beside = job_like(args.like)
        _check_web(args.like, _kept(args, job.anchors))
        _fill(args, {**_values(job, args.model), **beside})
    return saved is None or args.prompt is not None


def job_like(name: str) -> tuple[Job, dict[str, Any]]:
    """The job that a video carries, or that lies in a folder or a JSON file; and its zoom, if the video tells it."""
    at = Path(name)
    if (at / "job.json").is_file():
        from longtake.jobs.stored import read_job

        return _in_folder(read_job(at)[0], at), {}
    if at.suffix.lower() == ".json":
        try:
            return _near(Job.from_json(at.read_text(encoding="utf-8-sig")), at.parent), {}
        except (OSError, UnicodeDecodeError) as error:
            raise JobError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if at.suffix.lower() not in VIDEOS and not at.is_dir():
        raise JobError(
            f"--like takes a video that longtake made, a job's folder or a job as JSON; {name} is none of them."
        )
    from longtake.video import read_metadata

    facts = read_metadata(name)
    job = facts.job
    if job is None:
        raise JobError(f"{name} carries no job, so that nothing is known of how it was made.")
    beside = {}
    # A video that is joined to its clip has the clip's size.
    if job.width and job.height and job.clip is None:
        zoom = facts.width // job.width
        if zoom and (facts.width, facts.height) == (zoom * job.width, zoom * job.height):
            beside["zoom"] = zoom
    return _near(job, at.parent), beside


def _in_folder(job: Job, folder: Path) -> Job:
    """The job with the pictures that its folder keeps."""
    from longtake.jobs.pictures import file_of

    anchors = tuple(replace(anchor, image=str(folder / file_of(anchor.at))) for anchor in job.anchors)
    return replace(job, anchors=anchors)


def _near(job: Job, folder: Path) -> Job:
    """The job with its files that are not here, but beside what it came with."""

    def near(name: str) -> str:
        beside = folder / name
        return str(beside) if not Path(name).exists() and beside.is_file() else name

    anchors = tuple(replace(anchor, image=near(anchor.image)) for anchor in job.anchors)
    clip = job.clip and replace(job.clip, video=near(job.clip.video))
    return replace(
        job,
        anchors=anchors,
        clip=clip,
        loras=tuple(replace(lora, path=near(lora.path)) for lora in job.loras),
    )


def _check_web(name: str, anchors: Iterable[Anchor]) -> None:
    """Raise JobError for a picture on the web: an address out of a stranger's file is not fetched."""
    for anchor in anchors:
        if anchor.image.lower().startswith(("http://", "https://")):
            raise JobError(
                f"{name} was made from the picture {anchor.image}; an address out of a file is not fetched: get the "
                "picture, and give it as PICTURE."
            )


def _values(job: Job, model: str | None) -> dict[str, Any]:
    """The fields of a job. If another model shall make it, what followed from its own model is left to that one."""
    values = {name: getattr(job, name) for name in job.__dataclass_fields__}
    if model is not None and model != job.model:
        own = Job("", model=job.model, parts=job.parts)
        for name in TRAINED:
            if getattr(job, name) == getattr(own, name):
                del values[name]
        del values["parts"]
    return values


def _fill(args: argparse.Namespace, values: Mapping[str, Any]) -> None:
    """Set what is not set yet: lengths and sizes as a whole, pictures by their times, parts by their names."""
    given = {name for name, value in vars(args).items() if value is not None}
    for name, value in values.items():
        if any(name in group and given & set(group) for group in (LENGTH, SIZE)):
            continue
        if name == "parts":
            own = dict(args.parts or ())
            args.parts = list({**value, **own}.items())
        elif name == "anchors":
            args.anchors = list(in_order((*_kept(args, value), *(args.anchors or ()))))
        elif name in ("clip", "from_text") and _begins(args):
            continue
        elif name not in given:
            setattr(args, name, value)


def _begins(args: argparse.Namespace) -> bool:
    """Tell if the command says what the video begins with."""
    return args.picture is not None or args.clip is not None


def _kept(args: argparse.Namespace, anchors: Iterable[Anchor]) -> list[Anchor]:
    """The pictures at whose times the command gives none."""
    taken = {anchor.at for anchor in args.anchors or ()} | ({0} if _begins(args) else set())
    return [anchor for anchor in anchors if anchor.at not in taken]
