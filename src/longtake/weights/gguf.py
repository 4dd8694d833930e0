"""GGUF files: what one holds, read without a package, and its tensors as plain numbers.

The format is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: counts, keys with values, an entry for
each tensor, the tensors. Weights of 8 and fewer bits lie in blocks with a scale each, which the package gguf knows
(`pip install "longtake[gguf]"`); 16 and 32 bits need none. A file may be a stranger's: every size is compared with the
file's before anything of that size is read or made.
"""

from __future__ import annotations

import importlib.util
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from longtake.errors import ModelError
from longtake.weights import arrays
from longtake.weights.header import LARGEST, LONGEST, Weight

SUFFIX = ".gguf"
MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = "general.alignment"
SHAPE = "comfy.gguf.orig_shape."
"""The beginning of the key under which ComfyUI's converter keeps the shape of a tensor that GGUF cannot have."""

# By the number in a file: our name, the values of a block, its bytes.
PLAIN = {
    0: ("float32", 1, 4),
    1: ("float16", 1, 2),
    24: ("int8", 1, 1),
    25: ("int16", 1, 2),
    26: ("int32", 1, 4),
    27: ("int64", 1, 8),
    28: ("float64", 1, 8),
    30: ("bfloat16", 1, 2),
}
BLOCKS = {
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
}
KINDS = PLAIN | BLOCKS
SIZES = {name: (values, size) for name, values, size in KINDS.values()}
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a key's value, by the number of its type."""
TEXT, LIST = 8, 9
DIMENSIONS = 8
"""Most of a tensor: ggml has four, and converters of video models write five."""
PIECE = 2**22
"""Values that are brought from blocks to numbers at once."""

Wanted = tuple[str, tuple[int, int] | None]
"""A tensor's name, and the rows of it; None is all."""


def is_kind(dtype: str) -> bool:
    """Tell if this is the name of one of GGUF's blocks, such as "Q4_K"."""
    return any(dtype == name for name, _, _ in BLOCKS.values())


def read_header(file: Path) -> dict[str, Weight]:
    """The tensors of a file by name; ModelError for a file that is truncated, corrupt, or of another version."""
    return {name: weight for name, (_, weight) in read_layout(file).items()}


def read_layout(file: Path) -> dict[str, tuple[int, Weight]]:
    """The same, each with the byte at which it begins."""
    try:
        state = file.stat()
        return _layout(file, state.st_size, state.st_mtime_ns)
    except FileNotFoundError:
        raise ModelError(f"{file} does not exist.") from None
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}.") from None


def check_package(file: Path, weights: Iterable[Weight]) -> None:
    """Raise ModelError if one of the weights needs the package gguf and it is not there."""
    kinds = sorted({weight.dtype for weight in weights if is_kind(weight.dtype)})
    if kinds and importlib.util.find_spec("gguf") is None:
        raise ModelError(
            f"{file} has weights in {', '.join(kinds)}, which the package gguf reads, and it is not installed; "
            'install it by: pip install "longtake[gguf]"'
        )


def read_tensors(file: Path, wanted: Iterable[Wanted], dtype: Any, device: Any) -> Iterator[tuple[str, Any]]:
    """Tensors or rows of them, one at a time, in `dtype` (None: float32, or what the file has) on `device`."""
    from longtake.backend import ops, runtime

    layout = read_layout(file)
    mapped = np.memmap(file, np.uint8, mode="c")
    for name, rows in wanted:
        begin, weight = layout[name]
        values = _values(file, mapped[begin : begin + weight.bytes], weight, rows)
        tensor = ops.from_numpy(values)
        yield name, runtime.place(tensor, device, dtype if tensor.is_floating_point() else None)


