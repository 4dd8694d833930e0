"""Low-rank adapters (LoRA, arXiv 2106.09685) on a network's linear layers and patch embeddings, at run time.

`attach` puts an `Adapted` in the place of each layer that an adapter changes; `detach` puts the very same layer back.
An adapter's strength is a weight of one number, so that to change it neither replaces a module nor recompiles a graph;
adding, removing, switching and merging do, and tell the backend. Everything is kept in the network itself.

Shapes: R rank, I the sides of a weight but the first, O the first.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from longtake.backend import modules, nn, ops, runtime
from longtake.errors import JobError, ModelError
from longtake.weights.lora import LowRank

Tensor = Any
REVISION = "_longtake_adapters"


class Adapter(nn.Module):
    """One adapter's change of one layer: x -> strength · alpha / rank · up · down · x."""

    def __init__(self, label: str, order: int, change: LowRank, strength: float, like: Tensor) -> None:
        super().__init__()
        # Copies: parts of a fused projection share one array.
        self.down = nn.Parameter(ops.from_numpy(change.down.copy(), like))
        self.up = nn.Parameter(ops.from_numpy(change.up.copy(), like))
        self.scale = nn.Parameter(ops.from_numpy(np.full(1, strength * change.ratio, np.float32), like))
        self.label, self.order, self.alpha, self.ratio = label, order, change.alpha, change.ratio
        self.strength, self.factor = strength, 1.0
        self.active, self.merged, self.running = True, False, True

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) -> (…, O)."""
        down: Tensor = self.down
        up: Tensor = self.up
        scale: Tensor = self.scale
        if runtime.dtype_name(down.dtype) == "float32":
            # What learns is wider than the network: its few numbers go over, not activations that a gradient keeps.
            down, up, scale = (each.to(x.dtype) for each in (down, up, scale))
        low = ops.linear(x.to(down.dtype), down)
        return ops.linear(low, up) * scale

    def set_strength(self, strength: float, factor: float) -> bool:
        """Write strength · factor into the weight that the network computes with; True if that changed it."""
        if (strength, factor) == (self.strength, self.factor):
            return False
        runtime.write(self.scale, np.full(1, strength * factor * self.ratio, np.float32))
        self.strength, self.factor = strength, factor
        return True

    def delta(self) -> Tensor:
        """The adapter's change of the layer's weight (O, I) at its strength, in float32."""
        product = ops.linear(self.up.float(), self.down.float().permute(1, 0))
        return product * (self.strength * self.factor * self.ratio)


class Adapted(nn.Module):
    """A linear layer with adapters, whose results are added to its own."""

    def __init__(self, base: Any, enabled: bool) -> None:
        super().__init__()
        self.base = base
        self.adapters = nn.ModuleList([])
        self.enabled = enabled
        self.kept = Kept()

    @property
    def weight(self) -> Tensor:
        """The layer's own weight."""
        return self.base.weight

    @property
    def bias(self) -> Tensor:
        """The layer's own bias."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """The layer's input -> its output, with what the running adapters add."""
        y = self.base(x)
        for adapter in self.adapters:
            if adapter.running:
                y = y + self.change(adapter, x).to(y.dtype)
        return y

    def change(self, adapter: Any, x: Tensor) -> Tensor:
        """The output of one adapter, which is added to the layer's."""
        return adapter(x)

    def refresh(self) -> None:
        """Say for each adapter whether it runs."""
        parts: Any = self.adapters
        for adapter in parts:
            adapter.running = self.enabled and adapter.active and not adapter.merged


