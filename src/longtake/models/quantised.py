"""Linear layers with weights in 8 bits, made while a network is read, so that the full one never exists in memory.

`EightBitConfig` says which form, `making` gives the `Replace` that makes it; `keeping` gives the one for weights that
lie in their file as int8 or float8 already. What gets the form are the linear layers inside a network's blocks: nearly
all of its weights and of its work. Embeddings, modulations, norms and heads stay as they are.

Shapes: O rows of a weight, I columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from longtake.backend import eight, modules, nn, ops, runtime
from longtake.errors import ModelError
from longtake.models import adapters
from longtake.weights.saving import Later

if TYPE_CHECKING:
    from longtake.models.pretrained import Replace, Stored
    from longtake.weights.header import Weight

Tensor = Any
METHOD = "longtake"
"""The word for our forms where a config says `quant_method`."""
FORMS = {"int8": "int8", "fp8": "float8_e4m3fn"}
"""The kind of codes of each form."""
DYNAMIC = "-dynamic"
"""The end of a form whose activations get codes too, a step for each token, so that 8-bit numbers are multiplied."""
KINDS = ("int8", "float8_e4m3fn", "float8_e5m2")
"""The dtypes that files have; the last is never made here."""


@dataclass(frozen=True)
class EightBitConfig:
    """A `quantization_config` for our own 8 bits: the form, and how many blocks at either end stay as they are."""

    form: str = "int8"
    keep_first: int = 0
    keep_last: int = 0

    def __post_init__(self) -> None:
        if self.form.removesuffix(DYNAMIC) not in FORMS:
            known = ", ".join([*FORMS, *(f"{form}{DYNAMIC}" for form in FORMS)])
            raise ModelError(f"{self.form!r} is no form of quantisation here; known: {known}.")
        for name in ("keep_first", "keep_last"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ModelError(f"{name} is a number of blocks, 0 or more, not {value!r}.")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> EightBitConfig:
        """The config in a mapping such as `to_dict` gives; ModelError for a key that is not known."""
        own = {key: value for key, value in values.items() if key != "quant_method"}
        unknown = sorted(set(own) - {"form", "keep_first", "keep_last"})
        if unknown:
            raise ModelError(
                f"A quantization_config of {METHOD} has form, keep_first and keep_last, not {unknown[0]!r}."
            )
        return cls(**own)

    @property
    def quant_method(self) -> str:
        """The field's name for whose form it is."""
        return METHOD

    @property
    def kind(self) -> str:
        """The kind of its codes."""
        return FORMS[self.form.removesuffix(DYNAMIC)]

    @property
    def dynamic(self) -> bool:
        """True if activations get codes too."""
        return self.form.endswith(DYNAMIC)

    @property
    def word(self) -> str:
        """The word that tells it from other forms: "int8", or "int8(2,1)" with the blocks that are kept."""
        kept = f"({self.keep_first},{self.keep_last})" if self.keep_first or self.keep_last else ""
        return self.form + kept

    def check(self, device: Any) -> None:
        """Raise BackendError if the device cannot hold weights in this form, or not multiply them."""
        eight.check(self.kind, device, self.dynamic)

    def making(self, model: Any) -> Replace:
        """A `Replace` that gives the linear layers of the model's blocks this form."""
        return making(model, self)

    def to_dict(self) -> dict[str, Any]:
        """As config.json has it."""
        return {
            "quant_method": METHOD,
            "form": self.form,
            "keep_first": self.keep_first,
            "keep_last": self.keep_last,
        }


