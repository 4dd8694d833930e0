"""safetensors files and folders: what lies in them, read from their headers; their tensors; writing them.

A network's weights are one file, `STEM.safetensors`, or shards with an index, `STEM.safetensors.index.json`, that says
which shard holds which weight. A variant such as fp16 stands in the names: `STEM.fp16.safetensors`,
`STEM.fp16-00001-of-00002.safetensors`, `STEM.safetensors.index.fp16.json`. The format of a file is that of
https://github.com/huggingface/safetensors: eight bytes with the length of the header, the header as JSON, the tensors.
Headers are read without a framework. Nothing but safetensors is read: a pickle can run code.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from longtake.config import read_json
from longtake.errors import ModelError

# safetensors' dtypes: our name and the bytes of one value, the widest first (the order in which they are written).
DTYPES: dict[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "I64": ("int64", 8),
    "U64": ("uint64", 8),
    "F32": ("float32", 4),
    "I32": ("int32", 4),
    "U32": ("uint32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I16": ("int16", 2),
    "U16": ("uint16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
CODES = {name: code for code, (name, _) in DTYPES.items()}
LOADABLE = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "bool")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
LONGEST_HEADER = 100_000_000  # the format's own limit
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
class Weight:
    """One tensor of a file, from the header alone; `dtype` is a name such as "bfloat16"."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    bytes: int


# Reading --------------------------------------------------------------------------------------------------------------


def read_header(file: Path) -> dict[str, Weight]:
    """The tensors of a safetensors file by name; raises ModelError for a file that is truncated or corrupt."""
    return {name: weight for name, (_, weight) in read_layout(file)[0].items()}


