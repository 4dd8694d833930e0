"""LoRA files: any of the field's spellings in, low-rank changes of our transformer's modules out; and written again.

Nothing here knows a network but by the shapes of its weights, and nothing a framework: the arrays are numpy's.

| written by | a key |
|---|---|
| diffusers, PEFT | `transformer.transformer_blocks.0.attn.to_q.lora_A.weight` |
| kohya, musubi | `lora_unet_transformer_blocks_0_attn_to_q.lora_down.weight`, with `.alpha` |
| trainers of the original HunyuanVideo | `double_blocks.0.img_attn_qkv.lora_A.weight`: fused projections |

Prefix, name and suffix go in any combination: names are compared with their dots as underscores.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from longtake.config import read_json
from longtake.errors import LongtakeWarning, ModelError
from longtake.weights import arrays
from longtake.weights.hub import HubOptions, Part, Repository, is_repository, look

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
METADATA = "lora_adapter_metadata"
"""The key in a file's header under which diffusers keeps rank and alpha: JSON with `transformer.` before each key."""

PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "lora_unet_",
    "lora_transformer_",
)
TEXT_ENCODERS = ("text_encoder", "lora_te", "te1_", "te2_", "text_model.")
# Other methods than LoRA, by a word that their keys have.
OTHERS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_w": "LoHa",
    "lokr_w": "LoKr",
    "oft_": "OFT",
    "boft_": "BOFT",
    "glora_": "GLoRA",
}
SUFFIX = re.compile(
    r"(?P<module>.+?)(?:"
    r"[._]lora[._](?P<part>A|B|down|up)(?:\.(?P<adapter>.+))?\.(?P<kind>weight|scale_weight|weight_scale)"
    r"|\.(?:lora_)?(?P<alpha>alpha))"
)
PARTS = {"A": "down", "down": "down", "B": "up", "up": "up"}

# The original HunyuanVideo's modules and ours; {} is the number of a block. Several of ours were one there:
# the rows of `up` are theirs one after the other, `down` is shared.
ORIGINAL: dict[str, tuple[str, ...]] = {
    "img_in.proj": ("x_embedder.proj",),
    "time_in.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
    "guidance_in.mlp.0": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.mlp.2": ("time_text_embed.guidance_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "txt_in.input_embedder": ("context_embedder.proj_in",),
    "txt_in.t_embedder.mlp.0": ("context_embedder.time_text_embed.timestep_embedder.linear_1",),
    "txt_in.t_embedder.mlp.2": ("context_embedder.time_text_embed.timestep_embedder.linear_2",),
    "txt_in.c_embedder.linear_1": ("context_embedder.time_text_embed.text_embedder.linear_1",),
    "txt_in.c_embedder.linear_2": ("context_embedder.time_text_embed.text_embedder.linear_2",),
}
BLOCKS: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("txt_in.individual_token_refiner.blocks.{}.", "context_embedder.token_refiner.refiner_blocks.{}."): {
        "self_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "self_attn_proj": ("attn.to_out.0",),
        "mlp.fc1": ("ff.net.0.proj",),
        "mlp.fc2": ("ff.net.2",),
        "adaLN_modulation.1": ("norm_out.linear",),
    },
    ("double_blocks.{}.", "transformer_blocks.{}."): {
        "img_mod.linear": ("norm1.linear",),
        "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "img_attn_proj": ("attn.to_out.0",),
        "img_mlp.fc1": ("ff.net.0.proj",),
        "img_mlp.fc2": ("ff.net.2",),
        "txt_mod.linear": ("norm1_context.linear",),
        "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "txt_attn_proj": ("attn.to_add_out",),
        "txt_mlp.fc1": ("ff_context.net.0.proj",),
        "txt_mlp.fc2": ("ff_context.net.2",),
    },
    ("single_blocks.{}.", "single_transformer_blocks.{}."): {
        "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        "linear2": ("proj_out",),
        "modulation.linear": ("norm.linear",),
    },
}
# The original says shift, then scale; the published weights say scale, then shift.
SWAPPED = "final_layer.adaLN_modulation.1"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class LowRank:
    """The change of one weight: alpha / rank · up · down, reshaped to the weight if that is a convolution's."""

    down: np.ndarray
    """(rank, in), float32; in is the product of all of the weight's sides but the first."""
    up: np.ndarray
    """(out, rank), float32."""
    alpha: float

    @property
    def rank(self) -> int:
        """The inner side."""
        return int(self.down.shape[0])

    @property
    def ratio(self) -> float:
        """The factor of the product."""
        return self.alpha / self.rank

    @property
    def delta(self) -> np.ndarray:
        """The change itself (out, in), float32."""
        return np.float32(self.ratio) * (self.up @ self.down)


