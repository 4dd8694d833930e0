"""The codebook of a model: a folder `codebook` beside its parts, with one file of all codes and a config.

    codebook/config.json          {"_class_name": "Codebook", "channels": 16, "residuals": {"256": 0.031}, …}
    codebook/model.safetensors    one tensor (K, C) for each number of codes, named by it: "256"; "256x4" for 4 groups

It is no part of model_index.json, so that diffusers reads the folder as ever.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from longtake import disk
from longtake.config import read_json
from longtake.errors import ModelError
from longtake.named import places
from longtake.sampling.codebooks import Codebook
from longtake.sampling.ways import name_of, numbers_of
from longtake.weights.arrays import read_arrays
from longtake.weights.folder import Folder, model_source
from longtake.weights.header import compose
from longtake.weights.hub import HubOptions, Part, Repository
from longtake.weights.saving import write_json

CODEBOOK = "codebook"
"""The folder's name, and the part's in `Job.parts`."""

CONFIG, CODES = "config.json", "model.safetensors"


def write_codebook(folder: Path, codebook: Codebook) -> None:
    """Write a codebook's two files into this folder, each whole or not at all."""
    codes, shares = codebook.pairs, codebook.left
    arrays = {name_of(*each): np.ascontiguousarray(codes[each], "<f4") for each in sorted(codes)}
    values = {
        "_class_name": "Codebook",
        "channels": int(next(iter(arrays.values())).shape[1]),
        "residuals": {name_of(*each): share for each, share in sorted(shares.items())},
        **codebook.facts,
    }
    header = compose({name: ("F32", array.shape) for name, array in arrays.items()}, {"format": "pt"})
    try:
        disk.make_folder(folder)
        disk.write(folder / CODES, [header, *(array.tobytes() for array in arrays.values())])
    except OSError as error:
        raise ModelError(f"{folder} cannot be written: {error.strerror or error}.") from error
    write_json(folder / CONFIG, values)


def read_codebook(folder: Path) -> Codebook:
    """The codebook in this folder. Raises ModelError, naming the file, for one that is missing or not what it says."""
    values = read_json(folder / CONFIG)
    file = folder / CODES
    if not file.is_file():
        raise ModelError(f"{folder} holds no codebook: it has no {CODES}.")
    arrays, _ = read_arrays(file)
    channels = values.get("channels")
    codes: dict[tuple[int, int], np.ndarray] = {}
    for name, array in arrays.items():
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", name) or not _fits(name, array, channels):
            raise ModelError(
                f"{file} has the tensor {name!r} of shape {array.shape}; codes are finite numbers (K, {channels}), "
                "named by K, or by KxGROUPS."
            )
        codes[numbers_of(name)] = np.array(array, np.float32)
    shares = {numbers_of(name): float(share) for name, share in values.get("residuals", {}).items()}
    known = ("_class_name", "channels", "residuals")
    facts = {name: value for name, value in values.items() if name not in known}
    return Codebook.of_pairs(codes, shares, facts)


def _fits(name: str, codes: np.ndarray, channels: Any) -> bool:
    """Tell if codes have the shape that their name says, and are numbers."""
    count, groups = numbers_of(name)
    shaped = codes.shape == (count, channels) and channels % groups == 0
    return shaped and bool(np.isfinite(codes).all())


def codes_digest(codes: np.ndarray) -> str:
    """A short hexadecimal number that changes with the codes."""
    return hashlib.sha256(np.ascontiguousarray(codes, "<f4").tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class StoredCodebook:
    """The codebook of a model's folder or repository, read (and fetched) when it is first asked for.

    `inside` is the model's own folder in it; a place that is no whole model may be the codebook's folder itself.
    """

    source: Folder | Repository
    inside: str = ""
    whole: bool = True

    @cached_property
    def codebook(self) -> Codebook:
        """The codebook. Raises ModelError if there is none."""
        inner = str(PurePosixPath(self.inside, CODEBOOK))
        if not self.source.has_folder(inner):
            if self.whole:
                raise ModelError(
                    "This model has no codebook, which a discrete history needs; fit one by: longtake codebook MODEL "
                    "DATA -k 256"
                )
            inner = self.inside
        part = Part("" if inner == "." else inner, (CONFIG,), "model")
        return read_codebook(self.source.fetch([part]) / part.folder)

    @property
    def is_there(self) -> bool:
        """Tell if the model has one, without reading it."""
        return not self.whole or self.source.has_folder(str(PurePosixPath(self.inside, CODEBOOK)))


def codebook_at(
    model: Any, parts: Mapping[str, Any] | None = None, hub: HubOptions | None = None
) -> StoredCodebook:
    """The codebook of a model, or that of another place in its `parts`, not read yet."""
    base, elsewhere = places(model, parts)
    if CODEBOOK in elsewhere:
        return StoredCodebook(model_source(elsewhere[CODEBOOK], hub), whole=False)
    return StoredCodebook(model_source(base, hub))


def opened(codebook: Any) -> Codebook:
    """The codebook that a caller has, or that lies in a place. Raises ModelError if there is none."""
    if codebook is None:
        raise ModelError(
            "These networks have no codebook, which a discrete history needs; fit one by: longtake codebook MODEL DATA "
            "-k 256"
        )
    return codebook.codebook if isinstance(codebook, StoredCodebook) else codebook
