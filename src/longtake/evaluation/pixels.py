"""Measures of any frames, that need no truth: brightness, colours, sharpness, and what changes from frame to frame.

Legend: T frames, H height, W width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Frames = npt.NDArray[np.uint8]

QUIET = 5
"""A change of a value by so much, of 255, is taken for noise and not for motion."""
THUMBNAIL = 16

_LUMA = np.array([0.299, 0.587, 0.114], np.float32) / 255


def luma(frames: Frames) -> Array:
    """The brightness (T, H, W) in [0, 1], by Rec. 601's weights."""
    return np.asarray(frames @ _LUMA, np.float32)


def saturation(frames: Frames) -> Array:
    """The mean over the pixels of the largest less the smallest of red, green and blue (T,), in [0, 1]."""
    red, green, blue = np.moveaxis(frames, -1, 0)
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return np.asarray((high - low).mean((1, 2), dtype=np.float32) / 255)


def sharpness(bright: Array) -> Array:
    """The mean square of the Laplacian (T,) of brightness (T, H, W), edges of the frame left out."""
    middle = bright[:, 1:-1, 1:-1]
    around = bright[:, :-2, 1:-1] + bright[:, 2:, 1:-1] + bright[:, 1:-1, :-2] + bright[:, 1:-1, 2:]
    return np.asarray(np.square(4 * middle - around).mean((1, 2)))


def change(frames: Frames, before: Frames) -> Array:
    """The mean absolute difference (T,) of frames (T, H, W, 3) to others, in [0, 1]."""
    return np.asarray(_apart(frames, before).mean((1, 2, 3), dtype=np.float32) / 255)


def motion(frames: Frames, before: Frames) -> Array:
    """The difference of frames (T, H, W, 3) to others beyond `QUIET`, mean over all values (T,), in [0, 1]."""
    loud = np.maximum(_apart(frames, before), np.uint8(QUIET))
    return np.asarray((loud.mean((1, 2, 3), dtype=np.float32) - QUIET) / 255)


def _apart(frames: Frames, others: Frames) -> Frames:
    """The absolute differences, by bytes: the larger less the smaller stays one."""
    larger = np.maximum(frames, others)
    larger -= np.minimum(frames, others)
    return larger


def histograms(frames: Frames) -> Array:
    """The cumulative shares (T, 3, 256) of red, green and blue values up to each value."""
    count = len(frames)
    place = frames.reshape(count, -1, 3) + (np.arange(3) * 256 + np.arange(count)[:, None, None] * 768)
    found = np.bincount(place.reshape(-1), minlength=count * 768).reshape(count, 3, 256)
    return np.asarray(np.cumsum(found, -1) / (frames.shape[1] * frames.shape[2]), np.float32)


def colour_distance(shares: Array, reference: Array) -> Array:
    """The earth mover's distance (T,) in [0, 1] of `histograms` to one of them, mean of the three colours."""
    return np.asarray(np.abs(shares - reference).sum(-1).mean(-1) / 255)


def thumbnail(frame: Frames) -> Array:
    """One frame (H, W, 3) as 16 x 16 pixels, or as many as it has, flat, less its mean and of length 1."""
    height, width = frame.shape[:2]
    rows, columns = (np.linspace(0, side, THUMBNAIL + 1).astype(int)[:-1] for side in (height, width))
    rows, columns = np.unique(rows), np.unique(columns)
    total = np.add.reduceat(np.add.reduceat(frame.astype(np.float32), rows, 0), columns, 1)
    area = np.diff([*rows, height])[:, None] * np.diff([*columns, width])
    small = (total / area[..., None]).ravel()
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), np.float32)
