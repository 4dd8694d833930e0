"""The one way from a job to a video: load its model, follow the events, write the frames, say what it cost."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.cli.allowance import check_allowance
from longtake.cli.captions import has_timeline, of_frames
from longtake.cli.change import Change
from longtake.cli.clip import is_joined
from longtake.cli.company import company, met, speaking
from longtake.cli.film import film_of, pieces_for
from longtake.cli.follow import Make
from longtake.cli.info import describe_model
from longtake.cli.outputs import SHEET_FRAMES, Outputs, outputs_in
from longtake.cli.place import Place
from longtake.cli.preview import previewing
from longtake.cli.progress import Progress
from longtake.errors import JobError, LongtakeError, LongtakeWarning, RunError
from longtake.events import FramesReady, FramesUnwanted, Planned
from longtake.job import Job
from longtake.jobs.folder import JobFolder
from longtake.jobs.section import DONE
from longtake.jobs.stored import read_job
from longtake.machine import is_cpu
from longtake.named import mismatch, tempo, trained_for
from longtake.picture import contact_sheet, save_picture, spread
from longtake.plan.layout import check_scales
from longtake.plan.plans import kind_named, names_like, plan_of
from longtake.sampling.caching import parse
from longtake.sampling.ratios import with_file
from longtake.sampling.ways import discrete_of
from longtake.video.edges import load_picture
from longtake.weights.codebook import codebook_at
from longtake.weights.fingerprint import fingerprint
from longtake.weights.header import read_header
from longtake.weights.hub import HubOptions
from longtake.weights.lora import find_file

if TYPE_CHECKING:
    from longtake.jobs.pieces import Pieces
    from longtake.machine import Machine
    from longtake.pipeline.networks import Networks
    from longtake.pipeline.prepare import Inputs
    from longtake.video.footage import Footage


def make(job: Job, outputs: Outputs, place: Path | None, machine: Machine, progress: Progress) -> None:
    """Make the video of a new job; if there is a `place`, the job and its sections are kept in that folder.

    Whatever can be refused is refused before the model loads: pictures, LoRAs, and what the model's headers say.
    """
    pictures: dict[Any, Any] = {anchor.at: load_picture(anchor.image) for anchor in job.anchors}
    loras = tuple(replace(lora, path=_whole(lora.path)) for lora in job.loras)
    _check_cache(job)
    _check_codes(job, progress)
    _check_sampling(job)
    mark = _checked_model(job, place is not None, progress)
    check_allowance(job, machine)
    networks = load(job, machine, progress)
    from longtake.pipeline.footage import with_clip, with_latents
    from longtake.pipeline.given import begun
    from longtake.pipeline.prepare import Inputs

    job, clip = with_clip(job, networks, None)
    job, plain = begun(job, networks, 0 in pictures, clip)
    clip = with_latents(clip, networks) if clip is not None else None
    pictures |= {} if plain is None else {0: plain}
    job = _settled(job, networks, pictures.get(0), progress)
    outputs = outputs.sized(job)

    with contextlib.ExitStack() as stack:
        found, folder = replace(job, loras=loras), None
        if place is not None:
            kept = outputs.kept_in(place)
            began = JobFolder.create(place, found, model=mark, video=kept, pictures=pictures, clip=clip)
            folder = stack.enter_context(began)
            job = found = folder.job
        stack.enter_context(company(networks))
        pieces = pieces_for(folder, outputs, networks)
        events = _events(found, networks, Inputs(pictures=pictures, clip=clip), outputs, folder, pieces)
        run(job, events, outputs, folder, progress, clip, pieces)


def go_on(place: Place, change: Callable[[JobFolder], Change], progress: Progress) -> None:
    """Change the job in a folder as `change` asks, make the sections that it then lacks, and write its video anew."""
    asked, _ = read_job(place.folder)
    at = replace(asked, model=place.model or asked.model, parts={**asked.parts, **place.parts})
    with JobFolder.open(
        place.folder, fingerprint(at.model, at.parts, HubOptions(told=progress.downloading))
    ) as folder:
        outputs = outputs_in(folder, place.output)  # refused before anything is changed
        changed = change(folder)
        changed.job.check()
        _check_sampling(replace(changed.job, model=at.model, parts=at.parts))
        check_allowance(replace(changed.job, model=at.model, parts=at.parts), place.machine)
        again = changed.make(folder)
        if again is not None:
            progress.changed(again, list(folder.states().values()).count(DONE))
        networks = load(at, place.machine, progress)
        _settled(folder.job, networks, folder.picture, progress)
        folder.log("resumed")
        with company(networks):
            pieces = pieces_for(folder, outputs, networks)
            events = _events(folder.job, networks, folder.inputs, outputs, folder, pieces)
            run(folder.job, events, outputs, folder, progress, folder.clip, pieces)


def load(job: Job, machine: Machine, progress: Progress) -> Networks:
    """The networks that the job names, as the machine runs them; shared, if several processes were started."""
    ranks = met(job, machine)
    with speaking(ranks), progress.loading(job.model):
        # Here, since it brings the framework: what is refused before is refused at once.
        from longtake.pipeline.loading import load_networks

        if ranks is not None:
            machine = replace(machine, device=ranks.device)
        networks = load_networks(
            job.model,
            job.dtype,
            parts=job.parts,
            machine=machine,
            quantize=job.quantize,
            told=progress.downloading,
        )
        if ranks is not None:
            from longtake.pipeline import together

            networks = together.shared(networks, ranks)
    if ranks is not None:
        progress.shares(ranks.size)
    kernel, device = networks.transformer.chosen_kernel, str(networks.transformer.device)
    if machine.attention != "auto" or not is_cpu(device):
        progress.runs_on(device, kernel)
    return networks


def run(
    job: Job,
    events: Any,
    outputs: Outputs,
    folder: JobFolder | None,
    progress: Progress,
    clip: Footage | None = None,
    pieces: Pieces | None = None,
) -> None:
    """Follow the events of a job and write what comes, joined to its `clip`; in the end, say what it cost."""
    told = progress.follow(events)
    with contextlib.closing(events), _under_way(folder, progress), contextlib.closing(told):
        frames = write(job, told, outputs, clip, pieces)
    if folder is not None:
        if pieces is not None:
            pieces.tidy(folder.made.takes * folder.sections)
        folder.log("video_written", file=str(outputs.video), frames=frames)
    _summarise(job, outputs, frames, folder, progress)


def write(
    job: Job,
    events: Iterator[Any],
    outputs: Outputs,
    clip: Footage | None = None,
    pieces: Pieces | None = None,
) -> int:
    """Write the frames as they come, and the sheet at the end; returns how many the video has.

    With `pieces`, each section is encoded apart, unless its piece is there.
    """
    chosen: list[int] = []
    kept = []
    writer = film_of(job, outputs, clip, pieces)
    with writer, previewing(outputs.preview, job) as show:
        for event in events:
            show(event)
            if isinstance(event, Planned) and outputs.sheet:
                chosen = spread(event.frames, SHEET_FRAMES)
                if pieces is not None:
                    pieces.also = chosen
            if isinstance(event, FramesReady | FramesUnwanted):
                writer.tell(event)
            if isinstance(event, FramesReady):
                end = event.start + event.frames.shape[1]
                kept += [event.frames[0, n - event.start].copy() for n in chosen if event.start <= n < end]
    if outputs.sheet:
        told = of_frames(job, plan_of(job), chosen) if has_timeline(job) else {}
        save_picture(contact_sheet(kept, captions=told), outputs.sheet)
    return writer.frames


@contextlib.contextmanager
def _under_way(folder: JobFolder | None, progress: Progress) -> Iterator[None]:
    """Inside, an error after the run has begun is no refusal but a RunError; the progress says how to go on."""
    try:
        yield
    except (KeyboardInterrupt, LongtakeError) as error:
        if progress.has_begun and folder is not None:
            progress.stopped(folder.path)
        if progress.has_begun and isinstance(error, JobError):
            raise RunError(str(error)) from error
        raise


def _whole(lora: str) -> str:
    """The file of a LoRA, whose header is known to be whole; found once, since it may be on the hub."""
    file = find_file(lora)
    read_header(file)
    return lora if Path(lora).is_file() else str(file)


def _check_cache(job: Job) -> None:
    """Raise JobError if the file that the job's cache names cannot be read."""
    cache = parse(job.cache)
    if cache is not None:
        with_file(cache)


