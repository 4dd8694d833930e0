"""The preparation of SigLIP's pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from longtake.backend import ops
from longtake.config import read_json
from longtake.errors import ModelError, PictureError
from longtake.processors.tokenizers import Batch, batch
from longtake.weights.folder import find_model
from longtake.weights.hub import HubOptions, Part

Picture: TypeAlias = "Image.Image | np.ndarray | ops.Tensor"


@dataclass(frozen=True)
class SiglipImageProcessor:
    """Pictures of any size to what SigLIP sees; the fields are those of preprocessor_config.json.

    Unlike the reference: a float picture stays float through the resize; transformers without torchvision rounds it to
    256 steps (up to 0.012 off), as does a call with `rounded`.
    """

    do_resize: bool = True
    size: dict[str, int] = dataclasses.field(default_factory=lambda: {"height": 224, "width": 224})
    resample: int = 3
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Sequence[float] = (0.5, 0.5, 0.5)
    image_std: Sequence[float] = (0.5, 0.5, 0.5)
    do_convert_rgb: bool | None = True

    def __post_init__(self) -> None:
        if not {"height", "width"} <= set(self.size):
            raise ModelError(f"SiglipImageProcessor needs a size with height and width, not {self.size}.")

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        *,
        return_tensors: str | None = None,
        do_resize: bool | None = None,
        do_rescale: bool | None = None,
        do_normalize: bool | None = None,
        do_convert_rgb: bool | None = None,
        rounded: bool = False,
    ) -> Batch:
        """`pixel_values` (B, 3, height, width) of one picture or several.

        PIL pictures, arrays (H, W, C) or (B, H, W, C) and tensors (C, H, W) or (B, C, H, W); the values are 0 … 255,
        or with `do_rescale=False` in [0, 1]. Switches given here win over the fields; `return_tensors`: "pt" for the
        framework's tensors, else numpy. `rounded` resizes 256 steps of a float picture, as transformers without
        torchvision does. Raises PictureError for what is no picture.
        """
        asked: dict[str, Any] = {
            "do_resize": do_resize,
            "do_rescale": do_rescale,
            "do_normalize": do_normalize,
            "do_convert_rgb": do_convert_rgb,
        }
        recipe = dataclasses.replace(
            self, **{key: value for key, value in asked.items() if value is not None}
        )
        pixels = np.stack([recipe._prepared(array, rounded) for array in _arrays(images)])
        return batch({"pixel_values": pixels}, return_tensors)

    preprocess = __call__

    def _prepared(self, array: np.ndarray, rounded: bool) -> np.ndarray:
        if array.shape[2] != 3 and self.do_convert_rgb is not False:
            array = np.repeat(array[..., :1], 3, axis=2) if array.shape[2] < 3 else array[..., :3]
        if self.do_resize:
            size = (self.size["height"], self.size["width"])
            array = (resize_rounded if rounded else resize)(array, *size, self.resample)
        pixels = array.astype(np.float32)
        if self.do_rescale:
            pixels = pixels * np.float32(self.rescale_factor)
        if self.do_normalize:
            pixels = (pixels - np.asarray(self.image_mean, np.float32)) / np.asarray(
                self.image_std, np.float32
            )
        return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        subfolder: str | None = None,
        *,
        revision: str | None = None,
        cache_dir: Any = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
        use_fast: bool | None = None,
        do_resize: bool | None = None,
        size: Mapping[str, int] | None = None,
        resample: int | None = None,
        do_rescale: bool | None = None,
        rescale_factor: float | None = None,
        do_normalize: bool | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        do_convert_rgb: bool | None = None,
    ) -> SiglipImageProcessor:
        """Read preprocessor_config.json; keys that say nothing about SigLIP's preparation are passed over.

        `folder` may be a model's name on the hub, which is read as the five after `subfolder` say (`HubOptions`).
        Fields that are given win over the file's. `use_fast` chooses between transformers' classes; here is one.
        """
        given = {
            "do_resize": do_resize,
            "size": None if size is None else dict(size),
            "resample": resample,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": image_mean,
            "image_std": image_std,
            "do_convert_rgb": do_convert_rgb,
        }
        options = HubOptions(revision, cache_dir, local_files_only, token, force_download)
        part = Part(subfolder or "", ("preprocessor_config.json",))
        values = read_json(find_model(folder, [part], hub=options) / part.folder / part.files[0])
        names = {field.name for field in dataclasses.fields(cls)}
        read = {key: value for key, value in values.items() if key in names}
        return cls(**read | {key: value for key, value in given.items() if value is not None})

    def save_pretrained(self, folder: str | Path) -> None:
        """Write preprocessor_config.json, which transformers reads too."""
        values = {**dataclasses.asdict(self), "image_processor_type": type(self).__name__}
        Path(folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps(values, indent=2, sort_keys=True)
        Path(folder, "preprocessor_config.json").write_text(text + "\n", encoding="utf-8")


def resize(array: np.ndarray, height: int, width: int, resample: int = 3) -> np.ndarray:
    """Resize (H, W, C) with PIL's antialiasing filters; uint8 stays uint8, anything else becomes float32.

    On floats the bicubic filter (3) equals torch's `interpolate(mode="bicubic", antialias=True)`.
    """
    if array.shape[:2] == (height, width):
        return array
    filter_ = Image.Resampling(resample)
    values = array if array.dtype == np.uint8 else array.astype(np.float32)
    channels = (Image.fromarray(np.ascontiguousarray(values[..., index])) for index in range(values.shape[2]))
    return np.stack([np.asarray(channel.resize((width, height), filter_)) for channel in channels], axis=2)


def resize_rounded(array: np.ndarray, height: int, width: int, resample: int = 3) -> np.ndarray:
    """Resize (H, W, C) as transformers does without torchvision: values in [0, 1] are cut to 256 steps before it.

    Whole numbers are taken as they are, so a picture of zeros and ones has two steps.
    """
    if array.dtype == np.uint8:
        return resize(array, height, width, resample)
    low, high = float(array.min()), float(array.max())
    whole = np.allclose(array, array.astype(int))
    if low < 0 or high > (255 if whole else 1):
        raise PictureError(
            f"A picture lies in [0, 1] or is whole in [0, 255]; this one lies in [{low:g}, {high:g}]."
        )
    steps = (array if whole else (array.astype(np.float64) * 255).astype(array.dtype)).astype(np.uint8)
    found = resize(steps, height, width, resample)
    return found if whole else found * (1 / 255)


def _arrays(images: Any) -> list[np.ndarray]:
    """Each picture as (H, W, C)."""
    if isinstance(images, (list, tuple)):
        found = [array for image in images for array in _arrays(image)]
        if not found:
            raise PictureError("SiglipImageProcessor was given an empty list of pictures.")
        return found
    if isinstance(images, Image.Image):
        return [np.asarray(images.convert("RGB"))]
    if isinstance(images, ops.Tensor):
        array, last = ops.to_numpy(images), False
    elif isinstance(images, np.ndarray):
        array, last = images, True
    else:
        raise PictureError(
            f"SiglipImageProcessor takes PIL pictures, arrays and tensors, not {type(images).__name__}."
        )
    if array.ndim == 2:
        return [array[..., None]]
    if array.ndim == 4:
        return [_channels_last(single, last) for single in array]
    if array.ndim == 3:
        return [_channels_last(array, last)]
    raise PictureError(f"A picture has the shape (height, width, channels), not {array.shape}.")


def _channels_last(array: np.ndarray, last: bool) -> np.ndarray:
    """(H, W, C), from that or (C, H, W); if both fit, `last` says which is meant."""
    at_end, at_start = array.shape[2] in (1, 3, 4), array.shape[0] in (1, 3, 4)
    if not at_end and not at_start:
        raise PictureError(f"A picture has 1, 3 or 4 channels; none of the sides of {array.shape} is that.")
    return array if at_end and (last or not at_start) else array.transpose(1, 2, 0)