class AdaptedConv3d(Adapted):
    """A convolution whose stride is its kernel, as in patch embeddings: a linear layer over patches."""

    def __init__(self, base: Any, enabled: bool) -> None:
        super().__init__(base, enabled)
        self.kernel = tuple(int(side) for side in base.weight.shape[2:])

    def change(self, adapter: Any, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, O, T, H, W), the latter in patches."""
        kt, kh, kw = self.kernel
        b, c, t, h, w = x.shape
        grid = (t // kt, h // kh, w // kw)
        x = x.reshape(b, c, grid[0], kt, grid[1], kh, grid[2], kw).permute(0, 2, 4, 6, 1, 3, 5, 7)
        return adapter(x.reshape(b, *grid, c * kt * kh * kw)).permute(0, 4, 1, 2, 3)


class Kept:
    """The weight of a layer as it was before adapters were merged into it; no weight of the network."""

    def __init__(self) -> None:
        self.weight: Tensor = None


# Attaching ----------------------------------------------------------------------------------------------------------


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights that adapters can change, by module: matrices and kernels over time and space."""
    weights = published_weights(model)
    sides = {name: tuple(int(side) for side in weight.shape) for name, weight in weights.items()}
    ends = {name: shape for name, shape in sides.items() if name.endswith(".weight") and len(shape) in (2, 5)}
    found = {name.removesuffix(".weight"): shape for name, shape in ends.items()}
    if not getattr(model, "replaced", ()):
        return found
    # A quantised weight may lie packed, in another shape than the layer's own.
    layers = {name: _module(model, name) for name in found}
    bases = {name: layer.base if isinstance(layer, Adapted) else layer for name, layer in layers.items()}
    return {
        name: (int(bases[name].out_features), int(bases[name].in_features))
        if len(shape) == 2 and hasattr(bases[name], "out_features")
        else shape
        for name, shape in found.items()
    }


def attach(
    model: Any, name: str, changes: Mapping[str, LowRank], strength: float = 1.0, dtype: str | None = None
) -> None:
    """Add an adapter to the modules that `changes` names, in each layer's own dtype and place.

    With a `dtype` it has that one, and lies where the network runs: what learns is wider than what stays.
    Raises JobError if the name is taken, ModelError for a module that the network does not have.
    """
    if name in names(model):
        raise JobError(f"There is an adapter {name!r} already; choose another name or delete it first.")
    known = shapes(model)
    for module, change in changes.items():
        shape = (change.up.shape[0], change.down.shape[1])
        if module not in known or shape != (known[module][0], math.prod(known[module][1:])):
            found = (
                f"which has {list(known[module])} there" if module in known else "which has no such module"
            )
            raise ModelError(
                f"The adapter {name!r} changes {module!r} by {list(shape)} in a network {found}."
            )
    layers = adapted(model)
    on = enabled(model)
    order = max((part.order for layer in layers.values() for part in layer.adapters), default=-1) + 1
    for module, change in changes.items():
        layer = layers.get(module) or _wrap(model, module, known[module], on)
        like = layer.weight if _is_plain(layer.weight) else modules.placed(model)
        if dtype is not None:
            like = runtime.place(modules.placed(model), dtype=dtype)
        layer.adapters = nn.ModuleList([*layer.adapters, Adapter(name, order, change, strength, like)])
        layer.refresh()
    note_change(model, True)


def detach(model: Any, unwanted: Collection[str] | None = None) -> None:
    """Remove adapters (None: all); layers without one are the very same modules as before.

    Weights into which adapters were merged stay as they are; without the adapters nothing takes that back.
    """
    for module, layer in adapted(model).items():
        left = [each for each in layer.adapters if unwanted is not None and each.label not in unwanted]
        if left:
            layer.adapters = nn.ModuleList(left)
        else:
            put(model, module, layer.base)
    note_change(model, True)


def adapted(model: Any) -> dict[str, Any]:
    """The layers that have adapters, by the name of the module."""
    found = (
        name.removesuffix(".base.weight")
        for name in runtime.named_weights(model)
        if name.endswith(".base.weight")
    )
    layers = {name: _module(model, name) for name in found}
    return {name: layer for name, layer in layers.items() if isinstance(layer, Adapted)}


def revision(model: Any) -> int:
    """A number that grows with every change of the adapters (but not by `scaled`), for those who keep results."""
    return int(getattr(model, REVISION, 0))


def names(model: Any) -> list[str]:
    """The adapters in the order in which they were attached."""
    return list(_each(model))


def active(model: Any) -> list[str]:
    """The adapters that are switched on, at whatever strength."""
    return [name for name, parts in _each(model).items() if any(part.active for part in parts)]


def merged(model: Any) -> list[str]:
    """The adapters that are part of the weights."""
    return [name for name, parts in _each(model).items() if any(part.merged for part in parts)]


def changes_of(model: Any, name: str) -> dict[str, LowRank]:
    """An adapter as it was read, in the layers' dtype and without its strength: what it changes, by module."""
    parts = _parts_of(model, name)
    return {
        module: LowRank(ops.to_numpy(part.down), ops.to_numpy(part.up), part.alpha)
        for module, part in parts.items()
    }


