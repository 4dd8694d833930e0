"""Classifier-free guidance."""

from __future__ import annotations

from typing import Any

Array = Any
"""A numpy array or a tensor of whichever framework; only arithmetic, `reshape` and `mean` are asked of it."""


def cfg(positive: Array, negative: Array, scale: float, rescale: float = 0.0) -> Array:
    """Guided velocity: away from `negative`, through `positive`, by `scale` (Ho and Salimans 2022).

    `rescale` in [0, 1] mixes in the result with the standard deviation of `positive`, taken over everything but the
    batch, against over-exposure (Lin et al. 2023, section 3.4). A scale of 1 is `positive` itself.

    >>> import numpy as np
    >>> cfg(np.array([[2.0, 4.0]]), np.array([[1.0, 1.0]]), scale=2.0)
    array([[3., 7.]])
    """
    if scale == 1.0:
        return positive
    guided = negative + scale * (positive - negative)
    if rescale == 0.0:
        return guided
    ratio = _deviation(positive) / _deviation(guided)
    return guided * (rescale * ratio + (1.0 - rescale))


def _deviation(array: Array) -> Array:
    """Standard deviation of each batch entry, shaped to multiply with `array`.

    By hand and by position: the axis argument has another name in each library.
    """
    batch = array.shape[0]
    flat = array.reshape(batch, -1)
    centred = flat - flat.mean(1).reshape(batch, 1)
    return ((centred * centred).mean(1) ** 0.5).reshape(batch, *[1] * (len(array.shape) - 1))
