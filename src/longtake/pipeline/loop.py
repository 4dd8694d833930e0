"""The one loop: a job and a model -> a stream of events.

`generate` is the whole way from a picture and a sentence to frames. `sample` is its middle: for each section of
the plan, read what it sees, denoise it, write it down. No line of it knows which sampling type it runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from longtake.backend import exchange, ops, runtime
from longtake.errors import JobError
from longtake.events import Event, FramesReady, Planned, Preview, SectionDone, Stepped
from longtake.job import Job
from longtake.jobs.folder import JobFolder, Kept, Scratch
from longtake.pipeline.decode import Decoding, decode_video, is_finite, reference_decode_video, to_frames
from longtake.pipeline.loras import Strengths, applied, set_for_section
from longtake.pipeline.networks import Networks, load_networks
from longtake.pipeline.noise import Noise, noise_source
from longtake.pipeline.predict import Predictor
from longtake.pipeline.prepare import Conditioning, Text, encode_pictures, encode_text
from longtake.pipeline.preview import previewer
from longtake.plan.history import History
from longtake.plan.plans import Section, plan_of
from longtake.processors import pictures
from longtake.sampling import sigmas as schedules
from longtake.sampling.solvers import SOLVERS, Step, Steps, Velocity, euler

__all__ = ["Change", "Networks", "generate", "load_networks", "sample"]

Solve = Callable[[Velocity, Any], Steps]


@dataclass(frozen=True)
class Change:
    """What a consumer may `send` into `sample` after a `Stepped`: other latents, other prompt states from now on."""

    latents: Any = None
    prompt_states: Any = None


def generate(
    job: Job,
    networks: Networks,
    picture: Any = None,
    last_picture: Any = None,
    folder: JobFolder | None = None,
    preview: str | None = None,
) -> Iterator[Event]:
    """Make the video that the job asks for; to cancel is to close the iterator.

    The pictures (paths, PIL images, arrays, tensors) default to the job's paths. First comes `Planned`, then for each
    section its `Stepped`, a `SectionDone` and, where `preview` ("rgb" or "decode") asks for it, a `Preview`. Frames
    come as soon as they are final, exactly as many as planned: in a vanilla video after each section, in an inverted
    one when all sections are there. Memory does not depend on the length: a plan's history is pruned, and latents
    that wait are on disk.

    With `folder`, a job on disk, the job and the pictures are the folder's. Sections that lie there are not made
    again: their `SectionDone` comes in its place, without any `Stepped`. Raises JobError or PictureError before
    anything is computed where the request cannot be met, and JobError where the numbers go wrong.
    """
    job.check()
    if folder is not None:
        if job != folder.job:
            raise JobError(
                f"{folder.path} holds another job than the one that was given; give its own, folder.job."
            )
        picture, last_picture = folder.picture, folder.last_picture
    picture = job.picture if picture is None else picture
    last_picture = job.last_picture if last_picture is None else last_picture
    if picture is None:
        raise JobError("A video begins with a picture; none was given.")
    plan, planned = plan_of(job, last_picture is not None)
    _check_changes(job, planned)
    width, height = size_of(job, networks, picture)
    first = pictures.pixels(picture, width, height, job.reference)
    last = None if last_picture is None else pictures.pixels(last_picture, width, height, job.reference)
    show = None if preview is None else previewer(networks, preview)
    with applied(job.loras, networks.transformer) as strengths, _kept(job, folder) as kept:
        yield planned
        # The reference's stream is the framework's own; ours is the same on every framework and device.
        noise = noise_source(runtime.seeded(job.seed) if job.reference else job.seed)
        text = encode_text(networks, [job.prompt])
        texts = {c.section: encode_text(networks, [c.prompt]) for c in job.changes if c.prompt is not None}
        negative = encode_text(networks, [job.negative_prompt]) if job.cfg_scale > 1 else None
        states, start, end = encode_pictures(networks, first, last, noise, 1, reference=job.reference)
        conditioning = Conditioning(text, negative, states, start, end)
        events: Generator[Event, Any, None] = sample(
            job, networks, plan, conditioning, noise, loras=strengths, kept=kept, texts=texts
        )
        if show is not None:
            events = _previewed(events, show)
        if job.reference:
            frames = _reference_frames(job, networks.vae, planned, start, events)
        else:
            plain = bool((first == first[..., :1, :1]).all())
            decoding = Decoding(networks.vae, planned.frames, job.window, job.decoding, plain)
            frames = _streamed(decoding, start, planned, events, kept if job.sampling == "inverted" else None)
        with closing(events), closing(frames):
            yield from frames


def _kept(job: Job, folder: JobFolder | None) -> Any:
    """Where the sections lie: the job's folder, or for as long as they wait for their turn; a context."""
    if folder is not None:
        return nullcontext(folder)
    # Vanilla sections are decoded as they come, and the reference keeps them in memory.
    return Scratch() if job.sampling == "inverted" and not job.reference else nullcontext()