def _values(file: Path, data: np.ndarray, weight: Weight, rows: tuple[int, int] | None) -> np.ndarray:
    """The numbers of a tensor, or of rows of it, from its bytes."""
    count = math.prod(weight.shape)
    each = count // weight.shape[0] if weight.shape and weight.shape[0] else 1
    begin, end = (rows[0] * each, rows[1] * each) if rows else (0, count)
    shape = (rows[1] - rows[0], *weight.shape[1:]) if rows else weight.shape
    values, size = SIZES[weight.dtype]
    if begin % values or end % values:  # rows that end inside a block
        return _values(file, data, weight, None)[slice(*(rows or (0, None)))]
    part = data[begin // values * size : end // values * size]
    if not is_kind(weight.dtype):
        return arrays.decode(part, weight.dtype, shape)
    return _plain(file, part.reshape(-1, size), weight.dtype).reshape(shape)


def _plain(file: Path, blocks: np.ndarray, kind: str) -> np.ndarray:
    """The numbers in blocks (N, bytes of one), a piece at a time, so that what is made on the way stays small."""
    import gguf

    values, _ = SIZES[kind]
    found = np.empty((len(blocks), values), np.float32)
    step = max(1, PIECE // values)
    for start in range(0, len(blocks), step):
        piece = np.ascontiguousarray(blocks[start : start + step])
        try:
            with np.errstate(all="ignore"):
                numbers = gguf.quants.dequantize(piece, gguf.GGMLQuantizationType[kind])
        except (NotImplementedError, KeyError):
            raise ModelError(
                f"{file} has weights in {kind}, which this version of gguf does not read."
            ) from None
        found[start : start + step] = numbers.reshape(-1, values)
    return found


# The header ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _layout(file: Path, size: int, changed: int) -> dict[str, tuple[int, Weight]]:
    with file.open("rb") as opened:
        return _Header(file, opened, size).read()


class _Header:
    """A file that is being read from its beginning; whatever it asks for is compared with its size."""

    def __init__(self, file: Path, opened: IO[bytes], size: int) -> None:
        self.file, self.opened, self.size = file, opened, size
        self.at = 0

    def read(self) -> dict[str, tuple[int, Weight]]:
        """The place of each tensor, by name."""
        if self.take(4) != MAGIC:
            raise ModelError(
                f"{self.file} is no GGUF file: it does not begin with the word {MAGIC.decode()}."
            )
        version = self.number("I")
        if version not in VERSIONS:
            order = ", or its bytes in the other order" if version & 0xFFFF == 0 else ""
            raise ModelError(f"{self.file} is GGUF in the version {version}{order}; {VERSIONS} are read.")
        tensors, keys = self.number("Q"), self.number("Q")
        settings = dict(self.setting() for _ in range(self.count(keys, 13)))
        entries = [self.entry() for _ in range(self.count(tensors, 24))]
        alignment = settings.get(ALIGNMENT, 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 2**20 or alignment & (alignment - 1):
            raise ModelError(f"{self.file} is corrupt: its {ALIGNMENT} is no power of two.")
        start = self.at + -self.at % alignment
        found: dict[str, tuple[int, Weight]] = {}
        end = start
        for name, offset, weight in sorted(entries, key=lambda entry: entry[1]):
            if name in found:
                raise ModelError(f"{self.file} is corrupt: the weight {name[:200]!r} comes twice.")
            if start + offset < end:
                raise ModelError(f"{self.file} is corrupt: the weight {name[:200]!r} lies over another one.")
            end = start + offset + weight.bytes
            if end > self.size:
                raise ModelError(
                    f"{self.file} is truncated: the weight {name[:200]!r} ends at byte {end}, and {self.size} "
                    "are there."
                )
            found[name] = start + offset, _reshaped(weight, settings.get(SHAPE + name))
        return found

    def count(self, number: int, least: int) -> int:
        """A number of things that take at least so many bytes each."""
        if number * least > self.size - self.at:
            raise self.truncated()
        return number

    def setting(self) -> tuple[str, Any]:
        """A key and its value; of lists, those of numbers alone are kept, and only if they are short."""
        return self.text(), self.value(self.number("I"))

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind in WIDTHS:
            data = self.take(WIDTHS[kind])
            return int.from_bytes(data, "little") if kind != 6 and kind != 12 else None
        if kind != LIST:
            raise ModelError(f"{self.file} is corrupt: it has a value of the unknown type {kind}.")
        inner, length = self.number("I"), self.number("Q")
        if inner == TEXT:
            for _ in range(self.count(length, 8)):
                self.skip(self.number("Q"))
            return None
        if inner not in WIDTHS:
            raise ModelError(f"{self.file} is corrupt: it has a list of values of the type {inner}.")
        if length > DIMENSIONS:
            self.skip(self.count(length, WIDTHS[inner]) * WIDTHS[inner])
            return None
        return [int.from_bytes(self.take(WIDTHS[inner]), "little") for _ in range(length)]

    def entry(self) -> tuple[str, int, Weight]:
        """A tensor's name, its place after the header, and what it is."""
        name, dimensions = self.text(), self.number("I")
        invalid = ModelError(f"{self.file} is corrupt: it has no valid entry for the weight {name[:200]!r}.")
        if dimensions > DIMENSIONS:
            raise invalid
        sides = [self.number("Q") for _ in range(dimensions)]
        kind, offset = self.number("I"), self.number("Q")
        if kind not in KINDS:
            raise ModelError(
                f"{self.file} has the weight {name[:200]!r} in GGUF's form {kind}, which is not read; there are: "
                f"{', '.join(known for known, _, _ in KINDS.values())}."
            )
        dtype, values, size = KINDS[kind]
        total = math.prod(sides)
        if total > LARGEST or (sides or [1])[0] % values or offset > LARGEST:
            raise invalid
        return name, offset, Weight(self.file, dtype, tuple(reversed(sides)), total // values * size)

    def text(self) -> str:
        length = self.number("Q")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise ModelError(f"{self.file} is corrupt: a name in it is not text in UTF-8.") from None

    def number(self, code: str) -> int:
        return int(struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0])

    def take(self, length: int) -> bytes:
        if length > self.size - self.at or self.at + length > LONGEST:
            raise self.truncated()
        self.at += length
        return self.opened.read(length)

    def skip(self, length: int) -> None:
        if length > self.size - self.at:
            raise self.truncated()
        self.at += length
        self.opened.seek(self.at)

    def truncated(self) -> ModelError:
        return ModelError(f"{self.file} is truncated or corrupt: {self.size} bytes do not hold its header.")


def _reshaped(weight: Weight, shape: Any) -> Weight:
    """The weight in the shape that its file keeps beside it, if that is one for as many values."""
    fits = isinstance(shape, list) and math.prod(shape) == math.prod(weight.shape)
    return replace(weight, shape=tuple(shape)) if fits else weight
