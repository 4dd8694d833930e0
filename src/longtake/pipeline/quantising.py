"""A model written anew with its blocks in 8 bits, layer by layer, so that it never lies in memory as a whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from longtake import disk
from longtake.config import class_of, read_json
from longtake.errors import ModelError
from longtake.models.quantised import EightBitConfig, UnmadeConfig
from longtake.named import named
from longtake.pipeline.loading import load_networks
from longtake.pipeline.networks import NETWORKS, QUANTISABLE, save_networks
from longtake.weights import single
from longtake.weights.folder import model_source
from longtake.weights.hub import Part

CLASS = "HunyuanVideoFramepackPipeline"


def quantise(
    model: str,
    folder: str | os.PathLike[str],
    config: EightBitConfig,
    names: Sequence[str] = ("transformer",),
    parts: Mapping[str, str] | None = None,
    max_shard_size: int | str = "10GB",
) -> Path:
    """Write a model into a new folder, with the blocks of the networks in `names` in 8 bits; the rest as it is.

    `model` is a whole model or one network, of which a folder in the same layout is made, whole or not at all. Raises
    ModelError if the folder is there, for a form that files do not have, and for what cannot be read.
    """
    place = Path(folder)
    _check(place, config, names)
    unmade = UnmadeConfig(config.form, config.keep_first, config.keep_last)
    kind = None if named(model) else _network(model)
    with _whole(place) as part:
        if kind is None:
            forms = dict.fromkeys(names, unmade)
            networks = load_networks(model, "stored", "cpu", parts=parts, quantize=forms, placed=False)
            save_networks(networks, part, CLASS, max_shard_size)
        else:
            if parts:
                raise ModelError(f"{model} is one network, which has no parts; leave out {', '.join(parts)}.")
            if names != (kind,):
                raise ModelError(
                    f"{model} is a {kind}, and {', '.join(names)} was asked for; name that part."
                )
            network = NETWORKS[kind].from_pretrained(model, device="cpu", quantization_config=unmade)
            network.save_pretrained(part, max_shard_size=max_shard_size)
    return place


def _check(place: Path, config: EightBitConfig, names: Sequence[str]) -> None:
    if place.exists():
        raise ModelError(f"{place} is there already; name a folder that is not.")
    if config.dynamic:
        raise ModelError(
            f"A file holds no activations, so its form is {config.form.removesuffix('-dynamic')}; ask for "
            f"{config.form} where the model is used."
        )
    other = [name for name in names if name not in QUANTISABLE]
    if other or not names:
        asked = repr(other[0]) if other else "no part"
        raise ModelError(
            f"{asked} was asked for; the parts that can be quantised are {', '.join(QUANTISABLE)}."
        )


def _network(model: str) -> str | None:
    """The part that a model is, if it is one network; None for a whole model."""
    file = single.find(model)
    if file is not None:
        known, _ = single.looks_like(single.read_file(file))
        found = None if known is None else known.kind
        return _part_of(file, next((n for n, k in NETWORKS.items() if k.config_class is found), None), "?")
    source = model_source(model)
    head = source.fetch([Part("", ("model_index.json", "config.json"))])
    if (head / "model_index.json").is_file() or not (head / "config.json").is_file():
        return None
    word = class_of(read_json(head / "config.json")) or "?"
    for name, kind in NETWORKS.items():
        if word in (kind.config_class.class_name, *kind.config_class.also_in):
            return name
    return _part_of(head, None, word)


def _part_of(place: Path, name: str | None, word: str) -> str:
    if name is None:
        raise ModelError(f"{place} holds {word}, which is none of the networks that are known here.")
    return name


@contextmanager
def _whole(place: Path) -> Iterator[Path]:
    """A hidden folder beside the place, which takes its name when the block ends well, and goes otherwise."""
    part = disk.part_of(place.absolute())
    try:
        disk.make_folder(part)
        yield part
        os.rename(part, place)
        disk.sync_folder(place.absolute().parent)
    except OSError as error:
        raise ModelError(f"{place} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
