"""Flow-matching schedules: descending noise levels from 1 to 0, as Python floats.

All arithmetic is float32, since the reference's is and a schedule must be the same numbers on every framework; the
floats that come out are exactly representable there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from longtake.errors import JobError

MAX_MU = math.log(7.0)
"""Largest dynamic mu of the released models: a shift of 7."""


def linear(steps: int) -> list[float]:
    """Evenly spaced sigmas of `steps` steps, 1 to 0: `steps + 1` values.

    >>> linear(4)
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if steps < 1:
        raise JobError(f"Sampling needs at least one step; {steps} were asked for.")
    return _floats(np.linspace(1.0, 0.0, steps + 1))


def shift(sigmas: Sequence[float], shift: float) -> list[float]:
    """Sigmas moved towards 1: s / (s + 1/t - 1), with 0 and 1 fixed (Esser et al. 2024).

    >>> [round(sigma, 4) for sigma in shift([1.0, 0.5, 0.0], 7.0)]
    [1.0, 0.875, 0.0]
    """
    return _floats(shifted(np.asarray(sigmas, np.float32), shift))


def shifted(sigmas: np.ndarray, shift: float) -> np.ndarray:
    """`shift` on an array, in the array's own dtype."""
    if shift <= 0:
        raise JobError(f"The shift of a schedule must be above 0; {shift} was asked for.")
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def dynamic_mu(
    tokens: float,
    base_tokens: float = 256,
    max_tokens: float = 4096,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    cap: float = MAX_MU,
) -> float:
    """Logarithm of the shift for so many tokens in the window (history not counted): linear, then capped.

    >>> round(math.exp(dynamic_mu(2304)), 2), round(math.exp(dynamic_mu(13680)), 2)
    (2.33, 7.0)
    """
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    return min(slope * tokens + base_shift - slope * base_tokens, cap)


def flow_sigmas(steps: int, *, shift: float | None = None, tokens: float | None = None) -> list[float]:
    """Sigmas of `steps` steps under a static `shift` or the one that `tokens` of the window call for.

    With neither they are evenly spaced.

    >>> [round(sigma, 4) for sigma in flow_sigmas(25, shift=7.0)][-4:]
    [0.4884, 0.3784, 0.2258, 0.0]
    """
    if shift is not None and tokens is not None:
        raise JobError("A schedule has either a static shift or one from the number of tokens, not both.")
    if tokens is not None:
        shift = math.exp(dynamic_mu(tokens))
    even = np.asarray(linear(steps), np.float32)
    return _floats(even if shift is None else shifted(even, shift))


def _floats(values: np.ndarray) -> list[float]:
    return [float(value) for value in values.astype(np.float32)]
