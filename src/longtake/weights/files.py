"""The weights of a network in a folder: which files they lie in, whether they fit, and their tensors.

They are one file, `STEM.safetensors`, or shards with an index, `STEM.safetensors.index.json`, that says which shard
holds which weight. A variant such as fp16 stands in the names: `STEM.fp16.safetensors`,
`STEM.fp16-00001-of-00002.safetensors`, `STEM.safetensors.index.fp16.json`. Nothing but safetensors is read: a pickle
can run code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longtake.config import read_json
from longtake.errors import ModelError
from longtake.weights import gguf
from longtake.weights.header import View, Weight, read_header

FLOAT8 = ("float8_e4m3fn", "float8_e5m2")
LOADABLE = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "bool", *FLOAT8)
CODES = ("int8",)
"""Of matrices alone, which are multiplied by a scale."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def read_weights(folder: Path, stem: str, variant: str | None = None) -> dict[str, Weight]:
    """The weights of a folder by name, from one file or from shards; reads headers only.

    Raises ModelError if the files, or a shard or a weight that the index names, are missing.
    """
    present = [path.name for path in folder.iterdir() if path.is_file()]
    index = folder / weights_among(present, stem, variant, folder)
    if index.suffix == ".safetensors":
        return read_header(index)
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ModelError(f"{index} has no valid 'weight_map' that says which file holds which weight.")
    headers: dict[str, dict[str, Weight]] = {}
    for name, shard in shards.items():
        # A shard lies beside its index: a name with a path in it could point anywhere.
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelError(
                f"{index} names {shard!r} for the weight {name!r}; only a safetensors file beside it is read."
            )
        if shard not in headers:
            if not (folder / shard).is_file():
                raise ModelError(
                    f"{index} names the file {shard!r} for the weight {name!r}, and it is missing."
                )
            headers[shard] = read_header(folder / shard)
        if name not in headers[shard]:
            raise ModelError(f"{folder / shard} lacks the weight {name!r}, which {index.name} says it holds.")
    inside = {name: weight for header in headers.values() for name, weight in header.items()}
    return inside | {name: headers[shard][name] for name, shard in shards.items()}


def weights_among(names: Iterable[str], stem: str, variant: str | None, where: object) -> str:
    """The file of a folder that the weights begin with: the single one, else the index of the shards.

    Raises ModelError, which names the folder by `where`, for neither.
    """
    there = sorted(names)
    single, index = file_name(stem, variant), index_name(stem, variant)
    if single in there or index in there:
        return single if single in there else index
    variants = variants_among(there, stem)
    if variants:
        other = f"its variants are {', '.join(repr(found) for found in variants)}"
        raise ModelError(f"{where} has no {single} or {index}; {other}: choose one with variant=.")
    pickles = [name for name in there if name.endswith(PICKLES)]
    if pickles:
        raise ModelError(
            f"{where} has its weights in {pickles[0]}, a pickle, which can run code; only safetensors is read."
        )
    if any(re.fullmatch(rf"{re.escape(stem)}.*-\d{{5}}-of-\d{{5}}\.safetensors", name) for name in there):
        raise ModelError(
            f"{where} has shards and no {index}, as a save leaves them that was interrupted; save or fetch it again."
        )
    raise ModelError(f"{where} has no {single} or {index}; it holds {', '.join(there) or 'nothing'}.")


def variants_among(names: Iterable[str], stem: str) -> list[str | None]:
    """The variants whose weights are among the files of a folder; None is the plain one."""
    single, index = re.escape(stem), re.escape(f"{stem}.safetensors.index")
    pattern = re.compile(rf"(?:{single}(?:\.([^.]+?))?\.safetensors|{index}(?:\.([^.]+))?\.json)")
    matches = [pattern.fullmatch(name) for name in names]
    found = {
        match[1] or match[2] for match in matches if match and not re.search(r"-\d{5}-of-\d{5}", match[0])
    }
    return sorted(found, key=lambda variant: variant or "")


def check_weights(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Weight], folder: Path, network: str
) -> None:
    """Raise ModelError for the first missing, surplus, wrongly shaped or unreadable weight."""
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ModelError(f"{folder} lacks the weight {missing[0]!r}{others} of {network}.")
    if surplus:
        others = f" (and {len(surplus) - 1} others)" if len(surplus) > 1 else ""
        file = found[surplus[0]].file
        raise ModelError(
            f"{file} has the weight {surplus[0]!r}{others}, which {network} with this config does not have."
        )
    for name, shape in expected.items():
        weight = found[name]
        if weight.shape != tuple(shape):
            raise ModelError(
                f"{weight.file} has the weight {name!r} in the shape {list(weight.shape)}, "
                f"where {network} with this config has {list(shape)}."
            )
        coded = weight.dtype in CODES and len(shape) == 2 and weight.view is not None and weight.view.scale
        if weight.dtype not in LOADABLE and not coded and not gguf.is_kind(weight.dtype):
            without = " without a scale beside it" if weight.dtype in CODES else ""
            raise ModelError(
                f"{weight.file} has the weight {name!r} as {weight.dtype}{without}, which is not read."
            )