def tensors_of(model: Any, name: str) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter's (down, up) as files have them, by module: of convolutions, a kernel and one of 1 x 1 x 1."""
    found = {}
    sides = shapes(model)
    for module, part in _parts_of(model, name).items():
        kernel = sides[module][1:]
        rank, out = int(part.down.shape[0]), int(part.up.shape[0])
        found[module] = (
            part.down.reshape(rank, *kernel),
            part.up.reshape(out, rank, *[1] * (len(kernel) - 1)),
        )
    return found


def weights_of(model: Any, name: str) -> dict[str, Any]:
    """The weights of an adapter that can learn, by module and part: `MODULE.down` and `MODULE.up`."""
    return {
        f"{module}.{which}": getattr(part, which)
        for module, part in _parts_of(model, name).items()
        for which in ("down", "up")
    }


def published_weights(model: Any) -> dict[str, Tensor]:
    """The network's own weights under their published names, without its adapters' (merged ones are in them)."""
    weights = runtime.named_weights(model)
    wrapped = {name.removesuffix("base.weight") for name in weights if name.endswith(".base.weight")}
    wrapped = {prefix for prefix in wrapped if isinstance(_module(model, prefix[:-1]), Adapted)}
    own = {}
    for name, weight in weights.items():
        prefix = next((prefix for prefix in wrapped if name.startswith(prefix)), "")
        rest = name[len(prefix) :]
        if not prefix or rest.startswith("base."):
            own[prefix + (rest.removeprefix("base.") if prefix else rest)] = weight
    return own


# Using --------------------------------------------------------------------------------------------------------------


def activate(model: Any, wanted: Collection[str]) -> None:
    """Switch these adapters on and all others off."""
    changed = False
    for layer in adapted(model).values():
        for part in layer.adapters:
            changed = changed or part.active != (part.label in wanted)
            part.active = part.label in wanted
        layer.refresh()
    if changed:
        note_change(model, True)


def enable(model: Any, on: bool) -> None:
    """Let the network compute with, or without, what is switched on."""
    for layer in adapted(model).values():
        layer.enabled = on
        layer.refresh()
    note_change(model, True)


def enabled(model: Any) -> bool:
    """Tell if the network computes with its adapters."""
    return all(layer.enabled for layer in adapted(model).values())


def set_strengths(model: Any, strengths: Mapping[str, float]) -> None:
    """Set how much of each adapter is added (1 is all of it); nothing is recompiled."""
    parts = [part for layer in adapted(model).values() for part in layer.adapters if part.label in strengths]
    changed = [part.set_strength(float(strengths[part.label]), part.factor) for part in parts]
    if any(changed):
        note_change(model, False)


@contextmanager
def scaled(model: Any, attention_kwargs: Mapping[str, Any] | None) -> Iterator[None]:
    """Inside, all adapters that are not merged are added `attention_kwargs["scale"]` times as much, if given."""
    factor = (attention_kwargs or {}).get("scale", 1.0)
    if not isinstance(factor, (int, float)):
        raise JobError(f"The scale in attention_kwargs is a number, not {factor!r}.")
    if factor == 1.0:
        yield
        return
    parts = [(part, part.factor) for each in _each(model).values() for part in each]
    try:
        for part, _ in parts:
            part.set_strength(part.strength, factor)
        yield
    finally:
        for part, before in parts:
            part.set_strength(part.strength, before)


def merge(
    model: Any, wanted: Collection[str] | None = None, factor: float = 1.0, only_finite: bool = False
) -> None:
    """Make adapters (None: those switched on) part of the weights: W + strength · alpha / rank · up · down.

    The sum is taken in float32 and rounded once. The weights as they were stay on the CPU for `unmerge`: as much memory
    as the changed layers take, or none if they are mapped from a file. With `only_finite` all sums are made once
    before, and a JobError leaves everything as it was if one is not finite in the weights' dtype.
    """
    layers = {name: (layer, _unmerged(layer, wanted)) for name, layer in adapted(model).items()}
    layers = {name: (layer, parts) for name, (layer, parts) in layers.items() if parts}
    with runtime.no_grad():
        for name, (layer, parts) in layers.items():
            if not _is_plain(layer.base.weight):
                raise JobError(
                    f"Adapters cannot be merged into weights of {_told(layer.base.weight)}, whose steps are wider than "
                    "much of what they change; use them at run time, without merging."
                )
            if only_finite and not _is_finite(_sum(layer, parts, factor)):
                dtype = runtime.dtype_name(layer.base.weight.dtype)
                raise JobError(
                    f"With these adapters the weights of {name!r} are not finite in {dtype}; nothing was merged: "
                    "take a smaller scale, or bfloat16."
                )
        for layer, parts in layers.values():
            weight = layer.base.weight
            if layer.kept.weight is None:
                layer.kept.weight = runtime.place(_plain(weight), "cpu")
            total = _sum(layer, parts, factor)
            for part in parts:
                part.merged = True
            layer.refresh()
            # Layer by layer, so that no second copy of the network stands beside the first.
            runtime.assign_weights(layer, {"base.weight": total})
    note_change(model, True)


