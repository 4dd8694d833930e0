"""A clip that a video goes on from, or leads to: its frames beside the joint, in the video's size, and their latents."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from longtake.errors import JobError
from longtake.job import Job
from longtake.picture import cover
from longtake.pipeline.fitting import Clip, encoded
from longtake.pipeline.networks import Networks
from longtake.plan.layout import LATENT_FRAMES, LATENT_PIXELS
from longtake.plan.plans import kind_named
from longtake.processors import pictures
from longtake.video.edges import read_edge
from longtake.video.timed import look

STRETCH = 1.1
"""The most that a clip is stretched, in one direction against the other, so that all of it is seen: sizes that a model
knows are few. A clip of quite another shape is cut, as a picture is."""

MULTIPLE = 16
"""Pixels to the side of what a transformer sees as one."""


@dataclass(frozen=True)
class Footage:
    """The frames of a clip that sections see, in the order of time, and in the size of the video.

    `first` (H, W, 3) uint8 is the first of them, whose latent frame is a picture's; `edge` is the one at the joint: the
    last one, or, if the clip comes `behind` the video, the first one. `frames` (T, H, W, 3) are all, T = 1 + 4 (K - 1);
    `latents` (1, C, K, h, w), scaled, are made of them, and one of both is enough.
    """

    first: np.ndarray = field(repr=False)
    edge: np.ndarray = field(repr=False)
    behind: bool
    frames: np.ndarray | None = field(default=None, repr=False)
    latents: np.ndarray | None = field(default=None, repr=False)

    @property
    def count(self) -> int:
        """Latent frames of it."""
        if self.latents is not None:
            return int(self.latents.shape[2])
        assert self.frames is not None
        return 1 + (len(self.frames) - 1) // LATENT_FRAMES

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.edge.shape[1], self.edge.shape[0]

    def encoded(self, networks: Networks) -> Footage:
        """The same with latents: the posterior's mean of the frames, by the streaming encoder."""
        if self.latents is not None:
            return self
        frames = self.frames
        assert frames is not None
        with networks.using("vae") as vae:
            found = encoded(vae, Clip("the clip", lambda: frames), self.size)
        return replace(self, latents=found[None], frames=None)


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


def shaped(area: int, ratio: float) -> tuple[int, int]:
    """The width and height of about so many pixels whose ratio is nearest.

    >>> shaped(64 * 64, 16 / 9), shaped(64 * 64, 1.0), shaped(640 * 608, 9 / 16)
    ((80, 48), (64, 64), (464, 832))
    """
    height = math.sqrt(area / ratio)
    rows = {MULTIPLE * max(1, math.floor(height / MULTIPLE) + more) for more in (0, 1)}
    sizes = [(MULTIPLE * max(1, round(row * ratio / MULTIPLE)), row) for row in rows]
    return min(
        sizes, key=lambda size: (abs(math.log(size[0] / size[1] / ratio)), abs(size[0] * size[1] - area))
    )


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
    size = (job.width, job.height)
    frames = read_edge(
        job.clip.video,
        1 + LATENT_FRAMES * (seen - 1),
        job.fps,
        not behind,
        lambda frame: fitted(frame, *size),
    )
    return Footage(frames[0], frames[0 if behind else -1], behind, frames)


def near(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Tell if two shapes are so alike that one is stretched to the other.

    >>> near((832, 480), (1920, 1080)), near((64, 64), (640, 480))
    (True, False)
    """
    return abs(math.log(size[0] * other[1] / (size[1] * other[0]))) <= math.log(STRETCH)


def fitted(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """A frame (H, W, 3) in this size: stretched if the shapes are near, so that all of it is seen, else cut."""
    picture = Image.fromarray(frame)
    if near(picture.size, (width, height)):
        return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
    return np.asarray(cover(picture, width, height))


def check_fits(footage: Footage, job: Job) -> None:
    """Raise JobError for footage that a caller gives, of another size than the video's."""
    width, height = footage.size
    wanted = None if footage.latents is None else footage.latents.shape[3:]
    if (width, height) != (job.width, job.height) or wanted not in (
        None, (height // LATENT_PIXELS, width // LATENT_PIXELS)
    ):  # fmt: skip
        raise JobError(
            f"The clip's frames were fitted to {width} x {height}, and the video has {job.width} x {job.height}; read "
            "them anew."
        )
