"""Networks in one file, without a config: recognised by the names of the weights, described by their shapes.

| file | what is done |
|---|---|
| Kijai's FramePack, bfloat16 and fp8 | its names are diffusers' |
| HunyuanVideo's own layout, `double_blocks`, in ComfyUI's files and most GGUF | names and rows are split and turned |
| plain HunyuanVideo, in its own layout or diffusers' | becomes a FramePack transformer (`weights/unpacked.py`) |
| fp8 with `scale_weight` or `weight_scale` beside each weight | weight times scale |
| a network inside a whole checkpoint, `model.diffusion_model.` | the rest is passed over, with a warning |

Nothing is read here but headers.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from longtake.config import Config
from longtake.config.networks import (
    CLIPTextConfig,
    LlamaConfig,
    SiglipVisionConfig,
    TransformerConfig,
    VAEConfig,
)
from longtake.errors import LongtakeWarning, ModelError
from longtake.weights import gguf, header, layouts
from longtake.weights.derived import config_of
from longtake.weights.header import View, Weight
from longtake.weights.hub import HubOptions, Part, Repository, is_repository, look
from longtake.weights.layouts import Names, Weights

SUFFIXES = (".safetensors", gguf.SUFFIX)
SCALES = (".scale_weight", ".weight_scale")
UNUSED = (".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8", "position_ids", "rotary_emb.inv_freq")
"""Ends of names that hold no weight: scales of activations, marks, constants that are computed here."""


@dataclass(frozen=True)
class Checkpoint:
    """A network in a file: its config, its weights by our names, and their names in the file."""

    config: Any
    weights: Weights
    names: Names
    grows: bool = False
    """The weights are plain HunyuanVideo's, and the rest of the network is made of them (`unpacked`)."""


@dataclass(frozen=True)
class Look:
    """A kind of file: a network of ours by the kind of its config (None: not ours), and names that mark it.

    The first mark may have anything before it; the others have the same before them.
    """

    kind: type[Config] | None
    told: str
    marks: tuple[str, ...]
    without: tuple[str, ...] = ()
    grows: bool = False


LOOKS = (
    Look(
        TransformerConfig,
        "FramePack's transformer",
        ("clean_x_embedder.proj.weight", "transformer_blocks.0.attn.to_q.weight"),
    ),
    Look(
        TransformerConfig,
        "FramePack's transformer in HunyuanVideo's own layout",
        ("clean_x_embedder.proj.weight", "double_blocks.0.img_attn_qkv.weight"),
    ),
    Look(
        TransformerConfig,
        "plain HunyuanVideo's transformer in its own layout",
        ("img_in.proj.weight", "double_blocks.0.img_attn_qkv.weight"),
        grows=True,
    ),
    Look(
        TransformerConfig,
        "plain HunyuanVideo's transformer",
        (
            "context_embedder.token_refiner.refiner_blocks.0.attn.to_q.weight",
            "transformer_blocks.0.attn.to_q.weight",
        ),
        grows=True,
    ),
    Look(
        VAEConfig,
        "HunyuanVideo's autoencoder",
        ("decoder.up_blocks.0.resnets.0.conv1.conv.weight", "encoder.conv_in.conv.weight"),
    ),
    Look(
        VAEConfig,
        "HunyuanVideo's autoencoder in latent diffusion's layout",
        ("decoder.up.0.block.0.conv1.conv.weight", "encoder.conv_in.conv.weight"),
    ),
    Look(
        LlamaConfig,
        "a Llama",
        ("layers.0.self_attn.q_proj.weight", "layers.0.mlp.gate_proj.weight", "embed_tokens.weight"),
        ("layers.0.self_attn.q_norm.weight",),
    ),
    Look(
        CLIPTextConfig,
        "CLIP's text encoder",
        ("embeddings.token_embedding.weight", "encoder.layers.0.self_attn.q_proj.weight"),
    ),
    Look(
        SiglipVisionConfig,
        "SigLIP's vision encoder",
        ("embeddings.patch_embedding.weight", "encoder.layers.0.self_attn.q_proj.weight"),
        ("pre_layrnorm.weight",),
    ),
    Look(None, "FLUX", ("double_blocks.0.img_attn.qkv.weight",)),
    Look(None, "Wan's transformer", ("blocks.0.self_attn.q.weight", "patch_embedding.weight")),
    Look(None, "Wan's autoencoder", ("decoder.middle.0.residual.0.gamma",)),
    Look(None, "Stable Diffusion", ("input_blocks.0.0.weight",)),
    Look(None, "T5", ("encoder.block.0.layer.0.SelfAttention.q.weight",)),
    Look(None, "CLIP's vision encoder", ("embeddings.patch_embedding.weight", "pre_layrnorm.weight")),
    Look(None, "an autoencoder of pictures", ("decoder.conv_in.weight",)),
    Look(None, "a language model in llama.cpp's layout, which is not read", ("blk.0.attn_q.weight",)),
)


