"""Scenes as latents: what the transformer learns from, made once from the finished autoencoder."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longtake import toyworld
from longtake.backend import ops, runtime, training
from longtake.errors import LongtakeWarning
from longtake.pipeline.decode import from_frames
from longtake.plan.lengths import video_frames
from longtake.weights import header, saving
from longtake.weights.arrays import read_arrays

SECTIONS = 5
"""How many sections a scene of the pool is long: above four, inverted plans cap the gap to the picture."""

ENTRY = "pool"
"""The entry of the file's metadata that holds `Origin`, as JSON."""


@dataclass(frozen=True)
class Origin:
    """All that decides what lies in a pool; equal origins are equal pools."""

    seed: int
    scenes: int
    size: int
    encoder: str
    """`encoder_digest` of the autoencoder that made the latents."""
    sections: int = SECTIONS

    def difference(self, other: dict[str, Any]) -> str:
        """What `other`, an origin as JSON, says otherwise, in words; "" if nothing."""
        mine = vars(self)
        told = [
            "another autoencoder" if name == "encoder" else f"{name} {other.get(name)} in place of {value}"
            for name, value in mine.items()
            if other.get(name) != value
        ]
        return ", ".join(told)


@dataclass(frozen=True)
class Pool:
    """`latents` (N, T, C, h, w) float16, not scaled, of videos of `SECTIONS` sections; `ends` (N, SECTIONS, C, h, w) of
    the frame behind each section alone; `pictures` (N, 1 + SECTIONS, H, W, 3) uint8: the first frame and those."""

    scenes: list[toyworld.Scene]
    latents: np.ndarray
    ends: np.ndarray
    pictures: np.ndarray

    def __len__(self) -> int:
        return len(self.scenes)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the scenes, by name."""
        return {"latents": self.latents, "ends": self.ends, "pictures": self.pictures}

    def replace(self, row: int, other: Pool) -> None:
        """Put the one scene of `other` in the place of `row`."""
        self.scenes[row] = other.scenes[0]
        for name, mine in self.arrays().items():
            mine[row] = other.arrays()[name][0]


def make_pool(vae: Any, scenes: Sequence[toyworld.Scene], size: int, device: str = "cpu") -> Pool:
    """Render and encode the scenes (the posterior's mean), one after the other."""
    frames = video_frames(SECTIONS)
    ends = [video_frames(number) for number in range(1, SECTIONS + 1)]

    def mean(clips: np.ndarray) -> np.ndarray:
        pixels = runtime.place(ops.from_numpy(from_frames(clips)), device)
        with runtime.no_grad(), training.autocast("bfloat16", device):
            return ops.to_numpy(vae.encode(pixels).latent_dist.mean)

    latents, singles, pictures = [], [], []
    for scene in scenes:
        video = toyworld.render(scene, range(frames + 1), size, size)
        shown = np.stack([video[0], *(video[end] for end in ends)])
        latents.append(mean(video[None, :frames])[0].swapaxes(0, 1).astype(np.float16))
        singles.append(mean(shown[:, None])[1:, :, 0].astype(np.float16))
        pictures.append(shown)
    return Pool(list(scenes), np.stack(latents), np.stack(singles), np.stack(pictures))


def scenes_of(seed: int, numbers: Iterable[int]) -> list[toyworld.Scene]:
    """The training scenes with these numbers, of an endless list that never holds those that are held out."""
    return [toyworld.random_scene(np.random.default_rng((seed, number))) for number in numbers]


def number_at(row: int, replaced: int, size: int) -> int:
    """The number of the scene in `row` of a pool of `size` after `replaced` scenes came new, row by row in a circle.

    >>> [number_at(row, 5, 3) for row in range(3)]
    [6, 7, 5]
    """
    return row + size * ((replaced - row + size - 1) // size)


def encoder_digest(vae: Any) -> str:
    """A number that changes with whatever decides an autoencoder's latents: its configuration and its encoder."""
    digest = hashlib.sha256(repr(vae.config).encode())
    for name, weight in sorted(runtime.named_weights(vae).items()):
        if name.startswith(("encoder.", "quant_conv.")):
            digest.update(name.encode())
            digest.update(runtime.to_bytes(weight))
    return digest.hexdigest()


def load_or_make_pool(
    folder: Path, vae: Any, seed: int, count: int, size: int, device: str = "cpu"
) -> tuple[Pool, Origin]:
    """The pool in `folder` and its origin; made, and kept there, if there is none or one of another origin.

    Warns of a pool that is made anew in the place of another.
    """
    file = folder / "pool.safetensors"
    origin = Origin(seed, count, size, encoder_digest(vae))
    scenes = scenes_of(seed, range(count))
    if file.exists():
        _, metadata = header.read_layout(file)
        difference = origin.difference(json.loads(metadata.get(ENTRY, "{}")))
        if not difference:
            arrays, _ = read_arrays(file)
            return Pool(scenes, **{name: array.copy() for name, array in arrays.items()}), origin
        warnings.warn(
            f"The pool in {file} is made anew, for it has {difference}.", LongtakeWarning, stacklevel=2
        )
    pool = make_pool(vae, scenes, size, device)
    tensors = {name: ops.from_numpy(array) for name, array in pool.arrays().items()}
    saving.write_file(file, tensors, {ENTRY: json.dumps(vars(origin))})
    return pool, origin
