"""The making of a cache: videos are decoded, fitted and encoded in one pass, in the memory of some frames.

Latents are the posterior's mean. Unlike the reference, which samples: a sample that is frozen in a cache is noise that
a model would learn by heart, and differs from run to run. The first latent frame is the first picture encoded alone, as
it is when a video is made, and not within the clip, whose norms would let it see later frames.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from longtake import disk
from longtake.backend import exchange, ops, runtime
from longtake.errors import LongtakeError, ModelError, PictureError
from longtake.models.vae.streaming import StreamingEncoder
from longtake.picture import cover, load_image, reason
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

WORKERS = min(8, os.cpu_count() or 1)
AHEAD = 2 * WORKERS
"""Threads that fit frames, and frames that wait: a frame of 1920 x 1080 takes 23 ms to fit, and 13 ms to decode."""

T = TypeVar("T")


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
    try:
        source = {"signature": cache.signature(item), "content": cache.content(item)}
    except OSError as error:  # a ModelError or PictureError of the file, too
        return Skipped(item.name, f"it cannot be read any more: {reason(error)}")
    facts = {**cache.recipe(item, encoders), **source}
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
    """The frames (H, W, 3) uint8 of an example, fitted to its size; PictureError at the first that is damaged."""
    source, size = item.source, (item.width, item.height)
    if source.kind == "picture":
        yield np.asarray(cover(load_image(source.file), *size))
        return
    assert item.numbers is not None and item.shown is not None
    if source.kind == "frames":
        files = pictures_in(source.file)
        fitted = _in_turn(
            lambda file: np.asarray(cover(load_image(file), *size)), (files[n] for n in item.numbers)
        )
    else:
        shown = timed.frames(source.file, item.shown, item.numbers.tolist())
        fitted = _in_turn(lambda picture: np.asarray(cover(Image.fromarray(picture), *size)), shown)
    count = 0
    try:
        for picture in fitted:
            count += 1
            yield picture
    except PictureError as error:
        raise _Damaged(str(error), count) from error


def _in_turn(work: Callable[[T], np.ndarray], items: Iterator[T]) -> Iterator[np.ndarray]:
    """`work` of each item, in their order, some of it ahead in threads; once of one that comes again.

    An error of the items comes behind the results of those before it.
    """
    waiting: deque[Future[np.ndarray]] = deque()
    last: tuple[T, Future[np.ndarray]] | None = None
    failed = None
    with ThreadPoolExecutor(WORKERS) as pool:
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except PictureError as error:
                failed = error
                break
            if last is None or item is not last[0]:
                last = item, pool.submit(work, item)
            waiting.append(last[1])
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    if failed is not None:
        raise failed


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
