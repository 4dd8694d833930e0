"""The tensors of a safetensors file as numpy arrays, without a framework.

numpy has neither bfloat16 nor 8-bit floats; they come as float32, which holds their values exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from longtake.errors import ModelError
from longtake.fp8 import TABLES
from longtake.weights.header import read_layout


def read_arrays(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of a file by name, and its metadata; ModelError for a file that is truncated or corrupt."""
    layout, metadata = read_layout(file)
    with file.open("rb") as opened:
        arrays = {}
        for name, (begin, weight) in layout.items():
            opened.seek(begin)
            arrays[name] = decode(opened.read(weight.bytes), weight.dtype, weight.shape)
    return arrays, metadata


def decode(data: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of a tensor from its bytes; `dtype` is a name such as "bfloat16".

    >>> decode(bytes([0x38, 0xC0]), "float8_e4m3fn", (2,))
    array([ 1., -2.], dtype=float32)
    >>> decode(bytes([0x80, 0x3F]), "bfloat16", (1,))
    array([1.], dtype=float32)
    """
    if dtype == "bfloat16":
        # Its 16 bits are the upper half of a float32.
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype in TABLES:
        values = TABLES[dtype][np.frombuffer(data, np.uint8)]
    else:
        try:
            kind = np.dtype(dtype).newbyteorder("<")
        except TypeError:
            raise ModelError(f"A tensor of dtype {dtype} cannot be read here.") from None
        values = np.frombuffer(data, kind)
    return values.reshape(shape)


E4M3 = TABLES["float8_e4m3fn"]
