"""Pictures of every kind to what the encoders see: (B, 3, H, W) float32 in [-1, 1]."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from longtake.backend import ops
from longtake.errors import PictureError
from longtake.picture import cover
from longtake.video.edges import load_picture

BUCKETS = (
    (416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640),
    (640, 608), (672, 576), (704, 544), (768, 512), (832, 480), (864, 448), (960, 416),
)  # fmt: skip
"""The (height, width) that FramePack was trained on."""


def bucket(width: int, height: int) -> tuple[int, int]:
    """The (width, height) of FramePack's that is nearest in shape to a picture's.

    >>> bucket(512, 512), bucket(1920, 1080)
    ((608, 640), (832, 480))
    """
    # A tie goes to the later entry, as in FramePack: a square picture becomes 640 high.
    near = min(reversed(BUCKETS), key=lambda size: abs(height * size[1] - width * size[0]))
    return near[1], near[0]


def size_of(picture: Any) -> tuple[int, int] | None:
    """(width, height) of one picture, or of the first of several."""
    if isinstance(picture, list | tuple):
        return size_of(picture[0]) if picture else None
    if isinstance(picture, str | os.PathLike):
        picture = load_picture(picture)
    if isinstance(picture, Image.Image):
        return picture.size
    height, width = _pictures(picture)[0].shape[:2]
    return width, height


def pixels(pictures: Any, width: int, height: int, reference: bool = False) -> np.ndarray:
    """One picture or several (paths, PIL, arrays (…, H, W, C), tensors (…, C, H, W)) as (B, 3, H, W) in [-1, 1].

    They are resized to cover the size and cut to its centre. Float values lie in [0, 1], or in [-1, 1] if one is
    negative. Unlike the reference: which stretches (PIL) or picks the nearest pixel (arrays and tensors) and never
    divides uint8 arrays by 255; `reference` does the same.
    """
    several = _pictures(pictures)
    if not several:
        raise PictureError("There is no picture in the list.")
    if reference:
        return _reference_pixels(several, width, height)
    return np.stack([_fitted(picture, width, height).transpose(2, 0, 1) for picture in several])


def _pictures(pictures: Any) -> list[Any]:
    """Each picture as PIL or as an array (H, W, C)."""
    if isinstance(pictures, list | tuple):
        return [each for picture in pictures for each in _pictures(picture)]
    if isinstance(pictures, Image.Image | str | os.PathLike):
        return [load_picture(pictures)]
    if isinstance(pictures, ops.Tensor):
        return _pictures(np.moveaxis(ops.to_numpy(pictures), -3, -1))
    if not isinstance(pictures, np.ndarray):
        raise PictureError(
            f"A picture is a path, a PIL image, an array or a tensor, not {type(pictures).__name__}."
        )
    if pictures.ndim == 4:
        return list(pictures)
    if pictures.ndim not in (2, 3):
        raise PictureError(
            f"An array of a picture is (H, W, C) and a tensor (C, H, W); {pictures.shape} was given."
        )
    return [pictures]


def _fitted(picture: Any, width: int, height: int) -> np.ndarray:
    """Cover and crop; (H, W, 3) float32 in [-1, 1]."""
    if (
        isinstance(picture, np.ndarray)
        and picture.dtype.kind == "f"
        and picture.ndim == 3
        and picture.shape[2] == 3
    ):
        values = _signed(picture)
        # Channel by channel, since Pillow has no colour pictures of floats; Lanczos overshoots.
        channels = (Image.fromarray(np.ascontiguousarray(values[..., c])) for c in range(3))
        return np.stack([np.asarray(cover(channel, width, height)) for channel in channels], axis=-1).clip(
            -1, 1
        )
    return 2.0 * _unit(cover(load_picture(picture), width, height)) - 1.0


def _reference_pixels(pictures: list[Any], width: int, height: int) -> np.ndarray:
    """The pixels that diffusers' VideoProcessor makes of them."""
    fit: Callable[[Any], np.ndarray] = partial(_stretched, width=width, height=height)
    values = np.stack([fit(picture).transpose(2, 0, 1) for picture in pictures]).astype(np.float32)
    return values if values.min() < 0 else 2.0 * values - 1.0


def _stretched(picture: Any, width: int, height: int) -> np.ndarray:
    if isinstance(picture, Image.Image):
        return _unit(picture.resize((width, height), Image.Resampling.LANCZOS))
    rows, columns = _nearest(picture.shape[0], height), _nearest(picture.shape[1], width)
    nearest: np.ndarray = picture[rows][:, columns]
    return nearest


def _nearest(size: int, wanted: int) -> np.ndarray:
    """The entries that torch's nearest interpolation takes; its scale is a float32."""
    places = np.floor(np.arange(wanted, dtype=np.float32) * np.float32(size / wanted)).astype(np.int64)
    return np.minimum(places, size - 1)


def _unit(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0


def _signed(values: np.ndarray) -> np.ndarray:
    """[0, 1] to [-1, 1]; what has negative values is there already."""
    low, high = float(values.min()), float(values.max())
    if low < -1.25 or high > 1.25:
        raise PictureError(
            f"Pixels of type float lie in [0, 1] or [-1, 1]; these lie in [{low:g}, {high:g}]."
        )
    return np.asarray(values if low < 0 else 2.0 * values - 1.0, dtype=np.float32)