def read_layout(file: Path) -> tuple[dict[str, tuple[int, Weight]], dict[str, str]]:
    """The tensors by name, each with the byte at which it begins in the file, and the file's metadata.

    Raises ModelError for a file that is truncated or corrupt.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if size < 8 or length > min(size - 8, LONGEST_HEADER):
                raise ModelError(
                    f"{file} is truncated or no safetensors file: {size} bytes do not hold its header."
                )
            header = json.loads(opened.read(length).decode("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{file} does not exist.") from None
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{file} is corrupt or no safetensors file: its header is not JSON.") from None
    if not isinstance(header, dict):
        raise ModelError(f"{file} is corrupt: its header is not a JSON object.")
    metadata = header.pop("__metadata__", None)
    spans = {name: _span(file, name, entry) for name, entry in header.items()}
    end = 0
    for name, (begin, stop, _) in sorted(spans.items(), key=lambda item: item[1][:2]):
        if begin != end:
            raise ModelError(
                f"{file} is corrupt: the weight {name!r} does not begin where the one before it ends."
            )
        end = stop
    if end != size - 8 - length:
        state = "truncated" if end > size - 8 - length else "corrupt"
        raise ModelError(
            f"{file} is {state}: its weights take {end} bytes, and {size - 8 - length} are there."
        )
    begins = {name: (8 + length + begin, weight) for name, (begin, _, weight) in spans.items()}
    return begins, metadata if isinstance(metadata, dict) else {}


def _span(file: Path, name: str, entry: Any) -> tuple[int, int, Weight]:
    try:
        code, shape, (begin, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        dtype, width = DTYPES[code]
        whole = all(isinstance(number, int) and number >= 0 for number in (*shape, begin, stop))
        if not whole or stop - begin != math.prod(shape) * width:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ModelError(
            f"{file} is corrupt: its header has no valid entry for the weight {name!r}."
        ) from None
    return begin, stop, Weight(file, dtype, shape, stop - begin)


def read_weights(folder: Path, stem: str, variant: str | None = None) -> dict[str, Weight]:
    """The weights of a folder by name, from one file or from shards; reads headers only.

    Raises ModelError where the files, or a shard or a weight that the index names, are missing.
    """
    present = [path.name for path in folder.iterdir() if path.is_file()]
    index = folder / weights_among(present, stem, variant, folder)
    if index.suffix == ".safetensors":
        return read_header(index)
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ModelError(f"{index} has no valid 'weight_map' that says which file holds which weight.")
    headers: dict[str, dict[str, Weight]] = {}
    for name, shard in shards.items():
        # A shard lies beside its index: a name with a path in it could point anywhere.
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelError(
                f"{index} names {shard!r} for the weight {name!r}; only a safetensors file beside it is read."
            )
        if shard not in headers:
            if not (folder / shard).is_file():
                raise ModelError(
                    f"{index} names the file {shard!r} for the weight {name!r}, and it is missing."
                )
            headers[shard] = read_header(folder / shard)
        if name not in headers[shard]:
            raise ModelError(f"{folder / shard} lacks the weight {name!r}, which {index.name} says it holds.")
    inside = {name: weight for header in headers.values() for name, weight in header.items()}
    return inside | {name: headers[shard][name] for name, shard in shards.items()}


def weights_among(names: Iterable[str], stem: str, variant: str | None, where: object) -> str:
    """Which of a folder's files the weights begin with: the single one, else the index of the shards.

    Raises ModelError, which names the folder by `where`, for neither.
    """
    there = sorted(names)
    single, index = _file_name(stem, variant), _index_name(stem, variant)
    if single in there or index in there:
        return single if single in there else index
    variants = variants_among(there, stem)
    if variants:
        other = f"its variants are {', '.join(repr(found) for found in variants)}"
        raise ModelError(f"{where} has no {single} or {index}; {other}: choose one with variant=.")
    pickles = [name for name in there if name.endswith(PICKLES)]
    if pickles:
        raise ModelError(
            f"{where} has its weights in {pickles[0]}, a pickle, which can run code; only safetensors is read."
        )
    raise ModelError(f"{where} has no {single} or {index}; it holds {', '.join(there) or 'nothing'}.")


def variants_among(names: Iterable[str], stem: str) -> list[str | None]:
    """The variants whose weights are among the files of a folder; None is the plain one."""
    single, index = re.escape(stem), re.escape(f"{stem}.safetensors.index")
    pattern = re.compile(rf"(?:{single}(?:\.([^.]+?))?\.safetensors|{index}(?:\.([^.]+))?\.json)")
    matches = [pattern.fullmatch(name) for name in names]
    found = {
        match[1] or match[2] for match in matches if match and not re.search(r"-\d{5}-of-\d{5}", match[0])
    }
    return sorted(found, key=lambda variant: variant or "")


def check_weights(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Weight], folder: Path, network: str
) -> None:
    """Raise ModelError for the first missing, surplus, wrongly shaped or unreadable weight."""
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ModelError(f"{folder} lacks the weight {missing[0]!r}{others} of {network}.")
    if surplus:
        others = f" (and {len(surplus) - 1} others)" if len(surplus) > 1 else ""
        file = found[surplus[0]].file
        raise ModelError(
            f"{file} has the weight {surplus[0]!r}{others}, which {network} with this config does not have."
        )
    for name, shape in expected.items():
        weight = found[name]
        if weight.shape != tuple(shape):
            raise ModelError(
                f"{weight.file} has the weight {name!r} in the shape {list(weight.shape)}, "
                f"where {network} with this config has {list(shape)}."
            )
        if weight.dtype not in LOADABLE:
            raise ModelError(f"{weight.file} has the weight {name!r} as {weight.dtype}, which is not read.")


def read_tensors(
    weights: Mapping[str, Weight], names: Mapping[str, str], dtype: Any = None, device: Any = None
) -> Iterator[tuple[str, Any]]:
    """The tensors of `weights`, one at a time, file by file; `names` gives each one's name in its file."""
    from safetensors import SafetensorError

    from longtake.backend import runtime

    files: dict[Path, dict[str, str]] = {}
    for name, weight in weights.items():
        files.setdefault(weight.file, {})[names[name]] = name
    for file, inside in files.items():
        try:
            for name, tensor in runtime.read_safetensors(file, inside, dtype, device):
                yield inside[name], tensor
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} cannot be read: {error}.") from error


# Writing --------------------------------------------------------------------------------------------------------------


