"""The networks of one model, and how they are read from a folder in diffusers' layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from longtake.backend import exchange, runtime
from longtake.config import read_json
from longtake.errors import ModelError
from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.siglip import SiglipVisionModel
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.processors.siglip import SiglipImageProcessor
from longtake.processors.tokenizers import CLIPTokenizer, LlamaTokenizer
from longtake.sampling.schedule import CONFIG_NAME, Schedule
from longtake.weights.folder import (
    ModelIndex,
    model_source,
    part_files,
    read_model_index,
    write_model_index,
)
from longtake.weights.hub import HubOptions, Part, Repository
from longtake.weights.saving import write_json

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
ENCODERS = ("text_encoder", "text_encoder_2", "image_encoder")
"""Networks that may be of PyTorch while the others are of another framework."""
SETTINGS = "_longtake"
"""The key of model_index.json under which a model states its own size and prompt template; diffusers skips it.

Also the attribute under which a transformer carries them from one pipeline to the next: it was trained for them.
"""

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

    def __post_init__(self) -> None:
        for name in NETWORKS:
            exchange.check(getattr(self, name), name, may_cross=name in ENCODERS)

    @property
    def default_size(self) -> tuple[int, int]:
        """(width, height) in pixels that the model was made for."""
        return self.settings.get("width", DEFAULT_SIZE[0]), self.settings.get("height", DEFAULT_SIZE[1])

    @property
    def components(self) -> dict[str, Any]:
        """The parts by the names that they have in the folder."""
        return {name: getattr(self, name) for name in COMPONENTS}


def carried_settings(transformer: Any) -> dict[str, Any]:
    """The settings that a transformer has from the pipeline that used it first."""
    return dict(getattr(transformer, SETTINGS, None) or {})


def load_networks(
    folder: Any,
    dtype: Any = "float32",
    device: Any = None,
    given: Mapping[str, Any] | None = None,
    variant: str | None = None,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    cache_dir: Any = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    force_download: bool = False,
) -> Networks:
    """Read a model's folder ("embedded" is the one in the package), one part after the other.

    `dtype` is one for all networks or a mapping by part, with `default`; parts in `given` are taken as they are and not
    read. `folder` may be a model's name on the hub, "owner/name", of which the files of the other parts are fetched, as
    the last five say (`HubOptions`). Raises ModelError, naming file and key, for what is missing or not as the config
    says, and BackendError for a `device` that is not here.
    """
    runtime.check_device(device)
    options = HubOptions(revision, cache_dir, local_files_only, token, force_download)
    source = model_source(folder, options)
    inside = subfolder or ""
    place = source.fetch([Part(inside, ("model_index.json",))]) / inside
    index = read_model_index(place)
    parts = dict(given or {})
    unknown = sorted(set(parts) - set(COMPONENTS))
    if unknown:
        raise ModelError(f"A FramePack model has no part {unknown[0]!r}; its parts: {', '.join(COMPONENTS)}.")
    named = sorted(set(dtype) - {*NETWORKS, "default"}) if isinstance(dtype, Mapping) else []
    if named:
        raise ModelError(
            f"No network {named[0]!r} to give a dtype to; there are: default, {', '.join(NETWORKS)}."
        )
    missing = [name for name in COMPONENTS if name not in parts]
    if isinstance(source, Repository):
        _fetch_parts(source, inside, index, missing, variant)
    for name in missing:
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
        elif isinstance(part, Schedule):
            (place / name).mkdir(parents=True, exist_ok=True)
            write_json(place / name / CONFIG_NAME, part.published())
        else:
            part.save_pretrained(place / name)
        library = "diffusers" if name in ("transformer", "vae", "scheduler") else "transformers"
        # A schedule and a tokenizer of ours are published under another name than their own.
        entries[name] = (library, getattr(part, "published_class", type(part).__name__))
    write_model_index(place, ModelIndex(class_name, entries))
    if networks.settings:
        _write_settings(place / "model_index.json", networks.settings)


def _write_settings(file: Path, settings: Mapping[str, Any]) -> None:
    write_json(file, {**read_json(file), SETTINGS: dict(settings)})


def _dtype_of(dtype: Any, name: str) -> Any:
    return dtype.get(name, dtype.get("default", "float32")) if isinstance(dtype, Mapping) else dtype


def _fetch_parts(
    source: Repository, inside: str, index: ModelIndex, names: Sequence[str], variant: str | None
) -> None:
    """Bring parts here from the hub; what their configs already refuse is refused before gigabytes come."""
    for name in names:
        _check_named(index, name, f"{source.name!r} on the hub")
    libraries = {name: kind.config_class.library for name, kind in NETWORKS.items()}
    plain = [part_files(name, libraries.get(name, "")) for name in names]
    wanted = [replace(part, folder=str(PurePosixPath(inside, part.folder))) for part in plain]
    root = source.fetch(replace(part, stem=None) for part in wanted)
    for name in names:
        if name in NETWORKS:
            NETWORKS[name].read_config(root / inside / name / "config.json")
    source.fetch((replace(part, files=(), instead=()) for part in wanted), variant)


def _check_named(index: ModelIndex, name: str, where: object) -> None:
    if index.parts.get(name) is None:
        raise ModelError(f"{where} names no {name!r}; load it from its own folder and pass it.")


def _read_part(
    place: Path, name: str, index: ModelIndex, dtype: Any, device: Any, variant: str | None
) -> Any:
    _check_named(index, name, place / "model_index.json")
    if name in NETWORKS:
        return NETWORKS[name].from_pretrained(
            place, subfolder=name, dtype=dtype, device=device, variant=variant
        )
    if name == "scheduler":
        return Schedule.read_folder(place / "scheduler", index.parts[name][1])  # type: ignore[index]
    return PREPARATION[name].from_pretrained(place, subfolder=name)