def _check_codes(job: Job, progress: Progress) -> None:
    """Raise ModelError if the job's history is discrete and its model has no such codes."""
    discrete = discrete_of(job.history)
    if discrete is not None:
        hub = HubOptions(told=progress.downloading)
        codebook_at(job.model, job.parts, hub).codebook.of(*discrete)


def _check_sampling(job: Job) -> None:
    """Warn of a sampling that the model was not trained for, and refuse one that none can, before gigabytes come."""
    check_scales(kind_named(job.sampling).scales)
    note = mismatch(job.sampling, trained_for(job.model, job.parts), names_like(job.sampling))
    if note is not None:
        warnings.warn(note, LongtakeWarning, stacklevel=2)


def _checked_model(job: Job, kept: bool, progress: Progress) -> str:
    """The fingerprint of the job's model if it is to be kept; ModelError if a header of it is not as it should be."""
    if kept:
        return fingerprint(job.model, job.parts, HubOptions(told=progress.downloading))
    describe_model(job.model, job.parts)
    return ""


def _events(
    job: Job,
    networks: Networks,
    inputs: Inputs,
    outputs: Outputs,
    folder: JobFolder | None,
    pieces: Pieces | None,
) -> Any:
    from longtake.pipeline.loop import generate

    shown = None if outputs.preview is None else outputs.preview.by
    ranks = getattr(networks, "ranks", None)
    if ranks is not None:
        from longtake.pipeline.together import TheirStore

        ranks.share(Make(job, inputs.pictures, shown, folder is not None, inputs.clip))
        store = None if folder is None else TheirStore(folder, ranks)
        return generate(job, networks, inputs, store=store, preview=shown)
    wanted = None if pieces is None else pieces.wanted
    return generate(job, networks, inputs, store=folder, preview=shown, wanted=wanted)


