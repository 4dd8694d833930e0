"""The sizes of a model's parts, from the headers of its files: bytes that lie somewhere while a part runs.

Nothing here reads a weight or loads a framework.

    sizes = read_sizes("models/framepack", dtype="bfloat16")     # {part: Sizes}
    sizes["transformer"].blocks                                   # bytes of each block, without its modulations
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longtake.config import Config, class_of, read_json
from longtake.named import places
from longtake.weights import single
from longtake.weights.folder import CONFIGS, STEMS, Folder, model_source, read_model_index
from longtake.weights.gguf import is_kind
from longtake.weights.header import Weight
from longtake.weights.hub import HubOptions, Part, Repository

NETWORKS = ("text_encoder", "text_encoder_2", "image_encoder", "transformer", "vae")
"""The parts that have weights, in the order in which they run."""

STREAMED = ("text_encoder", "image_encoder", "transformer")
"""Those whose blocks can come to the device one by one; the others are small."""

WIDTHS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "bool": 1}
BLOCK = re.compile(r"(?:^|\.)(transformer_blocks|single_transformer_blocks|layers)\.(\d+)\.")
MODULATION = re.compile(r"\.(?:norm|norm1|norm1_context)\.linear\.")
TABLE = re.compile(r"(?:^|\.)(?:embed_tokens|token_embedding)\.weight$")
KINDS = ("transformer_blocks", "single_transformer_blocks", "layers")


@dataclass(frozen=True)
class Sizes:
    """The bytes of one part in the form in which it computes.

    `blocks` are those of each block without its `modulations` (which hang on the timestep and the text alone), `table`
    those of embeddings, of which single rows are read, `rest` all others. `stored` are the bytes in the files, and
    `converted` says whether they are in another dtype there. `config` is the network's, None if it is not known.
    """

    part: str
    blocks: tuple[int, ...] = ()
    modulations: tuple[int, ...] = ()
    rest: int = 0
    table: int = 0
    stored: int = 0
    converted: bool = False
    width: int = 2
    """Bytes of one value that is computed with."""
    config: Any = None
    made: int = 0
    """Bytes that no file holds as they lie in memory: codes of 8 bits that are made while reading, GGUF's values."""

    @property
    def whole(self) -> int:
        """All of it."""
        return sum(self.blocks) + sum(self.modulations) + self.rest + self.table

    @property
    def largest(self) -> int:
        """The largest block, with its modulations."""
        both = [block + more for block, more in zip(self.blocks, self._modulations, strict=True)]
        return max(both, default=0)

    @property
    def _modulations(self) -> tuple[int, ...]:
        return self.modulations or (0,) * len(self.blocks)


