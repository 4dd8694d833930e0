"""The forms that a `quantization_config` asks for, known by its behaviour: our own forms, torchao's and bitsandbytes'.

The field's config objects are of diffusers, transformers and torchao, none of which is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from longtake.backend import nn, ops, runtime, thirdparty
from longtake.errors import BackendError, ModelError
from longtake.models import quantised
from longtake.models.quantised import METHOD, EightBitConfig

if TYPE_CHECKING:
    from longtake.models.pretrained import Replace, Stored

KNOWN = (
    "longtake's own (EightBitConfig, or {'quant_method': 'longtake', 'form': 'int8'}), torchao's configs, and "
    "BitsAndBytesConfig"
)
INTEGRATION = "longtake.integrations.diffusers"


class Form(Protocol):
    """A form that linear layers are given while a network is read."""

    @property
    def word(self) -> str:
        """The word that tells it from other forms, for the recipe of a video."""

    def check(self, device: Any) -> None:
        """Raise BackendError if it cannot be had, or cannot run, on the device."""

    def making(self, model: Any) -> Replace:
        """A `Replace` that gives the model's layers this form."""


@dataclass(frozen=True)
class LibraryForm:
    """A form of another library, for the same layers of a network that our own forms are for."""

    library: str
    settings: Any
    """torchao's config; for bitsandbytes the fields of a BitsAndBytesConfig by name."""
    kept: tuple[str, ...] = ()
    """Layers stay as they are that have one of these names in theirs."""

    @property
    def word(self) -> str:
        """The library, and its settings as Python writes them."""
        said = f"{self.settings!r}" if self.library == "torchao" else _bits(self.settings)
        return f"{self.library}:{said}" + (f"-{','.join(self.kept)}" if self.kept else "")

    def check(self, device: Any) -> None:
        """Try a small layer on the device."""
        try:
            with runtime.no_grad():
                layer = nn.Linear(64, 64)
                layer.to(device=runtime.best_device() if device is None else device)
                x = runtime.place(ops.ones(32, 64), device)
                float(ops.to_numpy(self.made(layer)(x).sum()))
        except BackendError:
            raise
        except Exception as error:  # whatever a library raises for what it cannot do here
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise BackendError(
                f"{self.word} does not run on {device or 'this device'} here ({reason}); take another form, such as "
                "{'quant_method': 'longtake', 'form': 'int8'}."
            ) from error

    def making(self, model: Any) -> Replace:
        """One layer after the other: its weights are read, then it gets the form."""
        chosen = {
            name
            for name in quantised.layers_of(model)
            if not any(part == name or part in name.split(".") for part in self.kept)
        }

        def replace(name: str, module: Any, stored: Mapping[str, Stored]) -> Any:
            if name not in chosen:
                return None
            if quantised.is_coded(stored["weight"].weight):
                raise ModelError(
                    f"{stored['weight'].weight.file} has {name!r} in 8 bits already, and {self.library} is asked for; "
                    "leave quantization_config out, or begin with the full weights."
                )
            runtime.assign_weights(module, {key: weight.read() for key, weight in stored.items()})
            return self.made(module).eval()

        return replace

    def made(self, layer: Any) -> Any:
        """A plain layer in this form."""
        make = thirdparty.of_torchao if self.library == "torchao" else thirdparty.of_bitsandbytes
        return make(layer, self.settings)


LEARNABLE = 0.5
"""The largest error of a gradient through a form that is taken for its rounding: 4 bits have 0.1, none at all 1."""


def check_learning(form: Form | None, device: Any) -> None:
    """Raise BackendError if what stands before a layer of this form gets no gradient, so that no LoRA learns in it."""
    if not isinstance(form, LibraryForm):
        return  # ours are made so that it does
    from longtake.backend import training

    layer = nn.Linear(64, 64)
    layer.to(device=runtime.best_device() if device is None else device)
    weight = layer.weight.detach().clone()
    try:
        error = training.gradient_error(form.made(layer), weight)
    except Exception as problem:  # whatever a library raises for what it cannot do
        error, reason = (
            math.inf,
            (str(problem).strip().splitlines() or [type(problem).__name__])[0].rstrip("."),
        )
    else:
        reason = f"the gradient of its input is off by {error:.0%}"
    if not error < LEARNABLE:
        raise BackendError(
            f"Nothing can be learnt through a base in {form.word} ({reason}); take weights in 8 bits without rounded "
            "activations, such as --quantize int8."
        )


