"""The base of the public networks: config, dtype, device, loading and saving."""

from __future__ import annotations

import dataclasses
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from longtake.backend import eight, modules, nn, ops, runtime
from longtake.config import Config, class_of, read_json
from longtake.errors import LongtakeWarning, ModelError
from longtake.models import adapters, forms, quantised
from longtake.weights import files, saving, single, unpacked
from longtake.weights.folder import STEMS, model_source, part_of
from longtake.weights.header import Weight
from longtake.weights.hub import HubOptions, Part

M = TypeVar("M", bound="PretrainedModel")

# Constants that older versions of the libraries stored among the weights, and that are computed here.
COMPUTED = ("position_ids", "rotary_emb.inv_freq")


@dataclass(frozen=True)
class Stored:
    """One weight that lies in a file and is not read yet."""

    name: str
    """Its name in the file."""
    weight: Weight
    """Its place in the file, its dtype and its shape, from the file's header."""
    dtype: Any
    """The dtype that the network computes in."""
    device: Any
    """The device for the network; None is the CPU."""

    def read(self, dtype: Any = None, device: Any = None) -> Any:
        """The weight as a tensor, in the network's dtype and on its device if nothing else is asked for."""
        wanted = (
            self.dtype if dtype is None else runtime.dtype(dtype),
            self.device if device is None else device,
        )
        return next(files.read_tensors({self.name: self.weight}, {self.name: self.name}, *wanted))[1]

    def as_stored(self) -> Any:
        """The weight's values in the file's own dtype, on the network's device; mapped if that is the CPU."""
        return next(files.read_tensors({self.name: self.weight}, {self.name: self.name}, None, self.device))[
            1
        ]

    def code(self) -> Any:
        """A weight of 8 bits without its scale, as `eight` has it; mapped if the device is the CPU."""
        rows = self.weight.view.rows if self.weight.view else None
        found = eight.read_code(self.weight.file, self.name, self.device)
        found = found if rows is None else found[rows[0] : rows[1]]
        return found.reshape(self.weight.shape)

    def scale(self) -> Any:
        """The numbers that a weight of 8 bits is multiplied by, as an array: one, or one for each row; None if none."""
        view = self.weight.view
        return None if view is None or view.scale is None else files.read_scale(self.weight)

    def on_device(self, values: Any) -> Any:
        """An array as a tensor of the network: in its dtype, on its device."""
        return runtime.place(ops.from_numpy(values), self.device, self.dtype)


Replace = Callable[[str, Any, Mapping[str, Stored]], Any]
"""(name of a module in the network, the module without memory, its stored weights) -> another module that has read
them in a form of its own (quantised, say) and is called alike; None keeps the module."""


Mapped = Callable[[Mapping[str, Weight]], Collection[str]]
"""(weights by name, as their headers say) -> the names of those that stay mapped from their files."""

Walk = Callable[[Iterable[Any]], Iterable[Any]]
"""A policy around a sequence of blocks: (blocks in their order) -> a callable in the place of each, in the same order.

It is called at each run of the network, and may make each callable when it is asked for: the run goes through them
once and holds on to none. Modules that it gives are compiled if the process compiles; a callable of its own in the
place of a module calls `runtime.compiled(module)`."""


ALL, MODULATIONS, REST = "all", "modulations", "rest"
"""The weights that a pass over blocks may need: all of them, those of their modulations alone, or all others."""