@dataclass(frozen=True)
class Found:
    """The content of a file about one module: the key that each part came from, and its array."""

    keys: dict[str, str]
    values: dict[str, np.ndarray]


def read_lora(source: Any, shapes: Shapes) -> dict[str, LowRank]:
    """The changes that a LoRA makes, by the network's module, in the network's order.

    source: a safetensors file, or whatever `find_file` finds; or a mapping of keys to arrays or tensors.
    shapes: the shapes of the network's weights by module: (out, in), or (out, in, t, h, w) of convolutions.

    Raises ModelError for a file that is damaged, of another method than LoRA, for other shapes, or without a key that
    fits; warns (LongtakeWarning) of keys that do not fit if others do.
    """
    name, tensors, settings = _tensors(source)
    _refuse_other_methods(name, tensors)
    modules, foreign = _by_module(name, tensors)
    known = spellings(shapes)
    fits = {module: known[_flat(module)] for module in modules if _flat(module) in known}
    foreign += [key for module in modules if module not in fits for key in modules[module].keys.values()]
    if not fits:
        raise ModelError(_nothing_fits(name, foreign))
    if foreign:
        warnings.warn(_some_do_not_fit(name, foreign, len(tensors)), LongtakeWarning, stacklevel=2)
    changes: dict[str, LowRank] = {}
    for module, targets in fits.items():
        parts = _split(name, module, modules[module], targets, shapes, settings)
        for target, change in zip(targets, parts, strict=True):
            if target in changes:
                raise ModelError(f"{name} changes {target!r} twice; the second time as {module!r}.")
            changes[target] = change
    return {target: changes[target] for target in shapes if target in changes}


def find_file(
    source: Any, weight_name: str | None = None, subfolder: str | None = None, hub: HubOptions | None = None
) -> Path:
    """The safetensors file of a LoRA on this machine: a file, one in a folder, or one fetched from the hub.

    On the hub it is "owner/name", or "owner/name/file.safetensors" if a repository holds several. Raises ModelError
    if there is none, or if `weight_name` has to choose.
    """
    place = Path(source).expanduser()
    if place.is_file():
        if place.suffix != ".safetensors":
            raise ModelError(
                f"{place} is no safetensors file, and nothing else is read: a pickle can run code."
            )
        return place
    if place.is_dir() and str(source):
        place = place / (subfolder or "")
        if not place.is_dir():
            raise ModelError(f"{place} is no folder.")
        return place / _choose([path.name for path in place.iterdir()], weight_name, str(place))
    owner, *rest = str(source).split("/")
    name = "/".join([owner, *rest[:1]])
    # A file that is missing here is no repository, even if it is spelled like one.
    is_file = place.suffix == ".safetensors"
    if not is_repository(name) or Path(owner).exists() or is_file != (len(rest) > 1):
        raise ModelError(
            f"There is no LoRA {str(source)!r}: it is neither a safetensors file, nor a folder, "
            "nor a name on the hub, which looks like 'owner/name'."
        )
    if len(rest) > 1:
        subfolder, weight_name = "/".join(rest[1:-1]), rest[-1]
    return _fetch(look(name, hub), weight_name, subfolder or "")


def _fetch(repository: Repository, weight_name: str | None, folder: str) -> Path:
    inside = [path for path in map(PurePosixPath, repository.holds) if path.parent == PurePosixPath(folder)]
    names = [path.name for path in inside]
    chosen = _choose(names, weight_name, f"{repository.name!r} on the hub")
    also = (PEFT_CONFIG,) if chosen == PEFT_FILE and PEFT_CONFIG in names else ()
    return repository.fetch([Part(folder, (chosen, *also))]) / folder / chosen


def _choose(names: Iterable[str], weight_name: str | None, where: str) -> str:
    """The file that is asked for, or the one that it must be."""
    there = sorted(name for name in names if name.endswith(".safetensors"))
    for wanted in (weight_name,) if weight_name else (DIFFUSERS_FILE, PEFT_FILE):
        if wanted in there:
            return wanted
    if weight_name is None and len(there) == 1:
        return there[0]
    found = f"{', '.join(there)}: choose one with weight_name=" if there else "none"
    raise ModelError(f"{where} has no {weight_name or DIFFUSERS_FILE}; its safetensors files: {found}.")


