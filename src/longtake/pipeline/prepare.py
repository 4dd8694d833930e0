"""A job and what a caller gives beside it -> a request: B rows, ready for the networks.

`ask` checks everything that can be checked and computes nothing; `encode` runs the encoders.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from longtake.backend import runtime
from longtake.errors import JobError, LongtakeWarning
from longtake.job import Job
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.named import mismatch
from longtake.pipeline import together, treating
from longtake.pipeline.caching import cache_of
from longtake.pipeline.encode import Text, encode_text, repeated
from longtake.pipeline.footage import Footage, with_clip
from longtake.pipeline.given import (
    At,
    Picture,
    begun,
    check_count,
    encoded,
    given_pictures,
    latents_of,
    name_of,
    pixels_of,
    with_anchors,
)
from longtake.pipeline.networks import Networks
from longtake.pipeline.noise import Noise, noise_source, seeds_of
from longtake.pipeline.placement import room_for
from longtake.pipeline.predict import check_far
from longtake.pipeline.states import States
from longtake.plan import timeline
from longtake.plan.layout import LATENT_PIXELS, check_scales
from longtake.plan.pictures import frames_of
from longtake.plan.plans import Plan, kind_named, names_like, plan_of
from longtake.processors import pictures
from longtake.sampling.caching import Cache
from longtake.sampling.schedule import Schedule

__all__ = ["Asked", "Inputs", "Request", "Text", "ask", "encode", "settled"]


@dataclass(frozen=True)
class Inputs:
    """The values that a caller gives beside the job, which JSON cannot hold. Each is one row, or one for each prompt.

    Pictures are paths, PIL images, arrays (H, W, C) or tensors (C, H, W), and default to the job's anchors; `latents`
    (B, C, 1, h, w), scaled, stand in for encoding them. `pictures` are any by their times, in seconds or "end". Prompts
    default to the job's; `text`, `negative` and `image_states` (of all pictures, or by their times) are encodings that
    need not be made. `generator` is what `noise_source` takes, by default the job's seed. `sigmas` are noise levels
    before the schedule's shift. A `scheduler` that is given is used itself; else a copy of the model's is used, so that
    two streams do not disturb each other.
    """

    picture: Any = None
    last_picture: Any = None
    latents: Any = None
    last_latents: Any = None
    prompts: Sequence[str] | None = None
    prompts_2: Sequence[str] | None = None
    negatives: Sequence[str] | None = None
    negatives_2: Sequence[str] | None = None
    text: Text = field(default_factory=Text)
    negative: Text | None = None
    image_states: Any = None
    videos: int = 1
    generator: Any = None
    sigmas: Sequence[float] | None = None
    template: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    attention_kwargs: Mapping[str, Any] | None = None
    scheduler: Any = None
    pictures: Mapping[Any, Any] = field(default_factory=dict)
    clip: Footage | None = None
    """The job's clip, read already."""


@dataclass(frozen=True)
class Asked:
    """A request that can be met: `job` has its size and dtype.

    `pixels` (B, 3, H, W) and `latents` (B, C, 1, h, w) are what is given of its pictures, by their latent frames.
    """

    job: Job
    networks: Networks
    inputs: Inputs
    plan: Plan
    pixels: Mapping[int, np.ndarray]
    latents: Mapping[int, np.ndarray]
    prompts: int
    noise: Noise
    cache: Cache | None = None
    clip: Footage | None = None

    @property
    def rows(self) -> int:
        """Videos that are made at once."""
        return self.prompts * self.inputs.videos


