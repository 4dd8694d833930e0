"""`longtake generate`: a picture and a sentence become a video."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from longtake.cli import preview
from longtake.cli.options import (
    DECODINGS,
    add_device,
    add_length,
    add_plan,
    frames_of,
    lora,
    mute_hub,
    number,
    size,
)
from longtake.errors import JobError, PictureError

if TYPE_CHECKING:
    from PIL.Image import Image

    from longtake.cli.progress import Progress
    from longtake.events import Event
    from longtake.job import Job
    from longtake.jobs.folder import JobFolder

SHOWN = 256  # players show smaller videos as a stamp
SHEET_FRAMES = 24
SECONDS = ("load", "sampling", "decoding", "writing")


@dataclass(frozen=True)
class Files:
    """What is written, and how: the video, perhaps a contact sheet; each pixel `zoom` times as large."""

    output: Path
    sheet: Path | None
    zoom: int
    crf: float
    preview: Path | None = None
    preview_kind: str | None = None


def add_parser(verbs: Any) -> None:
    """Add the verb and its options."""
    parser = verbs.add_parser(
        "generate", help="a picture and a sentence become a video", description=__doc__, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    parser.add_argument("picture", metavar="PICTURE", help="the first frame: a file or an http(s) address")
    parser.add_argument("prompt", metavar="PROMPT", help="what happens, in one sentence")
    parser.add_argument(
        "-o", "--output", metavar="OUT.mp4", help="the video (default: named after the picture)"
    )

    video = parser.add_argument_group("the video")
    add_length(video)
    video.add_argument("--size", type=size, metavar="WxH", help="size in pixels (default: the model's own)")
    video.add_argument("--last-image", metavar="PICTURE", help="a picture to end with (inverted sampling)")
    video.add_argument(
        "--negative", default="", metavar="PROMPT", help="what should not happen (needs --cfg)"
    )
    video.add_argument(
        "--seed", type=int, default=0, help="another seed, another video (default: %(default)s)"
    )

    model = parser.add_argument_group("the model and how it is sampled")
    model.add_argument(
        "--model",
        default="embedded",
        metavar="FOLDER_OR_NAME",
        help="a folder, or owner/name on the Hugging Face hub (default: the embedded one)",
    )
    model.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="default: %(default)s"
    )
    add_device(model)
    model.add_argument("--steps", type=int, default=25, help="steps for each section (default: %(default)s)")
    model.add_argument("--solver", help="euler or unipc (default: what the model asks for)")
    model.add_argument("--shift", type=number, help="flow shift (default: what the model asks for)")
    model.add_argument(
        "--guidance", type=number, default=10.0, help="distilled guidance (default: %(default)s)"
    )
    model.add_argument(
        "--cfg", type=number, default=1.0, help="classifier-free guidance, 1 is off (default: %(default)s)"
    )
    model.add_argument("--cfg-rescale", type=number, default=0.0, help="its rescale (default: %(default)s)")
    model.add_argument(
        "--decoding",
        choices=DECODINGS,
        default="exact",
        help="exact: the reference's frames; causal: faster, and near to them (default: %(default)s)",
    )
    model.add_argument(
        "--lora",
        type=lora,
        action="append",
        default=[],
        metavar="FILE[:WEIGHT]",
        help="a LoRA, and how much of it (default: 1; 1,0.5,0: one for each section in the video's time); "
        "may be given several times",
    )
    add_plan(model)

    files = parser.add_argument_group("the files")
    files.add_argument(
        "--crf", type=number, default=17, help="video quality, 1 (best) to 51 (default: %(default)s)"
    )
    files.add_argument(
        "--zoom",
        type=int,
        metavar="N",
        help=f"enlarge N times (default: until the shorter side has {SHOWN} pixels)",
    )
    files.add_argument(
        "--job",
        metavar="DIR",
        help="keep the job and every finished section in this new folder, and the video where -o names no place: "
        "whatever happens, longtake resume DIR goes on",
    )
    files.add_argument(
        "--sheet", metavar="FILE.png", help=f"also write a contact sheet of {SHEET_FRAMES} frames"
    )
    preview.add_options(files)
    files.add_argument(
        "--json", action="store_true", help="one JSON object for each event on standard output"
    )


def run(args: argparse.Namespace) -> None:
    """Check all that can be checked, then load the model, make the video, and say what it cost."""
    from longtake.cli.progress import Progress, style_for
    from longtake.picture import load_image
    from longtake.weights.folder import describe
    from longtake.weights.header import read_header
    from longtake.weights.lora import find_file

    job = job_of(args)
    output, sheet = _outputs(args)
    shown = preview.file_of(args, output, args.picture, args.last_image, sheet)
    picture = load_image(args.picture)
    last_picture = load_image(args.last_image) if args.last_image else None
    for each in job.loras:
        read_header(find_file(each.path))
    mute_hub(args.json)
    describe(args.model)  # reads every header, so that a broken file is found here

    progress = Progress(style_for(args.json))
    seconds = dict.fromkeys(SECONDS, 0.0)
    job, networks = load(job, job.model, args.device, picture, progress, seconds)
    zoom = args.zoom or max(1, -(-SHOWN // min(job.width or SHOWN, job.height or SHOWN)))
    files = Files(output, sheet, zoom, args.crf, shown, preview.kind_of(args))
    if args.job is None:
        make(job, networks, files, progress, seconds, picture, last_picture)
        return
    with _begin_folder(args, job, files, picture, last_picture) as folder:
        make(folder.job, networks, files, progress, seconds, folder=folder)


def job_of(args: argparse.Namespace) -> Job:
    """The job that the options ask for; JobError where it cannot be done."""
    from longtake.job import Job
    from longtake.sampling.solvers import SOLVERS

    if args.fps < 1:
        raise JobError(f"The frame rate must be at least 1; {args.fps} was asked for.")
    if args.solver is not None and args.solver not in SOLVERS:
        raise JobError(f"No solver {args.solver!r}; there are: {', '.join(SOLVERS)}.")
    if args.zoom is not None and args.zoom < 1:
        raise JobError(f"The zoom must be at least 1; {args.zoom} was asked for.")
    if not 1 <= args.crf <= 51:
        raise JobError(f"The quality (--crf) lies between 1 (best) and 51; {args.crf:g} was asked for.")
    width, height = args.size or (None, None)
    job = Job(
        prompt=args.prompt,
        negative_prompt=args.negative,
        picture=args.picture,
        last_picture=args.last_image,
        model=args.model,
        frames=frames_of(args),
        fps=args.fps,
        width=width,
        height=height,
        sampling=args.sampling,
        window=args.window,
        steps=args.steps,
        solver=args.solver,
        guidance=args.guidance,
        cfg_scale=args.cfg,
        cfg_rescale=args.cfg_rescale,
        shift=args.shift,
        seed=args.seed,
        dtype=args.dtype,
        reference=args.reference,
        decoding=args.decoding,
        loras=tuple(args.lora),
    )
    job.check()
    return job


def _outputs(args: argparse.Namespace) -> tuple[Path, Path | None]:
    from longtake.video import check_writable

    if args.job is None:
        output = check_writable(args.output or _free_name(args.picture), ".mp4")
    else:
        from longtake.jobs.folder import VIDEO, check_new

        place = check_new(args.job)
        output = check_writable(args.output, ".mp4") if args.output else place / VIDEO
    if args.sheet is None:
        return output, None
    sheet = check_writable(args.sheet, ".png")
    if sheet in {Path(source).resolve() for source in (args.picture, args.last_image) if source}:
        raise PictureError(
            f"The contact sheet would take the place of the picture {args.sheet}; name another file."
        )
    return output, sheet


def _free_name(picture: str) -> str:
    """A name for the video in the current folder that is not taken yet: videos cost too much to overwrite."""
    web = picture.lower().startswith(("http://", "https://"))
    stem = Path(urlsplit(picture).path if web else picture).stem or "video"
    names = itertools.chain([f"{stem}.mp4"], (f"{stem}-{count}.mp4" for count in itertools.count(2)))
    return next(name for name in names if not Path(name).exists())


def load(
    job: Job, model: str, device: str | None, picture: Image, progress: Progress, seconds: dict[str, float]
) -> tuple[Job, Any]:
    """Load the model; the job comes back with the size that the video will have, and the networks with it."""
    begun = time.perf_counter()
    progress.emit("loading", model=model)
    progress.show(f"loading {model}")
    from longtake.pipeline.loop import load_networks, size_of

    networks = load_networks(model, dtype=job.dtype, device=device)
    width, height = size_of(job, networks, picture)
    job = dataclasses.replace(job, width=width, height=height)
    seconds["load"] = time.perf_counter() - begun
    progress.emit("loaded", seconds=round(seconds["load"], 2), job=dataclasses.asdict(job))
    return job, networks


def make(
    job: Job,
    networks: Any,
    files: Files,
    progress: Progress,
    seconds: dict[str, float],
    picture: Image | None = None,
    last_picture: Image | None = None,
    folder: JobFolder | None = None,
) -> None:
    """Make the video, or what a job's folder lacks of it, write it, and say what it cost."""
    from longtake.pipeline.loop import generate

    events: Any = generate(
        job, networks, picture=picture, last_picture=last_picture, folder=folder, preview=files.preview_kind
    )
    try:
        frames = _write(job, events, files, progress, seconds)
    finally:
        progress.clear()
        events.close()
    if folder is not None:
        folder.log("video_written", file=str(files.output), frames=frames)
    _summarise(job, files, frames, seconds, progress, folder)


