"""The pictures of a video: named in its job or given as values, each at its time; and what encoders make of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from longtake.backend import ops
from longtake.errors import JobError, LongtakeWarning
from longtake.job import Anchor, Job
from longtake.pipeline.decode import from_frames
from longtake.pipeline.encode import decode_picture, encode_latents, encode_picture, repeated
from longtake.pipeline.footage import Footage, with_latents
from longtake.pipeline.networks import Networks
from longtake.pipeline.noise import LAST_PICTURE, PICTURE, What, key_frame
from longtake.plan.layout import LATENT_PIXELS
from longtake.plan.pictures import frames_of
from longtake.plan.plans import Plan
from longtake.processors import pictures

if TYPE_CHECKING:
    from longtake.pipeline.prepare import Asked, Inputs

GIVEN = "a picture that was given as a value"
END = "end"
FROM_TEXT = "from_text"
"""The setting of a model that was trained to make the first picture, too."""

PLAIN = (16, 16)
"""The size of a plain picture, which is then the video's."""

At = Any
"""A picture's time: seconds, or "end"."""


@dataclass(frozen=True)
class Picture:
    """One picture: whatever `pictures.pixels` takes, or its latents (B, C, 1, h, w), or both."""

    source: Any = None
    latents: Any = None


def given_pictures(job: Job, inputs: Inputs) -> dict[At, Picture]:
    """The pictures by their times: the values that a caller gave, else those that the job names.

    Raises JobError if one is given twice.
    """
    found = {_time(anchor.at): Picture(anchor.image) for anchor in job.anchors}
    ends: dict[At, tuple[Any, Any]] = {
        0: (inputs.picture, inputs.latents),
        END: (inputs.last_picture, inputs.last_latents),
    }
    for at, source in inputs.pictures.items():
        if ends.get(at, (None, None)) != (None, None):
            raise JobError(f"The picture at {at} is given twice; give it once.")
        if source is not None:
            found[_time(at)] = Picture(source)
    for at, (source, latents) in ends.items():
        if source is not None or latents is not None:
            named = found.get(at, Picture())
            found[at] = Picture(named.source if source is None else source, latents)
    return found


def begun(
    job: Job, networks: Networks, begins: bool, clip: Footage | None = None
) -> tuple[Job, Image.Image | None]:
    """The job, and a picture to begin with if it needs one; `begins` tells if one is given.

    A video goes on from its clip; one that leads to a clip begins as that does, which a warning says. Without a clip, a
    model that was trained from text makes the first picture, too. Any other gets a plain one, which a warning says:
    FramePack's applications begin with plain black, and the video comes out of it within some frames. Raises JobError
    for a job that asks for something else.
    """
    if begins or (clip is not None and not clip.behind):
        return job, None
    if clip is not None and not job.from_text:
        warnings.warn(
            "No picture was given for the beginning of a video that leads to a clip: it begins with the clip's first "
            "frame.",
            LongtakeWarning,
            stacklevel=3,
        )
        return job, Image.fromarray(clip.first)
    if job.reference:
        raise JobError(
            "The reference begins with a picture, and none was given; give one, or make the video without reference."
        )
    if networks.settings.get(FROM_TEXT):
        return replace(job, from_text=True), None
    if job.from_text:
        raise JobError(
            "The job begins from text, and this model was not trained to; give it a picture to begin with."
        )
    warnings.warn(
        "This model was trained to go on from a picture, and none was given: the video begins with plain black, and "
        "its first frames come out of it; a picture makes better videos.",
        LongtakeWarning,
        stacklevel=3,
    )
    return job, Image.new("RGB", PLAIN)


def with_anchors(job: Job, found: Mapping[At, Picture]) -> Job:
    """The job with an anchor for each picture that is given as a value, so that plan and checks know of it."""
    known = {_time(anchor.at) for anchor in job.anchors}
    added = tuple(Anchor(at, GIVEN) for at in found if at not in known)
    return replace(job, anchors=(*job.anchors, *added)) if added else job


def name_of(at: At) -> str:
    """The words for a picture in an error."""
    return {0: "image", END: "last_image"}.get(at, f"the picture at {at} s")


def pixels_of(images: Any, prompts: int, name: str, job: Job) -> np.ndarray:
    """A picture in the video's size, (B, 3, H, W) in [-1, 1]: one row, or one for each prompt."""
    assert job.width is not None and job.height is not None
    found = pictures.pixels(images, job.width, job.height, job.reference)
    check_count(found.shape[0], prompts, name)
    return found