@dataclass(frozen=True)
class Single:
    """A file, here or on the hub: `path` is where it lies, or will lie when it is fetched."""

    path: Path
    repository: Repository | None = None
    part: Part = field(default_factory=Part)

    def fetch(self) -> Path:
        """The file on this machine."""
        if self.repository is not None:
            self.repository.fetch([self.part])
        return self.path

    def headers(self) -> Weights:
        """Its tensors by their names in it; of a safetensors file on the hub nothing else is fetched."""
        if self.repository is None or self.path.is_file():
            return read_file(self.path)
        return self.repository.file_headers(self.part.folder, self.part.files[0])


def locate(source: Any, hub: HubOptions | None = None) -> Single | None:
    """The file that a name stands for: its path, or "owner/name/file.safetensors" on the hub.

    None for a folder, a repository and anything else. Raises ModelError for a file that is neither safetensors nor
    GGUF.
    """
    place = Path(source).expanduser()
    if place.is_file():
        if place.suffix not in SUFFIXES:
            raise ModelError(
                f"{place} is a file, and neither safetensors nor GGUF; nothing else is read: a pickle can run code."
            )
        return Single(place)
    owner, *rest = str(source).split("/")
    name = "/".join([owner, *rest[:1]])
    is_file = isinstance(source, str) and len(rest) > 1 and place.suffix in SUFFIXES
    if not is_file or place.is_dir() or Path(owner).exists() or not is_repository(name):
        return None
    repository, part = look(name, hub), Part("/".join(rest[1:-1]), (rest[-1],))
    return Single(repository.folder / part.folder / rest[-1], repository, part)


def find(source: Any, hub: HubOptions | None = None) -> Path | None:
    """The same on this machine; ModelError if its repository does not have it."""
    found = locate(source, hub)
    return None if found is None else found.fetch()


def read_file(file: Path) -> Weights:
    """The tensors of a safetensors or GGUF file by their names in it, from its header."""
    return gguf.read_header(file) if file.suffix == gguf.SUFFIX else header.read_header(file)


def kind_of(file: Path, found: Mapping[str, Weight]) -> type[Config]:
    """The kind of network that a file with such weights holds; ModelError if it is none of ours."""
    known, _ = looks_like(found)
    if known is None or known.kind is None:
        raise ModelError(f"{file} {_told(found)}, which is no part of a FramePack model.")
    return known.kind


def looks_like(found: Mapping[str, Weight]) -> tuple[Look | None, str]:
    """The kind of a file with such weights, and the prefix of that network's names; None for nothing known."""
    for known in LOOKS:
        start = _start(known, found)
        if start is not None:
            return known, start
    return None, ""


