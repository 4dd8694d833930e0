"""The one loop: a job and a model -> a stream of events.

`generate` is the whole way from a picture and a sentence to frames. `sample` is its middle: for each section of
the plan, read what it sees, denoise it, write it down. No line of it knows which sampling type it runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from longtake.backend import ops, runtime
from longtake.errors import JobError
from longtake.job import Event, FramesReady, Job, SectionDone, Stepped
from longtake.pipeline import pictures
from longtake.pipeline.conditioning import Conditioning, Text, encode_pictures, encode_text
from longtake.pipeline.decode import decode_video, reference_decode_video, to_frames
from longtake.pipeline.networks import Networks, load_networks
from longtake.pipeline.noise import Noise, noise_source
from longtake.plan.history import History
from longtake.plan.sections import Section, plan_of
from longtake.sampling import sigmas as schedules
from longtake.sampling.guidance import cfg
from longtake.sampling.solvers import SOLVERS, Step, Steps, Velocity, euler

__all__ = ["Change", "Networks", "generate", "load_networks", "sample"]

Solve = Callable[[Velocity, Any], Steps]


@dataclass(frozen=True)
class Change:
    """What a consumer may `send` into `sample` after a `Stepped`: other latents, other prompt states from now on."""

    latents: Any = None
    prompt_states: Any = None


def generate(job: Job, networks: Networks, picture: Any = None, last_picture: Any = None) -> Iterator[Event]:
    """Make the video that the job asks for; to cancel is to close the iterator.

    The pictures (paths, PIL images, arrays, tensors) default to the job's paths. First comes `Planned`, then for each
    section its `Stepped` and a `SectionDone`, then the frames, exactly as many as planned. Raises JobError or
    PictureError before anything is computed where the request cannot be met.
    """
    job.check()
    picture = job.picture if picture is None else picture
    last_picture = job.last_picture if last_picture is None else last_picture
    if picture is None:
        raise JobError("A video begins with a picture; none was given.")
    plan, planned = plan_of(job, last_picture is not None)
    width, height = size_of(job, networks, picture)
    first = pictures.pixels(picture, width, height, job.reference)
    last = None if last_picture is None else pictures.pixels(last_picture, width, height, job.reference)
    yield planned
    # The reference's stream is the framework's own; ours is the same on every framework and device.
    noise = noise_source(runtime.seeded(job.seed) if job.reference else job.seed)
    text = encode_text(networks, [job.prompt])
    negative = encode_text(networks, [job.negative_prompt]) if job.cfg_scale > 1 else None
    states, start, end = encode_pictures(networks, first, last, noise, 1, reference=job.reference)
    conditioning = Conditioning(text, negative, states, start, end)
    done: list[SectionDone] = []
    for event in sample(job, networks, plan, conditioning, noise):
        if isinstance(event, SectionDone):
            done.append(event)
        yield event
    frames = to_frames(decoded(job, networks.vae, start, done))
    yield FramesReady(0, frames[:, : planned.frames])


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
) -> Generator[Event, Change | None, None]:
    """Denoise the sections of a plan, one after the other; takes a `Change` after each `Stepped`."""
    transformer = networks.transformer
    conditioning = _placed(conditioning, transformer)
    window = len(plan[0].frames)
    shape = (*conditioning.start.shape[:2], window, *conditioning.start.shape[3:])
    tokens = window * shape[3] * shape[4] / transformer.config.patch_size**2
    solve, steps = solver_of(job, networks.scheduler, tokens, sigmas, transformer.device)
    history = History()
    history.write(0, conditioning.start)
    if conditioning.last is not None:
        history.write(1 + window * len(plan), conditioning.last)
    for made, section in enumerate(plan):
        latents = runtime.place(ops.from_numpy(noise(section.number, shape, "float32")), transformer.device)
        context = read_context(section, history, transformer)
        predict = partial(velocity_of, job, transformer, context, attention_kwargs)
        latents, conditioning = yield from denoise(predict, solve, conditioning, latents, made, steps)
        finished = np.asarray(ops.to_numpy(latents), dtype=np.float32)
        history.write(section.frames[0], finished)
        yield SectionDone(made, section.number, finished)


def denoise(
    predict: Callable[..., Any], solve: Solve, conditioning: Conditioning, latents: Any, made: int, steps: int
) -> Generator[Event, Change | None, tuple[Any, Conditioning]]:
    """Denoise one section; returns its latents, and the conditioning with what the consumer changed."""
    now = conditioning

    def velocity(x: Any, sigma: float) -> Any:
        return predict(now, x, sigma)

    solver = solve(velocity, latents)
    step: Step | None = next(solver)
    while step is not None:
        change = yield Stepped(made, step.index, steps, step.sigma, step.latents, step.denoised)
        latents, sent = step.latents, None
        if change is not None and change.prompt_states is not None:
            now = replace(now, text=replace(now.text, states=change.prompt_states))
        if change is not None and change.latents is not None:
            latents = sent = change.latents
        step = _advance(solver, sent)
    return latents, now


def velocity_of(
    job: Job,
    transformer: Any,
    context: dict[str, Any],
    attention_kwargs: dict[str, Any] | None,
    conditioning: Conditioning,
    latents: Any,
    sigma: float,
) -> Any:
    """The velocity (B, C, T, H, W), float32, with classifier-free guidance where there is a negative prompt."""
    batch, dtype = latents.shape[0], transformer.dtype
    timestep = ops.from_numpy(np.full(batch, sigma * 1000, dtype=np.float32))
    scale = ops.from_numpy(np.full(batch, job.guidance, dtype=np.float32))
    # In thousandths after the cast, as the models were trained: bfloat16 makes 9 into 9024.
    guidance = runtime.place(scale, latents.device, dtype) * 1000.0

    def call(text: Text) -> Any:
        return transformer(
            hidden_states=runtime.place(latents, dtype=dtype),
            # Never in the transformer's own dtype: bfloat16 is up to 2 off near 1000.
            timestep=runtime.place(timestep, latents.device),
            encoder_hidden_states=text.states,
            encoder_attention_mask=text.mask,
            pooled_projections=text.pooled,
            image_embeds=conditioning.image_states,
            guidance=guidance,
            attention_kwargs=attention_kwargs,
            return_dict=False,
            **context,
        )[0]

    with runtime.no_grad():
        velocity = call(conditioning.text)
        if conditioning.negative is not None:
            velocity = cfg(velocity, call(conditioning.negative), job.cfg_scale, job.cfg_rescale)
        return runtime.place(velocity, dtype="float32")


def read_context(section: Section, history: History, transformer: Any) -> dict[str, Any]:
    """What a section sees, by the transformer's argument names."""
    context: dict[str, Any] = {"indices_latents": _times(section.times)}
    for name, slot in zip(
        ("latents_clean", "latents_history_2x", "latents_history_4x"), section.slots, strict=True
    ):
        latents = ops.from_numpy(history.read(slot))
        context[name] = runtime.place(latents, transformer.device, transformer.dtype)
        context[f"indices_{name}"] = _times(slot.times)
    return context


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


def decoded(job: Job, vae: Any, start: np.ndarray, done: Sequence[SectionDone]) -> Any:
    """Frames (B, 3, T, H, W) of the sections that are done."""
    if job.reference:
        return reference_decode_video(vae, start, done, job.sampling, job.window)
    return decode_video(vae, start, done, job.sampling)


def _placed(conditioning: Conditioning, transformer: Any) -> Conditioning:
    """The conditioning where the transformer is, in its dtype."""
    place = partial(runtime.place, device=transformer.device, dtype=transformer.dtype)

    def text(found: Text) -> Text:
        return Text(place(found.states), place(found.mask), place(found.pooled))

    return replace(
        conditioning,
        text=text(conditioning.text),
        negative=None if conditioning.negative is None else text(conditioning.negative),
        image_states=place(conditioning.image_states),
    )


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


def _times(times: Sequence[int]) -> Any:
    # On the CPU: they become angles there, and the accelerator need not be waited for.
    return ops.from_numpy(np.asarray(times, dtype=np.int64))