@dataclass(frozen=True)
class Tensor:
    """One weight, as far as sizes go: the names of the dtype that it is stored in."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int


def sizes_of(
    part: str, weights: Mapping[str, Any], dtype: str = "bfloat16", quantize: str = "none", config: Any = None
) -> Sizes:
    """The sizes of a part from its weights by name: anything with `dtype`, `shape` and `bytes`, as headers give it.

    `dtype` is the one that the part computes in, "auto" that of the files. With `quantize` ("int8…", "fp8…") the
    matrices of a transformer's blocks take a byte for each value and four for each row.

    >>> weight = Tensor("float16", (4, 4), 32)
    >>> sizes_of("text_encoder", {"layers.0.mlp.up_proj.weight": weight}, "bfloat16").blocks
    (32,)
    """
    blocks: dict[tuple[int, int], list[int]] = {}
    rest = table = stored = made = 0
    converted = False
    for name, weight in weights.items():
        found = BLOCK.search(name)
        eight = quantize != "none" and part == "transformer" and found is not None
        modulation = bool(MODULATION.search(name)) and part == "transformer"
        size = _computed(weight, dtype, eight and not modulation)
        stored += weight.bytes
        coded = eight and not modulation and len(weight.shape) == 2 and weight.dtype not in (*EIGHT, "int8")
        made += size if coded or is_kind(weight.dtype) else 0
        floating = _is_floating(weight.dtype)
        converted = converted or (dtype != "auto" and floating and weight.dtype not in (dtype, *EIGHT))
        if TABLE.search(name):
            table += size
        elif found is None or part not in STREAMED:
            rest += size
        else:
            place = (KINDS.index(found[1]), int(found[2]))
            blocks.setdefault(place, [0, 0])[int(modulation)] += size
    each = [blocks[place] for place in sorted(blocks)]
    modulations = tuple(more for _, more in each) if any(more for _, more in each) else ()
    width = WIDTHS.get(dtype, 2) if dtype != "auto" else 2
    return Sizes(
        part, tuple(own for own, _ in each), modulations, rest, table, stored, converted, width, config, made
    )


EIGHT = ("float8_e4m3fn", "float8_e5m2")


def _is_floating(dtype: str) -> bool:
    """Tell if values are floating ones, or become so when they are read (GGUF's blocks)."""
    return dtype.startswith(("float", "bfloat")) or is_kind(dtype)


def _computed(weight: Any, dtype: str, eight: bool) -> int:
    """The bytes of a weight as it lies while its network runs."""
    values = math.prod(weight.shape)
    if weight.dtype in EIGHT or (eight and len(weight.shape) == 2):
        return values + 4 * weight.shape[0] if len(weight.shape) == 2 else values
    if dtype == "auto" or not _is_floating(weight.dtype):
        return int(weight.bytes)
    return values * WIDTHS.get(dtype, 2)


def read_sizes(
    model: str | os.PathLike[str] = "embedded",
    parts: Mapping[str, str] | None = None,
    dtype: Any = "bfloat16",
    quantize: str = "none",
    hub: HubOptions | None = None,
    variant: str | None = None,
) -> dict[str, Sizes]:
    """The sizes of each network of a model, as `load_networks` would read it: `parts` are in other places.

    `dtype` is one for all or a mapping by part with `default`. Reads configs and headers; of a model on the hub no
    more than these are fetched. Raises ModelError for what is not there.
    """
    model, parts = places(model, parts)
    found: dict[str, Sizes] = {}
    source = model_source(model, hub)
    index = source.fetch([Part(files=("model_index.json",))])
    there = read_model_index(index).parts if (index / "model_index.json").is_file() else {}
    for name in NETWORKS:
        if there.get(name) and name not in parts:
            found[name] = _read(source, name, name, dtype, quantize, variant)
    for name, place in parts.items():
        file = single.locate(place, hub) if name in NETWORKS else None
        if file is not None:
            checkpoint = single.read_checkpoint(file.path, DEFAULTS[name], found=file.headers())
            found[name] = sizes_of(name, checkpoint.weights, _asked(dtype, name), quantize, checkpoint.config)
        elif name in NETWORKS:
            other = model_source(place, hub)
            folder = name if other.has_folder(name) else ""
            found[name] = _read(other, folder, name, dtype, quantize, variant)
    return found


def _read(
    source: Folder | Repository, folder: str, name: str, dtype: Any, quantize: str, variant: str | None
) -> Sizes:
    file = source.fetch([Part(folder, ("config.json",))]) / folder / "config.json"
    values = read_json(file)
    kind = _config_of(class_of(values)) or DEFAULTS[name]
    weights = _headers(source, folder, STEMS[kind.library], variant)
    foreign = kind.also_in.get(class_of(values) or "", ())
    read = {key: weight for key, weight in weights.items() if not (foreign and key.startswith(foreign))}
    return sizes_of(name, read, _asked(dtype, name), quantize, kind.read(file, values))


def _asked(dtype: Any, name: str) -> str:
    return str(dtype.get(name, dtype.get("default", "bfloat16")) if isinstance(dtype, Mapping) else dtype)


def _headers(
    source: Folder | Repository, folder: str, stem: str, variant: str | None
) -> Mapping[str, Weight]:
    if variant is None:
        variants = source.variants(folder, stem)
        variant = variants[0] if variants else None
    return source.headers(folder, stem, variant)


def _config_of(named: str | None) -> type[Config] | None:
    known = (
        kind for kind in CONFIGS.values() if named and named in (kind.class_name, *kind.also_in, *kind.grown)
    )
    return next(known, None)


DEFAULTS: dict[str, type[Config]] = {
    name: CONFIGS[kind]
    for name, kind in zip(
        NETWORKS,
        (
            "LlamaModel",
            "CLIPTextModel",
            "SiglipVisionModel",
            "HunyuanVideoFramepackTransformer3DModel",
            "AutoencoderKLHunyuanVideo",
        ),
        strict=True,
    )
}