def read_checkpoint(
    file: Path, kind: type[Config], config: Config | None = None, found: Mapping[str, Weight] | None = None
) -> Checkpoint:
    """The network of this kind in a file; its config is derived from the shapes if none is given.

    `found` are its weights by their names in it, if they are known already.
    Raises ModelError, in one sentence, for a file that holds something else, and says what it looks like.
    """
    found = read_file(file) if found is None else found
    known = next((each for each in LOOKS if each.kind is kind and _start(each, found) is not None), None)
    if known is None:
        raise ModelError(f"{file} {_told(found)}; {_expected(kind)} was expected.")
    inside = _inside(file, found, _start(known, found) or "", kind)
    weights, names = without_scales(file, inside)
    if known.marks[1].startswith("double_blocks."):
        weights, names = layouts.from_original(file, weights, names)
    elif known.marks[0].startswith("decoder.up."):
        weights, names = layouts.from_latent_diffusion(weights, names)
    gguf.check_package(file, weights.values())
    if config is None:
        config = config_of(file, kind, {name: weight.shape for name, weight in weights.items()})
    return Checkpoint(config, weights, names, known.grows)


def _start(known: Look, found: Mapping[str, Weight]) -> str | None:
    """The prefix of the names of this look in a file; None if it is not there."""
    first, *others = known.marks
    for name in found:
        if name == first or name.endswith(f".{first}"):
            start = name.removesuffix(first)
            there = all(start + mark in found for mark in others)
            if there and not any(start + mark in found for mark in known.without):
                return start
    return None


def _inside(
    file: Path, found: Mapping[str, Weight], start: str, kind: type[Config]
) -> dict[str, tuple[str, Weight]]:
    """The network's weights without what stands before their names, each with its name in the file."""
    inside = {name.removeprefix(start): (name, found[name]) for name in found if name.startswith(start)}
    # What such a network has beside it and is not ours, such as lm_head, is passed over as in a folder.
    foreign = tuple(each for names in kind.also_in.values() for each in names)
    inside = {name: value for name, value in inside.items() if not (foreign and name.startswith(foreign))}
    others = [name for name in found if not name.startswith(start) and not name.endswith(UNUSED)]
    others = [name for name in others if not (foreign and name.startswith(foreign))]
    if others:
        warnings.warn(
            f"{file} holds more than {kind.class_name}: {len(others)} of its {len(found)} weights, such as "
            f"{others[0]!r}, are not in {start!r} and are passed over.",
            LongtakeWarning,
            stacklevel=4,
        )
    return inside


def without_scales(file: Path, inside: Mapping[str, tuple[str, Weight]]) -> tuple[Weights, Names]:
    """Weights with their scales in their views, and without what is no weight."""
    scales: dict[str, tuple[str, Path]] = {}
    for name, (stored, weight) in inside.items():
        for end in SCALES:
            if name.endswith(end):
                scales[name.removesuffix(end) + ".weight"] = (stored, weight.file)
    weights: Weights = {}
    names: Names = {}
    for name, (stored, weight) in inside.items():
        if name.endswith((*SCALES, *UNUSED)):
            continue
        scale = scales.pop(name, None)
        view = None if scale is None else View(scale=scale[0], scale_file=scale[1])
        weights[name] = weight if view is None else replace(weight, view=view)
        names[name] = stored
    if scales:
        raise ModelError(
            f"{file} has the scale {next(iter(scales.values()))[0]!r} and no weight that it is for."
        )
    return weights, names


# Sentences ------------------------------------------------------------------------------------------------------------


def _told(found: Mapping[str, Weight]) -> str:
    """The look of a file, as a part of a sentence."""
    known, _ = looks_like(found)
    if known is not None:
        return f"looks like {known.told}"
    if any(re.search(r"[._]lora[._]", name) for name in found):
        return "looks like a LoRA, which goes to --lora"
    if not found:
        return "is empty"
    return f"looks like nothing that is known here (its first weights are {', '.join(map(repr, list(found)[:3]))})"


def _expected(kind: type[Config]) -> str:
    told = next(each.told for each in LOOKS if each.kind is kind)
    return f"{told} ({kind.class_name})"
