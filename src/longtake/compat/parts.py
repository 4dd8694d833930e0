"""The parts of a pipeline: given, loaded, shared, moved and saved by the field's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from longtake.backend import exchange, runtime
from longtake.compat.keywords import one_device, only_safetensors
from longtake.compat.schedulers import scheduler_of
from longtake.errors import ModelError
from longtake.named import named as short_name
from longtake.pipeline.loading import load_networks
from longtake.pipeline.networks import (
    COMPONENTS,
    NETWORKS,
    SETTINGS,
    Networks,
    carried_settings,
    save_networks,
)
from longtake.pipeline.placed import placement_of
from longtake.pipeline.placement import Resident

P = TypeVar("P", bound="Parts")


class Given:
    """The default of a part's argument: it is not given, which is other than to be given None."""

    def __repr__(self) -> str:
        return "<the model's own>"


OWN = Given()


class Parts:
    """A pipeline's parts as attributes; None is a part that it does not have."""

    codebook: Any = None
    """The codebook of a discrete history: no part of the field's, but saved with them."""

    def __init__(
        self,
        text_encoder: Any = None,
        tokenizer: Any = None,
        transformer: Any = None,
        vae: Any = None,
        scheduler: Any = None,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """`settings`: what a model's folder says of itself (`Networks.settings`); else what the transformer carries."""
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.transformer = transformer
        self.vae = vae
        # A scheduler is data inside, and an object for whoever swaps it or looks at its steps.
        self.scheduler = scheduler_of(scheduler)
        self.text_encoder_2 = text_encoder_2
        self.tokenizer_2 = tokenizer_2
        self.image_encoder = image_encoder
        self.feature_extractor = feature_extractor
        self.settings = carried_settings(transformer) if settings is None else dict(settings)
        if self.settings and transformer is not None and not carried_settings(transformer):
            # A pipeline made of the same parts finds them there: `**pipe.components` has no other place for them.
            setattr(transformer, SETTINGS, dict(self.settings))

    @classmethod
    def from_pretrained(
        cls: type[P],
        folder: Any,
        torch_dtype: Any = None,
        mindspore_dtype: Any = None,
        dtype: Any = None,
        variant: str | None = None,
        device: Any = None,
        *,
        text_encoder: Any = OWN,
        tokenizer: Any = OWN,
        transformer: Any = OWN,
        vae: Any = OWN,
        scheduler: Any = OWN,
        text_encoder_2: Any = OWN,
        tokenizer_2: Any = OWN,
        image_encoder: Any = OWN,
        feature_extractor: Any = OWN,
        subfolder: str | None = None,
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
    ) -> P:
        """Read a model's folder, or fetch one of the hub, also by a short name ("framepack"); given parts are not.

        A part that is given as None is left out. The dtype goes by any of the field's names, is one for all networks or
        a mapping by part with `default`, and is float32 if none is named (of a model with a short name bfloat16).
        `device_map` may name one device, as `device` does. `low_cpu_mem_usage` and `attn_implementation` change
        nothing: there is never a second copy of a weight, and the framework chooses the kernel.
        `quantization_config` is diffusers' PipelineQuantizationConfig, one config by part, or one for the transformer
        (`models.forms` says which are known).

        Raises ModelError for what cannot be read, and for a keyword that is not done here.
        """
        only_safetensors(use_safetensors)
        named = {
            "text_encoder": text_encoder,
            "tokenizer": tokenizer,
            "transformer": transformer,
            "vae": vae,
            "scheduler": scheduler,
            "text_encoder_2": text_encoder_2,
            "tokenizer_2": tokenizer_2,
            "image_encoder": image_encoder,
            "feature_extractor": feature_extractor,
        }
        networks = load_networks(
            folder,
            one_dtype(torch_dtype, mindspore_dtype, dtype)
            or ("float32" if short_name(folder) is None else "auto"),
            one_device(device, device_map),
            {name: part for name, part in named.items() if part is not OWN},
            variant,
            quantize=quantization_config,
            subfolder=subfolder,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            force_download=force_download,
            placed=False,
        )
        made = cls(**networks.components, settings=networks.settings)
        made.codebook = networks.codebook
        return made

    @classmethod
    def from_pipe(
        cls: type[P], pipeline: Any, torch_dtype: Any = None, dtype: Any = None, **changes: Any
    ) -> P:
        """Another pipeline over the very same parts, those in `changes` apart; `pipeline` may be one of diffusers.

        Unlike the reference: without a dtype nothing becomes float32 on the way, since the parts are the first
        pipeline's too. With one, both have it then. Raises ModelError for a part that does not exist.
        """
        unknown = sorted(set(changes) - {*COMPONENTS, "settings"})
        if unknown:
            raise ModelError(
                f"from_pipe takes no {unknown[0]!r}; a pipeline's parts are {', '.join(COMPONENTS)} (and settings)."
            )
        parts = {name: pipeline.components.get(name) for name in COMPONENTS} | changes
        if "settings" not in parts and not carried_settings(changes.get("transformer")):
            parts["settings"] = getattr(pipeline, "settings", None)
        made = cls(**parts)
        made.codebook = getattr(pipeline, "codebook", None)
        wanted = one_dtype(torch_dtype, dtype)
        return made if wanted is None else made.to(dtype=wanted)

    def save_pretrained(
        self,
        folder: Any,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
    ) -> None:
        """Write a folder that this class and diffusers read; parts that are not there stand in it as null.

        Raises ModelError for pickles (`safe_serialization=False`) and for `push_to_hub`.
        """
        only_safetensors(safe_serialization)
        if push_to_hub:
            raise ModelError(
                "Nothing is written to the hub; upload the folder, with huggingface_hub's upload_folder."
            )
        save_networks(self.networks, folder, type(self).__name__, max_shard_size or "10GB", variant)

    @property
    def networks(self) -> Networks:
        """The parts as the loop takes them."""
        parts = {name: getattr(self, name) for name in COMPONENTS}
        placement = placement_of(parts) or Resident()
        return Networks(**parts, settings=self.settings, placement=placement, codebook=self.codebook)

    @property
    def components(self) -> dict[str, Any]:
        """The parts by name, to build another pipeline of the same: `type(pipe)(**pipe.components)`.

        `settings` is among them only if the transformer carries others.
        """
        settings = {} if self.settings == carried_settings(self.transformer) else {"settings": self.settings}
        return {
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
            "transformer": self.transformer,
            "vae": self.vae,
            "scheduler": self.scheduler,
            "text_encoder_2": self.text_encoder_2,
            "tokenizer_2": self.tokenizer_2,
            "image_encoder": self.image_encoder,
            "feature_extractor": self.feature_extractor,
            **settings,
        }

    def to(
        self: P, *args: Any, device: Any = None, dtype: Any = None, silence_dtype_warnings: bool = False
    ) -> P:
        """Move all networks: a device, a dtype (the framework's own or its name), or both. A device ends a placement.

        `silence_dtype_warnings` changes nothing: there are none.
        """
        for value in args:
            if "float" in str(value).lower():
                dtype = value  # also another framework's, which is refused below
            elif value is not None:
                device = value
        wanted = None if dtype is None else runtime.dtype(dtype)
        placed = placement_of(self.components)
        if placed is not None and device is not None:
            placed.release()
        for network in self._present():
            exchange.move(network, device, wanted)
        return self

    @property
    def device(self) -> Any:
        """The place of the transformer, or of the first network that there is."""
        return self._first().device

    @property
    def dtype(self) -> Any:
        """The dtype of the transformer, or of the first network that there is."""
        return self._first().dtype

    @property
    def vae_scale_factor_temporal(self) -> int:
        """Frames to one latent frame."""
        return int(getattr(self.vae, "temporal_compression_ratio", 4))

    @property
    def vae_scale_factor_spatial(self) -> int:
        """Pixels to one latent pixel, on each axis."""
        return int(getattr(self.vae, "spatial_compression_ratio", 8))

    def enable_vae_tiling(self) -> None:
        """Encode and decode in tiles of space: less memory, slightly other pixels."""
        self.networks.part("vae").enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Whole frames again."""
        self.networks.part("vae").disable_tiling()

    def enable_vae_slicing(self) -> None:
        """Encode and decode one video of a batch at a time: less memory, the same pixels."""
        self.networks.part("vae").enable_slicing()

    def disable_vae_slicing(self) -> None:
        """The whole batch at once again."""
        self.networks.part("vae").disable_slicing()

    def _present(self) -> list[Any]:
        """The networks that there are, the transformer first."""
        names = sorted(NETWORKS, key=lambda name: name != "transformer")
        return [network for network in (getattr(self, name) for name in names) if network is not None]

    def _first(self) -> Any:
        present = self._present()
        if not present:
            raise ModelError("This pipeline has no network, so it has neither a device nor a dtype.")
        return present[0]


def one_dtype(*asked: Any) -> Any:
    """The one dtype that is asked for by several names; ModelError if they differ."""
    given = [value for value in asked if value is not None]
    if any(value != given[0] for value in given):
        raise ModelError(
            "torch_dtype, mindspore_dtype and dtype are one setting; they were given different values."
        )
    return given[0] if given else None
