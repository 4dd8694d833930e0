"""Writing weights: one safetensors file or shards with an index, so that an interrupted save is never a mixture.

A set's head is the file that readers look for: the single file, else the index of the shards. Every new file lies whole
on the disk before the first one takes its name. If a new shard has the name of an old one, the old head goes first and
the new one comes last, and what a crash leaves between is no model; otherwise the old set is read until the new head
stands in its place.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from longtake import disk
from longtake.errors import ModelError
from longtake.weights.files import file_name, files_of, index_name
from longtake.weights.header import CODES, DTYPES, compose

UNITS = {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


@dataclass(frozen=True)
class Later:
    """A tensor that is made when it is written; until then it takes no memory. `dtype` is the one that a file names."""

    dtype: str
    shape: tuple[int, ...]
    make: Callable[[], Any]


def write_weights(
    folder: Path,
    stem: str,
    tensors: Mapping[str, Any],
    max_shard_size: int | str = "10GB",
    variant: str | None = None,
) -> list[Path]:
    """Write the tensors as one file, or as shards of at most `max_shard_size` with an index; returns the files.

    Only one tensor at a time is copied to main memory. Files of an older set of weights under the same stem and
    variant go. Raises ModelError if the folder cannot be written; the older set then is as it was, or is no set.
    """
    shards = _shards(tensors, size_in_bytes(max_shard_size))
    names = [file_name(stem, variant, number, len(shards)) for number in range(len(shards))]
    heads = [file_name(stem, variant), index_name(stem, variant)]
    with _told(folder), _parts() as parts:
        disk.make_folder(folder)
        older = files_of(folder, stem, variant)
        for name, shard in zip(names, shards, strict=True):
            parts[folder / name] = disk.part_of(folder / name)
            with parts[folder / name].open("xb") as out:
                _write_file(out, shard)
        if len(shards) > 1:
            parts[folder / heads[1]] = disk.part_of(folder / heads[1])
            parts[folder / heads[1]].write_bytes(_json(_index(tensors, names, shards)))
            if any(file in parts for file in older):
                _remove(folder, [file for file in older if file.name in heads])
        for file, part in parts.items():  # the head is the last one
            disk.publish(part, file)
        surplus = [file for file in older if file not in parts]
        _remove(folder, [file for file in surplus if file.name in heads])
        _remove(folder, [file for file in surplus if file.name not in heads])
        return list(parts)


def write_file(file: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write one safetensors file, complete or not at all."""
    with _told(file.parent):
        disk.make_folder(file.parent)
        with disk.replacing(file) as out:
            _write_file(out, tensors, metadata)


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file, complete or not at all."""
    with _told(file.parent):
        disk.make_folder(file.parent)
        disk.write(file, _json(values))


def size_in_bytes(size: int | str) -> int:
    """The bytes of a size such as "10GB", "500MB" or "1GiB" (10GB is 10^10 bytes, as in the field's libraries).

    >>> size_in_bytes("10GB"), size_in_bytes("1.5 KiB"), size_in_bytes(7)
    (10000000000, 1536, 7)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?B)?", str(size).strip().upper())
    number = float(match[1]) * UNITS.get(match[2] or "", 1) if match else 0
    if number < 1:
        raise ModelError(f"{size!r} is no size of a file; write one like '10GB' or '500MB'.")
    return int(number)


def _shards(tensors: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
    shards: list[dict[str, Any]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = _bytes(tensor)
        if shards[-1] and filled + size > limit:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    return shards


def _index(tensors: Mapping[str, Any], names: list[str], shards: list[dict[str, Any]]) -> dict[str, Any]:
    holders = {weight: name for name, shard in zip(names, shards, strict=True) for weight in shard}
    total = sum(_bytes(tensor) for tensor in tensors.values())
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(holders.items()))}


def _write_file(
    out: IO[bytes], tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    from longtake.backend import runtime

    # The widest dtypes first, so that every tensor lies aligned to its own width.
    codes = list(DTYPES)
    order = sorted(tensors, key=lambda name: (codes.index(_code(tensors[name])), name))
    entries = {name: (_code(tensors[name]), _shape(tensors[name])) for name in order}
    # transformers 4 refuses files without a format.
    out.write(compose(entries, {"format": "pt", **(metadata or {})}))
    for name in order:
        tensor = tensors[name]
        out.write(runtime.to_bytes(tensor.make() if isinstance(tensor, Later) else tensor))


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(length) for length in tensor.shape)


def _bytes(tensor: Any) -> int:
    """The bytes that a tensor takes in a file."""
    return math.prod(_shape(tensor)) * DTYPES[_code(tensor)][1]


def _code(tensor: Any) -> str:
    from longtake.backend import runtime

    name = runtime.dtype_name(tensor.dtype)
    if name not in CODES:
        raise ModelError(f"A weight of dtype {name} cannot be written to safetensors.")
    return CODES[name]


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode("utf-8")


def _remove(folder: Path, files: list[Path]) -> None:
    """Take files away, so that they stay away after a loss of power."""
    for file in files:
        file.unlink(missing_ok=True)
    if files:
        disk.sync_folder(folder)


@contextmanager
def _parts() -> Iterator[dict[Path, Path]]:
    """Hidden names by the names to come; what is left under them in the end goes."""
    parts: dict[Path, Path] = {}
    try:
        yield parts
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{folder} cannot be written: {error.strerror or error}.") from error
