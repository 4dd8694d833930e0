"""Fingerprints that tell one model or adapter from another without reading gigabytes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from longtake.errors import ModelError
from longtake.named import places
from longtake.weights import files, header, single
from longtake.weights.folder import Folder, library_of, model_source, part_files, read_model_index
from longtake.weights.hub import HubOptions, Part, Repository

INDEX = Part(files=("model_index.json",))

WHOLE = 64 * 2**20
"""Files up to this many bytes are read whole."""

SAMPLE, SAMPLES = 2**20, 16
"""Of a larger one its size, its header, and so many pieces of so many bytes, evenly spread with both ends."""


def fingerprint(
    model: str | os.PathLike[str], parts: Mapping[str, str] | None = None, hub: HubOptions | None = None
) -> str:
    """A hexadecimal number that changes when a model's configs, tokenizers or weights do, wherever they lie.

    `parts` are in other places; the model's own parts of these names are not read then. Cheap for any size: of large
    files a sample is read. Fetches what is on the hub. Raises ModelError if something is missing.
    """
    model, parts = places(model, parts)
    source = model_source(model, hub)
    index = source.fetch([INDEX]) / INDEX.files[0]
    own = {name: entry[0] for name, entry in read_model_index(index.parent).parts.items() if entry}
    digests = {index.name: file_fingerprint(index)}
    digests |= _digests(source, {name: library for name, library in own.items() if name not in parts})
    for name, place in parts.items():
        file = single.find(place, hub)
        if file is not None:
            digests[name] = file_fingerprint(file)
            continue
        library = library_of(name)
        digests |= _digests(model_source(place, hub), {name: library})
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def part_fingerprints(
    model: str | os.PathLike[str],
    names: Iterable[str],
    parts: Mapping[str, str] | None = None,
    hub: HubOptions | None = None,
) -> dict[str, str]:
    """The fingerprint of each of these parts of a model, by name; `parts` are in other places.

    Raises ModelError, which names it, for a part that the model does not have.
    """
    model, parts = places(model, parts)
    found = {}
    for name in names:
        place = parts.get(name, model)
        file = single.find(place, hub)
        if file is not None:
            found[name] = file_fingerprint(file)
            continue
        source = model_source(place, hub)
        if name not in parts and not source.has_folder(name):
            raise ModelError(
                f"{place} has no {name}; take a model that has one, or name its place beside it."
            )
        digests = _digests(source, {name: library_of(name)})
        found[name] = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    return found


def _digests(source: Folder | Repository, libraries: Mapping[str, str]) -> dict[str, str]:
    """The fingerprint of each file of these parts, by part and name: fetched at once, since they may be on the hub."""
    plain = {name: part_files(name, library) for name, library in libraries.items()}
    # What is no whole model may be the part itself.
    inside = {
        name: replace(part, folder=name if source.has_folder(name) else "") for name, part in plain.items()
    }
    root = source.fetch(inside.values())
    digests = dict[str, str]()
    for name, part in inside.items():
        place = root / part.folder
        seen = {place / file for file in (*part.files, *part.instead) if (place / file).is_file()}
        if part.stem:
            seen |= {weight.file for weight in files.read_weights(place, part.stem).values()}
        digests |= {f"{name}/{file.relative_to(place).as_posix()}": file_fingerprint(file) for file in seen}
    return digests


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