class EightBitLinear(nn.Coded):
    """x · (codes · step)ᵀ + bias; the codes (O, I) keep their dtype when the network changes its own.

    The steps (O, 1) are in the network's dtype: those that are made here are bfloat16 numbers, which each holds.
    """

    def __init__(
        self, code: Tensor, step: Tensor, bias: Tensor | None, kind: str, dynamic: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(code, requires_grad=False)
        self.weight_scale = nn.Parameter(step, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.out_features, self.in_features = (int(side) for side in code.shape)
        self.kind, self.dynamic = kind, dynamic

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) -> (…, O). Without dynamic activations the weight is widened, some rows at a time.

        What learns before it (a LoRA, say) gets its gradient; the codes and the steps never do.
        """
        if self.dynamic:
            return eight.multiply(x, self.weight, self.weight_scale, self.bias, self.kind)
        return eight.through(x, self._product, self.full)

    def _product(self, x: Tensor) -> Tensor:
        rows = max(1, ops.piece_values(x) // self.in_features)
        if rows >= self.out_features:
            return ops.linear(x, self._rows(x, 0, self.out_features), self.bias)
        made = []
        for start in range(0, self.out_features, rows):
            stop = min(start + rows, self.out_features)
            bias = None if self.bias is None else self.bias[start:stop]
            made.append(ops.linear(x, self._rows(x, start, stop), bias))
        return ops.cat(made, -1)

    def full(self) -> Tensor:
        """The weight (O, I) as plain numbers."""
        return eight.widened(self.weight, self.weight_scale, self.kind)

    def _rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        code, step = self.weight[start:stop], self.weight_scale[start:stop]
        return eight.widened(code, step.to(x.dtype), self.kind)

    @property
    def form(self) -> str:
        """The form in one word, such as "int8-dynamic"."""
        own = {kind: form for form, kind in FORMS.items()}
        return own.get(self.kind, self.kind) + (DYNAMIC if self.dynamic else "")


class UnmadeLinear(EightBitLinear):
    """A layer of 8 bits that is not in memory: its codes are made when they are written into a file."""

    def __init__(self, name: str, stored: Mapping[str, Stored], config: EightBitConfig) -> None:
        nothing, bias = ops.zeros(0, 1), stored["bias"].as_stored() if "bias" in stored else None
        super().__init__(nothing, ops.zeros(0, 1), bias, config.kind)
        shape = stored["weight"].weight.shape
        self.later = {
            "weight": Later(config.kind, shape, lambda: _coded(stored, config)[0]),
            "weight_scale": Later("float32", (shape[0], 1), lambda: _steps(stored, config)[1]),
        }

    def forward(self, x: Tensor) -> Tensor:
        """Refused: there is nothing to compute with."""
        raise ModelError("This network was read to be written in 8 bits; load what was written.")


@dataclass(frozen=True)
class UnmadeConfig(EightBitConfig):
    """The form for a network that is read to be written: a layer is in memory while it is written, and no longer."""

    def making(self, model: Any) -> Replace:
        """A `Replace` that gives the linear layers of the model's blocks the form, once they are written."""
        return making(model, self, UnmadeLinear)


# Making ---------------------------------------------------------------------------------------------------------------


def making(model: Any, config: EightBitConfig, make: Callable[..., Any] | None = None) -> Replace:
    """A `Replace` that gives the linear layers of the model's blocks this form, by `make` (name, stored, config)."""
    chosen = layers_of(model, config.keep_first, config.keep_last)

    def replace(name: str, module: Any, stored: Mapping[str, Stored]) -> Any:
        if name not in chosen:
            return None
        kept = _kept(name, stored, config.dynamic)
        if kept is None:
            return (make or made)(name, stored, config)
        if kept.kind != config.kind:
            raise ModelError(
                f"{stored['weight'].weight.file} has {name!r} in {kept.form.removesuffix(DYNAMIC)} already, and "
                f"{config.form} is asked for; leave that to the file, or begin with the full weights."
            )
        return kept

    return replace


def made(name: str, stored: Mapping[str, Stored], config: EightBitConfig) -> EightBitLinear:
    """The layer of a stored weight; raises ModelError if the weight holds what is no number."""
    code, step = _coded(stored, config)
    bias = stored["bias"].read() if "bias" in stored else None
    return EightBitLinear(code, step.to(stored["weight"].dtype), bias, config.kind, config.dynamic).eval()


def _coded(stored: Mapping[str, Stored], config: EightBitConfig) -> tuple[Tensor, Tensor]:
    weight, step = _steps(stored, config)
    return eight.codes(weight, step, config.kind), step


def _steps(stored: Mapping[str, Stored], config: EightBitConfig) -> tuple[Tensor, Tensor]:
    """A weight as it is stored, and its steps."""
    weight = stored["weight"].as_stored()
    step = eight.steps(weight, config.kind)
    if not np.isfinite(ops.to_numpy(step)).all():
        raise ModelError(
            f"{stored['weight'].weight.file} has values in {stored['weight'].name!r} that are not finite, which have "
            f"no form in {config.form}."
        )
    return weight, step


def keeping(dynamic: bool) -> Replace:
    """A `Replace`: a linear layer whose weight lies as int8 or float8 in its file stays so, mapped and not copied."""

    def replace(name: str, module: Any, stored: Mapping[str, Stored]) -> Any:
        return _kept(name, stored, dynamic) if isinstance(module, nn.Linear) else None

    return replace


def _kept(name: str, stored: Mapping[str, Stored], dynamic: bool = False) -> EightBitLinear | None:
    weight = stored.get("weight")
    if weight is None or not is_coded(weight.weight):
        return None
    code, kind, rows = weight.code(), weight.weight.dtype, weight.weight.shape[0]
    if not eight.finite(code, kind):
        raise ModelError(f"{weight.weight.file} has values in {weight.name!r} that are not finite.")
    values = weight.scale()
    values = np.ones(1, np.float32) if values is None else values
    if values.size not in (1, rows) or not np.isfinite(values).all():
        raise ModelError(
            f"{weight.weight.file} has a scale of {values.size} numbers for {weight.name!r}; one finite number, or one "
            f"for each of the {rows} rows, was expected."
        )
    step = weight.on_device(np.broadcast_to(values[:, None], (rows, 1)).copy())
    bias = stored["bias"].read() if "bias" in stored else None
    return EightBitLinear(code, step, bias, kind, dynamic).eval()


def layers_of(model: Any, keep_first: int = 0, keep_last: int = 0) -> set[str]:
    """The names of the linear layers that get a form: inside the blocks but for those at the ends, without the norms.

    Raises ModelError if the model has no blocks, or if none would be left.
    """
    lists: Sequence[str] = getattr(model, "block_lists", ())
    blocks = [f"{name}.{number}." for name in lists for number in range(len(getattr(model, name)))]
    chosen = tuple(blocks[keep_first : max(keep_first, len(blocks) - keep_last)])
    if not chosen:
        raise ModelError(
            f"{type(model).__name__} has {len(blocks)} blocks; with keep_first={keep_first} and keep_last={keep_last} "
            "none of them would be quantised."
        )
    return {
        name
        for name, module in modules.leaves(model).items()
        if name.startswith(chosen) and isinstance(module, nn.Linear) and not re.search(r"\.norm\w*\.", name)
    }


def cast_layers(model: Any, config: EightBitConfig, skips: Callable[[str, Any], bool]) -> None:
    """Give the plain linear layers of a network that is there this form, one by one, but those that `skips` names."""
    for name, module in modules.leaves(model).items():
        if not isinstance(module, nn.Linear) or skips(name, module):
            continue
        with runtime.no_grad():
            step = eight.steps(module.weight, config.kind)
            if not np.isfinite(ops.to_numpy(step)).all():
                raise ModelError(
                    f"{name!r} has values that are not finite, which have no form in {config.form}."
                )
            code = eight.codes(module.weight, step, config.kind)
        step = step.to(modules.placed(model).dtype)
        layer = EightBitLinear(code, step, module.bias, config.kind, config.dynamic).eval()
        adapters.put(model, name, layer)
        model.replaced = (*model.replaced, f"{name}.")
        model.apart -= {f"{name}.weight"}
    model.quantization = config
    adapters.note_change(model)


# Of networks and files ------------------------------------------------------------------------------------------------


def is_coded(weight: Weight) -> bool:
    """Tell if a weight of a file is a matrix of 8-bit codes, whose rows lie in their order."""
    swapped = weight.view is not None and weight.view.swapped
    return len(weight.shape) == 2 and weight.dtype in KINDS and not swapped


def stored_config(values: Mapping[str, Any]) -> EightBitConfig | None:
    """Our form in the content of a config.json, if it names one."""
    own = values.get("quantization_config")
    return EightBitConfig.of(own) if isinstance(own, Mapping) and own.get("quant_method") == METHOD else None


def config_of(model: Any) -> EightBitConfig:
    """The config of a network whose layers have our forms: what it was read with, else what they are."""
    if isinstance(model.quantization, EightBitConfig):
        return model.quantization
    found = [form for form in forms(model) if form.removesuffix(DYNAMIC) in FORMS]
    return EightBitConfig(found[0] if found else "fp8")


def forms(model: Any) -> list[str]:
    """The forms of the layers of a network, each once: [] for a plain one."""
    each = {module.form for module in modules.leaves(model).values() if isinstance(module, EightBitLinear)}
    return sorted(each)


def written(model: Any) -> dict[str, Later]:
    """The weights in 8 bits as files have them, by their published names."""
    found: dict[str, Later] = {}
    for name, module in modules.leaves(model).items():
        if isinstance(module, EightBitLinear):
            own = name.removesuffix(".base")
            later = getattr(module, "later", None) or {"weight": _as_written(module)}
            found |= {f"{own}.{key}": value for key, value in later.items()}
    return found


def _as_written(module: EightBitLinear) -> Later:
    return Later(module.kind, tuple(int(side) for side in module.weight.shape), lambda: module.weight)


def full_weights(model: Any) -> dict[str, Tensor]:
    """The network's weights as plain numbers, under the names that they have without a form."""
    weights = dict(adapters.published_weights(model))
    for name, module in modules.leaves(model).items():
        if isinstance(module, EightBitLinear):
            own = name.removesuffix(".base")
            del weights[f"{own}.weight_scale"]
            weights[f"{own}.weight"] = module.full()
    return weights


def all_eight(model: Any, names: Iterable[str]) -> bool:
    """Tell if the modules of these names (each with a dot at its end) are all layers of 8 bits."""
    leaves = modules.leaves(model)
    # With an adapter, the layer is inside of what stands in its place.
    each = (leaves.get(name[:-1], leaves.get(f"{name}base")) for name in names)
    return all(isinstance(layer, EightBitLinear) for layer in each)