def _streamed(
    decoding: Decoding, start: np.ndarray, planned: Planned, events: Iterable[Event], waiting: Kept | None
) -> Generator[Event, None, None]:
    """The events, and the frames as soon as they are final; sections that do not come in order are `waiting`."""
    if waiting is None:
        yield from decoding.push(start)
    for event in events:
        yield event
        if waiting is None and isinstance(event, SectionDone):
            yield from decoding.push(event.latents)
    if waiting is not None:
        yield from decoding.push(start)
        for number in range(planned.sections):
            latents = waiting.read_section(number)
            if latents is None:
                raise JobError(
                    f"Section {number} was damaged on disk before it was decoded; resume to make it again."
                )
            yield from decoding.push(latents)
    yield from decoding.finish()


def _reference_frames(
    job: Job, vae: Any, planned: Planned, start: np.ndarray, events: Iterable[Event]
) -> Generator[Event, None, None]:
    """The events, and then all frames as the reference decodes them: it holds the whole video."""
    done: list[SectionDone] = []
    for event in events:
        if isinstance(event, SectionDone):
            done.append(event)
        yield event
    frames = to_frames(reference_decode_video(vae, start, done, job.sampling, job.window))
    yield FramesReady(0, frames[:, : planned.frames])


def _previewed(
    events: Generator[Event, Any, None], show: Callable[[np.ndarray], np.ndarray]
) -> Generator[Event, None, None]:
    with closing(events):
        for event in events:
            yield event
            if isinstance(event, SectionDone):
                yield Preview(event.number, show(event.latents))


def _check_changes(job: Job, planned: Planned) -> None:
    for change in job.changes:
        if change.section >= planned.sections:
            raise JobError(
                f"There is no section {change.section}; this video has the sections 0 to {planned.sections - 1}."
            )


def size_of(job: Job, networks: Networks, picture: Any) -> tuple[int, int]:
    """(width, height): the job's, else the model's own, else the bucket nearest to the picture's shape."""
    if job.width and job.height:
        return job.width, job.height
    shape = None if "width" in networks.settings else pictures.size_of(picture)
    width, height = pictures.bucket(*shape) if shape else networks.default_size
    return job.width or width, job.height or height


def sample(
    job: Job,
    networks: Networks,
    plan: Sequence[Section],
    conditioning: Conditioning,
    noise: Noise,
    sigmas: Sequence[float] | None = None,
    attention_kwargs: dict[str, Any] | None = None,
    loras: Strengths | None = None,
    kept: Kept | None = None,
    texts: Mapping[int, Text] | None = None,
) -> Generator[Event, Change | None, None]:
    """Denoise the sections of a plan, one after the other; takes a `Change` after each `Stepped`.

    `loras` are adapters of the transformer whose strength goes by sections. What is `kept` is not made again, what is
    made is kept; `texts` are prompts of single sections, by their place in the video. Raises JobError where the
    numbers go wrong.
    """
    transformer = networks.transformer
    conditioning = _placed(conditioning, transformer)
    window = len(plan[0].frames)
    shape = (*conditioning.start.shape[:2], window, *conditioning.start.shape[3:])
    tokens = window * shape[3] * shape[4] / transformer.config.patch_size**2
    solve, steps = solver_of(job, networks.scheduler, tokens, sigmas, exchange.device_of(transformer))
    texts = {number: _placed_text(text, transformer) for number, text in (texts or {}).items()}
    predict = Predictor(job, transformer, attention_kwargs)
    history = History(plan)
    history.write(0, conditioning.start)
    if conditioning.last is not None:
        history.write(1 + window * len(plan), conditioning.last)
    for made, section in enumerate(plan):
        # Drawn even where the section is kept: a stream of noise goes on from there.
        drawn = _noise_of(job, section.number, noise)(section.number, shape, "float32")
        finished = None if kept is None else kept.read_section(section.number)
        if finished is None:
            set_for_section(transformer, loras or {}, section.number)
            latents = runtime.place(ops.from_numpy(drawn), exchange.device_of(transformer))
            predict.begin(section, history)
            own = texts.get(section.number)
            given = conditioning if own is None else replace(conditioning, text=own)
            latents, given = yield from denoise(predict, solve, given, latents, made, steps, section.number)
            conditioning = given if own is None else conditioning
            finished = np.asarray(ops.to_numpy(latents), dtype=np.float32)
            if kept is not None:
                kept.write_section(section.number, finished)
        history.write(section.frames[0], finished)
        yield SectionDone(made, section.number, finished)


def _noise_of(job: Job, number: int, noise: Noise) -> Noise:
    """The job's noise, or that of the seed of a section's own."""
    seed = job.change_of(number).seed
    return noise if seed is None else noise_source(seed)


