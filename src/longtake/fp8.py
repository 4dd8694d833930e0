"""The 8-bit floats of Micikevicius et al., FP8 Formats for Deep Learning (arXiv 2209.05433), as numpy knows none."""

from __future__ import annotations

import numpy as np


def _e4m3() -> np.ndarray:
    """The values of the 256 bytes: a sign, 4 bits of exponent (bias 7), 3 bits of mantissa, no infinity."""
    byte = np.arange(256)
    exponent, mantissa = byte >> 3 & 15, byte & 7
    values = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    values = np.where(byte & 127 == 127, np.nan, values)
    return np.where(byte & 128, -values, values).astype(np.float32)


def _e5m2() -> np.ndarray:
    """The values of the 256 bytes, which are the upper half of a float16."""
    return (np.arange(256).astype(np.uint16) << 8).view(np.float16).astype(np.float32)


TABLES = {"float8_e4m3fn": _e4m3(), "float8_e5m2": _e5m2()}
"""The value of each byte, float32."""
_POSITIVE = TABLES["float8_e4m3fn"][:127]


def encode(values: np.ndarray) -> np.ndarray:
    """The bytes of the float8_e4m3fn numbers nearest to float32 values of at most 448; of two as near, the even one.

    >>> encode(np.array([1.0, -2.0, 448.0, 0.0, 1.0625, 1.1875], np.float32)).tolist()
    [56, 192, 126, 0, 56, 58]
    """
    size = np.abs(values)
    upper = np.minimum(np.searchsorted(_POSITIVE, size), 126)  # the first number that is not below it
    lower = np.maximum(upper - 1, 0)
    # Exact in float64: halves of neighbours, and float32 values, need at most 25 bits.
    middle = (_POSITIVE[lower].astype(np.float64) + _POSITIVE[upper]) / 2
    down = (size < middle) | ((size == middle) & (lower % 2 == 0))
    return np.where(down, lower, upper).astype(np.uint8) | (np.signbit(values).astype(np.uint8) << 7)
