"""SigLIP's vision tower and the preparation of its pictures.

Shapes: B batch, L patches, C channels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from longtake.backend import nn, ops
from longtake.config import SiglipVisionConfig, read_json
from longtake.errors import ModelError, PictureError
from longtake.models.clip import MLP, Encoder, join_heads, split_heads
from longtake.models.outputs import TextStates
from longtake.models.pretrained import PretrainedModel
from longtake.models.tokenizers import Batch, batch
from longtake.weights.hub import HubOptions, Part
from longtake.weights.model_folder import find_model

Picture: TypeAlias = "Image.Image | np.ndarray | ops.Tensor"


class VisionEmbeddings(nn.Module):
    """A vector for each patch of the picture, and one for its place."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        patch = config.patch_size
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=patch, stride=patch
        )
        self.position_embedding = nn.Embedding((config.image_size // patch) ** 2, config.hidden_size)

    def forward(self, pixel_values: ops.Tensor) -> ops.Tensor:
        return self.patch_embedding(pixel_values).flatten(2).permute(0, 2, 1) + self.position_embedding.weight


class ProbeAttention(nn.Module):
    """One learned query's attention over the patches; the three projections lie in one matrix, as in the files."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        joint = nn.Linear(channels, 3 * channels)
        self.in_proj_weight = joint.weight
        self.in_proj_bias = joint.bias
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, probe: ops.Tensor, x: ops.Tensor) -> ops.Tensor:
        weights, biases = self.in_proj_weight.chunk(3, 0), self.in_proj_bias.chunk(3, 0)
        inputs = (probe, x, x)
        query, key, value = (
            split_heads(ops.linear(part, weight, bias), self.heads)
            for part, weight, bias in zip(inputs, weights, biases, strict=True)
        )
        return self.out_proj(join_heads(ops.attention(query, key, value)))


class PoolingHead(nn.Module):
    """All patches to one vector."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(ops.zeros(1, 1, config.hidden_size))
        self.attention = ProbeAttention(config.hidden_size, config.num_attention_heads)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: ops.Tensor) -> ops.Tensor:
        probe = ops.cat([self.probe] * x.shape[0], 0)
        pooled = self.attention(probe, x)
        return (pooled + self.mlp(self.layernorm(pooled)))[:, 0]


class SiglipVisionModel(PretrainedModel):
    """SigLIP's picture encoder; parameter names and outputs are those of transformers 5's class."""

    config_class = SiglipVisionConfig
    config: SiglipVisionConfig

    def __init__(self, config: object = None, **fields: object) -> None:
        super().__init__(config, **fields)
        config = self.config
        self.embeddings = VisionEmbeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if config.vision_use_head:
            self.head = PoolingHead(config)

    @classmethod
    def rename(cls, name: str) -> str:
        """The parameter's name here for its name in a file: transformers up to 4 puts `vision_model.` in front."""
        return name.removeprefix("vision_model.")

    def forward(self, pixel_values: ops.Tensor, output_hidden_states: bool = False) -> TextStates:
        """Normed states (B, L, C) of pictures (B, 3, size, size) in [-1, 1], and one pooled vector (B, C) of each.

        `hidden_states` (where asked for) are the embeddings and the states after each layer, before the last norm.
        """
        size = self.config.image_size
        if tuple(pixel_values.shape[-2:]) != (size, size):
            height, width = pixel_values.shape[-2:]
            raise ModelError(
                f"SiglipVisionModel sees pictures of {size} x {size} pixels and was given {height} x {width}; "
                "prepare them with SiglipImageProcessor."
            )
        states = self.encoder(self.embeddings(pixel_values.to(self.dtype)))
        last = self.post_layernorm(states[-1])
        pooled = self.head(last) if self.config.vision_use_head else None
        return TextStates(last, pooled, states if output_hidden_states else None)


@dataclass(frozen=True)
class SiglipImageProcessor:
    """Pictures of any size to what SigLIP sees; the fields are those of preprocessor_config.json.

    Unlike the reference: a float picture stays float through the resize (transformers without torchvision rounds it
    to 256 steps, up to 0.012 off).
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
    ) -> Batch:
        """`pixel_values` (B, 3, height, width) of one picture or several.

        PIL pictures, arrays (H, W, C) or (B, H, W, C) and tensors (C, H, W) or (B, C, H, W); the values are 0 … 255,
        or with `do_rescale=False` in [0, 1]. Switches given here win over the fields; `return_tensors`: "pt" for the
        framework's tensors, else numpy. Raises PictureError for what is no picture.
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
        pixels = np.stack([recipe._prepared(array) for array in _arrays(images)])
        return batch({"pixel_values": pixels}, return_tensors)

    preprocess = __call__

    def _prepared(self, array: np.ndarray) -> np.ndarray:
        if array.shape[2] != 3 and self.do_convert_rgb is not False:
            array = np.repeat(array[..., :1], 3, axis=2) if array.shape[2] < 3 else array[..., :3]
        if self.do_resize:
            array = resize(array, self.size["height"], self.size["width"], self.resample)
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
    ) -> SiglipImageProcessor:
        """Read preprocessor_config.json; keys that say nothing about SigLIP's preparation are passed over.

        `folder` may be a model's name on the hub, which is read as the last five say (`HubOptions`).
        """
        options = HubOptions(revision, cache_dir, local_files_only, token, force_download)
        part = Part(subfolder or "", ("preprocessor_config.json",))
        values = read_json(find_model(folder, [part], hub=options) / part.folder / part.files[0])
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})

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
    """(H, W, C), from that or (C, H, W); where both fit, `last` says which is meant."""
    at_end, at_start = array.shape[2] in (1, 3, 4), array.shape[0] in (1, 3, 4)
    if not at_end and not at_start:
        raise PictureError(f"A picture has 1, 3 or 4 channels; none of the sides of {array.shape} is that.")
    return array if at_end and (last or not at_start) else array.transpose(1, 2, 0)
