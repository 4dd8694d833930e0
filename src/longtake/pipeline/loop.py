"""The one loop: a job and a model -> a stream of events.

`generate` is the whole way from a picture and a sentence to frames, for one row or many; every door goes through it.
`sample` is its middle: for each section of the plan, read what it sees, denoise it, write it down. No line of it knows
which plan it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from longtake.backend import exchange, ops, runtime
from longtake.errors import JobTypeError, MemoryRunError
from longtake.events import Encoded, Event, Moved, Planned, Preview, SectionDone
from longtake.job import Job
from longtake.models.vae.tiles import Wanted
from longtake.pipeline import together, treating
from longtake.pipeline.caching import StepCache
from longtake.pipeline.correcting import Correcting
from longtake.pipeline.decode import Convert, to_frames
from longtake.pipeline.denoise import Change, Run
from longtake.pipeline.encode import Text, decode_picture
from longtake.pipeline.given import seen
from longtake.pipeline.growing import Output, output_of
from longtake.pipeline.loras import applied
from longtake.pipeline.networks import Networks
from longtake.pipeline.noise import noise_source, seeds_of
from longtake.pipeline.placed import less
from longtake.pipeline.placement import room_for
from longtake.pipeline.predict import Predictor, Readable, Wrap
from longtake.pipeline.prepare import Asked, Inputs, Request, ask, encode
from longtake.pipeline.preview import previewer
from longtake.pipeline.store import Store
from longtake.pipeline.voices import Voice
from longtake.pipeline.working import work_of
from longtake.plan import timeline
from longtake.plan.history import History
from longtake.plan.plans import Section
from longtake.plan.timeline import Direction, direct
from longtake.sampling.ways import wanted_of

Events = Generator[Event, "Change | None", None]


def generate(
    job: Job,
    networks: Networks,
    inputs: Inputs | None = None,
    *,
    store: Store | None = None,
    preview: str | None = None,
    convert: Convert | None = to_frames,
    wrap: Wrap | None = None,
    wanted: Wanted | None = None,
) -> Events:
    """Make the videos that the job and its inputs ask for; to cancel is to close the iterator.

    First comes `Planned`, then `Moved` if networks do not lie whole where they run, then `Encoded`, then for each
    section its `Stepped`, a `SectionDone` and, if `preview` ("rgb" or "decode") asks for it, a `Preview`. Frames come
    as soon as they are final, exactly as many as planned: as far as the video is there from its beginning on. Memory
    does not depend on the length: the history is pruned, and latents that wait are on disk. If a device's memory ends,
    and nobody has said how much to take, a `Moved` tells how it goes on with less.

    Sections that lie in `store` are not made again: their `SectionDone` comes without any `Stepped`. `convert` turns
    decoded frames into what `FramesReady` holds; with None nothing is decoded. `wrap` may replace the velocity; it is
    called anew for each section and branch of guidance, and stands around the job's step cache, if there is one.
    `wanted` tells of frames, by the first and the one behind the last, if any of them is wanted; those that are not
    are not decoded where that saves work, and come as `FramesUnwanted`.

    Raises JobError, PictureError or ModelError at the call if the request cannot be met, RunError on the way if the
    numbers go wrong or memory ends.
    """
    if not isinstance(inputs, Inputs | None):
        raise JobTypeError(
            f"Beside the job, generate takes Inputs; {type(inputs).__name__} was given: write Inputs(picture=…)."
        )
    asked = ask(job, networks, inputs or Inputs())
    show = None if preview is None else previewer(networks, preview)
    if store is not None:
        store.begin(asked.job, treating.form_of(asked.job, networks))
    placed = networks.placement.prepare(work_of(asked.job, asked.plan, asked.rows))
    return _events(asked, placed, store, show, convert, wrap, wanted)


def _events(
    asked: Asked,
    placed: Sequence[str],
    store: Store | None,
    show: Callable[[np.ndarray], np.ndarray] | None,
    convert: Convert | None,
    wrap: Wrap | None,
    wanted: Wanted | None,
) -> Events:
    plan, networks = asked.plan, asked.networks
    steps = asked.job.steps if asked.inputs.sigmas is None else len(asked.inputs.sigmas)
    yield Planned(plan.count, plan.frames, steps, plan.notice)
    if placed:
        yield Moved("; ".join(placed))
    with applied(asked.job.loras, networks.part("transformer")) as adapters:
        request = yield from _encoded(asked)
        yield Encoded(request.anchors, request.texts[request.job.prompt])
        sections = sample(request, adapters, store, wrap)
        with output_of(asked, request, store, convert, wanted) as output, closing(sections):
            yield from _frames(request, sections, output, show)


def _encoded(asked: Asked) -> Generator[Event, Change | None, Request]:
    """The request; if memory ends, encoded again with less on the device."""
    while True:
        try:
            return encode(asked)
        except MemoryRunError as error:
            moved = less(asked.networks.placement, error)
        yield moved


def _frames(
    request: Request,
    sections: Events,
    output: Output,
    show: Callable[[np.ndarray], np.ndarray] | None,
) -> Events:
    """The events of the sections, and the frames as soon as they are final."""
    yield from output.begin()
    change: Change | None = None
    while (event := advance(sections, change)) is not None:
        if isinstance(event, SectionDone):
            output.keep(event)
        change = yield event
        if not isinstance(event, SectionDone):
            continue
        if show is not None:
            with request.networks.using("vae"):
                shown = show(event.latents)
            yield Preview(event.number, shown)
        yield from output.grow(event)
    yield from output.finish()


def sample(
    request: Request, adapters: tuple[str, ...] = (), kept: Store | None = None, wrap: Wrap | None = None
) -> Events:
    """Denoise the sections of the plan, one after the other; takes a `Change` after each event.

    `adapters` are the transformer's for the job's LoRAs, in their order. Sections that `kept` has are not made again;
    new ones are written to it.
    """
    job, plan = request.job, request.plan
    transformer = request.networks.part("transformer")
    cache = None
    if request.cache is not None:
        branches = 1 if request.negative is None else 2
        cache = StepCache(request.cache, transformer, request.steps, branches)
    predict, correct = _predictor(request, _around(wrap, cache)), _correcting(request)
    treat = treating.Treating(job, request.networks, plan, request.anchors.get(0))
    request = _placed(request, transformer)
    texts = dict(request.texts)
    history = History(plan)
    for frame, latents in request.anchors.items():
        history.write(frame, latents)
    for made, section in enumerate(plan):
        told = direct(job, plan, section.number)
        # Drawn even if the section is kept: a stream of noise goes on from there.
        noise = _noise(request, section, told)
        finished = None if kept is None else kept.read_section(section.number)
        if finished is None:
            strengths = dict(zip(adapters, told.strengths, strict=True))
            run = Run(request, predict, strengths, made, section, cache, correct)
            seeds = _seeds(request, told)
            drawn = replace(section, number=job.drawn(section.number))
            begin = partial(_begin, run, drawn, treat.seen(drawn, history, seeds), history, seeds)
            text = texts[told.prompt]
            voices = _voices(request, section, told, texts)
            latents, texts[told.prompt] = yield from _denoised(run, begin, text, voices, noise)
            if latents is None:
                return
            finished = np.asarray(ops.to_numpy(latents), dtype=np.float32)
            if kept is not None:
                kept.write_section(section.number, finished)
        history.write(section.frames, finished)
        treat.add(finished)
        if section.frames == (0,):
            yield from _begun(request, finished)
        if made == len(plan) - 1:
            # All may have waited for this section to be decoded, which wants the room.
            predict.forget()
        change = yield SectionDone(made, section.number, finished, section.frames[0])
        if change is not None and change.stop:
            return


def _predictor(request: Request, wrap: Wrap | None) -> Predictor:
    job = request.job
    return Predictor(
        request.networks.part("transformer"),
        guidance=job.guidance,
        cfg_scale=job.cfg_scale,
        cfg_rescale=job.cfg_rescale,
        attention_kwargs=request.attention_kwargs,
        wrap=wrap,
    )


def _correcting(request: Request) -> Correcting | None:
    """The corrections that the job's history asks for; their velocities are no steps, so nobody wraps them."""
    wanted = wanted_of(request.job.history, "correct")
    if wanted is None:
        return None
    steps, level = wanted.numbers
    return Correcting(_predictor(request, None), request.plan, int(steps), level)


