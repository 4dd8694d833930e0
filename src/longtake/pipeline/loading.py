"""The reading of a model's networks: from a folder in diffusers' layout, the hub, single files, or several of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from longtake.backend import kernels, runtime
from longtake.config import read_json
from longtake.errors import BackendError, LongtakeWarning, ModelError
from longtake.machine import Machine
from longtake.models import forms
from longtake.models.quantised import EightBitConfig
from longtake.models.running import Running
from longtake.named import named, places, trained_for
from longtake.pipeline.networks import COMPONENTS, NETWORKS, PREPARATION, QUANTISABLE, SETTINGS, Networks
from longtake.pipeline.placed import Placed, check_vram, left_mapped
from longtake.sampling.schedule import Schedule
from longtake.weights import single
from longtake.weights.codebook import CODEBOOK, StoredCodebook
from longtake.weights.folder import Folder, ModelIndex, model_source, part_files, read_model_index
from longtake.weights.hub import HubOptions, Part, Repository
from longtake.weights.transfer import Told


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
    `parts` may name a place of the `codebook`, too; the model's own is read when a job's history is discrete.
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
    device = runtime.check_device(runtime.best_device() if device == "auto" else device)
    given = dict(given or {})
    forms_of = _quantization(quantize, given, device)
    known, trained = named(model), trained_for(model, parts)
    _check_hidden(model)
    model, parts = places(model, parts)
    _check_names(
        [*given, *parts], (*COMPONENTS, CODEBOOK), "A FramePack model has no part {}; its parts: {}."
    )
    elsewhere = parts.pop(CODEBOOK, None)
    if isinstance(dtype, Mapping):
        _check_names(dtype, (*NETWORKS, "default"), "No network {} to give a dtype to; there are: {}.")
    how = Reading(dtype, device, known.dtype if known else None, forms_of, machine.memory, placed)
    check_vram(machine.vram, how.here)
    kernels.check(
        machine.attention,
        how.here,
        runtime.dtype_name(runtime.dtype(how.dtype_of("transformer") or "float32")),
    )
    found, settings = dict(given), dict(known.settings if known else {})
    if trained is not None and "transformer" not in given:
        settings["sampling"] = trained
    hub = HubOptions(revision, cache_dir, local_files_only, token, force_download, told)
    codebook = found.pop(CODEBOOK, None)
    if codebook is None and elsewhere is not None:
        codebook = StoredCodebook(model_source(elsewhere, hub), whole=False)
    by_place: dict[Any, list[str]] = {}
    for name in COMPONENTS:
        if name not in given:
            by_place.setdefault(parts.get(name, model), []).append(name)
    for place, names in by_place.items():
        file, whole = single.find(place, hub), place == model
        if file is not None:
            found |= {name: _read_file(file, name, how) for name in names}
            continue
        source = Source(model_source(place, hub), (subfolder or "") if whole else "", variant, whole)
        for name in names:
            source.check(name)
        source.fetch(names)
        settings |= source.settings()
        if whole and codebook is None:
            codebook = StoredCodebook(source.place, source.inside)
        found |= {name: source.read(name, how) for name in names}
    _run_on(machine, found["transformer"])
    networks = Networks(**found, settings=settings, codebook=codebook)
    if not placed:
        return networks
    moving = {name: found[name] for name in NETWORKS if name not in given and not how.is_fixed(name)}
    return replace(networks, placement=Placed(moving, device, machine.vram, machine.memory))


def model_settings(model: Any) -> dict[str, Any]:
    """The settings (`Networks.settings`) of a model by its place or name, before any of its networks is read."""
    known = named(model)
    base, _ = places(model)
    source = Source(model_source(base), "", None, True)
    return {**(known.settings if known else {}), **source.settings()}


@dataclass(frozen=True)
class Reading:
    """The reading of a model's networks; `published` is the dtype in which a model with a short name is known."""

    dtype: Any
    device: Any
    published: str | None
    forms: Mapping[str, Any]
    memory: float | None
    placed: bool

    @property
    def here(self) -> Any:
        """The device; without one, networks stay where files are read."""
        return "cpu" if self.device is None else self.device

    def dtype_of(self, name: str) -> Any:
        """The dtype of one network; None is that of its files."""
        asked = self.dtype
        if isinstance(asked, Mapping):
            asked = asked.get(name, asked.get("default", "auto"))
        if isinstance(asked, str) and asked == "stored":
            return None
        if asked is not None and asked != "auto":
            return asked
        usual = runtime.auto_dtype(self.here)
        return self.published if self.published is not None and usual == "float32" else usual

    def is_fixed(self, name: str) -> bool:
        """Tell if a network has the form of another library, whose weights are more than can be moved alone."""
        return isinstance(self.forms.get(name), forms.LibraryForm)

    def keywords(self, name: str) -> dict[str, Any]:
        """The keywords for `from_pretrained` of a network."""
        dtype, moves = self.dtype_of(name), self.placed and not self.is_fixed(name)
        return {
            "dtype": dtype,
            "device": self.device,
            "quantization_config": self.forms.get(name),
            "mapped": left_mapped(name, self.device, dtype, self.memory) if moves else None,
        }


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


def _read_file(file: Path, name: str, how: Reading) -> Any:
    """A part from one file."""
    if name not in NETWORKS:
        raise ModelError(
            f"{file} is one file, which is a network's weights; {name} is read from a folder or a repository."
        )
    return NETWORKS[name].from_pretrained(file, **how.keywords(name))


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

    def read(self, name: str, how: Reading) -> Any:
        """One part, ready to run."""
        folder = self.place.folder / self._folder(name)
        if name in NETWORKS:
            return NETWORKS[name].from_pretrained(folder, variant=self.variant, **how.keywords(name))
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