def read_tensors(
    weights: Mapping[str, Weight], names: Mapping[str, str], dtype: Any = None, device: Any = None
) -> Iterator[tuple[str, Any]]:
    """The tensors of `weights`, one at a time, file by file; `names` gives each one's name in its file.

    One that lies in its file as it is asked for stays memory-mapped; on PyTorch rows of it do, too.
    """
    by_file: dict[Path, list[str]] = {}
    for name, weight in weights.items():
        by_file.setdefault(weight.file, []).append(name)
    for file, own in by_file.items():
        plain = [name for name in own if weights[name].view is None]
        tensors = _stored(file, [(names[name], None) for name in plain], dtype, device)
        yield from zip(plain, tensors, strict=True)
        yield from _viewed(file, [name for name in own if weights[name].view], weights, names, dtype, device)


def _viewed(
    file: Path,
    own: list[str],
    weights: Mapping[str, Weight],
    names: Mapping[str, str],
    dtype: Any,
    device: Any,
) -> Iterator[tuple[str, Any]]:
    """Weights that are views of a file's tensors."""
    views = {name: weights[name].view or View() for name in own}
    scale_of = {
        (view.scale, view.scale_file): next(_stored(view.scale_file or file, [(view.scale, None)]))
        for view in views.values()
        if view.scale
    }
    stored = _stored(file, [(names[name], view.rows) for name, view in views.items()])
    for (name, view), tensor in zip(views.items(), stored, strict=True):
        if view.scale:
            tensor = scaled(tensor, scale_of[view.scale, view.scale_file], view.rows)
        yield name, _taken(tensor, view, weights[name].shape, dtype, device)


def read_scale(weight: Weight) -> np.ndarray:
    """The scale of a weight that has one, as a list of float32: one number, or one for each of the weight's rows."""
    from longtake.backend import ops

    view = weight.view or View()
    values = ops.to_numpy(next(_stored(view.scale_file or weight.file, [(view.scale or "", None)])))
    values = np.asarray(values, np.float32).reshape(-1)
    return values[view.rows[0] : view.rows[1]] if view.rows and values.size > 1 else values


def scaled(tensor: Any, scale: Any, rows: tuple[int, int] | None = None) -> Any:
    """A tensor times its scale (one number, or one for each row of which `rows` are the tensor's), in float32."""
    from longtake.backend import runtime

    factor = runtime.place(scale, None, "float32").reshape(-1)
    if factor.shape[0] == 1:
        factor = factor.reshape(())
    else:
        factor = (factor[rows[0] : rows[1]] if rows else factor).reshape(-1, *[1] * (len(tensor.shape) - 1))
    return runtime.place(tensor, None, "float32") * factor


def _taken(tensor: Any, view: View, shape: tuple[int, ...], dtype: Any, device: Any) -> Any:
    from longtake.backend import ops, runtime

    tensor = runtime.place(tensor, None, dtype if tensor.is_floating_point() else None)
    if view.swapped:
        half = tensor.shape[0] // 2
        tensor = ops.cat((tensor[half:], tensor[:half]), 0)
    return runtime.place(tensor if tuple(tensor.shape) == shape else tensor.reshape(shape), device)


def _stored(
    file: Path, wanted: Sequence[gguf.Wanted], dtype: Any = None, device: Any = None
) -> Iterator[Any]:
    """Tensors of a file, or rows of them, one at a time, in their order."""
    from safetensors import SafetensorError

    from longtake.backend import runtime

    if not wanted:
        return
    try:
        if file.suffix == gguf.SUFFIX:
            for _, tensor in gguf.read_tensors(file, wanted, dtype, device):
                yield tensor
            return
        named = [name for name, _ in wanted]
        for (_, tensor), (_, rows) in zip(
            runtime.read_safetensors(file, named, dtype, device), wanted, strict=True
        ):
            yield tensor if rows is None else tensor[rows[0] : rows[1]]
    except ModelError:
        raise
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} cannot be read: {error}.") from error


def file_name(stem: str, variant: str | None, number: int = 0, count: int = 1) -> str:
    """The name of the only file of a set of weights, or of one of `count` shards."""
    named = f"{stem}.{variant}" if variant else stem
    return f"{named}.safetensors" if count == 1 else f"{named}-{number + 1:05d}-of-{count:05d}.safetensors"


def index_name(stem: str, variant: str | None) -> str:
    """The name of the index of a set of shards."""
    return f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"


def files_of(folder: Path, stem: str, variant: str | None) -> list[Path]:
    """All files of a set of weights, of whatever number of shards, that lie in a folder."""
    named = re.escape(f"{stem}.{variant}" if variant else stem)
    pattern = re.compile(rf"{named}(-\d{{5}}-of-\d{{5}})?\.safetensors")
    index = index_name(stem, variant)
    return [path for path in folder.iterdir() if pattern.fullmatch(path.name) or path.name == index]