def _seeds(request: Request, told: Direction) -> Sequence[int]:
    """The seed of each row for what is done to the section's history: the request's, or of a seed of its own."""
    rows = request.rows
    own = told.seed != request.job.seed
    return seeds_of(told.seed, rows, told.seed) if own else request.seeds


def _begin(run: Run, drawn: Section, seen: Readable, history: History, seeds: Sequence[int]) -> None:
    """Read what the section sees; `drawn` is the section by the number that its noise is drawn by."""
    run.predict.begin(run.section, seen)
    if run.correct is not None:
        run.correct.begin(drawn, history, seeds)


def _voices(
    request: Request, section: Section, told: Direction, texts: Mapping[str, Text]
) -> tuple[Voice, ...]:
    """The parts of the section's velocity: with what each is told, and the pictures that are not hidden from it."""
    pictures = (0,) if request.job.reference else section.pictures

    def voice(one: timeline.Voice) -> Voice:
        hidden = frozenset(one.hidden)
        return Voice(one.weight, texts[one.prompt], request.states.of(pictures, hidden), hidden)

    return tuple(voice(one) for one in told.voices)


def _begun(request: Request, made: np.ndarray) -> Generator[Event, Change | None, None]:
    """Note the first frame (B, C, 1, h, w) of a video from text: later sections are told what it looks like."""
    networks = request.networks
    if request.plan.count == 1 or request.states.are_known:
        return

    def states() -> Any:
        with networks.using("vae") as vae:
            pixels = decode_picture(vae, made)
        return seen(networks, pixels)

    while True:
        try:
            with room_for("encoding the first frame"):
                found = states() if networks.ranks is None else together.told(networks.ranks, states)
            break
        except MemoryRunError as error:
            moved = less(networks.placement, error)
        yield moved
    request.states.add(0, found)


