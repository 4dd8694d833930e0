"""Scenes as latents: what the transformer learns from, made once from the finished autoencoder."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longtake import toyworld
from longtake.backend import ops, runtime, training
from longtake.errors import LongtakeWarning
from longtake.pipeline.decode import from_frames
from longtake.plan.lengths import video_frames
from longtake.toy.scenes import FAR_SHARE, SECTIONS, SHARES, training_scene
from longtake.weights import header, saving
from longtake.weights.arrays import read_arrays

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
    far: float = FAR_SHARE
    shares: str = json.dumps(SHARES)
    """The shares of the variants of scenes, as JSON."""

    def difference(self, other: dict[str, Any]) -> str:
        """The difference of `other`, an origin as JSON, in words; "" if there is none."""
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
    the frame behind each section alone; `pictures` (N, 1 + SECTIONS, H, W, 3) uint8: the first frame and those.

    `starts` (N,) are the frames at which the videos begin. Where that is not 0, the first latent frame and picture are
    those of the scene's frame 0, long before.
    """

    scenes: list[toyworld.Scene]
    starts: np.ndarray
    latents: np.ndarray
    ends: np.ndarray
    pictures: np.ndarray

    def __len__(self) -> int:
        return len(self.scenes)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the scenes, by name."""
        return {
            "starts": self.starts,
            "latents": self.latents,
            "ends": self.ends,
            "pictures": self.pictures,
        }

    def replace(self, row: int, other: Pool) -> None:
        """Put the one scene of `other` in the place of `row`."""
        self.scenes[row] = other.scenes[0]
        for name, mine in self.arrays().items():
            mine[row] = other.arrays()[name][0]


def make_pool(
    vae: Any, scenes: Sequence[toyworld.Scene], size: int, device: str = "cpu", starts: Sequence[int] = ()
) -> Pool:
    """Render and encode the scenes (the posterior's mean), one after the other, from their `starts` on (default: 0)."""
    frames = video_frames(SECTIONS)
    ends = [video_frames(number) for number in range(1, SECTIONS + 1)]
    begins = list(starts) or [0] * len(scenes)

    def mean(clips: np.ndarray) -> np.ndarray:
        pixels = runtime.place(ops.from_numpy(from_frames(clips)), device)
        with runtime.no_grad(), training.autocast("bfloat16", device):
            return ops.to_numpy(vae.encode(pixels).latent_dist.mean)

    latents, singles, pictures = [], [], []
    for scene, start in zip(scenes, begins, strict=True):
        video = toyworld.render(scene, range(start, start + frames + 1), size, size)
        first = toyworld.render(scene, [0], size, size)[0] if start else video[0]
        shown = np.stack([first, *(video[end] for end in ends)])
        encoded = mean(video[None, :frames])[0].swapaxes(0, 1)
        alone = mean(shown[:, None])[:, :, 0]
        if start:
            encoded[0] = alone[0]
        latents.append(encoded.astype(np.float16))
        singles.append(alone[1:].astype(np.float16))
        pictures.append(shown)
    return Pool(list(scenes), np.array(begins), np.stack(latents), np.stack(singles), np.stack(pictures))


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
    scenes, starts = zip(*(training_scene(seed, number) for number in range(count)), strict=True)
    if file.exists():
        _, metadata = header.read_layout(file)
        difference = origin.difference(json.loads(metadata.get(ENTRY, "{}")))
        if not difference:
            arrays, _ = read_arrays(file)
            return Pool(list(scenes), **{name: array.copy() for name, array in arrays.items()}), origin
        warnings.warn(
            f"The pool in {file} is made anew, for it has {difference}.", LongtakeWarning, stacklevel=2
        )
    pool = make_pool(vae, scenes, size, device, starts)
    tensors = {name: ops.from_numpy(array) for name, array in pool.arrays().items()}
    saving.write_file(file, tensors, {ENTRY: json.dumps(vars(origin))})
    return pool, origin