def asked(config: Any) -> Form | None:
    """The form that a `quantization_config` asks for; ModelError for one that is not known here."""
    if config is None or isinstance(config, EightBitConfig | LibraryForm):
        return config
    if hasattr(config, "components_to_quantize"):
        raise ModelError(
            "A PipelineQuantizationConfig is for a pipeline's from_pretrained; give one network the config of its own."
        )
    values = config if isinstance(config, Mapping) else _fields(config)
    method = _text(values.get("quant_method"))
    if method == METHOD:
        return EightBitConfig.of(values)
    if _is_of("torchao", config):
        return LibraryForm("torchao", config)
    if method == "torchao" and _is_of("torchao", values.get("quant_type")):
        return LibraryForm("torchao", values["quant_type"], tuple(values.get("modules_to_not_convert") or ()))
    if method == "bitsandbytes" or {"load_in_4bit", "load_in_8bit"} & set(values):
        return _of_bitsandbytes(values)
    raise ModelError(
        f"quantization_config {_told(config)} is not known here; known: {KNOWN}. For others use {INTEGRATION}, or "
        "replace=, which makes modules of your own while the weights are read."
    )


def by_part(config: Any, parts: Sequence[str]) -> dict[str, Any]:
    """The config of each network that a pipeline's `quantization_config` is for; a plain one is the transformer's.

    `parts` can have one. Unlike the reference: one that names no components is for these alone. Raises ModelError for a
    part that cannot.
    """
    if config is None:
        return {}
    if hasattr(config, "components_to_quantize"):
        if config.quant_mapping:
            wanted = dict(config.quant_mapping)
        else:
            names = config.components_to_quantize or parts
            own = {**_of_backend(config.quant_backend), **config.quant_kwargs}
            wanted = dict.fromkeys(names, own)
    elif isinstance(config, Mapping) and config and not set(config) - set(parts):
        wanted = dict(config)
    else:
        wanted = {"transformer": config}
    other = sorted(set(wanted) - set(parts))
    if other:
        raise ModelError(
            f"The part {other[0]!r} has no quantised form here; {' and '.join(parts)} can have one. {INTEGRATION} "
            "quantises others."
        )
    return {name: each for name, each in wanted.items() if each is not None}


def _of_backend(name: str) -> dict[str, Any]:
    """The meaning of diffusers' names of its backends."""
    return {"quant_method": "bitsandbytes" if name.startswith("bitsandbytes") else name}


def _of_bitsandbytes(values: Mapping[str, Any]) -> LibraryForm:
    names = (
        "load_in_4bit",
        "load_in_8bit",
        "bnb_4bit_quant_type",
        "bnb_4bit_use_double_quant",
        "llm_int8_threshold",
    )
    settings = {name: values[name] for name in names if values.get(name) is not None}
    if bool(settings.get("load_in_4bit")) == bool(settings.get("load_in_8bit")):
        raise ModelError(
            "A config of bitsandbytes asks for load_in_4bit or for load_in_8bit; set one of them to True."
        )
    if values.get("llm_int8_has_fp16_weight"):
        raise ModelError("llm_int8_has_fp16_weight=True keeps the full weights, for training; leave it out.")
    return LibraryForm("bitsandbytes", settings, tuple(values.get("llm_int8_skip_modules") or ()))


def _bits(settings: Mapping[str, Any]) -> str:
    if settings.get("load_in_4bit"):
        return f"{settings.get('bnb_4bit_quant_type', 'fp4')}{'+' * bool(settings.get('bnb_4bit_use_double_quant'))}"
    return f"int8({settings.get('llm_int8_threshold', 6.0):g})"


def _fields(config: Any) -> dict[str, Any]:
    """An object's own attributes by name, also those that it keeps behind properties."""
    own = dict(getattr(config, "__dict__", {}))
    return {name.lstrip("_"): value for name, value in own.items()}


def _text(method: Any) -> str:
    """The name of a method, from a word or an enum of words."""
    return str(getattr(method, "value", method))


def _is_of(library: str, value: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == library for kind in type(value).__mro__)


def _told(config: Any) -> str:
    return repr(config) if isinstance(config, Mapping) else type(config).__name__


def form_of(network: Any) -> str:
    """The dtype of a network of ours and the form of its layers, in one word: "bfloat16", "bfloat16/int8"."""
    dtype = runtime.dtype_name(network.dtype)
    words = [network.quantization.word] if network.quantization is not None else quantised.forms(network)
    return "/".join([dtype, *words])