def write_weights(
    folder: Path,
    stem: str,
    tensors: Mapping[str, Any],
    max_shard_size: int | str = "10GB",
    variant: str | None = None,
) -> list[Path]:
    """Write the tensors as one file, or as shards of at most `max_shard_size` with an index; returns the files.

    Each file is complete under a name of its own before it takes its final name; only one tensor at a time is copied
    to main memory. Files of an older set of weights under the same stem and variant go.
    """
    shards = _shards(tensors, size_in_bytes(max_shard_size))
    names = [_file_name(stem, variant, number, len(shards)) for number in range(len(shards))]
    index = _index_name(stem, variant)
    older = _files_of(folder, stem, variant) if folder.is_dir() else []
    with _replacing(folder, names if len(shards) == 1 else [*names, index]) as parts:
        for name, shard in zip(names, shards, strict=True):
            _write_file(parts[name], shard)
        if len(shards) > 1:
            holders = {weight: name for name, shard in zip(names, shards, strict=True) for weight in shard}
            total = sum(tensor_bytes(tensor) for tensor in tensors.values())
            content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(holders.items()))}
            parts[index].write(_json(content))
    written = [folder / name for name in parts]
    for file in older:
        if file not in written:
            file.unlink(missing_ok=True)
    return written


def write_file(file: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write one safetensors file, complete or not at all."""
    with _replacing(file.parent, [file.name]) as parts:
        _write_file(parts[file.name], tensors, metadata)


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file, complete or not at all."""
    with _replacing(file.parent, [file.name]) as parts:
        parts[file.name].write(_json(values))


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


def tensor_bytes(tensor: Any) -> int:
    """The bytes that a tensor takes in a file."""
    return math.prod(tensor.shape) * DTYPES[_code(tensor)][1]


def _shards(tensors: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
    shards: list[dict[str, Any]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = tensor_bytes(tensor)
        if shards[-1] and filled + size > limit:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    return shards


def _write_file(
    out: IO[bytes], tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    from longtake.backend import runtime

    # The widest dtypes first, so that every tensor lies aligned to its own width.
    codes = list(DTYPES)
    order = sorted(tensors, key=lambda name: (codes.index(_code(tensors[name])), name))
    # transformers 4 refuses files without a format.
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name in order:
        begin, end = end, end + tensor_bytes(tensors[name])
        shape = [int(length) for length in tensors[name].shape]
        header[name] = {"dtype": _code(tensors[name]), "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        out.write(runtime.to_bytes(tensors[name]))


def _code(tensor: Any) -> str:
    from longtake.backend import runtime

    name = runtime.dtype_name(tensor.dtype)
    if name not in CODES:
        raise ModelError(f"A weight of dtype {name} cannot be written to safetensors.")
    return CODES[name]


@contextmanager
def _replacing(folder: Path, names: list[str]) -> Iterator[dict[str, IO[bytes]]]:
    """Files to write that take their names in `folder` together, when the block ends without an error."""
    parts = {name: folder / f".{name}.{os.getpid()}.part" for name in names}
    opened: dict[str, IO[bytes]] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in parts.items():
            opened[name] = part.open("wb")
        yield opened
        for file in opened.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for name, part in parts.items():
            part.replace(folder / name)
    except OSError as error:
        raise ModelError(f"{folder} cannot be written: {error.strerror or error}.") from error
    finally:
        for file in opened.values():
            with suppress(OSError):
                file.close()
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode("utf-8")


def _file_name(stem: str, variant: str | None, number: int = 0, count: int = 1) -> str:
    named = f"{stem}.{variant}" if variant else stem
    return f"{named}.safetensors" if count == 1 else f"{named}-{number + 1:05d}-of-{count:05d}.safetensors"


def _index_name(stem: str, variant: str | None) -> str:
    return f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"


def _files_of(folder: Path, stem: str, variant: str | None) -> list[Path]:
    named = re.escape(f"{stem}.{variant}" if variant else stem)
    pattern = re.compile(rf"{named}(-\d{{5}}-of-\d{{5}})?\.safetensors")
    index = _index_name(stem, variant)
    return [path for path in folder.iterdir() if pattern.fullmatch(path.name) or path.name == index]