def _begin_folder(
    args: argparse.Namespace, job: Job, files: Files, picture: Image, last_picture: Image | None
) -> JobFolder:
    from longtake.jobs.folder import JobFolder
    from longtake.weights.fingerprint import fingerprint

    video = {
        # A video in the job's folder moves with it.
        "file": str(files.output) if args.output else None,
        "sheet": str(files.sheet) if files.sheet else None,
        "zoom": files.zoom,
        "crf": files.crf,
    }
    return JobFolder.create(args.job, job, picture, last_picture, fingerprint(job.model), video)


def _write(
    job: Job,
    events: Any,
    files: Files,
    progress: Progress,
    seconds: dict[str, float],
) -> int:
    """Follow the events and write the frames as they come; returns how many came."""
    from longtake.events import FramesReady, Planned
    from longtake.picture import contact_sheet, spread
    from longtake.video import VideoWriter

    chosen: list[int] = []
    kept = []
    with (
        VideoWriter(files.output, job.fps, crf=files.crf, zoom=files.zoom, job=job, growing=True) as writer,
        preview.previewing(files.preview, job) as show,
    ):
        for event in _timed(events, seconds):
            progress.tell(event)
            show(event)
            if isinstance(event, Planned):
                chosen = spread(event.frames, SHEET_FRAMES) if files.sheet else []
            if isinstance(event, FramesReady):
                with _timing(seconds, "writing"):
                    writer.write(event.frames[0])
                end = event.start + event.frames.shape[1]
                kept += [event.frames[0, n - event.start].copy() for n in chosen if event.start <= n < end]
    if files.sheet:
        try:
            contact_sheet(kept).save(files.sheet)
        except OSError as error:
            raise PictureError(f"{files.sheet} cannot be written: {error.strerror or error}.") from None
    return writer.frames