def spellings(shapes: Shapes) -> dict[str, tuple[str, ...]]:
    """Every known name of a module, with underscores for dots -> the modules that it stands for, in order."""
    names: dict[str, tuple[str, ...]] = {module: (module,) for module in shapes}
    names |= {old: new for old, new in ORIGINAL.items() if all(module in shapes for module in new)}
    for (old_block, new_block), inside in BLOCKS.items():
        pattern = re.compile(re.escape(new_block).replace(re.escape("{}"), r"(\d+)"))
        for number in sorted({match[1] for module in shapes if (match := pattern.match(module))}):
            for old, new in inside.items():
                targets = tuple(new_block.format(number) + module for module in new)
                if all(module in shapes for module in targets):
                    names[old_block.format(number) + old] = targets
    return {_flat(name): targets for name, targets in names.items()}


def _flat(module: str) -> str:
    return module.replace(".", "_")


# Reading ------------------------------------------------------------------------------------------------------------


def _tensors(source: Any) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
    """The source's name in messages, its arrays, and its settings of rank and alpha."""
    if isinstance(source, Mapping):
        return "The mapping", {str(key): _array(value) for key, value in source.items()}, {}
    file = find_file(source)
    tensors, metadata = arrays.read_arrays(file)
    settings: dict[str, Any] = {}
    if METADATA in metadata:
        try:
            settings = dict(json.loads(metadata[METADATA]))
        except (TypeError, ValueError):
            raise ModelError(f"{file} is damaged: its {METADATA} is not a JSON object.") from None
        settings = {key.removeprefix("transformer."): value for key, value in settings.items()}
    elif file.name == PEFT_FILE and (file.parent / PEFT_CONFIG).is_file():
        settings = read_json(file.parent / PEFT_CONFIG)
    if settings.get("use_dora"):
        raise ModelError(f"{file} is a DoRA, which is not supported; only LoRA is.")
    return str(file), tensors, settings


def _array(value: Any) -> np.ndarray:
    if isinstance(value, (np.ndarray, np.generic, int, float)):
        return np.asarray(value)
    from longtake.backend import runtime

    # Through the bytes, since numpy lacks some of the frameworks' dtypes.
    return arrays.decode(runtime.to_bytes(value), runtime.dtype_name(value.dtype), tuple(value.shape))


def _refuse_other_methods(name: str, tensors: Mapping[str, Any]) -> None:
    for key in tensors:
        for word, method in OTHERS.items():
            if re.search(rf"[._]{word}", key):
                raise ModelError(
                    f"{name} is a {method} (its key {key!r}), which is not supported; only LoRA is."
                )


def _by_module(name: str, tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, Found], list[str]]:
    """All that was found for each module, by its name without a prefix; and the keys that are no LoRA's."""
    found: dict[str, Found] = {}
    foreign = []
    for key, value in tensors.items():
        match = None if key.startswith(TEXT_ENCODERS) else SUFFIX.fullmatch(key)
        if key == "scaled_fp8":  # an empty tensor that marks files with scales
            continue
        if match is None:
            foreign.append(key)
            continue
        part = "alpha" if match["alpha"] else PARTS[match["part"]]
        if match["kind"] in ("scale_weight", "weight_scale"):
            part += " scale"
        module = found.setdefault(_without_prefix(match["module"]), Found({}, {}))
        if part in module.keys:
            raise ModelError(f"{name} has {module.keys[part]!r} and {key!r}, which are the same thing.")
        module.keys[part], module.values[part] = key, value
    return found, foreign


def _without_prefix(module: str) -> str:
    for prefix in PREFIXES * 2:  # PEFT's stands before diffusers'
        module = module.removeprefix(prefix)
    return module