def latents_of(latents: Any, prompts: int, name: str, job: Job) -> np.ndarray:
    """Latents (B, C, 1, h, w) that stand for a picture, as float32; JobError if they are of another size."""
    assert job.width is not None and job.height is not None
    array = latents if isinstance(latents, np.ndarray) else ops.to_numpy(latents)
    wanted = (1, job.height // LATENT_PIXELS, job.width // LATENT_PIXELS)
    if array.ndim != 5 or array.shape[2:] != wanted:
        raise JobError(
            f"{name} has the shape {tuple(array.shape)}; for {job.width} x {job.height} it is "
            f"(B, C, {', '.join(map(str, wanted))})."
        )
    check_count(array.shape[0], prompts, name)
    return np.asarray(array, dtype=np.float32)


def check_count(have: int, prompts: int, name: str) -> None:
    """Raise JobError unless there is one of what `name` says, or one for each prompt."""
    if have not in (1, prompts):
        raise JobError(f"{name} has {have} entries for {prompts} prompts; give one, or one for each prompt.")


def encoded(asked: Asked) -> tuple[dict[int, Any], Any, dict[int, np.ndarray]]:
    """SigLIP's states of each picture by its latent frame, those of a blank one if there is none, and the latents.

    Latents are encoded in the order in which noise is drawn: the first picture, the last one, those between.
    """
    networks = asked.networks
    frames = sorted(asked.pixels.keys() | asked.latents.keys(), key=lambda frame: _turn(asked.plan, frame))
    pixels = dict(asked.pixels)
    for frame in frames:
        if frame not in pixels and asked.inputs.image_states is None:
            with networks.using("vae") as vae:
                pixels[frame] = decode_picture(vae, asked.latents[frame])
    if asked.clip is not None:
        pixels[_clipped(asked)[0]] = from_frames(asked.clip.first[None, None])[:, :, 0]
    states = _states(asked, pixels)
    blank = None if states or asked.inputs.image_states is not None else seen(asked.networks, _blank(asked))
    anchors: dict[int, np.ndarray] = {}
    for frame in frames:
        found = asked.latents.get(frame)
        if found is None:
            with networks.using("vae") as vae:
                found = encode_latents(vae, pixels[frame], _what(asked.plan, frame), asked.noise, asked.rows)
        anchors[frame] = repeated(found, asked.rows)
    if asked.clip is not None:
        latents = with_latents(asked.clip, networks).latents
        assert latents is not None
        for place, frame in enumerate(_clipped(asked)):
            anchors[frame] = repeated(latents[:, :, place : place + 1], asked.rows)
    return states, blank, anchors


def _clipped(asked: Asked) -> Sequence[int]:
    """The latent frames that are the clip's."""
    assert asked.clip is not None
    anchors, count = asked.plan.anchors, asked.clip.count
    return anchors[-count:] if asked.clip.behind else anchors[:count]


def seen(networks: Networks, pixels: np.ndarray, rounded: bool = False) -> Any:
    """SigLIP's states (B, N, E) of pictures (B, 3, H, W)."""
    with networks.using("image_encoder") as encoder:
        return encode_picture(encoder, networks.part("feature_extractor"), pixels, rounded=rounded)


def _states(asked: Asked, pixels: Mapping[int, np.ndarray]) -> dict[int, Any]:
    """The states of each picture; as in the reference, with `reference`, of the first one alone."""
    known = asked.inputs.image_states
    if isinstance(known, Mapping):
        frames = frames_of(asked.job, asked.plan)
        return {frames[at]: states for at, states in known.items()}
    if known is not None:
        return {}
    wanted = [0] if asked.job.reference else pixels
    return {frame: seen(asked.networks, pixels[frame], asked.job.reference) for frame in wanted}


def _blank(asked: Asked) -> np.ndarray:
    return np.zeros((1, 3, asked.job.height or 0, asked.job.width or 0), np.float32)


def _turn(plan: Plan, frame: int) -> tuple[int, int]:
    """The place of a picture among the others, as noise is drawn for them."""
    return (0, 0) if frame == 0 else (2, frame) if frame in plan.starts else (1, frame)


def _what(plan: Plan, frame: int) -> What:
    """The use of the noise of a picture's sample."""
    return (PICTURE, LAST_PICTURE, key_frame(frame))[_turn(plan, frame)[0]]


def _time(at: At) -> At:
    return 0 if at == 0 else at