def _timed(events: Iterator[Event], seconds: dict[str, float]) -> Iterator[Event]:
    """The events; the time that each took is added to what it was spent on."""
    from longtake.events import FramesReady

    while True:
        begun = time.perf_counter()
        event = next(events, None)
        seconds["decoding" if isinstance(event, FramesReady) else "sampling"] += time.perf_counter() - begun
        if event is None:
            return
        yield event


@contextlib.contextmanager
def _timing(seconds: dict[str, float], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - begun


def _summarise(
    job: Job,
    files: Files,
    frames: int,
    seconds: dict[str, float],
    progress: Progress,
    folder: JobFolder | None,
) -> None:
    output, sheet, zoom = files.output, files.sheet, files.zoom
    total, peak = sum(seconds.values()), peak_memory_mb()
    progress.emit(
        "done",
        file=str(output),
        sheet=str(sheet) if sheet else None,
        folder=str(folder.path) if folder else None,
        frames=frames,
        width=job.width,
        height=job.height,
        zoom=zoom,
        seconds={name: round(value, 2) for name, value in (*seconds.items(), ("total", total))},
        peak_memory_mb=peak,
    )
    if progress.style == "json":
        return
    size = f"{job.width} x {job.height}"
    if zoom > 1:
        size += f" (enlarged {zoom} times, to {job.width * zoom} x {job.height * zoom})"  # type: ignore[operator]
    print(f"{output}: {frames} frames, {size}, {frames / job.fps:.1f} s at {job.fps} fps")
    if sheet:
        print(f"{sheet}: contact sheet")
    parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    print(f"time: {total:.1f} s ({parts})")
    if peak is not None:
        print(f"peak memory: {peak} MB")


def peak_memory_mb() -> int | None:
    """The most main memory that this process has held, in MB; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6)
