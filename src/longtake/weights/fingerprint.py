"""What tells one model or adapter from another without reading gigabytes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from longtake.errors import ModelError
from longtake.weights import files, header
from longtake.weights.folder import model_source, part_files, read_model_index
from longtake.weights.hub import Part

WHOLE = 64 * 2**20
"""Files up to this many bytes are read whole."""

SAMPLE, SAMPLES = 2**20, 16
"""Of a larger one its size, its header, and so many pieces of so many bytes, evenly spread with both ends."""


def fingerprint(name_or_folder: str | os.PathLike[str]) -> str:
    """A hexadecimal number that changes when a model's configs, tokenizers or weights do, wherever its folder lies.

    Cheap for any size: of large files a sample is read. Fetches a model on the hub. Raises ModelError where there is
    no whole model.
    """
    source = model_source(name_or_folder)
    folder = source.fetch([Part(files=("model_index.json",))])
    parts = [part_files(name, entry[0]) for name, entry in read_model_index(folder).parts.items() if entry]
    folder = source.fetch(parts)
    seen = {folder / "model_index.json"}
    for part in parts:
        place = folder / part.folder
        seen |= {place / name for name in (*part.files, *part.instead) if (place / name).is_file()}
        if part.stem:
            seen |= {weight.file for weight in files.read_weights(place, part.stem).values()}
    digests = {file.relative_to(folder).as_posix(): file_fingerprint(file) for file in seen}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def file_fingerprint(file: Path) -> str:
    """The same for one file; its name does not matter."""
    digest = hashlib.sha256()
    try:
        for piece in _pieces(file):
            digest.update(piece)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()


def _pieces(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    yield size.to_bytes(8, "little")
    with file.open("rb") as opened:
        if size <= WHOLE:
            yield from iter(lambda: opened.read(SAMPLE), b"")
            return
        length = min(int.from_bytes(opened.read(8), "little"), header.LONGEST)
        yield opened.read(length)
        for number in range(SAMPLES):
            opened.seek(number * (size - SAMPLE) // (SAMPLES - 1))
            yield opened.read(SAMPLE)
