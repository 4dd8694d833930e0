"""The file of one section: its latents, with a checksum and the recipe that they were made by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from longtake import __version__, disk
from longtake.errors import ModelError
from longtake.weights.arrays import read_arrays
from longtake.weights.header import compose, read_layout

SECTIONS = "sections"
DONE, MISSING, OUTDATED, DAMAGED = "done", "missing", "outdated", "damaged"


def section_file(folder: Path, number: int) -> Path:
    """The place of a section in a job's folder."""
    return folder / SECTIONS / f"{number:05}.safetensors"


def section_files(folder: Path) -> Iterator[tuple[int, Path]]:
    """The sections that lie in a job's folder, by number; -1 for a name that is no number."""
    for file in sorted((folder / SECTIONS).glob("*.safetensors")):
        yield int(file.stem) if file.stem.isdecimal() and len(file.stem) < 19 else -1, file


def write(file: Path, latents: np.ndarray, recipe: str, told: Mapping[str, str] | None = None) -> None:
    """Keep a section; when this returns, it survives a loss of power. `told` are texts for who lists it."""
    data = np.ascontiguousarray(latents, dtype="<f4")
    metadata = {**(told or {}), "longtake": __version__, "recipe": recipe, "sha256": _checksum(data)}
    disk.write(file, [compose({"latents": ("F32", data.shape)}, metadata), data.tobytes()])


def read(file: Path) -> tuple[np.ndarray | None, str | None]:
    """Latents and recipe, or None if the file is not what was written."""
    try:
        arrays, metadata = read_arrays(file)
        latents = arrays["latents"]
    except (ModelError, KeyError, OSError, ValueError):
        return None, None
    whole = metadata.get("sha256") == _checksum(latents)
    # A copy, since what was read from bytes cannot be written to, and a framework may want to.
    return (latents.copy(), metadata.get("recipe")) if whole else (None, None)


def recipe_of(file: Path) -> str | None:
    """The recipe in the file's header, or None if that cannot be read."""
    return texts_of(file).get("recipe")


def texts_of(file: Path) -> Mapping[str, str]:
    """The texts in the file's header; none if that cannot be read."""
    try:
        return read_layout(file)[1]
    except ModelError:
        return {}


def state(file: Path, recipe: str) -> str:
    """DONE, MISSING, OUTDATED or DAMAGED, as the header tells."""
    if not file.exists():
        return MISSING
    found = recipe_of(file)
    return DAMAGED if found is None else DONE if found == recipe else OUTDATED


def _checksum(latents: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps([str(latents.dtype), latents.shape]).encode())
    digest.update(latents.tobytes())
    return digest.hexdigest()
