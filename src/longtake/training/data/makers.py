"""The encoders that a data set is encoded with: known by their digests and sizes before any of them is loaded.

So a cache that is complete is used without loading one, and what a cache will take is told before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from longtake.backend import runtime
from longtake.machine import Machine, is_cpu
from longtake.named import places
from longtake.pipeline.encode import MAX_TEXT_TOKENS, PROMPT_TEMPLATE
from longtake.pipeline.loading import load_networks, model_settings
from longtake.pipeline.networks import COMPONENTS, NETWORKS, Networks
from longtake.weights import single
from longtake.weights.fingerprint import part_fingerprints
from longtake.weights.folder import model_source
from longtake.weights.hub import Part
from longtake.weights.transfer import Told

GROUPS: dict[str, tuple[str, ...]] = {
    "vae": ("vae",),
    "text": ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
    "image": ("image_encoder", "feature_extractor"),
}
"""The ingredients of an example, and the parts of a model that make it."""

PARTS = tuple(name for names in GROUPS.values() for name in names)
DECODING = ("decoder.", "post_quant_conv.")
"""The weights of an autoencoder that no latent comes from."""


@dataclass(frozen=True)
class Encoders:
    """The makers of examples: `settings` are the model's own, `digest` tells the parts of one of GROUPS from others',
    `config` is that of one network, and `load` gives networks that have them all."""

    settings: Mapping[str, Any]
    digest: Callable[[str], str]
    config: Callable[[str], Any]
    load: Callable[[], Networks]

    @property
    def template(self) -> Mapping[str, Any]:
        """The words around every prompt."""
        return self.settings.get("prompt_template", PROMPT_TEMPLATE)

    @property
    def max_tokens(self) -> int:
        """Tokens of a prompt, at most."""
        return self.settings.get("max_sequence_length", MAX_TEXT_TOKENS)


def encoders_of(networks: Networks) -> Encoders:
    """The encoders of networks that are loaded already; digests are those of their weights in memory."""
    known: dict[str, str] = {}

    def digest(group: str) -> str:
        if group not in known:
            known[group] = _digest_of(networks, group)
        return known[group]

    return Encoders(networks.settings, digest, lambda name: networks.part(name).config, lambda: networks)


def encoders(
    model: Any = "embedded",
    parts: Mapping[str, str] | None = None,
    dtype: Any = "auto",
    machine: Machine | None = None,
    told: Told | None = None,
) -> Encoders:
    """The encoders of a model wherever `load_networks` finds it; digests are those of its files.

    With `dtype` "auto" the autoencoder is more exact than for making videos: float16 on an accelerator, else float32.
    `told` hears of downloads.
    """
    known: dict[str, str] = {}
    settings = model_settings(model)

    def digest(group: str) -> str:
        if not known:
            base, elsewhere = places(model, parts)
            files = part_fingerprints(base, PARTS, elsewhere)
            for name, names in GROUPS.items():
                known[name] = _hash([files[part] for part in names])
        return known[group]

    def load() -> Networks:
        left_out = {name: None for name in COMPONENTS if name not in PARTS}
        own = {name: place for name, place in (parts or {}).items() if name in PARTS}
        dtypes = {"default": "auto", "vae": _fine(machine)} if dtype == "auto" else dtype
        return load_networks(model, dtypes, given=left_out, parts=own, machine=machine, told=told)

    return Encoders(settings, digest, lambda name: _config_of(model, parts or {}, name), load)


def _fine(machine: Machine | None) -> str:
    """The dtype of an autoencoder whose latents are kept in half precision: bfloat16 would be eight times as coarse."""
    device = machine.device if machine is not None else "auto"
    return "float32" if is_cpu(runtime.best_device() if device == "auto" else device) else "float16"


def _digest_of(networks: Networks, group: str) -> str:
    """A number that changes with what decides the encodings of a group; of an autoencoder, its encoder alone."""
    digest = hashlib.sha256()
    for name in GROUPS[group]:
        part = networks.part(name)
        if name not in NETWORKS:
            digest.update(_told(part).encode())
            continue
        digest.update(repr(part.config).encode())
        for weight, values in sorted(runtime.named_weights(part).items()):
            if not weight.startswith(DECODING):
                digest.update(weight.encode())
                digest.update(runtime.to_bytes(values))
    return digest.hexdigest()


def _told(part: Any) -> str:
    """The facts of a tokenizer or a picture processor, as far as it tells them."""
    inner: Any = getattr(part, "tokenizer", None)
    return str(inner.to_str()) if hasattr(inner, "to_str") else repr(part)


def _config_of(model: Any, parts: Mapping[str, str], name: str) -> Any:
    """The config of a network, without its weights; of one in a single file, that of the published model."""
    base, elsewhere = places(model, parts)
    place = elsewhere.get(name, base)
    if single.find(place) is not None:
        return NETWORKS[name].config_class()
    source = model_source(place)
    folder = name if source.has_folder(name) else ""
    root = source.fetch([Part(folder, ("config.json",))])
    return NETWORKS[name].read_config(root / folder / "config.json")


def _hash(values: list[str]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