class PretrainedModel(nn.Module):
    """A network with a config that is loaded from, and saved to, a folder in the published layout."""

    config_class: ClassVar[type[Config]]
    walks: tuple[Walk, ...] = ()
    """The policies around its sequence of blocks, the innermost first."""
    block_lists: ClassVar[tuple[str, ...]] = ()
    """The lists of its blocks, in the order in which they run."""
    quantization: Any = None
    """The form (`forms.Form`) that its layers were given while they were read; None if nobody asked for one."""
    apart: frozenset[str] = frozenset()
    """Its weights that lie in main memory as their files have them, in whatever dtype, and are not copied: those of
    blocks, which a walk brings to where they compute, and of tables, whose rows are read where they lie."""
    needed: str = ALL
    """The needs of the present pass over its blocks, for whoever brings their weights."""
    replaced: tuple[str, ...] = ()
    """The modules, each with a dot at its end, that stand in the place of the network's own."""

    def __init__(self, config: Any = None, **fields: Any) -> None:
        super().__init__()
        self.config: Any = self.config_class.of(config, **fields)
        modules.note_place(self)

    @property
    def dtype(self) -> Any:
        """The dtype that the network computes in, whatever form its weights have."""
        return modules.placed(self).dtype

    @property
    def device(self) -> Any:
        """The network's device."""
        return modules.placed(self).device

    def walked(self, blocks: Iterable[Any]) -> Iterable[Any]:
        """The blocks of its sequence, or the callables that its `walks` put in their place."""
        for walk in self.walks:
            blocks = walk(blocks)
        return blocks

    def at_work(self) -> AbstractContextManager[Any]:
        """Inside, its weights are where it runs, if a placement brings them there."""
        for walk in self.walks:
            if hasattr(walk, "at_work"):
                return walk.at_work()
        return nullcontext()

    def brought(self, blocks: Iterable[Any]) -> Iterable[Any]:
        """The blocks with their weights where they compute, and without any other policy."""
        for walk in self.walks:
            blocks = walk(blocks) if getattr(walk, "brings", False) else blocks
        return blocks

    @classmethod
    def rename(cls, name: str) -> str:
        """Our name of a weight that a file calls `name`, since libraries spell one network's names in several ways."""
        return name

    @classmethod
    def from_pretrained(
        cls: type[M],
        folder: Any,
        subfolder: str | None = None,
        torch_dtype: Any = None,
        mindspore_dtype: Any = None,
        dtype: Any = None,
        variant: str | None = None,
        device: Any = None,
        *,
        replace: Replace | None = None,
        mapped: Mapped | None = None,
        revision: str | None = None,
        cache_dir: Any = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
        use_safetensors: bool | None = None,
        low_cpu_mem_usage: bool | None = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        quantization_config: Any = None,
    ) -> M:
        """The network of a folder with config.json and safetensors, ready for inference, on `device` (the CPU).

        `folder` may be a model's name on the hub, "owner/name", of which config.json and the weights of the `variant`
        are fetched, as `revision` to `force_download` say (`HubOptions`); or one file, as `from_single_file` reads it.

        The dtype goes by any of the field's three names; None or "auto" is the dtype of the files (float32 if they mix
        several). Files are memory-mapped and checked by their headers before anything is loaded, so there is
        never a second copy of the network (`low_cpu_mem_usage`, always). `replace` is asked for each module that has
        weights, before any of them is read, and may put another in its place (`Replace`). Linear layers that lie in 8
        bits in the file stay so (`quantised.keeping`). `quantization_config` gives those of the blocks a form
        while they are read (`forms.asked` says which are known). With `mapped` all weights are in main memory, and
        those that it names are not even converted (`apart`): a placement brings them to where the network runs.
        `device_map` may name a device. Unlike the reference: a missing or surplus weight is an error. Raises
        ModelError, naming the file and the key, for anything that is not as the config says, and for keywords that
        ask for what is not done here.
        """
        _check_keywords(use_safetensors, attn_implementation)
        device = runtime.check_device(_one_device(device, device_map))
        form = forms.asked(quantization_config)
        if form is not None:
            form.check(device)
        options = HubOptions(revision, cache_dir, local_files_only, token, force_download)
        asked = (torch_dtype, mindspore_dtype, dtype)
        file = single.find(folder, options)
        if file is not None:
            if subfolder or variant:
                raise ModelError(
                    f"{file} is one file, which has neither subfolder nor variant; leave them out."
                )
            found = single.read_checkpoint(file, cls.config_class)
            chosen = _one_dtype(found.weights, *asked)
            return cls._assembled(found, file, chosen, device, replace, form, mapped=mapped)
        source = model_source(folder, options)
        kind = cls.config_class
        part, stem = subfolder or "", STEMS[kind.library]
        place = part_of(source.fetch([Part(part, ("config.json",))]), subfolder)
        config = cls.read_config(place / "config.json")  # before gigabytes come of another network than this
        values = read_json(place / "config.json")
        own_form = quantised.stored_config(values)
        if form is None and own_form is not None:
            own_form.check(device)
        source.fetch([Part(part, stem=stem)], variant)
        weights = files.read_weights(place, stem, variant)
        names = cls._own_names(weights, class_of(values))
        inside = {own: (name, weights[name]) for own, name in names.items()}
        found = single.Checkpoint(
            config, *single.without_scales(place, inside), class_of(values) in kind.grown
        )
        chosen = _one_dtype(found.weights, *asked)
        return cls._assembled(found, place, chosen, device, replace, form or own_form, own_form, mapped)

    @classmethod
    def from_single_file(
        cls: type[M],
        pretrained_model_link_or_path_or_dict: Any,
        config: Any = None,
        subfolder: str | None = None,
        torch_dtype: Any = None,
        mindspore_dtype: Any = None,
        dtype: Any = None,
        device: Any = None,
        *,
        replace: Replace | None = None,
        mapped: Mapped | None = None,
        revision: str | None = None,
        cache_dir: Any = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
        quantization_config: Any = None,
    ) -> M:
        """The network of one safetensors or GGUF file, here or on the hub ("owner/name/file.safetensors").

        It is recognised by its header, whatever layout its names have (`weights/single.py`), and its config derived
        from the shapes; `config` is one instead, or the folder or repository that has one (in `subfolder`).
        """
        device = runtime.check_device(device)
        form = forms.asked(quantization_config)
        if form is not None:
            form.check(device)
        options = HubOptions(revision, cache_dir, local_files_only, token, force_download)
        name = pretrained_model_link_or_path_or_dict
        file = None if isinstance(name, Mapping) else single.find(name, options)
        if file is None:
            raise ModelError(
                f"There is no file {str(name)[:200]!r}; name a safetensors or GGUF file, one on the hub as "
                "'owner/name/file.safetensors'."
            )
        if isinstance(config, str | Path):
            source = model_source(config, dataclasses.replace(options, revision=None))
            config = cls.read_config(
                part_of(source.fetch([Part(subfolder or "", ("config.json",))]), subfolder) / "config.json"
            )
        elif config is not None:
            config = cls.config_class.of(config)
        found = single.read_checkpoint(file, cls.config_class, config)
        chosen = _one_dtype(found.weights, torch_dtype, mindspore_dtype, dtype)
        return cls._assembled(found, file, chosen, device, replace, form, mapped=mapped)

    @classmethod
    def _assembled(
        cls: type[M],
        found: single.Checkpoint,
        place: Path,
        dtype: Any,
        device: Any,
        replace: Replace | None,
        form: forms.Form | None = None,
        stored_form: quantised.EightBitConfig | None = None,
        mapped: Mapped | None = None,
    ) -> M:
        """The network of weights that lie in files, which are checked before any of them is read.

        Its layers get the form that is asked for; of those that lie in 8 bits already, `stored_form` says how they run.
        """
        with runtime.empty_weights():
            model = cls(found.config)
        expected = {name: tuple(weight.shape) for name, weight in runtime.named_weights(model).items()}
        made = unpacked.made_names(expected) if found.grows else set()
        lying_there = {name: shape for name, shape in expected.items() if name not in made}
        files.check_weights(lying_there, found.weights, place, cls.__name__)
        modules.note_place(model, device, dtype)
        lying = device if mapped is None else None
        stored = {
            own: Stored(found.names[own], weight, dtype, lying) for own, weight in found.weights.items()
        }
        model.quantization = form
        in_turn = [] if replace is None else [replace]
        in_turn += [] if form is None or form is stored_form else [form.making(model)]
        in_turn += [quantised.keeping(stored_form is not None and stored_form.dynamic)]
        model.replaced = _replaced(model, stored, in_turn)
        plain = {own: weight for own, weight in found.weights.items() if not own.startswith(model.replaced)}
        wanted = set() if mapped is None else mapped(plain)
        apart = {own for own, weight in plain.items() if own in wanted and _is_plain(weight)}
        read = {own: weight for own, weight in plain.items() if own not in apart}
        runtime.assign_weights(model, dict(files.read_tensors(read, found.names, dtype, lying)))
        left = {own: plain[own] for own in apart}
        runtime.assign_weights(model, dict(files.read_tensors(left, found.names)))
        if made:
            _grow(model, stored, expected, place)
        model.apart = frozenset(apart)
        model.eval()
        return model

    def save_pretrained(
        self,
        folder: Any,
        max_shard_size: int | str = "10GB",
        variant: str | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write config.json and safetensors as diffusers and transformers read them, each file whole or not at all."""
        place = Path(folder)
        if not safe_serialization:
            raise ModelError("safe_serialization=False asks for a pickle, which can run code; leave it out.")
        if not quantised.all_eight(self, self.replaced):
            raise ModelError(
                f"{type(self).__name__} was read with other modules in the place of its own (the first is "
                f"{self.replaced[0][:-1]!r}), which its config does not describe; save the network they were made of, "
                "or quantise it by longtake's own form, which is saved."
            )
        if place.exists() and not place.is_dir():
            raise ModelError(f"{place} is a file; save_pretrained needs a folder.")
        # transformers 5 dropped the prefixes from its own names and still reads them; transformers 4 needs them.
        prefix = self.config_class.file_prefix
        weights = {**adapters.published_weights(self), **quantised.written(self)}
        weights = {prefix + name: weight for name, weight in weights.items()}
        saving.write_weights(place, STEMS[self.config_class.library], weights, max_shard_size, variant)
        config = self.config.published()
        if self.replaced:
            config["quantization_config"] = quantised.config_of(self).to_dict()
        if self.config_class.library == "transformers":
            config["dtype"] = runtime.dtype_name(self.dtype)
        saving.write_json(place / "config.json", dict(sorted(config.items())))

    @classmethod
    def read_config(cls, file: Path) -> Any:
        """The config in a file; raises ModelError for one of another network, or with what is not known here."""
        values = read_json(file)
        named, kind = class_of(values), cls.config_class
        known = {cls.__name__, kind.class_name or cls.__name__, *kind.also_in, *kind.grown}
        if named is not None and named not in known:
            raise ModelError(f"{file} is the config of {named}, not of {cls.__name__}.")
        return kind.read(file, values)

    @classmethod
    def _own_names(cls, weights: dict[str, Weight], named: str | None) -> dict[str, str]:
        """The names in the files by our names, without other networks' weights and stored constants."""
        foreign = cls.config_class.also_in.get(named or "", ())
        names: dict[str, str] = {}
        for name, weight in weights.items():
            if name.endswith(COMPUTED) or (foreign and name.startswith(foreign)):
                continue
            own = cls.rename(name)
            if own in names:
                raise ModelError(
                    f"{weight.file} has the weight {own!r} twice, as {names[own]!r} and as {name!r}."
                )
            names[own] = name
        return names


_one_change = threading.Lock()
"""Held while a network's walks change: two threads may run one network."""


@contextmanager
def needing(network: PretrainedModel, what: str) -> Iterator[None]:
    """Inside, a pass over the network's blocks needs this of them: ALL, MODULATIONS or REST."""
    before, network.needed = network.needed, what
    try:
        yield
    finally:
        network.needed = before


@contextmanager
def walking(network: PretrainedModel, walk: Walk) -> Iterator[None]:
    """Inside, the network's blocks also go by this policy, which is around those that it has already."""
    with _one_change:
        network.walks = (*network.walks, walk)
    try:
        yield
    finally:
        with _one_change:
            # By identity, and the last one: others may have come and gone meanwhile.
            place = max(number for number, each in enumerate(network.walks) if each is walk)
            network.walks = (*network.walks[:place], *network.walks[place + 1 :])


def is_untouched(network: Any) -> bool:
    """Tell if a network is ours, and nobody has hooked, patched, compiled or wrapped it or a module inside it.

    Such a network may be opened: asked for parts of its work by other methods than its call. Any other is called whole,
    as its namesake would be, so that whatever hangs there takes effect. Costs 1 ms for the published transformer, and
    sees a hook that was added a moment ago.
    """
    kind = type(network)
    if not isinstance(network, PretrainedModel):
        return False
    methods = [name for name, value in vars(network).items() if callable(value) and hasattr(kind, name)]
    calls = [name for name in ("forward", "encode", "decode") if hasattr(kind, name)]
    return (
        all(_owner(kind, name).__module__.startswith("longtake.models.") for name in calls)
        and not any(modules.is_patched(network, name) for name in methods)
        and all(modules.own_call(kind, name) for name in calls[1:])
        and not modules.touched(network)
    )


def _grow(
    model: Any, stored: Mapping[str, Stored], expected: Mapping[str, tuple[int, ...]], place: Path
) -> None:
    """Give a network of plain HunyuanVideo's weights the first values of what only FramePack has, and say so."""
    patch = {kind: stored[f"{unpacked.PATCH}.{kind}"] for kind in ("weight", "bias")}
    arrays = (ops.to_numpy(each.read("float32", "cpu")) for each in patch.values())
    values = unpacked.first_values(expected, *arrays)
    runtime.assign_weights(
        model, {name: patch["weight"].on_device(array.copy()) for name, array in values.items()}
    )
    warnings.warn(
        f"{place} is plain HunyuanVideo, read as a FramePack transformer that is not trained yet: its projections of "
        "clean frames are made of its patch projection, and its picture projection gives zeros; fine-tune it before "
        "videos are made with it.",
        LongtakeWarning,
        stacklevel=4,
    )


def _owner(kind: type, method: str) -> type:
    """The class that a method comes from."""
    return next(each for each in kind.__mro__ if method in vars(each))


def _replaced(model: Any, stored: Mapping[str, Stored], replaces: Sequence[Replace]) -> tuple[str, ...]:
    """Let each in turn, until one has, replace the modules that have weights; their names, each with a dot."""
    done: list[str] = []
    for name, module in modules.leaves(model).items():
        start = f"{name}."
        own = {key.removeprefix(start): value for key, value in stored.items() if key.startswith(start)}
        own = {key: value for key, value in own.items() if "." not in key}
        other = next((new for replace in replaces if (new := replace(name, module, own)) is not None), None)
        if other is not None:
            adapters.put(model, name, other)
            done.append(start)
    return tuple(done)


def _check_keywords(use_safetensors: bool | None, attn_implementation: str | None) -> None:
    """Raise ModelError for what the field's keywords ask for and is not done here."""
    if use_safetensors is False:
        raise ModelError(
            "use_safetensors=False asks for a pickle, which can run code; only safetensors is read."
        )
    if attn_implementation not in (None, "sdpa"):
        raise ModelError(
            f"attn_implementation {attn_implementation!r} is not known here; the framework's own fused attention "
            "('sdpa') is always used: leave it out."
        )


def _is_plain(weight: Weight) -> bool:
    """Tell if a weight's bytes in its file are those of a tensor that converts to any other dtype."""
    return weight.dtype in runtime.DTYPES and weight.file.suffix == ".safetensors"


def _one_device(device: Any, device_map: Any) -> Any:
    """The device that was asked for by either name."""
    if device_map is None:
        return device
    if isinstance(device_map, Mapping) and set(device_map) == {""}:
        device_map = device_map[""]
    spread = device_map in ("auto", "balanced", "balanced_low_0", "sequential")
    if spread or isinstance(device_map, Mapping):
        raise ModelError(
            f"device_map {device_map!r} asks to spread one network over devices; name one device, or load it by "
            "longtake.integrations.diffusers, whose libraries do that."
        )
    if device is not None and str(device) != str(device_map):
        raise ModelError(f"device is {device} and device_map {device_map}; they are one setting here.")
    return device_map


def _one_dtype(weights: dict[str, Weight], *asked: Any) -> Any:
    """The dtype that was asked for, else the files' own."""
    named = {runtime.dtype(value) for value in asked if value is not None and value != "auto"}
    if len(named) > 1:
        raise ModelError(
            "torch_dtype, mindspore_dtype and dtype are one setting; they were given different values."
        )
    if named:
        return named.pop()
    stored = {weight.dtype for weight in weights.values() if weight.dtype in runtime.DTYPES}
    return runtime.dtype(stored.pop() if len(stored) == 1 else "float32")
