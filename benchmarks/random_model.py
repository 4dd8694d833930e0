"""The published layout with random weights: a stand-in for 42 GB that cannot be had, to measure memory and time.

    python benchmarks/random_model.py OUT [--layers N] [--parts transformer …]

Writes every part as it is published (config, names, shapes, dtypes: the transformer in bfloat16, the others in
float16) into one folder, with the tokenizers and the scheduler of the embedded model. Weights are drawn once, a few
megabytes of them, and repeated, so that the disk is what takes the time; norms are 1 and biases 0, which keeps all
numbers finite. Pictures made with it are noise. `--layers` shortens every stack of layers, for a quick try. The free
disk is checked first, and each shard is written whole or not at all; what is there already is not written again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from longtake import disk
from longtake.backend import runtime
from longtake.config import PUBLISHED
from longtake.pipeline.networks import NETWORKS
from longtake.sampling.schedule import CONFIG_NAME
from longtake.weights.files import file_name, index_name
from longtake.weights.folder import STEMS, ModelIndex, embedded_model, write_model_index
from longtake.weights.header import CODES, compose
from longtake.weights.saving import write_json

PARTS = {
    "transformer": ("framepack", "bfloat16"),
    "vae": ("hunyuan_vae", "float16"),
    "text_encoder": ("llama", "float16"),
    "text_encoder_2": ("clip_l", "float16"),
    "image_encoder": ("siglip_so400m", "float16"),
}
"""The published config and dtype of each part."""
SMALL = ("tokenizer", "tokenizer_2", "scheduler", "feature_extractor")
DEEP = ("num_layers", "num_single_layers", "num_hidden_layers")
SHARD = 10**10
STANDARD_DEVIATION = 0.02
POOL = 2**24 + 1
"""Values that are drawn; odd, so that rows of equal length do not begin at the same place."""


class Pool:
    """Random values of one dtype, as bytes without end."""

    def __init__(self, dtype: str) -> None:
        values = np.random.default_rng(0).standard_normal(POOL, dtype=np.float32) * STANDARD_DEVIATION
        if dtype == "bfloat16":
            # The upper half of a float32, rounded.
            self.values = ((values.view(np.uint32) + 0x8000) >> 16).astype("<u2")
            self.one = np.array([0x3F80], "<u2")
        else:
            self.values = values.astype("<f2")
            self.one = np.ones(1, "<f2")
        self.place = 0

    def pieces(self, name: str, shape: tuple[int, ...]) -> Iterator[memoryview]:
        """The bytes of a weight."""
        count = math.prod(shape)
        if len(shape) < 2 and name != "class_embedding":
            kind = self.one if name.endswith("weight") else self.one * 0
            yield np.repeat(kind, count).data.cast("B")
            return
        while count:
            piece = self.values[self.place : self.place + count]
            yield piece.data.cast("B")
            count -= len(piece)
            self.place = (self.place + len(piece)) % POOL


def shortened(config: Any, layers: int | None) -> Any:
    """The config with at most so many layers in every stack."""
    fields = {field.name for field in dataclasses.fields(config)} & set(DEEP)
    return (
        dataclasses.replace(config, **{name: min(layers, getattr(config, name)) for name in fields})
        if layers
        else config
    )


def shapes_of(part: str, config: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of a part's weights, by their published names."""
    with runtime.empty_weights():
        network = NETWORKS[part](config)
    prefix = type(config).file_prefix
    return {prefix + name: tuple(weight.shape) for name, weight in runtime.named_weights(network).items()}


def shards_of(shapes: Mapping[str, tuple[int, ...]]) -> list[dict[str, tuple[int, ...]]]:
    """The weights, in files of at most SHARD bytes."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        if shards[-1] and filled + size > SHARD:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += size
    return shards


def write_part(folder: Path, part: str, config: Any, dtype: str) -> None:
    """A part's config and weights, shard by shard."""
    pool, stem = Pool(dtype), STEMS[type(config).library]
    shards = shards_of(shapes_of(part, config))
    names = [file_name(stem, None, number, len(shards)) for number in range(len(shards))]
    disk.make_folder(folder)
    for name, shard in zip(names, shards, strict=True):
        if not (folder / name).exists():
            with disk.replacing(folder / name) as out:
                out.write(
                    compose(
                        {weight: (CODES[dtype], shape) for weight, shape in shard.items()}, {"format": "pt"}
                    )
                )
                for weight, shape in shard.items():
                    for piece in pool.pieces(weight, shape):
                        out.write(piece)
    if len(shards) > 1:
        holders = {weight: name for name, shard in zip(names, shards, strict=True) for weight in shard}
        total = 2 * sum(math.prod(shape) for shard in shards for shape in shard.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(holders.items()))}
        write_json(folder / index_name(stem, None), index)
    published = config.published()
    if type(config).library == "transformers":
        published["dtype"] = dtype
    write_json(folder / "config.json", published)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument("--layers", type=int, metavar="N", help="at most so many layers in every stack")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="these networks alone")
    args = parser.parse_args()
    configs = {part: shortened(PUBLISHED[PARTS[part][0]], args.layers) for part in args.parts}
    sizes = {
        part: 2 * sum(math.prod(shape) for shape in shapes_of(part, config).values())
        for part, config in configs.items()
    }
    disk.make_folder(args.folder)
    there = sum(file.stat().st_size for file in args.folder.rglob("*.safetensors"))
    free, wanted = shutil.disk_usage(args.folder).free, sum(sizes.values()) - there
    if free < wanted + 10**9:
        parser.error(
            f"{args.folder} has {free / 1e9:.1f} GB free, and the model takes {wanted / 1e9:.1f} GB more"
        )
    begun = time.perf_counter()
    for part, config in configs.items():
        write_part(args.folder / part, part, config, PARTS[part][1])
        print(f"{part}: {sizes[part] / 1e9:.1f} GB, {time.perf_counter() - begun:.0f} s so far", flush=True)
    for name in SMALL:
        shutil.copytree(embedded_model() / name, args.folder / name, dirs_exist_ok=True)
    small = json.loads((args.folder / "feature_extractor" / "preprocessor_config.json").read_text())
    side = PUBLISHED["siglip_so400m"].image_size
    write_json(
        args.folder / "feature_extractor" / "preprocessor_config.json",
        {**small, "size": {"height": side, "width": side}},
    )
    # diffusers' conversion of the published model makes a static shift of 7.
    schedule = json.loads((args.folder / "scheduler" / CONFIG_NAME).read_text())
    write_json(
        args.folder / "scheduler" / CONFIG_NAME, {**schedule, "use_dynamic_shifting": False, "shift": 7.0}
    )
    index = json.loads((embedded_model() / "model_index.json").read_text())
    entries = {
        name: tuple(value)
        for name, value in index.items()
        if isinstance(value, list) and (name in configs or name in SMALL)
    }
    write_model_index(args.folder, ModelIndex(index["_class_name"], entries))
    facts = {"bytes": sum(sizes.values()), "seconds": round(time.perf_counter() - begun, 1)}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
