"""The header of a safetensors file, which says what the file holds: read without a framework, and written.

The format is that of https://github.com/huggingface/safetensors: eight bytes with the length of the header, the header
as JSON, the tensors one after the other. A header may be a stranger's: whatever the safetensors package refuses is
refused here too, in a time that is proportional to its length.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longtake.errors import ModelError

# safetensors' dtypes: our name and the bytes of one value, the widest first (the order in which they are written).
DTYPES: dict[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "I64": ("int64", 8),
    "U64": ("uint64", 8),
    "C64": ("complex64", 8),
    "F32": ("float32", 4),
    "I32": ("int32", 4),
    "U32": ("uint32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I16": ("int16", 2),
    "U16": ("uint16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 1),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
CODES = {name: code for code, (name, _) in DTYPES.items()}
LONGEST = 100_000_000
"""The longest header in bytes: the format's own limit."""
MOST_DIMENSIONS = 64
"""Of a tensor; numpy's limit."""
LARGEST = 2**63 - 1
"""The largest number in a header, which is also the largest product of a shape: no file is larger."""


@dataclass(frozen=True)
class View:
    """The way from the tensor that a file has to the weight in its place.

    First its `rows` (from, to); then they are multiplied by `scale`, another tensor of the file (one number, or one for
    each row); then, if it is `swapped`, the halves of the rows change places; last it takes the weight's shape.
    """

    rows: tuple[int, int] | None = None
    scale: str | None = None
    swapped: bool = False
    scale_file: Path | None = None
    """The file of the scale, if that is another one than the tensor's."""


@dataclass(frozen=True)
class Weight:
    """One tensor of a file, from the header alone; `dtype` is a name such as "bfloat16".

    If it is no tensor of the file as it stands, `view` says how it is taken from one.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    view: View | None = None


def read_header(file: Path) -> dict[str, Weight]:
    """The tensors of a safetensors file by name; raises ModelError for a file that is truncated or corrupt."""
    return {name: weight for name, (_, weight) in read_layout(file)[0].items()}


def read_layout(file: Path) -> tuple[dict[str, tuple[int, Weight]], dict[str, str]]:
    """The tensors by name, each with the byte at which it begins in the file, and the file's metadata.

    Raises ModelError for a file that is truncated or corrupt.
    """
    header, start, size = _read_json(file)
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelError(f"{file} is corrupt: its '__metadata__' is more than texts by name.")
    spans = {name: _span(file, name, entry) for name, entry in header.items()}
    end = 0
    for name, (begin, stop, _) in sorted(spans.items(), key=lambda item: item[1][:2]):
        if begin != end:
            raise ModelError(
                f"{file} is corrupt: the weight {_quoted(name)} does not begin where the one before it ends."
            )
        end = stop
    if end != size - start:
        state = "truncated" if end > size - start else "corrupt"
        raise ModelError(f"{file} is {state}: its weights take {end} bytes, and {size - start} are there.")
    return {name: (start + begin, weight) for name, (begin, _, weight) in spans.items()}, metadata


def compose(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str], least: int = 0
) -> bytes:
    """The beginning of a file whose tensors, each (code, shape), follow in this order: of `least` bytes or more."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (code, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * DTYPES[code][1]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * max(-len(text) % 8, least - 8 - len(text))
    return len(text).to_bytes(8, "little") + text


def _read_json(file: Path) -> tuple[dict[str, Any], int, int]:
    """The header as it stands, the byte at which the tensors begin, and the file's size."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if size < 8 or length > min(size - 8, LONGEST):
                raise ModelError(
                    f"{file} is truncated or no safetensors file: {size} bytes do not hold its header."
                )
            text = opened.read(length).decode("utf-8")
        header = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_number,
            parse_float=_number,
            parse_constant=_number,
        )
    except FileNotFoundError:
        raise ModelError(f"{file} does not exist.") from None
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{file} is corrupt or no safetensors file: its header is not JSON.") from None
    if not isinstance(header, dict):
        raise ModelError(f"{file} is corrupt: its header is not a JSON object.")
    return header, 8 + length, size


def _number(text: str) -> int | float:
    """An integer from 0 to LARGEST, or any other finite number as a float, which no shape has.

    Python reads integers of any length, in a time that grows with the square of it.
    """
    if len(text) < 20 and text.isdigit() and int(text) <= LARGEST:
        return int(text)
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError if a name comes twice, and for half of a surrogate pair in a text."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name comes twice")
    for name, value in pairs:
        name.encode("utf-8")
        if isinstance(value, str):
            value.encode("utf-8")
    return values


def _span(file: Path, name: str, entry: Any) -> tuple[int, int, Weight]:
    """The first byte of a weight after the header, the one behind its last, and the weight."""
    invalid = ModelError(f"{file} is corrupt: its header has no valid entry for the weight {_quoted(name)}.")
    if not isinstance(entry, dict):
        raise invalid
    code, shape, offsets = (entry.pop(key, None) for key in ("dtype", "shape", "data_offsets"))
    # Other keys are passed over if their values are small: this version of the format does not know them.
    if not isinstance(code, str) or any(isinstance(value, (dict, list)) for value in entry.values()):
        raise invalid
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise invalid
    if code not in DTYPES:
        raise ModelError(f"{file} has the weight {_quoted(name)} as {_quoted(code)}, which is not read.")
    dtype, width = DTYPES[code]
    (begin, stop), values = offsets, 1
    for length in shape:
        values *= length
        if values > LARGEST:
            raise invalid
    if stop - begin != values * width:
        raise invalid
    return begin, stop, Weight(file, dtype, tuple(shape), stop - begin)


def _are_counts(values: Any) -> bool:
    """Tell if this is a list of at most MOST_DIMENSIONS integers, which `_number` has bounded already."""
    return (
        isinstance(values, list)
        and len(values) <= MOST_DIMENSIONS
        and all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    )


def _quoted(name: str) -> str:
    """A stranger's word in a sentence."""
    return repr(name if len(name) <= 200 else f"{name[:200]}…")
