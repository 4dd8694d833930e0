"""LoRA on a pipeline: the field's methods over `weights.lora` and `models.adapters`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longtake.compat.keywords import INTEGRATION, only_safetensors
from longtake.errors import JobError, LongtakeWarning, ModelError
from longtake.models import adapters
from longtake.pipeline.loras import free_name
from longtake.weights import saving
from longtake.weights.hub import HubOptions
from longtake.weights.lora import DIFFUSERS_FILE, METADATA, find_file, peft_keys, peft_settings, read_lora

Names = str | Sequence[str]
Weights = float | Mapping[str, float | None] | None


class LoraMixin:
    """Loading, weighing, fusing and removing LoRAs of `self.transformer`; names and defaults are diffusers'.

    Unlike the reference: all that are loaded are active until `set_adapters` says otherwise (there: the last one);
    alpha keys and kohya's names are read; what does not fit is an error or a warning. A saved adapter is one that is
    loaded, by its name (there: tensors that are given).
    """

    transformer: Any

    @property
    def _changed_network(self) -> Any:
        """The transformer; ModelError if the pipeline has none."""
        if self.transformer is None:
            raise ModelError("This pipeline has no transformer, which a LoRA changes; give it one first.")
        return self.transformer

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: Any,
        adapter_name: str | None = None,
        hotswap: bool = False,
        *,
        weight_name: str | None = None,
        subfolder: str | None = None,
        revision: str | None = None,
        cache_dir: Any = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
        prefix: str | None = "transformer",
        use_safetensors: bool | None = None,
        low_cpu_mem_usage: bool | None = None,
    ) -> None:
        """Attach the LoRA of a file, a folder, a name on the hub or a mapping, at full strength.

        `weight_name` and `subfolder` choose one of several files; the five from `revision` on say how the hub is asked.
        The adapter is called after the file, with underscores for dots, if `adapter_name` does not say otherwise.
        `low_cpu_mem_usage` changes nothing: there is never a second copy. Raises ModelError for what cannot be read or
        does not fit (`weights.lora` says what does), JobError for a name that is taken or a keyword that is not done.
        """
        only_safetensors(use_safetensors)
        if hotswap:
            raise JobError(
                "An adapter is not replaced in place; delete_adapters it and load the other, which recompiles nothing "
                f"in eager mode, or use {INTEGRATION}."
            )
        if prefix not in (None, "transformer"):
            raise JobError(
                f"A LoRA changes the transformer alone, so prefix is 'transformer' and not {prefix!r}."
            )
        source, taken = pretrained_model_name_or_path_or_dict, adapters.names(self._changed_network)
        if adapter_name is not None and adapter_name in taken:
            raise JobError(
                f"There is an adapter {adapter_name!r} already; choose another name, or delete_adapters it first."
            )
        if not isinstance(source, Mapping):
            hub = HubOptions(revision, cache_dir, local_files_only, token, force_download)
            source = find_file(source, weight_name, subfolder, hub)
        changes = read_lora(source, adapters.shapes(self._changed_network))
        name = free_name(self._changed_network, source) if adapter_name is None else adapter_name
        adapters.attach(self._changed_network, name, changes)

    def set_adapters(self, adapter_names: Names, adapter_weights: Weights | Sequence[Weights] = None) -> None:
        """Use these adapters and no others, each at its weight: one for all, or one for each (None is 1).

        A weight is a number, or `{"transformer": number}` as pipelines with several networks have it.
        """
        names = self._known(adapter_names)
        self._not_fused(names, "weighed")
        weights = (
            adapter_weights if isinstance(adapter_weights, list | tuple) else [adapter_weights] * len(names)
        )
        if len(weights) != len(names):
            raise JobError(
                f"There are {len(weights)} weights for {len(names)} adapters; give one, or one for each."
            )
        strengths = {name: _weight(weight) for name, weight in zip(names, weights, strict=True)}
        adapters.set_strengths(self._changed_network, strengths)
        adapters.activate(self._changed_network, names)

    def get_active_adapters(self) -> list[str]:
        """The adapters in use."""
        return adapters.active(self._changed_network)

    def get_list_adapters(self) -> dict[str, list[str]]:
        """All adapters, by the part of the pipeline that they change."""
        names = adapters.names(self._changed_network)
        return {"transformer": names} if names else {}

    @property
    def fused_loras(self) -> set[str]:
        """The adapters that are part of the weights."""
        return set(adapters.merged(self._changed_network))

    @property
    def num_fused_loras(self) -> int:
        """The number of adapters that are part of the weights."""
        return len(self.fused_loras)

    def fuse_lora(
        self,
        components: Names = ("transformer",),
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: Names | None = None,
    ) -> None:
        """Make the active adapters, or those named, part of the weights, `lora_scale` times their weight.

        The weights as they were are kept on the CPU for `unfuse_lora`. With `safe_fusing`, weights that would not be
        finite in their dtype are a JobError, and nothing is fused.
        """
        _transformer_alone(components)
        if adapter_names is None:
            names = [name for name in self.get_active_adapters() if name not in self.fused_loras]
            if not names:
                raise JobError("There is nothing to fuse; load a LoRA, or unfuse_lora and fuse again.")
        else:
            names = self._known(adapter_names)
            self._not_fused(names, "fused again")
        adapters.merge(self._changed_network, names, lora_scale, only_finite=safe_fusing)

    def unfuse_lora(self, components: Names = ("transformer",)) -> None:
        """Bring back the weights as they were, bit for bit; the adapters are loaded as before."""
        _transformer_alone(components)
        if not self.fused_loras:
            warnings.warn(
                "No adapter is fused, so there is nothing to unfuse.", LongtakeWarning, stacklevel=2
            )
        adapters.unmerge(self._changed_network)

    def unload_lora_weights(self) -> None:
        """Remove all adapters; the layers are the very same as before them.

        Fused adapters stay in the weights, as in the field: to be rid of them, call `unfuse_lora` first.
        """
        adapters.detach(self._changed_network)

    def delete_adapters(self, adapter_names: Names) -> None:
        """Remove these adapters."""
        names = self._known(adapter_names)
        self._not_fused(names, "deleted")
        adapters.detach(self._changed_network, names)

    def enable_lora(self) -> None:
        """Compute with the active adapters again."""
        adapters.enable(self._changed_network, True)

    def disable_lora(self) -> None:
        """Compute without adapters until `enable_lora`."""
        self._not_fused(self.get_active_adapters(), "disabled")
        adapters.enable(self._changed_network, False)

    def save_lora_weights(
        self, save_directory: Any, adapter_name: str | None = None, weight_name: str | None = None
    ) -> None:
        """Write one adapter as diffusers reads it, with its rank and alpha and without its weight."""
        loaded = adapters.names(self._changed_network)
        if adapter_name is None and len(loaded) != 1:
            raise JobError(
                f"Choose the adapter to save with adapter_name=; there are: {', '.join(loaded) or 'none'}."
            )
        (name,) = self._known(loaded[0] if adapter_name is None else adapter_name)
        changes = adapters.changes_of(self._changed_network, name)
        tensors = peft_keys(adapters.tensors_of(self._changed_network, name))
        metadata = {METADATA: json.dumps(peft_settings(changes), sort_keys=True)}
        saving.write_file(Path(save_directory) / (weight_name or DIFFUSERS_FILE), tensors, metadata)

    def _known(self, names: Names) -> list[str]:
        """The names as a list; JobError for one that is not loaded."""
        asked, loaded = (
            [names] if isinstance(names, str) else list(names),
            adapters.names(self._changed_network),
        )
        for name in asked:
            if name not in loaded:
                raise JobError(f"There is no adapter {name!r}; loaded are: {', '.join(loaded) or 'none'}.")
        return asked

    def _not_fused(self, names: Sequence[str], verb: str) -> None:
        for name in names:
            if name in self.fused_loras:
                raise JobError(f"The adapter {name!r} is fused and cannot be {verb}; call unfuse_lora first.")


def _transformer_alone(components: Names) -> None:
    """Raise JobError if other networks than the transformer are asked for."""
    asked = [components] if isinstance(components, str) else components
    if not isinstance(asked, list | tuple) or list(asked) != ["transformer"]:
        raise JobError(
            f"LoRAs are part of the transformer alone; components is ['transformer'], not {components!r}."
        )


def _weight(weight: Any) -> float:
    """A weight as a number."""
    if isinstance(weight, Mapping):
        if set(weight) - {"transformer"} or isinstance(weight.get("transformer"), Mapping):
            raise JobError(
                f"The weight of an adapter is a number, or {{'transformer': number}}; {dict(weight)} says more than "
                f"that, which {INTEGRATION} does."
            )
        weight = weight.get("transformer")
    if weight is None:
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise JobError(f"The weight of an adapter is a number, not {weight!r}.")
    return float(weight)
