"""The cache: one safetensors file for each example and each prompt, that know what they were made from.

    clip_00000-073_0832x0480_1a2b3c4d_lt.safetensors    latents (T, C, h, w) float16, scaled; image_states (M, E)
    0123456789abcdef_lt_te.safetensors                  states (N, D), mask (N,), pooled (P,) of one prompt

An example's file carries the recipe that it was made by. A file takes its name when it is whole. `_lt` stands where
musubi-tuner has `_fp`, so that both may share a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from longtake.errors import ModelError
from longtake.training.data.makers import Encoders
from longtake.training.data.sources import pictures_in
from longtake.training.data.surveying import Item
from longtake.training.examples import Told
from longtake.weights.arrays import decode, read_arrays
from longtake.weights.fingerprint import file_fingerprint
from longtake.weights.header import read_layout

EXAMPLE, TEXT = "_lt.safetensors", "_lt_te.safetensors"
ENTRY = "longtake_example"
"""The entry of a file's metadata that holds the recipe, as JSON."""

FORMAT = 1
STEM = 100
"""Bytes of a source's name in its file's; a name has 255 at most."""


def example_file(item: Item) -> Path:
    """The file of an example."""
    key = hashlib.sha256(str(item.source.file.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    stem = "".join(c if c.isalnum() or c in "-." else "_" for c in item.source.file.stem)
    stem = stem.encode()[:STEM].decode(errors="ignore")
    place = f"{item.start:05d}-{item.frames:03d}_{item.width:04d}x{item.height:04d}"
    return item.dataset.cache / f"{stem}_{place}_{key}{EXAMPLE}"


def text_file(folder: Path, prompt: str, encoders: Encoders) -> Path:
    """The file of a prompt's encoding: its name is made of all that decides it."""
    told = [FORMAT, prompt, encoders.digest("text"), dict(encoders.template), encoders.max_tokens]
    return folder / f"{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]}{TEXT}"


def recipe(item: Item, encoders: Encoders) -> dict[str, Any]:
    """All that decides an example's file but the source's content."""
    pace = item.dataset.pace
    return {
        "format": FORMAT,
        "window": item.dataset.cut.window,
        "pace": [pace.fps, pace.source],
        "vae": encoders.digest("vae"),
        "image": encoders.digest("image"),
    }


def signature(item: Item) -> list[list[Any]]:
    """[name, bytes, nanoseconds of the last change] of each of the source's files: what is cheap to know of them."""
    files = pictures_in(item.source.file) if item.source.kind == "frames" else [item.source.file]
    found = []
    for file in files:
        known = file.stat()
        found.append([file.name, known.st_size, known.st_mtime_ns])
    return found


def content(item: Item) -> str:
    """A number that changes with the content of the source."""
    return _content(item.source.file, item.source.kind, json.dumps(signature(item)))


@lru_cache(maxsize=1)
def _content(place: Path, kind: str, signature: str) -> str:
    """The same; kept for the next stretch of the same source."""
    if kind != "frames":
        return file_fingerprint(place)
    each = [[file.name, file_fingerprint(file)] for file in pictures_in(place)]
    return hashlib.sha256(json.dumps(each).encode()).hexdigest()


def made(item: Item, encoders: Encoders) -> dict[str, Any] | None:
    """The words of an example's file on itself (`frames` that it has, `skipped` why it has none), if it is still right.

    A source that was touched and has the same content as before is the same.
    """
    file = example_file(item)
    try:
        _, metadata = read_layout(file)
        found = json.loads(metadata[ENTRY])
        if any(found[key] != value for key, value in recipe(item, encoders).items()):
            return None
        if found["signature"] != signature(item) and found["content"] != content(item):
            return None
        return dict(found)
    except (ModelError, OSError, ValueError, KeyError, TypeError):
        return None


def orphans(folders: Iterable[Path], used: Iterable[Path]) -> list[Path]:
    """The files in these folders that are no example's and no prompt's any more."""
    known = set(used)
    there = (path for folder in folders if folder.is_dir() for path in folder.iterdir())
    return sorted(path for path in there if path.name.endswith((EXAMPLE, TEXT)) and path not in known)


def read_latents(file: Path) -> np.ndarray:
    """An example's latents (C, T, h, w), memory-mapped."""
    layout, _ = read_layout(file)
    begin, weight = layout["latents"]
    mapped = np.memmap(file, np.dtype("<f2"), "r", begin, weight.shape)
    return mapped.swapaxes(0, 1)


def read_image_states(file: Path) -> np.ndarray:
    """SigLIP's states (M, E) of an example's picture, float32."""
    layout, _ = read_layout(file)
    begin, weight = layout["image_states"]
    with file.open("rb") as opened:
        opened.seek(begin)
        return decode(opened.read(weight.bytes), weight.dtype, weight.shape).astype(np.float32)


def read_told(file: Path, prompt: str) -> Told:
    """A prompt's encoding."""
    arrays, _ = read_arrays(file)
    states, mask, pooled = (arrays[name] for name in ("states", "mask", "pooled"))
    return Told(prompt, states.astype(np.float32), mask.astype(np.float32), pooled.astype(np.float32))


def is_whole(file: Path) -> bool:
    """Tell if a file of the cache is there and not damaged."""
    try:
        read_layout(file)
    except ModelError:
        return False
    return True


def entry(values: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a file."""
    return {ENTRY: json.dumps(dict(values), sort_keys=True)}
