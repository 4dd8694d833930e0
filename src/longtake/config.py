"""The networks' configurations: frozen dataclasses whose fields carry the published names.

`Config.read` takes the config.json that diffusers (to 0.42), transformers 4 and transformers 5 write. A key that has
no bearing on what the network computes here is named below and ignored; any other unknown key is an error.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from longtake.errors import ModelError

C = TypeVar("C", bound="Config")

# What every config of transformers may hold besides the network: housekeeping, then the outputs' form, then the
# settings of text generation that transformers 4 wrote into each config, then labels and special tokens.
# fmt: off
TRANSFORMERS_KEYS = frozenset(
    {
        "architectures", "model_type", "transformers_version", "dtype", "torch_dtype",
        "attn_implementation", "tokenizer_class", "output_attentions", "output_hidden_states",
        "return_dict", "return_dict_in_generate", "output_scores", "use_return_dict", "torchscript",
        "use_bfloat16", "tf_legacy_loss", "pruned_heads", "chunk_size_feed_forward", "problem_type",
        "finetuning_task", "task_specific_params", "is_encoder_decoder", "is_decoder",
        "add_cross_attention", "cross_attention_hidden_size", "tie_encoder_decoder", "tie_word_embeddings",
        "use_cache", "gradient_checkpointing", "max_length", "min_length", "do_sample", "early_stopping",
        "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p",
        "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
        "bad_words_ids", "num_return_sequences", "remove_invalid_values",
        "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
        "forced_bos_token_id", "forced_eos_token_id", "id2label", "label2id", "num_labels", "bos_token_id",
        "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id", "prefix",
        "initializer_range", "initializer_factor", "attention_dropout", "dropout"
    }
)
# fmt: on

KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool, int),
    "None": (type(None),),
    "tuple[int, ...]": (list, tuple),
    "tuple[str, ...]": (list, tuple),
}


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file; raises ModelError where there is none."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{file} does not exist.") from None
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}.") from None
    except json.JSONDecodeError as error:
        raise ModelError(f"{file} is not valid JSON: {error.msg} in line {error.lineno}.") from None
    except UnicodeDecodeError:
        raise ModelError(f"{file} is not valid JSON: it is not text in UTF-8.") from None
    except RecursionError:
        raise ModelError(f"{file} is not valid JSON here: it is nested too deeply.") from None
    if not isinstance(values, dict):
        raise ModelError(f"{file} holds {type(values).__name__}, not a JSON object with named values.")
    return values


def class_of(values: Mapping[str, Any]) -> str | None:
    """The class that a config.json names: diffusers' `_class_name` or the first of transformers' `architectures`."""
    named = values.get("_class_name") or values.get("architectures")
    if isinstance(named, list):
        named = named[0] if named else None
    return named if isinstance(named, str) else None


@dataclass(frozen=True)
class Config:
    """What all configurations share: built from fields, a mapping, a config.json or a foreign config object."""

    library: ClassVar[str] = "diffusers"
    """Whose folder layout holds this network: "diffusers" or "transformers"."""
    class_name: ClassVar[str] = ""
    """The network's class, as config.json names it."""
    model_type: ClassVar[str] = ""
    """transformers' word for the network."""
    also_in: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Other classes whose folders hold this network, and how the weights of their other parts begin."""
    file_prefix: ClassVar[str] = ""
    """What published files put before the names of the weights."""
    part: ClassVar[str] = ""
    """The key under which a config of several networks holds this one's."""
    stock: ClassVar[Mapping[str, Any]] = {}
    """What the library takes for a key that config.json leaves out, where that is not our default."""
    ignored: ClassVar[frozenset[str]] = frozenset()
    """Keys of config.json that say nothing about what is computed here."""
    variants: ClassVar[tuple[str, ...]] = ()
    """Other spellings that `plain` turns into fields."""

    @classmethod
    def of(cls: type[C], source: Any = None, **fields: Any) -> C:
        """Build from `source` (a config of ours or a library's, or a mapping) and `fields`, which win.

        Raises ModelError for a field that this network does not have.
        """
        names = cls.names()
        if isinstance(source, Mapping):
            values = {key: value for key, value in source.items() if not cls.is_ignored(key)}
        elif source is None:
            values = {}
        else:
            readable = sorted(names.union(cls.variants))
            values = {name: getattr(source, name) for name in readable if hasattr(source, name)}
        values.update(fields)
        values = cls.plain(values, cls.__name__)
        unknown = sorted(set(values) - names)
        if unknown:
            raise ModelError(
                f"{cls.__name__} has no field {unknown[0]!r}; it has {', '.join(sorted(names))}."
            )
        return cls(**_frozen(values))

    @classmethod
    def read(cls: type[C], file: Path | str, values: Mapping[str, Any] | None = None) -> C:
        """Read a config.json (`values`: its content, where it has been read already).

        Raises ModelError, naming the file and the key, for bad JSON, an unknown key or a value of the wrong type.
        """
        file = Path(file)
        values = read_json(file) if values is None else values
        nested = values.get(cls.part) if cls.part else None
        values = cls.plain({**cls.stock, **(nested if isinstance(nested, Mapping) else values)}, str(file))
        if values.get("quantization_config"):
            raise ModelError(f"{file} has the key 'quantization_config': quantized weights are not read.")
        known = {key: value for key, value in values.items() if key in cls.names()}
        for key in values:
            if key not in known and not cls.is_ignored(key):
                raise ModelError(
                    f"{file} has the key {key!r}, which {cls.class_name or cls.__name__} does not know."
                )
        for field in dataclasses.fields(cls):
            if field.name in known and not _is_kind(known[field.name], str(field.type)):
                found = json.dumps(known[field.name], default=str)
                raise ModelError(
                    f"{file} has {found} for the key {field.name!r}, where {field.type} is expected."
                )
        return cls(**_frozen(known))

    @classmethod
    def names(cls) -> set[str]:
        """The names of the fields."""
        return {field.name for field in dataclasses.fields(cls)}

    @classmethod
    def is_ignored(cls, key: str) -> bool:
        """Whether a key of a published config has no bearing on the network."""
        if key in cls.names():
            return False
        shared = cls.library == "transformers" and key in TRANSFORMERS_KEYS
        return shared or key in cls.ignored or key.startswith("_")

    @classmethod
    def plain(cls, values: dict[str, Any], where: str) -> dict[str, Any]:
        """`values` with other spellings turned into fields; `where` is named in the errors."""
        return values

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    def published(self) -> dict[str, Any]:
        """What config.json holds in the library's own layout, dtype and version apart."""
        if self.library == "diffusers":
            return {"_class_name": self.class_name, **self.to_dict()}
        return {"architectures": [self.class_name], "model_type": self.model_type, **self.to_dict()}

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or `default` where there is none (configs of the field are read like mappings)."""
        return getattr(self, name, default)


def _frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _is_kind(value: Any, annotation: str) -> bool:
    kinds = [kind for part in annotation.split(" | ") for kind in KINDS[part]]
    if isinstance(value, bool) and bool not in kinds:
        return False
    if isinstance(value, (list, tuple)):
        member = int if "tuple[int" in annotation else str
        return list in kinds and all(isinstance(item, member) for item in value)
    return isinstance(value, tuple(kinds))


@dataclass(frozen=True)
class TransformerConfig(Config):
    """HunyuanVideoFramepackTransformer3DModel; the defaults are FramePack's published 13B."""

    class_name: ClassVar[str] = "HunyuanVideoFramepackTransformer3DModel"
    # The published repositories carry the name of the original code's class.
    also_in: ClassVar[Mapping[str, tuple[str, ...]]] = {"HunyuanVideoTransformer3DModelPacked": ()}
    stock: ClassVar[Mapping[str, Any]] = {"has_image_proj": False, "has_clean_x_embedder": False}

    in_channels: int = 16
    out_channels: int = 16
    num_attention_heads: int = 24
    attention_head_dim: int = 128
    num_layers: int = 20
    num_single_layers: int = 40
    num_refiner_layers: int = 2
    mlp_ratio: float = 4.0
    patch_size: int = 2
    patch_size_t: int = 1
    qk_norm: str | None = "rms_norm"
    guidance_embeds: bool = True
    text_embed_dim: int = 4096
    pooled_projection_dim: int = 768
    rope_theta: float = 256.0
    rope_axes_dim: tuple[int, ...] = (16, 56, 56)
    image_condition_type: str | None = None
    has_image_proj: bool = True
    image_proj_dim: int = 1152
    has_clean_x_embedder: bool = True


