"""The one loop: a job and a model -> a stream of events.

`generate` is the whole way from a picture and a sentence to frames, for one row or many; every door goes through it.
`sample` is its middle: for each section of the plan, read what it sees, denoise it, write it down. No line of it knows
which plan it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from longtake.backend import exchange, ops, runtime
from longtake.errors import JobTypeError, MemoryRunError, RunError
from longtake.events import Encoded, Event, FramesReady, Moved, Planned, Preview, SectionDone
from longtake.job import Job
from longtake.pipeline import treating
from longtake.pipeline.caching import StepCache
from longtake.pipeline.correcting import Correcting
from longtake.pipeline.decode import Convert, Decoding, reference_frames, to_frames
from longtake.pipeline.denoise import Change, Run
from longtake.pipeline.encode import Text
from longtake.pipeline.loras import applied
from longtake.pipeline.networks import Networks
from longtake.pipeline.noise import noise_source, seeds_of
from longtake.pipeline.placed import less
from longtake.pipeline.placement import room_for
from longtake.pipeline.predict import Predictor, Readable, Wrap
from longtake.pipeline.prepare import Asked, Inputs, Request, ask, encode
from longtake.pipeline.preview import previewer
from longtake.pipeline.store import Scratch, Store
from longtake.pipeline.working import work_of
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
) -> Events:
    """Make the videos that the job and its inputs ask for; to cancel is to close the iterator.

    First comes `Planned`, then `Moved` if networks do not lie whole where they run, then `Encoded`, then for each
    section its `Stepped`, a `SectionDone` and, if `preview` ("rgb" or "decode") asks for it, a `Preview`. Frames come
    as soon as they are final, exactly as many as planned: after each section if the plan goes forward, else when all
    sections are there. Memory does not depend on the length: the history is pruned, and latents that wait are on disk.
    If a device's memory ends, and nobody has said how much to take, a `Moved` tells how it goes on with less.

    Sections that lie in `store` are not made again: their `SectionDone` comes without any `Stepped`. `convert` turns
    decoded frames into what `FramesReady` holds; with None nothing is decoded. `wrap` may replace the velocity; it is
    called anew for each section and branch of guidance, and stands around the job's step cache, if there is one.

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
    return _events(asked, placed, store, show, convert, wrap)


def _events(
    asked: Asked,
    placed: Sequence[str],
    store: Store | None,
    show: Callable[[np.ndarray], np.ndarray] | None,
    convert: Convert | None,
    wrap: Wrap | None,
) -> Events:
    plan, networks = asked.plan, asked.networks
    steps = asked.job.steps if asked.inputs.sigmas is None else len(asked.inputs.sigmas)
    yield Planned(plan.count, plan.frames, steps, plan.notice)
    if placed:
        yield Moved("; ".join(placed))
    with applied(asked.job.loras, networks.part("transformer")) as adapters:
        request = yield from _encoded(asked)
        yield Encoded(request.anchors, request.texts[request.job.prompt])
        with _waiting(request, store, convert) as kept:
            sections = sample(request, adapters, kept, wrap)
            frames = _frames(asked, request, sections, kept, show, convert)
            with closing(sections), closing(frames):
                yield from frames


def _encoded(asked: Asked) -> Generator[Event, Change | None, Request]:
    """The request; if memory ends, encoded again with less on the device."""
    while True:
        try:
            return encode(asked)
        except MemoryRunError as error:
            moved = less(asked.networks.placement, error)
        yield moved


def _waiting(
    request: Request, store: Store | None, convert: Convert | None
) -> AbstractContextManager[Store | None]:
    """The store that was given; else a temporary one, if sections must wait for their turn to be decoded."""
    if store is not None:
        return nullcontext(store)
    # Sections that come forward are decoded as they come, and the reference keeps them in memory.
    waits = convert is not None and not request.plan.forward and not request.job.reference
    return Scratch() if waits else nullcontext()


def _frames(
    asked: Asked,
    request: Request,
    sections: Events,
    kept: Store | None,
    show: Callable[[np.ndarray], np.ndarray] | None,
    convert: Convert | None,
) -> Events:
    """The events of the sections, and the frames as soon as they are final."""
    job, plan, start = request.job, request.plan, request.anchors[0]
    streams = plan.forward and not job.reference and convert is not None
    decoding = _decoding(asked, request, convert) if streams and convert is not None else None
    done: list[SectionDone] = []
    numbers: list[int] = []
    if decoding is not None:
        yield from decoding.push(start)
    change: Change | None = None
    while (event := advance(sections, change)) is not None:
        change = yield event
        if not isinstance(event, SectionDone):
            continue
        numbers.append(event.number)
        if job.reference:
            done.append(event)
        if show is not None:
            with request.networks.using("vae"):
                shown = show(event.latents)
            yield Preview(event.number, shown)
        if decoding is not None:
            yield from decoding.push(event.latents)
    if convert is None:
        return
    if decoding is not None:
        yield from decoding.finish()
    elif job.reference:
        yield _converted_reference(request, done, convert)
    else:
        yield from _waited(asked, request, sorted(numbers), kept, convert)


