"""The folder of a whole model, in diffusers' layout: model_index.json and one folder per part; where it is found.

Everything here reads names, configs and headers, and needs no framework.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from longtake.config import PUBLISHED, Config, class_of, read_json
from longtake.errors import LongtakeWarning, ModelError
from longtake.named import NAMED, named
from longtake.weights import files, single
from longtake.weights.header import Weight
from longtake.weights.hub import HubOptions, Part, Repository, is_repository, look
from longtake.weights.saving import write_json

CONFIGS: dict[str, type[Config]] = {type(config).class_name: type(config) for config in PUBLISHED.values()}
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
"""The beginning of the names of weights' files, by the library whose layout it is."""
HEAD = Part(files=("model_index.json", "config.json"))
"""The files that mark a folder as a model, whole or one network."""
TOKENIZER = Part(
    files=("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    instead=("vocab.json", "merges.txt"),
)
SETTINGS_FILES = {
    "scheduler": "scheduler_config.json",
    "feature_extractor": "preprocessor_config.json",
    "image_processor": "preprocessor_config.json",
}
# Any of these makes a folder one part of a model.
PART_FILES = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class ModelIndex:
    """The content of model_index.json: the pipeline's class; each part's (library, class), None if it has none."""

    class_name: str
    parts: Mapping[str, tuple[str, str] | None]


def embedded_model() -> Path:
    """The folder of the model that ships inside the package."""
    folder = Path(str(resources.files("longtake"))) / "embedded"
    if not (folder / "model_index.json").is_file():
        raise ModelError(
            f"The embedded model is missing from this installation ({folder}); reinstall longtake."
        )
    return folder


@dataclass(frozen=True)
class Folder:
    """A model's folder on this machine, which has all its files."""

    folder: Path

    def fetch(self, parts: Iterable[Part], variant: str | None = None) -> Path:
        """The folder itself; a repository on the hub brings the files of `parts` into its own here."""
        return self.folder

    def has_folder(self, folder: str) -> bool:
        """Tell if there is a folder of this name in it."""
        return (self.folder / folder).is_dir()

    def headers(self, folder: str, stem: str, variant: str | None) -> dict[str, Weight]:
        """The weights of one folder by name."""
        return files.read_weights(self.folder / folder, stem, variant)

    def variants(self, folder: str, stem: str) -> list[str | None]:
        """The variants of the weights that one folder has; None is the plain one."""
        return files.variants_among((path.name for path in (self.folder / folder).iterdir()), stem)


def model_source(
    name_or_folder: str | os.PathLike[str], hub: HubOptions | None = None
) -> Folder | Repository:
    """The source of a model's files: "embedded" is the package, a folder itself, "owner/name" the hub.

    A folder of that name goes before the hub. Raises ModelError if there is no such model.
    """
    folder = Path(name_or_folder).expanduser()
    if (known := named(name_or_folder)) is not None:
        others = ", ".join(f"{name} in {place}" for name, place in known.parts.items())
        raise ModelError(
            f"{name_or_folder!r} is the short name of several repositories ({known.base}; {others}), and one of them "
            f"is asked for here; name that one, or the folder ./{name_or_folder} if that is meant."
        )
    if str(name_or_folder) == "embedded":
        folder = embedded_model()
    elif folder.is_file():
        raise ModelError(
            f"{folder} is a file, and a model is a folder with model_index.json; a part of one may be a file: "
            f"--part transformer={folder}"
        )
    elif not folder.is_dir() or not str(name_or_folder):  # an empty name would be the working directory
        if not is_repository(name_or_folder):
            raise ModelError(
                f"There is no model {str(name_or_folder)!r}: it is neither a folder, nor 'embedded', "
                f"nor a name on the hub, which looks like 'owner/name', nor {' or '.join(map(repr, NAMED))}."
            )
        return look(str(name_or_folder), hub)
    if hub is not None and hub.revision is not None:
        note = f"{folder} is a folder, which has no revisions: revision={hub.revision!r} has no effect."
        warnings.warn(note, LongtakeWarning, stacklevel=2)
    return Folder(folder)


def find_model(
    name_or_folder: str | os.PathLike[str],
    parts: Iterable[Part] = (HEAD,),
    variant: str | None = None,
    hub: HubOptions | None = None,
) -> Path:
    """The folder of a model; of one on the hub, with the files of `parts` (and no others for sure) in it."""
    return model_source(name_or_folder, hub).fetch(parts, variant)


def part_files(name: str, library: str) -> Part:
    """The files that a part is read from, by its name in model_index.json and the library whose layout it has."""
    if name.startswith("tokenizer"):
        return replace(TOKENIZER, folder=name)
    if name in SETTINGS_FILES:
        return Part(name, (SETTINGS_FILES[name],))
    return Part(name, ("config.json",), STEMS.get(library, "model"))


def library_of(name: str) -> str:
    """The library whose layout a part of this name has."""
    return "diffusers" if name in ("transformer", "vae", "scheduler") else "transformers"


def part_of(folder: Path, subfolder: str | None = None) -> Path:
    """The folder of one network, with its config.json: `folder` itself, or the part of it that `subfolder` names."""
    place = folder / subfolder if subfolder else folder
    parts = (
        ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."))
        or "none"
    )
    if not place.is_dir():
        raise ModelError(f"{folder} has no folder {subfolder!r}; its folders: {parts}.")
    if not (place / "config.json").is_file():
        if (place / "model_index.json").is_file():
            raise ModelError(f"{place} holds a whole model; choose one part with subfolder=: {parts}.")
        files_there = sorted(path.name for path in place.iterdir() if path.suffix in single.SUFFIXES)
        hint = (
            f"; a network in one file is named by the file, such as {files_there[0]}" if files_there else ""
        )
        raise ModelError(f"{place} is no model folder: it has no config.json{hint}.")
    return place


def read_model_index(folder: Path) -> ModelIndex:
    """Read model_index.json; raises ModelError if it is missing or names its parts in no known form."""
    file = folder / "model_index.json"
    if not file.is_file():
        raise ModelError(f"{folder} is no model folder: it has no model_index.json.")
    values = read_json(file)
    class_name = values.pop("_class_name", None)
    if not isinstance(class_name, str):
        raise ModelError(f"{file} has no '_class_name' that names the pipeline.")
    parts: dict[str, tuple[str, str] | None] = {}
    for name, entry in values.items():
        # diffusers keeps the pipeline's settings, which are no lists, beside its parts.
        if name.startswith("_") or not isinstance(entry, list):
            continue
        if len(entry) != 2 or not all(isinstance(word, (str, type(None))) for word in entry):
            raise ModelError(f"{file} has no [library, class] for the part {name!r}.")
        library, kind = entry
        parts[name] = (library, kind) if library and kind else None
    return ModelIndex(class_name, parts)


def write_model_index(folder: Path, index: ModelIndex) -> None:
    """Write model_index.json as diffusers reads it."""
    parts = {name: list(entry or (None, None)) for name, entry in index.parts.items()}
    write_json(folder / "model_index.json", {"_class_name": index.class_name, **dict(sorted(parts.items()))})


def describe(
    name_or_folder: str | os.PathLike[str], hub: HubOptions | None = None, without: Iterable[str] = ()
) -> dict[str, Any]:
    """The content of a model, as JSON values: for each part its class, parameters, bytes, dtypes and config.

    Reads configs and headers only (of a model on the hub, fetches no more than these), and raises ModelError if one of
    them is not what it should be. A single file is a model of one part. Parts in `without` are left out.
    """
    file = single.locate(name_or_folder, hub)
    if file is not None:
        return _describe_file(file)
    source = model_source(name_or_folder, hub)
    folder = source.fetch([HEAD])
    if (folder / "model_index.json").is_file():
        index = read_model_index(folder)
        present = {name: entry for name, entry in index.parts.items() if entry and name not in without}
        source.fetch(replace(part_files(name, entry[0]), stem=None) for name, entry in present.items())
        parts = {name: _describe_part(source, folder, name, *entry) for name, entry in present.items()}
        class_name = index.class_name
    elif (folder / "config.json").is_file():
        class_name = class_of(read_json(folder / "config.json")) or "unknown"
        parts = {_plain_name(source): _describe_network(source, folder, "", class_name)}
    else:
        raise ModelError(f"{folder} is no model folder: it has neither model_index.json nor config.json.")
    online = {"repository": source.name, "revision": source.commit} if isinstance(source, Repository) else {}
    return {
        "folder": str(folder),
        **online,
        "class": class_name,
        "parameters": sum(part.get("parameters", 0) for part in parts.values()),
        "bytes": sum(part["bytes"] for part in parts.values()),
        "parts": parts,
    }


def describe_part(name: str, place: str | os.PathLike[str], hub: HubOptions | None = None) -> dict[str, Any]:
    """The content of one part that is elsewhere: in a file, in the folder of its name, or in the place itself."""
    file = single.locate(place, hub)
    if file is not None:
        return dict(next(iter(_describe_file(file)["parts"].values())))
    source = model_source(place, hub)
    inner = name if source.has_folder(name) else ""
    library = library_of(name)
    root = source.fetch([replace(part_files(name, library), folder=inner, stem=None)])
    there = next((root / inner / file for file in PART_FILES if (root / inner / file).is_file()), None)
    if there is None:
        raise ModelError(
            f"{place} has no part {name!r}: neither a folder of that name, nor {' or '.join(PART_FILES)}."
        )
    values = read_json(there)
    if there.name == "config.json":
        return {"library": library, **_describe_network(source, root, inner, class_of(values) or "unknown")}
    kinds = ("_class_name", "tokenizer_class", "image_processor_type", "feature_extractor_type")
    kind = next((values[key] for key in kinds if isinstance(values.get(key), str)), "unknown")
    return {"library": library, "class": kind, "bytes": _bytes_in(root / inner)}


def _describe_file(file: single.Single) -> dict[str, Any]:
    found = file.headers()
    kind = single.kind_of(file.path, found)
    checkpoint = single.read_checkpoint(file.path, kind, found=found)
    dtypes = Counter[str]()
    for weight in found.values():
        dtypes[weight.dtype] += _values(weight)
    facts = {
        "class": kind.class_name,
        "parameters": sum(_values(weight) for weight in checkpoint.weights.values()),
        "bytes": sum(weight.bytes for weight in found.values()),
        "files": 1,
        "dtypes": dict(dtypes),
        "config": checkpoint.config.to_dict(),
    }
    whole = {key: facts[key] for key in ("class", "parameters", "bytes")}
    online = (
        {"repository": file.repository.name, "revision": file.repository.commit} if file.repository else {}
    )
    return {"folder": str(file.path), **online, **whole, "parts": {file.path.stem: facts}}


def _plain_name(source: Folder | Repository) -> str:
    return source.name.split("/")[-1] if isinstance(source, Repository) else source.folder.name


def _describe_part(
    source: Folder | Repository, folder: Path, name: str, library: str, class_name: str
) -> dict[str, Any]:
    place = folder / name
    if not place.is_dir():
        raise ModelError(f"{folder / 'model_index.json'} names the part {name!r}, and its folder is missing.")
    if (place / "config.json").is_file():
        return {"library": library, **_describe_network(source, folder, name, class_name)}
    if not any((place / file).is_file() for file in PART_FILES):
        raise ModelError(f"{place} has none of {', '.join(PART_FILES)}.")
    return {"library": library, "class": class_name, "bytes": _bytes_in(place)}


def _describe_network(
    source: Folder | Repository, folder: Path, name: str, class_name: str
) -> dict[str, Any]:
    place = folder / name
    values = read_json(place / "config.json")
    kind = _config_of(class_name, class_of(values))
    config = kind.read(place / "config.json", values).to_dict() if kind else _simple(values)
    weights = _any_weights(source, name)
    dtypes = Counter[str]()
    for weight in weights.values():
        dtypes[weight.dtype] += _values(weight)
    return {
        "class": class_name,
        "parameters": sum(dtypes.values()),
        "bytes": _bytes_in(place) + sum(w.bytes for w in weights.values() if not w.file.exists()),
        "files": len({weight.file for weight in weights.values()}),
        "dtypes": dict(dtypes),
        **({"quantization": values["quantization_config"]} if values.get("quantization_config") else {}),
        "config": config,
    }


def _config_of(*class_names: str | None) -> type[Config] | None:
    for config in CONFIGS.values():
        if any(
            name == config.class_name or name in config.also_in or name in config.grown
            for name in class_names
            if name
        ):
            return config
    return None


def _any_weights(source: Folder | Repository, folder: str) -> dict[str, Weight]:
    """The weights in whatever stem and variant lies there, the plain one first."""
    for stem in STEMS.values():
        variants = source.variants(folder, stem)
        if variants:
            return source.headers(folder, stem, variants[0])
    return source.headers(folder, "model", None)  # raises with what is there


def _values(weight: Weight) -> int:
    count = 1
    for length in weight.shape:
        count *= length
    return count


def _simple(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in values.items() if isinstance(value, (int, float, str)) and key[0] != "_"
    }


def _bytes_in(place: Path) -> int:
    return sum(file.stat().st_size for file in place.iterdir() if file.is_file())