@dataclass(frozen=True)
class VAEConfig(Config):
    """AutoencoderKLHunyuanVideo; the defaults are HunyuanVideo's published autoencoder."""

    class_name: ClassVar[str] = "AutoencoderKLHunyuanVideo"

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    down_block_types: tuple[str, ...] = ("HunyuanVideoDownBlock3D",) * 4
    up_block_types: tuple[str, ...] = ("HunyuanVideoUpBlock3D",) * 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    act_fn: str = "silu"
    norm_num_groups: int = 32
    scaling_factor: float = 0.476986
    spatial_compression_ratio: int = 8
    temporal_compression_ratio: int = 4
    mid_block_add_attention: bool = True


@dataclass(frozen=True)
class LlamaConfig(Config):
    """LlamaModel; the defaults are the text encoder of HunyuanVideo (Llama 3 8B)."""

    library: ClassVar[str] = "transformers"
    class_name: ClassVar[str] = "LlamaModel"
    model_type: ClassVar[str] = "llama"
    also_in: ClassVar[Mapping[str, tuple[str, ...]]] = {"LlamaForCausalLM": ("lm_head.",)}
    part: ClassVar[str] = "text_config"
    stock: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 32000,
        "intermediate_size": 11008,
        "num_key_value_heads": None,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 2048,
    }
    ignored: ClassVar[frozenset[str]] = frozenset({"pretraining_tp"})
    variants: ClassVar[tuple[str, ...]] = ("rope_parameters", "rope_scaling")

    vocab_size: int = 128320
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500000.0
    max_position_embeddings: int = 8192
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def plain(cls, values: dict[str, Any], where: str) -> dict[str, Any]:
        """Turn transformers' dictionaries of rotary settings into `rope_theta`, and no key/value heads into all."""
        values = dict(values)
        for name in cls.variants:
            rope = values.pop(name, None) or {}
            kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, Mapping) else rope
            if kind != "default":
                raise ModelError(
                    f"{where} has {kind!r} for the key {name!r}; only plain rotary positions are known."
                )
            if "rope_theta" in rope:
                values["rope_theta"] = float(rope["rope_theta"])
        if values.get("num_key_value_heads", 0) is None:
            values["num_key_value_heads"] = values.get("num_attention_heads", cls.num_attention_heads)
        return values

    def published(self) -> dict[str, Any]:
        """config.json's content, with the rotary settings in transformers 4's and in transformers 5's form."""
        rope = {"rope_type": "default", "rope_theta": self.rope_theta}
        return {**super().published(), "rope_parameters": rope}


