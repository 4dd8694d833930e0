"""The clip that a job names: the size that its video has by it, what is read of it, and its latents."""

from __future__ import annotations

from dataclasses import replace

from longtake.errors import JobError
from longtake.job import Job
from longtake.pipeline.fitting import Clip, encoded
from longtake.pipeline.networks import Networks
from longtake.plan.layout import LATENT_PIXELS
from longtake.plan.plans import kind_named
from longtake.processors import pictures
from longtake.video.footage import Footage, near, read_footage, shaped
from longtake.video.timed import look

__all__ = ["Footage", "footage_of", "with_clip", "with_latents", "with_size"]


def with_clip(job: Job, networks: Networks, given: Footage | None) -> tuple[Job, Footage | None]:
    """The job and what its sections see of its clip, read from the file unless a caller gives it.

    The job then has its size and says how many latent frames of the clip there are. Raises PictureError if the clip
    cannot be read, JobError for what does not go with it.
    """
    if job.clip is None:
        if given is not None:
            raise JobError("Frames of a clip are given, and the job names no clip; give it one.")
        return job, None
    if job.reference:
        raise JobError(
            "The reference goes on from a picture and from no clip; leave the clip out, or reference."
        )
    named, job = job.clip, with_size(job, networks)
    clip = given or footage_of(job)
    _check_fits(clip, job)
    return replace(job, clip=replace(named, latents=clip.count)), clip


def with_size(job: Job, networks: Networks) -> Job:
    """The job with a size, by default the one nearest to its clip's shape that the model makes.

    A model that has no size takes its bucket; one that has, as many pixels as that in the clip's shape.
    """
    if job.clip is None or (job.width and job.height):
        return job
    across, down = look(job.clip.video)[:2]
    if "width" in networks.settings:
        own = networks.default_size
        size = own if near(own, (across, down)) else shaped(own[0] * own[1], across / down)
    else:
        size = pictures.bucket(across, down)
    return replace(job, width=job.width or size[0], height=job.height or size[1])


def footage_of(job: Job) -> Footage:
    """The frames of the job's clip that its sections see; PictureError if there is no such clip.

    There are as many as the clip says, or as a section sees, or as many as a shorter clip has.
    """
    assert job.clip is not None and job.width is not None and job.height is not None
    view = kind_named(job.sampling).view
    if view is None:
        raise JobError(
            f"The sampling {job.sampling} does not say what a section sees; it cannot go on from a clip."
        )
    behind = not view.before
    seen = job.clip.latents or (max(1, view.future) if behind else 1 + view.past)
    return read_footage(job.clip.video, seen, job.fps, (job.width, job.height), behind)


def with_latents(clip: Footage, networks: Networks) -> Footage:
    """The same with latents: the posterior's mean of the frames, by the streaming encoder."""
    frames = clip.frames
    if clip.latents is not None or frames is None:
        return clip
    with networks.using("vae") as vae:
        found = encoded(vae, Clip("the clip", lambda: frames), clip.size)
    return replace(clip, latents=found[None], frames=None)


def _check_fits(clip: Footage, job: Job) -> None:
    """Raise JobError for footage of another size than the video's."""
    width, height = clip.size
    inner = (height // LATENT_PIXELS, width // LATENT_PIXELS)
    other = clip.latents is not None and clip.latents.shape[3:] != inner
    if (width, height) != (job.width, job.height) or other:
        raise JobError(
            f"The clip's frames were fitted to {width} x {height}, and the video has {job.width} x {job.height}; read "
            "them anew."
        )
