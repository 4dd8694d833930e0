"""The networks of one model, and how they are read from a folder in diffusers' layout."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from longtake.backend import exchange, kernels, runtime
from longtake.config import read_json
from longtake.errors import BackendError, LongtakeWarning, ModelError
from longtake.job import QUANTIZED
from longtake.machine import Machine
from longtake.models import forms, quantised
from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.pretrained import PretrainedModel
from longtake.models.quantised import EightBitConfig
from longtake.models.running import Running
from longtake.models.siglip import SiglipVisionModel
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.named import named, places, trained_for
from longtake.pipeline.placed import Placed, check_vram, left_mapped
from longtake.pipeline.placement import Placement, Resident
from longtake.processors.siglip import SiglipImageProcessor
from longtake.processors.tokenizers import CLIPTokenizer, LlamaTokenizer
from longtake.sampling.schedule import CONFIG_NAME, Schedule
from longtake.weights import single
from longtake.weights.folder import (
    Folder,
    ModelIndex,
    library_of,
    model_source,
    part_files,
    read_model_index,
    write_model_index,
)
from longtake.weights.hub import HubOptions, Part, Repository
from longtake.weights.saving import write_json
from longtake.weights.transfer import Told

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
    sampling, buckets. `placement` brings each part to where it runs.
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


def load_networks(
    model: Any = "embedded",
    dtype: Any = "auto",
    device: Any = "auto",
    given: Mapping[str, Any] | None = None,
    variant: str | None = None,
    *,
    parts: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    quantize: Any = "none",
    subfolder: str | None = None,
    revision: str | None = None,
    cache_dir: Any = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    force_download: bool = False,
    told: Told | None = None,
    placed: bool = True,
) -> Networks:
    """Read a model, one part after the other: a folder, a name on the hub ("owner/name"), "embedded", or a short name.

    A short name ("framepack", "framepack-f1") is a published model, whose parts lie in three repositories. `parts` are
    other places for single parts: folders, repositories, or a network's safetensors or GGUF file. `dtype` is one for
    all networks or a mapping by part, with `default`; "auto" is bfloat16 on an accelerator, float32 on a CPU, where a
    model with a short name has the dtype that it was published in; "stored" is that of the files.
    `device` "auto" is the `machine`'s, which is an accelerator if there is one; `machine` also says what memory the
    networks may take and which kernels they run on. Parts in `given` are taken as they are, None too, and not read.
    `quantize` is the form of the transformer's blocks, as a job names it ("none": as it lies in the files), or a
    `quantization_config` of the field's for a pipeline (`forms.by_part`); layers get it while they are read.
    Networks come to an accelerator while they run, as much of them as there is memory for (docs/placement.md); with
    `placed` False all of them are put there at once, and stay. Of a model on the hub only the files of the parts that
    are read are fetched, as `revision` to `told` say (`HubOptions`).
    Raises ModelError, naming file and key, for what is missing or not as the config says, and BackendError for a
    `device` that is not here.
    """
    machine = machine or Machine()
    machine.check()
    device = machine.device if device == "auto" else device
    device = runtime.best_device() if device == "auto" else device
    runtime.check_device(device)
    forms_of = _quantization(quantize, given or {}, device)
    options = HubOptions(revision, cache_dir, local_files_only, token, force_download, told)
    known, trained = named(model), trained_for(model, parts)
    _check_hidden(model)
    model, parts = places(model, parts)
    given = dict(given or {})
    _check_names([*given, *parts], COMPONENTS, "A FramePack model has no part {}; its parts: {}.")
    if isinstance(dtype, Mapping):
        _check_names(dtype, (*NETWORKS, "default"), "No network {} to give a dtype to; there are: {}.")
    _check_machine(machine, device, _dtype_of(dtype, "transformer", device) or "float32")
    by_place: dict[Any, list[str]] = {}
    for name in COMPONENTS:
        if name not in given:
            by_place.setdefault(parts.get(name, model), []).append(name)
    found, settings = dict(given), dict(known.settings if known else {})
    if trained is not None and "transformer" not in given:
        settings["sampling"] = trained
    plain = known is not None and runtime.auto_dtype("cpu" if device is None else device) == "float32"
    auto = known.dtype if known is not None and plain else None

    def reading(name: str) -> dict[str, Any]:
        wanted = _dtype_of(dtype, name, device, auto)
        whole = isinstance(
            forms_of.get(name), forms.LibraryForm
        )  # whose weights are more than can be moved alone
        mapped = left_mapped(name, device, wanted, machine.memory) if placed and not whole else None
        return {
            "dtype": wanted,
            "device": device,
            "quantization_config": forms_of.get(name),
            "mapped": mapped,
        }

    for place, names in by_place.items():
        file = single.find(place, options)
        if file is not None:
            found |= {name: _read_file(file, name, reading(name)) for name in names}
            continue
        whole = place == model
        source = Source(model_source(place, options), (subfolder or "") if whole else "", variant, whole)
        for name in names:
            source.check(name)
        source.fetch(names)
        settings |= source.settings()
        found |= {name: source.read(name, reading(name)) for name in names}
    _run_on(machine, found["transformer"])
    networks = Networks(**found, settings=settings)
    if not placed:
        return networks
    libraries = [name for name, form in forms_of.items() if isinstance(form, forms.LibraryForm)]
    read = {name: found[name] for name in NETWORKS if name not in (*given, *libraries)}
    return replace(networks, placement=Placed(read, device, machine.vram, machine.memory))


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
    write_model_index(place, ModelIndex(class_name, entries))
    if networks.settings:
        _write_settings(place / "model_index.json", networks.settings)


def _write_settings(file: Path, settings: Mapping[str, Any]) -> None:
    write_json(file, {**read_json(file), SETTINGS: dict(settings)})


def _check_names(names: Iterable[str], known: Sequence[str], sentence: str) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ModelError(sentence.format(repr(unknown[0]), ", ".join(known)))


def _quantization(quantize: Any, given: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """The form of each network that is asked for one, which runs on the device.

    Raises ModelError for a form of a network that is given as it is.
    """
    if quantize is None or quantize == "none":
        return {}
    own = {"transformer": EightBitConfig(quantize)} if isinstance(quantize, str) else None
    found = own or forms.by_part(quantize, QUANTISABLE)
    made = {name: forms.asked(config) for name, config in found.items()}
    for name, form in made.items():
        if name in given:
            raise ModelError(
                f"The {name} is given as it is, and cannot get another form; load it in that form."
            )
        if form is not None:
            form.check(device)
    return made


def _check_machine(machine: Machine, device: Any, dtype: Any) -> None:
    """Raise BackendError for what this machine does not serve, before anything is read."""
    here = "cpu" if device is None else device  # without one, networks stay where files are read
    check_vram(machine.vram, here)
    kernels.check(machine.attention, here, runtime.dtype_name(runtime.dtype(dtype)))


def _run_on(machine: Machine, transformer: Any) -> None:
    """Let the transformer's blocks run as the machine says."""
    if machine.attention == "auto" and not machine.compile:
        return
    if not isinstance(transformer, Running):
        raise BackendError(
            f"The transformer is a {type(transformer).__name__} of another make, whose attention and compilation are "
            "set on itself; leave attention and compile out."
        )
    transformer.use_kernel(machine.attention)
    if machine.compile:
        transformer.compile_repeated_blocks()