@dataclass(frozen=True)
class Request:
    """Everything that the sections of one run are made from: B rows.

    `texts` are encodings by prompt; those of the rows' own prompts have the job's prompt as their key. `anchors` are
    latents (B, C, 1, h, w) float32, scaled, by latent frame number; `states` are SigLIP's of the pictures.
    """

    job: Job
    networks: Networks
    plan: Plan
    texts: Mapping[str, Text]
    negative: Text | None
    states: States
    anchors: Mapping[int, np.ndarray]
    noise: Noise
    scheduler: Any
    sigmas: Sequence[float] | None = None
    attention_kwargs: Mapping[str, Any] | None = None
    cache: Cache | None = None
    seeds: tuple[int, ...] = ()
    """One for each row, of what is done to the history."""
    rows: int = 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Rows, channels, and the latents' height and width."""
        job, given = self.job, next(iter(self.anchors.values()), None)
        channels = self.networks.part("vae").config.latent_channels if given is None else given.shape[1]
        return self.rows, int(channels), (job.height or 0) // LATENT_PIXELS, (job.width or 0) // LATENT_PIXELS

    @property
    def steps(self) -> int:
        """Steps of each section."""
        return self.job.steps if self.sigmas is None else len(self.sigmas)


def settled(job: Job, networks: Networks, picture: Any) -> Job:
    """The job with the size, the dtype and the form that its video will have: its own, else the model's.

    A model that has no size takes the bucket nearest to the picture's shape.
    """
    width, height = job.width, job.height
    if not (width and height):
        shape = None if picture is None or "width" in networks.settings else pictures.size_of(picture)
        other = pictures.bucket(*shape) if shape else networks.default_size
        width, height = width or other[0], height or other[1]
    dtype, form = networks.dtype_name, networks.quantized
    return replace(job, width=width, height=height, dtype=dtype, quantize=form)


def ask(job: Job, networks: Networks, inputs: Inputs) -> Asked:
    """Check the request as a whole; JobError, PictureError or ModelError in one sentence if it cannot be met."""
    given = given_pictures(job, inputs)
    job, clip = with_clip(job, networks, inputs.clip)
    job, plain = begun(job, networks, 0 in given, clip)
    if plain is not None:
        given = {0: Picture(plain), **given}
    job = _with_cache(with_anchors(job, given), networks)
    job.check()
    if job.dtype not in ("auto", networks.dtype_name):
        raise JobError(
            f"The job asks for {job.dtype} and the networks are {networks.dtype_name}; "
            "load them in the job's dtype, or leave it to them (dtype auto)."
        )
    if job.quantize not in ("none", networks.quantized):
        raise JobError(
            f"The job asks for quantize {job.quantize} and the transformer's blocks are {networks.quantized}; load "
            "them in that form, or leave it to them (quantize none)."
        )
    job = settled(job, networks, given[0].source if 0 in given else None)
    job.check()  # again, since its size may be the model's
    note = mismatch(job.sampling, networks.settings.get("sampling"), names_like(job.sampling))
    if note is not None:
        warnings.warn(note, LongtakeWarning, stacklevel=2)
    check_scales(kind_named(job.sampling).scales)
    plan = plan_of(job)
    timeline.check(job, plan)
    if plan[0].far is not None:
        check_far(networks.part("transformer"))
    cache = cache_of(job, networks, plan)
    treating.check(job, networks, plan)
    count = _prompt_count(inputs)
    pixels, latents = _fitted(given, frames_of(job, plan), count, job)
    if isinstance(inputs.videos, bool) or not isinstance(inputs.videos, int) or inputs.videos < 1:
        raise JobError(f"Each prompt makes at least 1 video; {inputs.videos!r} were asked for.")
    # The reference's stream is the framework's own; ours is the same on every framework and device.
    seed = runtime.seeded(job.seed) if job.reference else job.seed
    noise = noise_source(_first(inputs.generator, seed), count * inputs.videos)
    return Asked(job, networks, inputs, plan, pixels, latents, count, noise, cache, clip)


