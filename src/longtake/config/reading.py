"""Reads a network's config.json, and lets a config answer by attribute and as a mapping.

`Config.read` takes what diffusers (to 0.42), transformers 4 and transformers 5 write. A key of diffusers is a
parameter of the network, so an unknown one is an error. A config of transformers holds much besides, so an unknown key
is passed over, with a warning, unless it is known to change the network.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from longtake.errors import LongtakeWarning, ModelError

C = TypeVar("C", bound="Config")

# What any config of transformers may hold besides the network, and what is passed over without a word: housekeeping,
# the form of outputs, settings of text generation that transformers 4 wrote everywhere, labels, special tokens.
# fmt: off
TRANSFORMERS_KEYS = frozenset(
    {
        "architectures", "model_type", "transformers_version", "dtype", "torch_dtype",
        "attn_implementation", "tokenizer_class", "output_attentions", "output_hidden_states",
        "return_dict", "return_dict_in_generate", "output_scores", "use_return_dict", "torchscript",
        "use_bfloat16", "tf_legacy_loss", "chunk_size_feed_forward", "problem_type",
        "finetuning_task", "task_specific_params", "is_encoder_decoder", "is_decoder",
        "cross_attention_hidden_size", "tie_encoder_decoder", "tie_word_embeddings",
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

# Keys that make another network of one that has them, with the value that changes nothing; None, False and empty
# containers never do.
NEUTRAL: Mapping[str, Any] = {
    "add_cross_attention": False,
    "attention_multiplier": 1.0,
    "attn_logit_softcapping": None,
    "embedding_multiplier": 1.0,
    "layer_types": "full_attention",
    "logits_scaling": 1.0,
    "num_experts": 0,
    "num_local_experts": 0,
    "partial_rotary_factor": 1.0,
    "position_embedding_type": "absolute",
    "pruned_heads": None,
    "qk_norm": False,
    "quantization_config": None,
    "residual_multiplier": 1.0,
    "sliding_window": None,
    "use_bidirectional_attention": False,
    "use_qk_norm": False,
    "use_sliding_window": False,
}

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
    """The JSON object in a file; raises ModelError if there is none."""
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
class Config(Mapping[str, Any]):
    """The base of all configurations: built from fields, a mapping, a config.json or a foreign config object.

    As a mapping it has the fields by name, in order.
    """

    library: ClassVar[str] = "diffusers"
    """Whose folder layout holds this network: "diffusers" or "transformers"."""
    class_name: ClassVar[str] = ""
    """The network's class, as config.json names it."""
    model_type: ClassVar[str] = ""
    """transformers' word for the network."""
    also_in: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Other classes whose folders hold this network, and how the weights of their other parts begin."""
    grown: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Other classes whose folders hold a part of this network, and the fields that it gets when the rest is made."""
    file_prefix: ClassVar[str] = ""
    """Published files put this before the names of the weights."""
    part: ClassVar[str] = ""
    """The key under which a config of several networks holds this one's."""
    stock: ClassVar[Mapping[str, Any]] = {}
    """The library's value of a key that config.json leaves out, if it is not our default."""
    ignored: ClassVar[frozenset[str]] = frozenset()
    """Keys of config.json that say nothing about what is computed here."""
    variants: ClassVar[tuple[str, ...]] = ()
    """Other spellings that `plain` turns into fields."""
    known: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """The values of a field that this network knows, for fields that choose between networks."""

    def __post_init__(self) -> None:
        for name, values in self.known.items():
            found = getattr(self, name)
            if any(value not in values for value in (found if isinstance(found, tuple) else (found,))):
                names = ", ".join(map(repr, values))
                raise ModelError(f"{self.class_name} has {found!r} for {name}; known: {names}.")

    @classmethod
    def of(cls: type[C], source: Any = None, **fields: Any) -> C:
        """Build from `source` (a config of ours or a library's, or a mapping) and `fields`, which win.

        Raises ModelError for a field that this network does not have.
        """
        names = cls.names()
        if isinstance(source, Mapping):
            values = cls.without_ignored(dict(source), cls.__name__)
        elif source is None:
            values = {}
        else:
            cls.without_ignored(
                {key: getattr(source, key) for key in NEUTRAL if hasattr(source, key)}, cls.__name__
            )
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
        """Read a config.json; `values` is its content if it has been read already.

        Raises ModelError, naming the file and the key, for bad JSON, a key that means another network or a value of the
        wrong type.
        """
        file = Path(file)
        values = read_json(file) if values is None else values
        nested = values.get(cls.part) if cls.part else None
        stock = {**cls.stock, **cls.grown.get(class_of(values) or "", {})}
        values = cls.plain({**stock, **(nested if isinstance(nested, Mapping) else values)}, str(file))
        fields = cls.without_ignored(values, str(file))
        for key in fields:
            if key not in cls.names():
                raise ModelError(
                    f"{file} has the key {key!r}, which {cls.class_name or cls.__name__} does not know."
                )
        for field in dataclasses.fields(cls):
            if field.name in fields and not _is_kind(fields[field.name], str(field.type)):
                found = json.dumps(fields[field.name], default=str)
                raise ModelError(
                    f"{file} has {found} for the key {field.name!r}, and {field.type} is expected."
                )
        try:
            return cls(**_frozen(fields))
        except ModelError as error:
            raise ModelError(f"{file}: {error}") from None

    @classmethod
    def names(cls) -> set[str]:
        """The names of the fields."""
        return {field.name for field in dataclasses.fields(cls)}

    @classmethod
    def without_ignored(cls, values: dict[str, Any], where: str) -> dict[str, Any]:
        """`values` without the keys that have no bearing on this network.

        Raises ModelError for one that is known to change it, warns of one of transformers' that nobody knows.
        """
        kept = {}
        for key, value in values.items():
            if key in cls.names() or key in cls.variants:
                kept[key] = value
            elif key in NEUTRAL:
                if not _is_neutral(key, value):
                    raise ModelError(
                        f"{where} has {value!r} for the key {key!r}, which makes another network than "
                        f"{cls.class_name or cls.__name__} is here."
                    )
            elif key.startswith("_") or key in cls.ignored:
                pass
            elif cls.library != "transformers":
                kept[key] = value
            elif key not in TRANSFORMERS_KEYS:
                warnings.warn(
                    f"{where} has the key {key!r}, which {cls.class_name or cls.__name__} does not know; "
                    "it is passed over.",
                    LongtakeWarning,
                    stacklevel=3,
                )
        return kept

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
        """The content of config.json in the library's own layout, without dtype and version."""
        if self.library == "diffusers":
            return {"_class_name": self.class_name, **self.to_dict()}
        return {"architectures": [self.class_name], "model_type": self.model_type, **self.to_dict()}

    def __getitem__(self, name: str) -> Any:
        if name not in self.names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in dataclasses.fields(self))

    def __len__(self) -> int:
        return len(dataclasses.fields(self))


def _is_neutral(key: str, value: Any) -> bool:
    """Tell if the value of a key of `NEUTRAL` changes nothing."""
    if isinstance(value, list | tuple):
        return all(_is_neutral(key, each) for each in value)
    if (
        key == "quantization_config"
        and isinstance(value, Mapping)
        and value.get("quant_method") == "longtake"
    ):
        return True  # the form of the weights, which the reading of them knows
    return value is None or value is False or value == {} or value == NEUTRAL[key]


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
