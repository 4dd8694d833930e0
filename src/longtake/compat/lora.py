"""LoRA on a pipeline: the field's methods, and the LoRAs of a job, over `weights.lora` and `models.adapters`."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longtake.errors import JobError, LongtakeWarning
from longtake.models import adapters
from longtake.pipeline.loras import free_name
from longtake.weights import saving
from longtake.weights.hub import HubOptions
from longtake.weights.lora import DIFFUSERS_FILE, METADATA, LowRank, find_file, read_lora

Names = str | Sequence[str]


class LoraMixin:
    """Loading, weighing, fusing and removing LoRAs of `self.transformer`; names and defaults are diffusers'.

    Unlike the reference: all that are loaded are active until `set_adapters` says otherwise (there: the last one);
    alpha keys and kohya's names are read; what does not fit is an error or a warning.
    """

    transformer: Any

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: Any,
        adapter_name: str | None = None,
        *,
        weight_name: str | None = None,
        subfolder: str | None = None,
        revision: str | None = None,
        cache_dir: Any = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
    ) -> None:
        """Attach the LoRA of a file, a folder, a name on the hub or a mapping, at full strength.

        `weight_name` and `subfolder` choose one of several files; the rest says how the hub is asked. The adapter is
        called after the file, with underscores for dots, if `adapter_name` does not say otherwise. Raises ModelError
        for what cannot be read or does not fit (`weights.lora` says what does), JobError for a name that is taken.
        """
        source = pretrained_model_name_or_path_or_dict
        if adapter_name is not None and adapter_name in adapters.names(self.transformer):
            raise JobError(
                f"There is an adapter {adapter_name!r} already; choose another name, or delete_adapters it first."
            )
        if not isinstance(source, Mapping):
            hub = HubOptions(revision, cache_dir, local_files_only, token, force_download)
            source = find_file(source, weight_name, subfolder, hub)
        changes = read_lora(source, adapters.shapes(self.transformer))
        name = free_name(self.transformer, source) if adapter_name is None else adapter_name
        adapters.attach(self.transformer, name, changes)

    def set_adapters(
        self, adapter_names: Names, adapter_weights: float | Sequence[float] | None = None
    ) -> None:
        """Use these adapters and no others, each at its weight: one number for all, or one for each (1 by default)."""
        names = self._known(adapter_names)
        self._not_fused(names, "weighed")
        if adapter_weights is None or isinstance(adapter_weights, (int, float)):
            adapter_weights = [1.0 if adapter_weights is None else adapter_weights] * len(names)
        if len(adapter_weights) != len(names):
            raise JobError(
                f"There are {len(adapter_weights)} weights for {len(names)} adapters; give one, or one for each."
            )
        for weight in adapter_weights:
            if not isinstance(weight, (int, float)):
                raise JobError(f"The weight of an adapter is a number, not {weight!r}.")
        adapters.set_strengths(self.transformer, dict(zip(names, adapter_weights, strict=True)))
        adapters.activate(self.transformer, names)

    def get_active_adapters(self) -> list[str]:
        """The adapters in use."""
        return adapters.active(self.transformer)

    def get_list_adapters(self) -> dict[str, list[str]]:
        """All adapters, by the part of the pipeline that they change."""
        names = adapters.names(self.transformer)
        return {"transformer": names} if names else {}

    @property
    def fused_loras(self) -> set[str]:
        """The adapters that are part of the weights."""
        return set(adapters.merged(self.transformer))

    @property
    def num_fused_loras(self) -> int:
        """How many there are."""
        return len(self.fused_loras)

    def fuse_lora(self, lora_scale: float = 1.0, adapter_names: Names | None = None) -> None:
        """Make the active adapters, or those named, part of the weights, `lora_scale` times their weight.

        The weights as they were are kept on the CPU for `unfuse_lora`.
        """
        if adapter_names is None:
            names = [name for name in self.get_active_adapters() if name not in self.fused_loras]
            if not names:
                raise JobError("There is nothing to fuse; load a LoRA, or unfuse_lora and fuse again.")
        else:
            names = self._known(adapter_names)
            self._not_fused(names, "fused again")
        adapters.merge(self.transformer, names, lora_scale)

    def unfuse_lora(self) -> None:
        """Bring back the weights as they were, bit for bit; the adapters are loaded as before."""
        if not self.fused_loras:
            warnings.warn(
                "No adapter is fused, so there is nothing to unfuse.", LongtakeWarning, stacklevel=2
            )
        adapters.unmerge(self.transformer)

    def unload_lora_weights(self) -> None:
        """Remove all adapters; the layers are the very same as before them.

        What was fused stays, as in the field: to be rid of it, `unfuse_lora` first.
        """
        adapters.detach(self.transformer)

    def delete_adapters(self, adapter_names: Names) -> None:
        """Remove these adapters."""
        names = self._known(adapter_names)
        self._not_fused(names, "deleted")
        adapters.detach(self.transformer, names)

    def enable_lora(self) -> None:
        """Compute with the active adapters again."""
        adapters.enable(self.transformer, True)

    def disable_lora(self) -> None:
        """Compute without adapters until `enable_lora`."""
        self._not_fused(self.get_active_adapters(), "disabled")
        adapters.enable(self.transformer, False)

    def save_lora_weights(
        self, save_directory: Any, adapter_name: str | None = None, weight_name: str | None = None
    ) -> None:
        """Write one adapter as diffusers reads it, with its rank and alpha and without its weight."""
        loaded = adapters.names(self.transformer)
        if adapter_name is None and len(loaded) != 1:
            raise JobError(
                f"Choose the adapter to save with adapter_name=; there are: {', '.join(loaded) or 'none'}."
            )
        (name,) = self._known(loaded[0] if adapter_name is None else adapter_name)
        changes = adapters.changes_of(self.transformer, name)
        tensors = {}
        for module, (down, up) in adapters.tensors_of(self.transformer, name).items():
            tensors[f"transformer.{module}.lora_A.weight"] = down
            tensors[f"transformer.{module}.lora_B.weight"] = up
        metadata = {METADATA: json.dumps(_settings(changes), sort_keys=True)}
        saving.write_file(Path(save_directory) / (weight_name or DIFFUSERS_FILE), tensors, metadata)

    def _known(self, names: Names) -> list[str]:
        """The names as a list; JobError for one that is not loaded."""
        asked, loaded = [names] if isinstance(names, str) else list(names), adapters.names(self.transformer)
        for name in asked:
            if name not in loaded:
                raise JobError(f"There is no adapter {name!r}; loaded are: {', '.join(loaded) or 'none'}.")
        return asked

    def _not_fused(self, names: Sequence[str], verb: str) -> None:
        for name in names:
            if name in self.fused_loras:
                raise JobError(f"The adapter {name!r} is fused and cannot be {verb}; call unfuse_lora first.")


def _settings(changes: Mapping[str, LowRank]) -> dict[str, Any]:
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