@dataclass(frozen=True)
class CLIPTextConfig(Config):
    """CLIPTextModel; the defaults are CLIP ViT-L/14's text tower."""

    library: ClassVar[str] = "transformers"
    class_name: ClassVar[str] = "CLIPTextModel"
    model_type: ClassVar[str] = "clip_text_model"
    file_prefix: ClassVar[str] = "text_model."
    also_in: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "CLIPModel": ("vision_model.", "visual_projection.", "text_projection.", "logit_scale"),
        "CLIPTextModelWithProjection": ("text_projection.",),
    }
    part: ClassVar[str] = "text_config"
    stock: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "eos_token_id": 49407,
    }
    ignored: ClassVar[frozenset[str]] = frozenset({"projection_dim"})

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 2


@dataclass(frozen=True)
class SiglipVisionConfig(Config):
    """SiglipVisionModel; the defaults are SigLIP so400m at 384 pixels (flux_redux_bfl)."""

    library: ClassVar[str] = "transformers"
    class_name: ClassVar[str] = "SiglipVisionModel"
    model_type: ClassVar[str] = "siglip_vision_model"
    file_prefix: ClassVar[str] = "vision_model."
    also_in: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "SiglipModel": ("text_model.", "logit_scale", "logit_bias")
    }
    part: ClassVar[str] = "vision_config"
    stock: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    }

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 384
    patch_size: int = 14
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    vision_use_head: bool = True


PUBLISHED: dict[str, Config] = {
    "framepack": TransformerConfig(),
    "hunyuan_vae": VAEConfig(),
    "llama": LlamaConfig(),
    "clip_l": CLIPTextConfig(),
    "siglip_so400m": SiglipVisionConfig(),
}