def denoise(
    predict: Callable[..., Any],
    solve: Solve,
    conditioning: Conditioning,
    latents: Any,
    made: int,
    steps: int,
    number: int,
) -> Generator[Event, Change | None, tuple[Any, Conditioning]]:
    """Denoise one section; returns its latents, and the conditioning with what the consumer changed.

    `made` counts the sections in the order of generation, `number` in the video. Raises JobError where a step leaves
    what is no number.
    """
    now = conditioning

    def velocity(x: Any, sigma: float) -> Any:
        return predict(now, x, sigma)

    solver = solve(velocity, latents)
    step: Step | None = next(solver)
    while step is not None:
        # What is wrong in the velocity is wrong in the latents from this step on.
        if not is_finite(step.latents):
            raise JobError(
                f"The numbers went wrong in section {number} at step {step.index + 1} of {steps}: the latents are not "
                "finite; the sections before it are unharmed, and another dtype or solver may help."
            )
        change = yield Stepped(made, step.index, steps, step.sigma, step.latents, step.denoised)
        latents, sent = step.latents, None
        if change is not None and change.prompt_states is not None:
            now = replace(now, text=replace(now.text, states=change.prompt_states))
        if change is not None and change.latents is not None:
            latents = sent = change.latents
        step = _advance(solver, sent)
    return latents, now


def solver_of(
    job: Job, scheduler: Any, tokens: float, sigmas: Sequence[float] | None, device: Any
) -> tuple[Solve, int]:
    """The solver over its schedule, and how many steps it makes.

    The job's solver and shift win; else the scheduler decides: Euler is ours, any other class is asked step by step.
    """
    even = np.linspace(1.0, 0.0, job.steps + 1)[:-1]
    plain = even if sigmas is None else np.asarray(sigmas, dtype=np.float64)
    if job.shift is not None:
        levels = schedules.shift([*plain, 0.0], job.shift)
        return partial(_solved, SOLVERS[job.solver or "euler"], levels), len(levels) - 1
    _set_timesteps(scheduler, plain, tokens, device)
    levels = [float(sigma) for sigma in scheduler.sigmas]
    if job.solver is None and not _is_euler(scheduler):
        begin = partial(_set_timesteps, scheduler, plain, tokens, device)
        return partial(_scheduled, scheduler, begin), len(plain)
    return partial(_solved, SOLVERS[job.solver] if job.solver else euler, levels), len(levels) - 1


def decoded(job: Job, vae: Any, start: np.ndarray, done: Sequence[SectionDone]) -> Iterator[Any]:
    """The frames of the sections that are done, in pieces (B, 3, T, H, W); the reference's in one."""
    if job.reference:
        return iter([reference_decode_video(vae, start, done, job.sampling, job.window)])
    return decode_video(vae, start, done, job.sampling, job.decoding)


def _placed(conditioning: Conditioning, transformer: Any) -> Conditioning:
    """The conditioning where the transformer is, in its dtype."""
    place = partial(runtime.place, device=exchange.device_of(transformer), dtype=transformer.dtype)

    return replace(
        conditioning,
        text=_placed_text(conditioning.text, transformer),
        negative=None if conditioning.negative is None else _placed_text(conditioning.negative, transformer),
        image_states=place(conditioning.image_states),
    )


def _placed_text(text: Text, transformer: Any) -> Text:
    place = partial(runtime.place, device=exchange.device_of(transformer), dtype=transformer.dtype)
    return Text(place(text.states), place(text.mask), place(text.pooled))


def _advance(solver: Steps, sent: Any) -> Step | None:
    try:
        return solver.send(sent)
    except StopIteration:
        return None


def _solved(solver: Callable[..., Steps], levels: list[float], velocity: Velocity, latents: Any) -> Steps:
    return solver(velocity, latents, levels)


def _scheduled(scheduler: Any, begin: Callable[[], None], velocity: Velocity, latents: Any) -> Steps:
    """A solver that asks a scheduler of the field for each step."""
    begin()
    training = scheduler.config.num_train_timesteps
    for index, timestep in enumerate(scheduler.timesteps):
        slope = velocity(latents, float(timestep) / training)
        sigma = float(scheduler.sigmas[index])
        denoised = latents - sigma * slope
        latents = scheduler.step(slope, timestep, latents, return_dict=False)[0]
        sent = yield Step(index, sigma, latents, denoised)
        latents = latents if sent is None else sent


def _set_timesteps(scheduler: Any, sigmas: np.ndarray, tokens: float, device: Any) -> None:
    """Make the scheduler's schedule, shifted as its config says."""
    known = inspect.signature(scheduler.set_timesteps).parameters
    if "sigmas" not in known:
        raise JobError(f"{type(scheduler).__name__} takes no sigmas; a flow-matching scheduler is needed.")
    config = scheduler.config
    mu = schedules.dynamic_mu(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    scheduler.set_timesteps(sigmas=sigmas, device=device, **({"mu": mu} if "mu" in known else {}))


def _is_euler(scheduler: Any) -> bool:
    stochastic = scheduler.config.get("stochastic_sampling", False)
    return type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler" and not stochastic
