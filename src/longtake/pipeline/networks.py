"""The networks of one model, and how they are read from a folder in diffusers' layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longtake.config import read_json
from longtake.errors import ModelError
from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.siglip import SiglipImageProcessor, SiglipVisionModel
from longtake.models.tokenizers import CLIPTokenizer, LlamaTokenizer
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.pipeline import schedulers
from longtake.weights.files import write_json
from longtake.weights.model_folder import ModelIndex, find_model, read_model_index, write_model_index

NETWORKS: dict[str, type[Any]] = {
    "text_encoder": LlamaModel,
    "text_encoder_2": CLIPTextModel,
    "image_encoder": SiglipVisionModel,
    "transformer": HunyuanVideoFramepackTransformer3DModel,
    "vae": AutoencoderKLHunyuanVideo,
}
PREPARATION: dict[str, type[Any]] = {
    "tokenizer": LlamaTokenizer,
    "tokenizer_2": CLIPTokenizer,
    "feature_extractor": SiglipImageProcessor,
}
COMPONENTS = (*NETWORKS, *PREPARATION, "scheduler")
SETTINGS = "_longtake"
"""The key of model_index.json under which a model states its own size and prompt template; diffusers skips it."""

DEFAULT_SIZE = (832, 480)


@dataclass(frozen=True)
class Networks:
    """Everything that a job runs on, ours or the field's (accepted by behaviour).

    `settings` is what the model's folder says about itself: width, height, prompt_template, max_sequence_length.
    """

    transformer: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    text_encoder_2: Any
    tokenizer_2: Any
    image_encoder: Any
    feature_extractor: Any
    scheduler: Any
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default_size(self) -> tuple[int, int]:
        """(width, height) in pixels that the model was made for."""
        return self.settings.get("width", DEFAULT_SIZE[0]), self.settings.get("height", DEFAULT_SIZE[1])

    @property
    def components(self) -> dict[str, Any]:
        """The parts by the names that they have in the folder."""
        return {name: getattr(self, name) for name in COMPONENTS}


def load_networks(
    folder: Any,
    dtype: Any = "float32",
    device: Any = None,
    given: Mapping[str, Any] | None = None,
    variant: str | None = None,
) -> Networks:
    """Read a model's folder ("embedded" is the one in the package), one part after the other.

    `dtype` is one for all networks or a mapping by part, with `default`; parts in `given` are taken as they are and not
    read. Raises ModelError, naming file and key, for what is missing or not as the config says.
    """
    place = find_model(folder)
    index = read_model_index(place)
    parts = dict(given or {})
    unknown = sorted(set(parts) - set(COMPONENTS))
    if unknown:
        raise ModelError(f"A FramePack model has no part {unknown[0]!r}; its parts: {', '.join(COMPONENTS)}.")
    for name in COMPONENTS:
        if name not in parts:
            parts[name] = _read_part(place, name, index, _dtype_of(dtype, name), device, variant)
    return Networks(**parts, settings=read_json(place / "model_index.json").get(SETTINGS, {}))


def save_networks(
    networks: Networks, folder: Any, class_name: str, max_shard_size: int | str = "10GB"
) -> None:
    """Write the folder that `load_networks` and diffusers read."""
    place = Path(folder)
    entries: dict[str, tuple[str, str] | None] = {}
    for name, part in networks.components.items():
        if name in NETWORKS:
            part.save_pretrained(place / name, max_shard_size=max_shard_size)
        else:
            part.save_pretrained(place / name)
        library = "diffusers" if name in ("transformer", "vae", "scheduler") else "transformers"
        # A tokenizer of ours is published under another name than its own.
        entries[name] = (library, getattr(part, "published_class", type(part).__name__))
    write_model_index(place, ModelIndex(class_name, entries))
    if networks.settings:
        _write_settings(place / "model_index.json", networks.settings)


def _write_settings(file: Path, settings: Mapping[str, Any]) -> None:
    write_json(file, {**read_json(file), SETTINGS: dict(settings)})


def _dtype_of(dtype: Any, name: str) -> Any:
    return dtype.get(name, dtype.get("default", "float32")) if isinstance(dtype, Mapping) else dtype


def _read_part(
    place: Path, name: str, index: ModelIndex, dtype: Any, device: Any, variant: str | None
) -> Any:
    if index.parts.get(name) is None:
        raise ModelError(
            f"{place / 'model_index.json'} names no {name!r}; load it from its own folder and pass it."
        )
    if name in NETWORKS:
        return NETWORKS[name].from_pretrained(
            place, subfolder=name, dtype=dtype, device=device, variant=variant
        )
    if name == "scheduler":
        return _read_scheduler(place, index)
    return PREPARATION[name].from_pretrained(place, subfolder=name)


def _read_scheduler(place: Path, index: ModelIndex) -> Any:
    entry = index.parts["scheduler"]
    known = {kind.__name__: kind for kind in schedulers.Scheduler.__subclasses__()}
    class_name = entry[1] if entry else ""
    if class_name not in known:
        raise ModelError(
            f"{place} asks for the scheduler {class_name}; known schedulers: {', '.join(known)}."
        )
    return known[class_name].from_pretrained(place, subfolder="scheduler")