def _decoding(asked: Asked, request: Request, convert: Convert, first: int = 0) -> Decoding:
    pixels = asked.pixels[0]
    plain = pixels is not None and bool((pixels == pixels[..., :1, :1]).all())
    networks = request.networks
    vae = networks.part("vae")
    return Decoding(vae, request.plan, convert, request.job.decoding, plain, first, networks.placement)


def _waited(
    asked: Asked, request: Request, numbers: list[int], kept: Store | None, convert: Convert
) -> Iterator[FramesReady | Moved]:
    """The frames of sections that did not come in the video's order, and that lie in the store now."""
    assert kept is not None
    whole = not numbers or numbers[0] == 0
    decoding = _decoding(asked, request, convert, 0 if whole else numbers[0])
    if whole:
        yield from decoding.push(request.anchors[0])
    for number in numbers:
        latents = kept.read_section(number)
        if latents is None:
            raise RunError(
                f"Section {number} was damaged on disk before it was decoded; resume to make it again.",
                number,
            )
        yield from decoding.push(latents)
    yield from decoding.finish()


def _converted_reference(request: Request, done: list[SectionDone], convert: Convert) -> FramesReady:
    """All frames as the reference decodes them: it holds the whole video."""
    plan = request.plan
    with request.networks.using("vae") as vae, room_for("decoding the latents"):
        frames = reference_frames(vae, request.anchors[0], done, plan.forward, plan.window)
    return FramesReady(0, convert(frames[:, :, : plan.frames]))


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
            seen = treat.seen(section, history, seeds)
            begin = partial(_begin, run, seen, history, seeds)
            latents, texts[told.prompt] = yield from _denoised(run, begin, texts[told.prompt], noise)
            if latents is None:
                return
            finished = np.asarray(ops.to_numpy(latents), dtype=np.float32)
            if kept is not None:
                kept.write_section(section.number, finished)
        history.write(section.frames, finished)
        treat.add(finished)
        change = yield SectionDone(made, section.number, finished)
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
    rows = request.anchors[0].shape[0]
    own = told.seed != request.job.seed
    return seeds_of(told.seed, rows, told.seed) if own else request.seeds


def _begin(run: Run, seen: Readable, history: History, seeds: Sequence[int]) -> None:
    """Read what the section sees."""
    run.predict.begin(run.section, seen)
    if run.correct is not None:
        run.correct.begin(run.section, history, seeds)


def _around(wrap: Wrap | None, cache: StepCache | None) -> Wrap | None:
    """What the caller wraps goes around the step cache: it sees every step, and the network what the cache asks for."""
    if wrap is None or cache is None:
        return wrap or cache
    return lambda velocity: wrap(cache(velocity))


def _denoised(
    run: Run, begin: Callable[[], None], text: Text, noise: np.ndarray
) -> Generator[Event, Change | None, tuple[Any, Text]]:
    """One section's latents and text; if memory ends, made again from the same noise with less on the device."""
    while True:
        begin()
        try:
            return (yield from run.denoise(text, noise))
        except MemoryRunError as error:
            run.predict.forget()
            if run.correct is not None:
                run.correct.predict.forget()
            moved = less(run.request.networks.placement, error)
        # Out here, where the error and all that its frames held is gone.
        yield moved


def _noise(request: Request, section: Section, told: Direction) -> np.ndarray:
    """The section's noise (B, C, T, h, w): the request's, or that of a seed of the section's own."""
    rows, channels, _, height, width = request.anchors[0].shape
    shape = (rows, channels, len(section.frames), height, width)
    own = told.seed != request.job.seed
    noise = noise_source(told.seed, rows) if own else request.noise
    return noise(section.number, shape, "float32")


def _placed(request: Request, transformer: Any) -> Request:
    """The request with everything on the device of the transformer's inputs, in its dtype."""
    place = partial(runtime.place, device=exchange.device_of(transformer), dtype=transformer.dtype)

    def text(one: Text) -> Text:
        return Text(place(one.states), place(one.mask), place(one.pooled))

    return replace(
        request,
        texts={prompt: text(one) for prompt, one in request.texts.items()},
        negative=None if request.negative is None else text(request.negative),
        image_states=place(request.image_states),
    )


def advance(events: Events, change: Change | None) -> Event | None:
    """The next event, after telling the stream of a change; None at its end."""
    try:
        return events.send(change)
    except StopIteration:
        return None
