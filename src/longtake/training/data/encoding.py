"""The making of a cache: videos are decoded, fitted and encoded in one pass, in the memory of some frames.

Latents are the posterior's mean. Unlike the reference, which samples: a sample that is frozen in a cache is noise that
a model would learn by heart, and differs from run to run. The first latent frame is the first picture encoded alone, as
it is when a video is made, and not within the clip, whose norms would let it see later frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from longtake import disk
from longtake.backend import exchange, ops, runtime
from longtake.errors import LongtakeError, ModelError, PictureError
from longtake.models.vae.streaming import StreamingEncoder
from longtake.picture import cover, load_image
from longtake.pipeline.decode import from_frames
from longtake.pipeline.encode import encode_picture, encode_text
from longtake.pipeline.networks import Networks
from longtake.pipeline.placement import room_for
from longtake.plan.layout import LATENT_FRAMES, LATENT_PIXELS
from longtake.training.data import cache
from longtake.training.data.makers import Encoders
from longtake.training.data.sources import Skipped, pictures_in
from longtake.training.data.surveying import Item
from longtake.video import timed
from longtake.weights.header import CODES, compose
from longtake.weights.saving import write_file

PIECE = 8
"""Frames that go to the encoder at once."""

PROMPTS = 4
"""Prompts that are encoded at once."""


@dataclass(frozen=True)
class Made:
    """An example is encoded; `note` says why it is shorter than planned, or is empty."""

    item: Item
    note: str = ""


class _Damaged(PictureError):
    """The frames of an example end early: behind `frames` of them."""

    def __init__(self, message: str, frames: int) -> None:
        super().__init__(message)
        self.frames = frames


def encode_item(item: Item, networks: Networks, encoders: Encoders) -> Made | Skipped:
    """Encode one example into its file.

    Of a video that is damaged behind, the whole sections before are taken. What gives no section is remembered as
    skipped, so that it is not tried again.
    """
    facts = {
        **cache.recipe(item, encoders),
        "signature": cache.signature(item),
        "content": cache.content(item),
    }
    frames, note = item.frames, ""
    while frames:
        try:
            _encode(item, frames, networks, facts)
            return Made(replace(item, frames=frames), note)
        except _Damaged as error:
            why = str(error).rstrip(".")
            frames = item.dataset.cut.whole(error.frames)
            note = f"{item.name}: {why}; its first {frames} frames are taken"
        except PictureError as error:
            why, frames = str(error).rstrip("."), 0
    write_file(cache.example_file(item), {}, cache.entry({**facts, "frames": 0, "skipped": why}))
    return Skipped(item.name, why)


def _encode(item: Item, frames: int, networks: Networks, facts: dict[str, Any]) -> None:
    """Encode so many frames of an example into its file; raises PictureError if it cannot be."""
    pictures = islice(pictures_of(item), frames)
    first = next(pictures)
    with networks.using("image_encoder") as encoder:
        states = encode_picture(encoder, networks.part("feature_extractor"), _signed(first[None])[:, :, 0])[0]
    count = 1 + (frames - 1) // LATENT_FRAMES
    with networks.using("vae") as vae, told_of(item.dataset.cache):
        shape = (
            count,
            int(vae.config.latent_channels),
            item.height // LATENT_PIXELS,
            item.width // LATENT_PIXELS,
        )
        code = CODES[runtime.dtype_name(states.dtype)]
        entries = {"image_states": (code, tuple(map(int, states.shape))), "latents": ("F16", shape)}
        disk.make_folder(item.dataset.cache)
        with disk.replacing(cache.example_file(item)) as out:
            out.write(compose(entries, cache.entry({**facts, "frames": frames, "skipped": ""})))
            out.write(runtime.to_bytes(states))
            for latents in _latents(vae, first, pictures):
                with np.errstate(over="ignore"):
                    values = latents.astype("<f2")
                if not np.isfinite(values).all():
                    raise PictureError("the autoencoder gives latents that are no finite numbers")
                out.write(values.tobytes())


@contextmanager
def told_of(folder: Path) -> Iterator[None]:
    """Inside, an OSError of the disk becomes one sentence about the cache."""
    try:
        yield
    except LongtakeError:
        raise
    except OSError as error:
        raise ModelError(
            f"The cache {folder} cannot be written: {error.strerror or error}; what is encoded is kept, and the same "
            "command goes on."
        ) from error


def encode_prompts(prompts: list[tuple[str, Path]], networks: Networks) -> Iterator[int]:
    """Encode prompts, each into its file; after some of them their number."""
    for start in range(0, len(prompts), PROMPTS):
        some = prompts[start : start + PROMPTS]
        with room_for("encoding the prompts"):
            text = encode_text(networks, [prompt for prompt, _ in some])
        for row, (prompt, file) in enumerate(some):
            tensors = {"states": text.states[row], "mask": text.mask[row], "pooled": text.pooled[row]}
            write_file(file, tensors, cache.entry({"prompt": prompt}))
        yield len(some)


def pictures_of(item: Item) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) uint8 of an example, fitted to its size."""
    source, size = item.source, (item.width, item.height)
    if source.kind == "picture":
        yield np.asarray(cover(load_image(source.file), *size))
        return
    assert item.numbers is not None and item.shown is not None
    if source.kind == "frames":
        files = pictures_in(source.file)
        for count, number in enumerate(item.numbers):
            try:
                yield np.asarray(cover(load_image(files[number]), *size))
            except PictureError as error:
                raise _Damaged(str(error), count) from error
        return
    count, last, fitted = 0, None, None
    try:
        for picture in timed.frames(source.file, item.shown, item.numbers.tolist()):
            if picture is not last:  # one that is shown twice is fitted once
                last, fitted = picture, np.asarray(cover(Image.fromarray(picture), *size))
            assert fitted is not None
            count += 1
            yield fitted
    except PictureError as error:
        raise _Damaged(str(error), count) from error


def _latents(vae: Any, first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Latents (T, C, h, w) float32, scaled, in pieces; the first frame's are its own."""
    with runtime.no_grad():
        yield _scaled(vae, vae.encode(_tensor(vae, first[None])).latent_dist)
    piece = list(islice(rest, PIECE))
    if not piece:
        return
    encoder = StreamingEncoder(vae)
    piece, skipped = [first, *piece], 1
    while piece:
        for posterior in encoder.push(_tensor(vae, np.stack(piece))):
            yield _scaled(vae, posterior)[skipped:]
            skipped = 0
        piece = list(islice(rest, PIECE))
    for posterior in encoder.finish():
        yield _scaled(vae, posterior)[skipped:]
        skipped = 0


def _scaled(vae: Any, posterior: Any) -> np.ndarray:
    """The mean of a posterior: (T, C, h, w)."""
    mean = np.asarray(ops.to_numpy(posterior.mean), np.float32)[0].swapaxes(0, 1)
    return mean * np.float32(vae.config.scaling_factor)


def _tensor(vae: Any, frames: np.ndarray) -> Any:
    return runtime.place(ops.from_numpy(_signed(frames)), exchange.device_of(vae), vae.dtype)


def _signed(frames: np.ndarray) -> np.ndarray:
    """(1, 3, T, H, W) in [-1, 1] of frames (T, H, W, 3)."""
    return from_frames(frames[None])