def _around(wrap: Wrap | None, cache: StepCache | None) -> Wrap | None:
    """The caller's wrap goes around the step cache: it sees every step, and the network what the cache asks for."""
    if wrap is None or cache is None:
        return wrap or cache
    return lambda velocity: wrap(cache(velocity))


def _denoised(
    run: Run, begin: Callable[[], None], text: Text, voices: Sequence[Voice], noise: np.ndarray
) -> Generator[Event, Change | None, tuple[Any, Text]]:
    """One section's latents and text; if memory ends, made again from the same noise with less on the device."""
    while True:
        begin()
        try:
            return (yield from run.denoise(text, voices, noise))
        except MemoryRunError as error:
            run.predict.forget()
            if run.correct is not None:
                run.correct.predict.forget()
            moved = less(run.request.networks.placement, error)
        # Out here, where the error and all that its frames held is gone.
        yield moved


def _noise(request: Request, section: Section, told: Direction) -> np.ndarray:
    """The section's noise (B, C, T, h, w): the request's, or that of a seed of the section's own."""
    rows, channels, height, width = request.shape
    shape = (rows, channels, len(section.frames), height, width)
    own = told.seed != request.job.seed
    noise = noise_source(told.seed, rows) if own else request.noise
    return noise(request.job.drawn(section.number), shape, "float32")


def _placed(request: Request, transformer: Any) -> Request:
    """The request with everything on the device of the transformer's inputs, in its dtype."""
    place = partial(runtime.place, device=exchange.device_of(transformer), dtype=transformer.dtype)

    def text(one: Text) -> Text:
        return Text(place(one.states), place(one.mask), place(one.pooled))

    return replace(
        request,
        texts={prompt: text(one) for prompt, one in request.texts.items()},
        negative=None if request.negative is None else text(request.negative),
        states=request.states.placed(place),
    )


def advance(events: Events, change: Change | None) -> Event | None:
    """The next event, after telling the stream of a change; None at its end."""
    try:
        return events.send(change)
    except StopIteration:
        return None
