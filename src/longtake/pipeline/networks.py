"""The networks of one model, and how they are written as a folder in diffusers' layout."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from longtake.backend import exchange, runtime
from longtake.config import read_json
from longtake.errors import ModelError
from longtake.job import QUANTIZED
from longtake.models import forms, quantised
from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.pretrained import PretrainedModel
from longtake.models.siglip import SiglipVisionModel
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.pipeline.placement import Placement, Resident
from longtake.processors.siglip import SiglipImageProcessor
from longtake.processors.tokenizers import CLIPTokenizer, LlamaTokenizer
from longtake.sampling.codebooks import Codebook
from longtake.sampling.schedule import CONFIG_NAME, Schedule
from longtake.weights.codebook import CODEBOOK, StoredCodebook, opened, write_codebook
from longtake.weights.folder import ModelIndex, library_of, write_model_index
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
QUANTISABLE = tuple(name for name, kind in NETWORKS.items() if kind.block_lists)
"""Networks whose linear layers can have a form of quantisation."""
ENCODERS = ("text_encoder", "text_encoder_2", "image_encoder")
"""Networks that may be of PyTorch while the others are of another framework."""
SETTINGS = "_longtake"
"""The key of model_index.json under which a model states its own size and prompt template; diffusers skips it.

Also the attribute under which a transformer carries them from one pipeline to the next: it was trained for them.
"""

DEFAULT_SIZE = (832, 480)


def _form_of(network: Any) -> str:
    own = isinstance(network, PretrainedModel)
    return forms.form_of(network) if own else exchange.dtype_name_of(network)


@dataclass(frozen=True)
class Networks:
    """Everything that a job runs on, ours or the field's (accepted by behaviour); None is a part that is not there.

    `scheduler` is a `Schedule`, or a scheduler of the field that is asked for each step. `settings` is what the model's
    folder says about itself: width, height, prompt_template, max_sequence_length, and what it was trained for:
    sampling, buckets, fps. `placement` brings each part to where it runs.
    `codebook` is the one of a discrete history (`sampling.codebooks`), or where it lies, to be read when it is used.
    `ranks` are the processes that share the work (`pipeline.together`); None is this one alone.
    """

    transformer: Any = None
    vae: Any = None
    text_encoder: Any = None
    tokenizer: Any = None
    text_encoder_2: Any = None
    tokenizer_2: Any = None
    image_encoder: Any = None
    feature_extractor: Any = None
    scheduler: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    placement: Placement = field(default_factory=Resident)
    ranks: Any = None
    codebook: Codebook | StoredCodebook | None = None

    def __post_init__(self) -> None:
        for name in NETWORKS:
            if getattr(self, name) is not None:
                exchange.check(getattr(self, name), name, may_cross=name in ENCODERS)

    def part(self, name: str) -> Any:
        """One of the parts; ModelError if it is not there."""
        found = getattr(self, name)
        if found is None:
            raise ModelError(
                f"This model has no {name}, which the job needs; load it, or pass it beside the others."
            )
        return found

    def using(self, name: str) -> AbstractContextManager[Any]:
        """Inside, this network is ready to run; gives what is to be called."""
        return self.placement.using(name, self.part(name))

    def codes(self, count: int, groups: int = 1) -> np.ndarray:
        """So many codes (K, C) of the codebook, for so many groups. Raises ModelError if there are none."""
        return opened(self.codebook).of(count, groups)

    @property
    def default_size(self) -> tuple[int, int]:
        """(width, height) in pixels that the model was made for."""
        return self.settings.get("width", DEFAULT_SIZE[0]), self.settings.get("height", DEFAULT_SIZE[1])

    @property
    def dtype_name(self) -> str:
        """The transformer's dtype, such as "bfloat16"."""
        return runtime.dtype_name(self.part("transformer").dtype)

    @property
    def form(self) -> str:
        """The dtypes of all networks, and the forms of quantised ones: one word if they agree, else each by its part.

        >>> Networks().form
        'none'
        """
        present = {name: getattr(self, name) for name in NETWORKS if getattr(self, name) is not None}
        dtypes = {name: _form_of(network) for name, network in sorted(present.items())}
        each = [f"{name}={dtype}" for name, dtype in dtypes.items()]
        return ",".join(each) if len(set(dtypes.values())) > 1 else next(iter(dtypes.values()), "none")

    @property
    def quantized(self) -> str:
        """The form of the transformer's blocks, as a job names it: "none" if it is plain, or in a form of others."""
        found = quantised.forms(self.transformer) if isinstance(self.transformer, PretrainedModel) else []
        return found[0] if len(found) == 1 and found[0] in QUANTIZED else "none"

    @property
    def components(self) -> dict[str, Any]:
        """The parts by the names that they have in the folder."""
        return {name: getattr(self, name) for name in COMPONENTS}


def carried_settings(transformer: Any) -> dict[str, Any]:
    """The settings that a transformer has from the pipeline that used it first."""
    return dict(getattr(transformer, SETTINGS, None) or {})


def save_networks(
    networks: Networks,
    folder: Any,
    class_name: str,
    max_shard_size: int | str = "10GB",
    variant: str | None = None,
) -> None:
    """Write the folder that `load_networks` and diffusers read."""
    place = Path(folder)
    entries: dict[str, tuple[str, str] | None] = {}
    for name, part in networks.components.items():
        if part is None:
            entries[name] = None
            continue
        if name in NETWORKS:
            part.save_pretrained(place / name, max_shard_size=max_shard_size, variant=variant)
        elif isinstance(part, Schedule):
            (place / name).mkdir(parents=True, exist_ok=True)
            write_json(place / name / CONFIG_NAME, part.published())
        else:
            part.save_pretrained(place / name)
        library = library_of(name)
        # A schedule and a tokenizer of ours are published under another name than their own.
        entries[name] = (library, getattr(part, "published_class", type(part).__name__))
    if isinstance(networks.codebook, Codebook) or (networks.codebook and networks.codebook.is_there):
        write_codebook(place / CODEBOOK, opened(networks.codebook))
    write_model_index(place, ModelIndex(class_name, entries))
    if networks.settings:
        _write_settings(place / "model_index.json", networks.settings)


def _write_settings(file: Path, settings: Mapping[str, Any]) -> None:
    write_json(file, {**read_json(file), SETTINGS: dict(settings)})
