"""A codebook from videos: their latents by the streaming encoder, a sample of the pixels, and k-means over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from longtake import picture, toyworld
from longtake.backend import exchange, ops, runtime
from longtake.errors import JobError, ModelError, PictureError
from longtake.models.vae.streaming import StreamingEncoder
from longtake.pipeline.networks import Networks
from longtake.plan.layout import LATENT_FRAMES
from longtake.processors import pictures
from longtake.sampling.codebooks import Codebook, fit_groups, residual
from longtake.video import reading, timed
from longtake.video.timed import outline

TOYWORLD = "toyworld"
"""The DATA that is drawn and not read."""

PIECE = 16
"""Frames that are encoded at once."""

TENTH = 10
"""One video of so many is kept to measure the residual on."""


@dataclass(frozen=True)
class Clip:
    """A video or a picture by its name: frames (H, W, 3) uint8, read when they are asked for, one or four more each."""

    name: str
    read: Callable[[], Iterable[np.ndarray]]


def clips_of(data: str, frames: int, scenes: int = 0, size: tuple[int, int] = (64, 64)) -> list[Clip]:
    """The videos and pictures of a file, of a folder and those below it, or so many scenes of the toy world.

    Each has at most `frames` frames. Raises JobError if there is none.
    """
    if data == TOYWORLD:
        width, height = size
        return [_scene(number, frames, width, height) for number in range(scenes)]
    place = Path(data).expanduser()
    if not place.exists():
        raise JobError(
            f"There is no {data!r}; DATA is a folder of videos or pictures, a file, or {TOYWORLD}."
        )
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    known = (*reading.SUFFIXES, *picture.SUFFIXES)
    found = [_file(file, frames) for file in files if file.suffix.lower() in known]
    if not found:
        raise JobError(f"{data} holds no video and no picture ({', '.join(known)}).")
    return found


def _scene(number: int, frames: int, width: int, height: int) -> Clip:
    scene = toyworld.random_scene(np.random.default_rng((1, number)))
    return Clip(f"scene {number}", lambda: toyworld.render(scene, range(whole(frames)), height, width))


def _file(file: Path, frames: int) -> Clip:
    if file.suffix.lower() in picture.SUFFIXES:
        return Clip(str(file), lambda: [np.asarray(picture.load_image(file))])

    def read() -> Iterator[np.ndarray]:
        known = outline(file)
        return timed.frames(file, known, range(whole(min(frames, len(known.times)))))

    return Clip(str(file), read)


def whole(frames: int) -> int:
    """The frames that latent frames hold whole: the first one, and four for each further one.

    >>> [whole(frames) for frames in (1, 4, 5, 12)]
    [1, 1, 5, 9]
    """
    return 1 + (frames - 1) // LATENT_FRAMES * LATENT_FRAMES


def size_of(networks: Networks, data: str, frames: int) -> tuple[int, int]:
    """(width, height) in which videos are encoded: the model's own, or the bucket of the first one of them."""
    if "width" in networks.settings or data == TOYWORLD:
        return networks.default_size
    for clip in clips_of(data, frames):
        try:
            height, width = next(iter(clip.read())).shape[:2]
            return pictures.bucket(width, height)
        except PictureError:
            continue
    return networks.default_size


def encoded(vae: Any, clip: Clip, size: tuple[int, int]) -> np.ndarray:
    """The scaled latents (C, T, h, w) of a clip, covered and cropped to `size`: the posterior's mean."""
    frames = iter(clip.read())
    encoder, found = StreamingEncoder(vae), []
    while some := list(islice(frames, PIECE)):
        piece = np.moveaxis(pictures.pixels(some, *size), 0, 1)[None]
        found += encoder.push(runtime.place(ops.from_numpy(piece), exchange.device_of(vae), vae.dtype))
    found += encoder.finish()
    scale = vae.config.scaling_factor
    return np.concatenate([np.asarray(ops.to_numpy(each.mean), np.float32)[0] for each in found], 1) * scale


def latents_of(
    vae: Any, clips: Iterable[Clip], size: tuple[int, int]
) -> Iterator[tuple[Clip, np.ndarray | str]]:
    """Each clip with its latents, or with the reason why it has none."""
    for clip in clips:
        try:
            yield clip, encoded(vae, clip, size)
        except PictureError as error:
            yield clip, str(error)


class Pixels:
    """A sample of the latent pixels of a stream of latents, of bounded size, even over all of them (a reservoir)."""

    def __init__(self, most: int, rng: np.random.Generator) -> None:
        self._most, self._rng = most, rng
        self._kept: np.ndarray | None = None
        self._seen = 0

    def add(self, latents: np.ndarray) -> None:
        """Note latents (C, T, h, w)."""
        new = np.moveaxis(latents, 0, -1).reshape(-1, latents.shape[0]).astype(np.float32)
        if self._kept is None:
            self._kept = np.empty((self._most, new.shape[1]), np.float32)
        first = min(len(new), max(0, self._most - self._seen))
        self._kept[self._seen : self._seen + first] = new[:first]
        # Vitter's algorithm R: the n-th stays with a chance of most / n, in the place of any other.
        numbers = np.arange(self._seen + first, self._seen + len(new))
        places = (self._rng.random(len(numbers)) * (numbers + 1)).astype(np.int64)
        stays = places < self._most
        self._kept[places[stays]] = new[first:][stays]
        self._seen += len(new)

    @property
    def vectors(self) -> np.ndarray:
        """The sample (N, C)."""
        return np.empty((0, 1), np.float32) if self._kept is None else self._kept[: self._seen]


def fitted(
    latents: Iterable[np.ndarray], counts: Sequence[tuple[int, int]], seed: int = 0, pixels: int = 2**20
) -> Iterator[Codebook]:
    """Codebooks of latents (C, T, h, w), scaled: after each of `counts` (K, GROUPS) one with all that there are so far.

    Residuals are measured on every tenth of the latents, which the codes are not fitted to (with fewer than ten, on a
    tenth of the pixels), as shares of their spread around the one code that is the mean of the others. At most
    `pixels` latent pixels are held. Raises ModelError if there are too few of them.
    """
    rng = np.random.default_rng(seed)
    known, held = Pixels(pixels, rng), Pixels(pixels // TENTH, rng)
    videos = 0
    for each in latents:
        (held if videos % TENTH == TENTH - 1 else known).add(each)
        videos += 1
    vectors, others = known.vectors, held.vectors
    apart = "videos" if len(others) else "pixels"
    if not len(others):
        order = rng.permutation(len(vectors))
        cut = len(vectors) // TENTH
        vectors, others = vectors[order[cut:]], vectors[order[:cut]]
    if not len(vectors):
        raise ModelError("There are no latents to fit a codebook to.")
    facts = {"videos": videos, "pixels": len(vectors), "measured_on": f"other {apart}", "seed": seed}
    mean = vectors.mean(0, dtype=np.float64)
    codes: dict[tuple[int, int], np.ndarray] = {}
    shares: dict[tuple[int, int], float] = {}
    for count, groups in counts:
        made = fit_groups(vectors, count, groups, np.random.default_rng((seed, count, groups)))
        codes[count, groups] = made
        shares[count, groups] = residual(others, made, mean, groups)
        yield Codebook.of_pairs(codes, shares, facts)