def _split(
    name: str,
    module: str,
    found: Found,
    targets: tuple[str, ...],
    shapes: Shapes,
    settings: Mapping[str, Any],
) -> list[LowRank]:
    """The change of each of the modules that one name stands for."""
    down, up = (_matrix(name, module, found, part) for part in ("down", "up"))
    rows = [shapes[target][0] for target in targets]
    columns = math.prod(shapes[targets[0]][1:])
    if down.shape[1] != columns or up.shape[0] != sum(rows) or up.shape[1] != down.shape[0]:
        has = f"{list(found.values['down'].shape)} and {list(found.values['up'].shape)}"
        raise ModelError(
            f"{name} has {found.keys['down']!r} and its partner in the shapes {has}, where this network has "
            f"[rank, {columns}] and [{sum(rows)}, rank]."
        )
    if _flat(module) == _flat(SWAPPED):
        up = np.concatenate([up[rows[0] // 2 :], up[: rows[0] // 2]])
    alpha = _alpha(name, module, found, len(down), settings)
    return [LowRank(down, part, alpha) for part in np.split(up, np.cumsum(rows)[:-1])]


def _matrix(name: str, module: str, found: Found, part: str) -> np.ndarray:
    """One factor as a float32 matrix; convolutions' kernels lie in its columns."""
    if part not in found.values:
        there = next(iter(found.keys.values()))
        raise ModelError(f"{name} is damaged: it has {there!r}, and no {part} weight beside it.")
    value, key = found.values[part], found.keys[part]
    if value.ndim < 2 or not value.size:
        raise ModelError(f"{name} has {key!r} in the shape {list(value.shape)}; a matrix was expected.")
    matrix = value.astype(np.float32).reshape(value.shape[0], -1)
    if f"{part} scale" in found.values:
        matrix = matrix * np.float32(_number(name, found, f"{part} scale"))
    if not np.isfinite(matrix).all():
        raise ModelError(f"{name} is damaged: {key!r} holds values that are not finite.")
    return matrix


def _alpha(name: str, module: str, found: Found, rank: int, settings: Mapping[str, Any]) -> float:
    """The module's alpha: its own key's, else what the settings say (PEFT's rules), else the rank."""
    if "alpha" in found.values:
        return _number(name, found, "alpha")
    alpha = settings.get("lora_alpha", rank)
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if re.fullmatch(
            pattern.removeprefix("^") if pattern.startswith("^") else rf"(.*\.)?({pattern})", module
        ):
            alpha = value
            break
    return float(alpha) * (math.sqrt(rank) if settings.get("use_rslora") else 1.0)


def _number(name: str, found: Found, part: str) -> float:
    value = found.values[part]
    if value.size != 1 or not np.isfinite(value).all():
        raise ModelError(
            f"{name} has {found.keys[part]!r} in the shape {list(value.shape)}; one number was expected."
        )
    return float(value.reshape(()))


# Writing ------------------------------------------------------------------------------------------------------------


def peft_keys(factors: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """(down, up) by module, as diffusers names them in a file."""
    tensors = {}
    for module, (down, up) in factors.items():
        tensors[f"transformer.{module}.lora_A.weight"] = down
        tensors[f"transformer.{module}.lora_B.weight"] = up
    return tensors


def kohya_keys(factors: Mapping[str, tuple[Any, Any]], alphas: Mapping[str, Any]) -> dict[str, Any]:
    """(down, up) by module, and a tensor of one number for the alpha of each, as kohya's tools name them in a file."""
    tensors: dict[str, Any] = {}
    for module, (down, up) in factors.items():
        stem = f"lora_unet_{_flat(module)}"
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        tensors[f"{stem}.alpha"] = alphas[module]
    return tensors


def peft_settings(changes: Mapping[str, LowRank]) -> dict[str, Any]:
    """Rank and alpha as PEFT's config says them: the commonest, and patterns for the others."""
    rank = Counter(change.rank for change in changes.values()).most_common(1)[0][0]
    alpha = Counter(change.alpha for change in changes.values()).most_common(1)[0][0]
    settings = {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{name}": change.rank for name, change in changes.items() if change.rank != rank},
        "alpha_pattern": {
            f"^{name}": change.alpha for name, change in changes.items() if change.alpha != alpha
        },
        "target_modules": list(changes),
    }
    return {f"transformer.{key}": value for key, value in settings.items()}


# Sentences ----------------------------------------------------------------------------------------------------------


def _nothing_fits(name: str, foreign: list[str]) -> str:
    expected = (
        "'transformer.transformer_blocks.0.attn.to_q.lora_A.weight', "
        "'lora_unet_transformer_blocks_0_attn_to_q.lora_down.weight' or 'double_blocks.0.img_attn_qkv.lora_A.weight'"
    )
    if not foreign:
        return f"{name} is empty; keys like {expected} were expected."
    return (
        f"None of the {len(foreign)} keys of {name} fits this transformer, for example {_some(foreign)}"
        f"{_of_text_encoders(foreign)}; keys like {expected} were expected."
    )


def _some_do_not_fit(name: str, foreign: list[str], total: int) -> str:
    return (
        f"{len(foreign)} of {total} keys of {name} do not fit this transformer and are left out: {_some(foreign)}"
        f"{' …' if len(foreign) > 3 else ''}{_of_text_encoders(foreign)}."
    )


def _some(keys: list[str]) -> str:
    return ", ".join(repr(key) for key in keys[:3])


def _of_text_encoders(keys: list[str]) -> str:
    count = sum(key.startswith(TEXT_ENCODERS) for key in keys)
    return f" ({count} of them are for a text encoder, which takes no LoRA here)" if count else ""