def _fitted(
    given: Mapping[At, Picture], frames: Mapping[At, int], prompts: int, job: Job
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """The pixels and the latents of what is given, by latent frame."""
    pixels, latents = {}, {}
    for at, picture in given.items():
        frame, name = frames[at], name_of(at)
        if picture.source is not None:
            pixels[frame] = pixels_of(picture.source, prompts, name, job)
        if picture.latents is not None:
            latents[frame] = latents_of(picture.latents, prompts, f"{name}_latents", job)
    return pixels, latents


def encode(asked: Asked) -> Request:
    """Run the encoders on what was asked: text first, then pictures, in the order in which noise is drawn."""
    networks, inputs, noise = asked.networks, asked.inputs, asked.noise
    if networks.ranks is None:
        found = _encodings(asked)
    else:
        found = together.told(networks.ranks, lambda: _encodings(asked))
        noise = together.told_noise(networks.ranks, noise)
    texts, negative, (states, blank, anchors) = found
    scheduler = _first(inputs.scheduler, networks.part("scheduler"))
    if inputs.scheduler is None and not isinstance(scheduler, Schedule):
        scheduler = copy.deepcopy(scheduler)
    return Request(
        asked.job, networks, asked.plan,
        {prompt: Text(*text) for prompt, text in texts.items()}, None if negative is None else Text(*negative),
        States(states, asked.rows, None if states else inputs.image_states, blank), anchors,
        noise, scheduler, inputs.sigmas, inputs.attention_kwargs, asked.cache,
        seeds_of(_first(inputs.generator, asked.job.seed), asked.rows, asked.job.seed), asked.rows,
    )  # fmt: skip


def _encodings(
    asked: Asked,
) -> tuple[
    dict[str, tuple[Any, ...]],
    tuple[Any, ...] | None,
    tuple[dict[int, Any], Any, dict[int, np.ndarray]],
]:
    """The texts by prompt, the negative one, and what is made of the pictures (`given.encoded`)."""
    job, networks, inputs, rows = asked.job, asked.networks, asked.inputs, asked.rows
    with room_for("encoding the prompts"):
        own = _encoded(asked, inputs.prompts or [job.prompt], inputs.prompts_2, inputs.text, "prompt")
        texts = {job.prompt: own}
        for prompt in timeline.prompts(job, asked.plan):
            if prompt not in texts:
                found = encode_text(networks, [prompt], None, inputs.template, inputs.max_tokens)
                texts[prompt] = _in_rows(found, rows)
        negative = None
        if job.cfg_scale > 1:
            known, prompts = inputs.negative or Text(), inputs.negatives or [job.negative_prompt]
            negative = _encoded(asked, prompts, inputs.negatives_2, known, "negative_prompt")
    with room_for("encoding the pictures"):
        seen = encoded(asked)
    return (
        {prompt: (text.states, text.mask, text.pooled) for prompt, text in texts.items()},
        None if negative is None else (negative.states, negative.mask, negative.pooled),
        seen,
    )


def _encoded(
    asked: Asked, prompts: Sequence[str], prompts_2: Sequence[str] | None, known: Text, name: str
) -> Text:
    """One side of the text, a row for each video; with `reference`, CLIP reads Llama's prompts, as in the reference."""
    if asked.job.reference:
        prompts_2 = None
    if known.states is not None:
        check_count(int(known.states.shape[0]), asked.prompts, f"{name}_embeds")
    for each, what in ((prompts, name), (prompts_2, f"{name}_2")):
        if each is not None and known.states is None:
            check_count(len(each), asked.prompts, what)
    if prompts_2 is not None and len(prompts_2) != len(prompts):
        prompts, prompts_2 = _broadcast(prompts, asked.prompts), _broadcast(prompts_2, asked.prompts)
    inputs = asked.inputs
    found = encode_text(asked.networks, list(prompts), prompts_2, inputs.template, inputs.max_tokens, known)
    return _in_rows(found, asked.rows)


def _in_rows(text: Text, rows: int) -> Text:
    return Text(*(repeated(part, rows) for part in (text.states, text.mask, text.pooled)))


def _with_cache(job: Job, networks: Networks) -> Job:
    """The job with the transformer's own cache (`enable_cache`), if it names none."""
    transformer = networks.part("transformer")
    own = transformer.cache if isinstance(transformer, HunyuanVideoFramepackTransformer3DModel) else ""
    return replace(job, cache=job.cache or own)


def _prompt_count(inputs: Inputs) -> int:
    """The number of prompts; everything else that is given has one row, or as many rows."""
    if inputs.text.states is not None:
        return int(inputs.text.states.shape[0])
    return len(inputs.prompts) if inputs.prompts is not None else 1


def _broadcast(texts: Sequence[str], count: int) -> list[str]:
    return list(texts) * count if len(texts) == 1 else list(texts)


def _first(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