def _unmerged(layer: Any, wanted: Collection[str] | None) -> list[Any]:
    """The adapters of a layer that are to be merged and are not yet."""
    return [part for part in layer.adapters if not part.merged and _wanted(part, layer, wanted)]


def _sum(layer: Any, parts: list[Any], factor: float) -> Tensor:
    """A layer's weight and what these adapters change of it, in the weight's dtype."""
    weight = layer.base.weight
    total = weight.float()
    for part in parts:
        total = total + part.delta().reshape(*weight.shape) * factor
    return total.to(weight.dtype)


def _is_finite(values: Tensor) -> bool:
    return math.isfinite(float(ops.to_numpy(values.float().sum())))


def unmerge(model: Any) -> None:
    """Bring back the weights as they were before `merge`, bit for bit; the adapters are attached again."""
    for layer in adapted(model).values():
        if layer.kept.weight is not None:
            weight = layer.base.weight
            before = runtime.place(layer.kept.weight, weight.device, weight.dtype)
            runtime.assign_weights(layer, {"base.weight": before})
            layer.kept.weight = None
        for part in layer.adapters:
            part.merged = False
        layer.refresh()
    note_change(model, True)


def _wanted(part: Any, layer: Any, wanted: Collection[str] | None) -> bool:
    return (part.active and layer.enabled) if wanted is None else part.label in wanted


def _is_plain(weight: Tensor) -> bool:
    """Tell if a weight holds the numbers that the layer computes with, and not a quantised form of them."""
    # torchao's tensors say the dtype that they stand for.
    own = type(weight).__module__.partition(".")[0] != "torchao"
    return own and runtime.dtype_name(weight.dtype) in runtime.DTYPES


def _told(weight: Tensor) -> str:
    name = runtime.dtype_name(weight.dtype)
    return f"torchao's {type(weight).__name__}" if name in runtime.DTYPES else name


def _plain(weight: Tensor) -> Tensor:
    """The values of a weight, apart from the object that the network holds."""
    return weight.detach() if hasattr(weight, "detach") else weight


# Inside -------------------------------------------------------------------------------------------------------------


def _each(model: Any) -> dict[str, list[Any]]:
    """The parts of each adapter, by the adapter's name, in the order in which they were attached."""
    parts = [part for layer in adapted(model).values() for part in layer.adapters]
    found: dict[str, list[Any]] = {}
    for part in sorted(parts, key=lambda part: part.order):
        found.setdefault(part.label, []).append(part)
    return found


def _parts_of(model: Any, name: str) -> dict[str, Any]:
    """The parts of one adapter, by module."""
    layers = adapted(model)
    return {module: part for module, layer in layers.items() for part in layer.adapters if part.label == name}


def note_change(model: Any, structure: bool = True) -> None:
    """Let those who keep results of the network know that they are old; `structure`: modules were replaced."""
    setattr(model, REVISION, revision(model) + 1)
    if structure:
        runtime.structure_changed(model)


def _wrap(model: Any, module: str, shape: tuple[int, ...], enabled: bool) -> Any:
    layer = (Adapted if len(shape) == 2 else AdaptedConv3d)(_module(model, module), enabled)
    put(model, module, layer.eval())
    return layer


def put(model: Any, module: str, new: Any) -> None:
    """Put another module in the place of the one of that name."""
    parent, _, last = module.rpartition(".")
    holder = _module(model, parent)
    if last.isdigit():
        holder[int(last)] = new
    else:
        setattr(holder, last, new)


def _module(model: Any, name: str) -> Any:
    for part in filter(None, name.split(".")):
        model = model[int(part)] if part.isdigit() else getattr(model, part)
    return model