def _settled(job: Job, networks: Networks, picture: Any, progress: Progress) -> Job:
    """The job with the size and the dtype that its video will have."""
    from longtake.pipeline.prepare import settled

    job = settled(job, networks, picture)
    note = tempo(job.fps, networks.settings)
    if note is not None:
        warnings.warn(note, LongtakeWarning, stacklevel=2)
    progress.loaded(job)
    return job


def _summarise(job: Job, outputs: Outputs, frames: int, folder: JobFolder | None, progress: Progress) -> None:
    zoom = outputs.zoom or 1
    seconds = {**progress.seconds, "total": sum(progress.seconds.values())}
    peak = peak_memory_mb()
    progress.emit(
        "done",
        file=str(outputs.video),
        sheet=str(outputs.sheet) if outputs.sheet else None,
        folder=str(folder.path) if folder else None,
        frames=frames,
        width=job.width,
        height=job.height,
        zoom=zoom,
        seconds={name: round(value, 2) for name, value in seconds.items()},
        steps={"asked": progress.asked, "computed": progress.computed},
        peak_memory_mb=peak,
    )
    if progress.style == "json":
        return
    size = f"{job.width} x {job.height}"
    if zoom > 1:
        size += f" (enlarged {zoom} times, to {job.width * zoom} x {job.height * zoom})"  # type: ignore[operator]
    print(f"{outputs.video}: {frames} frames, {size}, {frames / job.fps:.1f} s at {job.fps} fps")
    if is_joined(job, outputs):
        assert job.clip is not None
        print(f"they are joined to {job.clip.video}, whose own frames and sound lie beside them")
    if outputs.sheet:
        print(f"{outputs.sheet}: contact sheet")
    total = seconds.pop("total")
    print(f"time: {total:.1f} s ({', '.join(f'{name} {value:.1f} s' for name, value in seconds.items())})")
    if job.cache and progress.asked:
        numbers, _, _ = job.cache.partition(";")  # without a list of ratios
        print(f"steps computed: {progress.computed} of {progress.asked} ({numbers})")
    if peak is not None:
        print(f"peak memory: {peak} MB")


def peak_memory_mb() -> int | None:
    """The most main memory that this process has held, in MB; None if the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6)