def _check_hidden(model: Any) -> None:
    """Warn of a model's folder that a short name hides."""
    if named(model) is not None and (Path(model) / "model_index.json").is_file():
        warnings.warn(
            f"{model!r} is the published model; the folder of that name here is './{model}'.",
            LongtakeWarning,
            stacklevel=3,
        )


def _read_file(file: Path, name: str, how: Mapping[str, Any]) -> Any:
    """A part from one file."""
    if name not in NETWORKS:
        raise ModelError(
            f"{file} is one file, which is a network's weights; {name} is read from a folder or a repository."
        )
    return NETWORKS[name].from_pretrained(file, **how)


def _dtype_of(dtype: Any, name: str, device: Any, auto: str | None = None) -> Any:
    """The dtype of one part; what is not said is `auto`, else the device's. None is that of the files."""
    asked = dtype.get(name, dtype.get("default", "auto")) if isinstance(dtype, Mapping) else dtype
    if isinstance(asked, str) and asked == "stored":
        return None
    return (auto or runtime.auto_dtype(device)) if asked is None or asked == "auto" else asked


@dataclass(frozen=True)
class Source:
    """A folder or a repository from which parts of a model are read.

    A `whole` one has a model_index.json. Another one has a part in the folder of the part's name, or is that part.
    """

    place: Folder | Repository
    inside: str
    variant: str | None
    whole: bool

    @cached_property
    def root(self) -> Path:
        """The folder of model_index.json, on this machine."""
        return self.place.fetch([Part(self.inside, ("model_index.json",))]) / self.inside

    @cached_property
    def index(self) -> ModelIndex:
        """The content of model_index.json."""
        return read_model_index(self.root)

    def settings(self) -> Mapping[str, Any]:
        """The model's own settings (`Networks.settings`), from its model_index.json."""
        return read_json(self.root / "model_index.json").get(SETTINGS, {}) if self.whole else {}

    def check(self, name: str) -> None:
        """Raise ModelError if the model's index does not name the part."""
        if self.whole and self.index.parts.get(name) is None:
            raise ModelError(f"{self._told} names no {name!r}; load it from its own folder and pass it.")

    def fetch(self, names: Sequence[str]) -> None:
        """Fetch parts from the hub: configs first, so that a wrong one is refused before gigabytes come."""
        if not isinstance(self.place, Repository):
            return
        wanted = [replace(self._files(name), folder=self._folder(name)) for name in names]
        root = self.place.fetch(replace(part, stem=None) for part in wanted)
        for name, part in zip(names, wanted, strict=True):
            if name in NETWORKS:
                NETWORKS[name].read_config(root / part.folder / "config.json")
        self.place.fetch((replace(part, files=(), instead=()) for part in wanted), self.variant)

    def read(self, name: str, how: Mapping[str, Any]) -> Any:
        """One part, ready to run; `how` are keywords of `from_pretrained` for a network."""
        folder = self.place.folder / self._folder(name)
        if name in NETWORKS:
            return NETWORKS[name].from_pretrained(folder, variant=self.variant, **how)
        if name == "scheduler":
            entry = self.index.parts[name] if self.whole else None
            return Schedule.read_folder(folder, entry[1] if entry else None)
        return PREPARATION[name].from_pretrained(folder)

    def _files(self, name: str) -> Part:
        kind = NETWORKS.get(name)
        return part_files(name, kind.config_class.library if kind else "")

    def _folder(self, name: str) -> str:
        """The folder of the part below the source: the one of its name, or the source itself."""
        inner = str(PurePosixPath(self.inside, name))
        return inner if self.whole or self.place.has_folder(inner) else self.inside

    @property
    def _told(self) -> str:
        if isinstance(self.place, Repository):
            return f"{self.place.name!r} on the hub"
        return str(self.root / "model_index.json")
