"""The base of the public networks: config, dtype, device, loading and saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TypeVar

from longtake.backend import nn, runtime
from longtake.config import Config, class_of, read_json
from longtake.errors import ModelError
from longtake.models import adapters
from longtake.weights import files
from longtake.weights.folder import STEMS, model_source, part_of
from longtake.weights.hub import HubOptions, Part

M = TypeVar("M", bound="PretrainedModel")

# Constants that older versions of the libraries stored among the weights, and that are computed here.
COMPUTED = ("position_ids", "rotary_emb.inv_freq")


class PretrainedModel(nn.Module):
    """A network with a config that is loaded from, and saved to, a folder in the published layout."""

    config_class: ClassVar[type[Config]]

    def __init__(self, config: Any = None, **fields: Any) -> None:
        super().__init__()
        self.config: Any = self.config_class.of(config, **fields)

    @property
    def dtype(self) -> Any:
        """The dtype of the parameters."""
        return next(iter(self.parameters())).dtype

    @property
    def device(self) -> Any:
        """Where the parameters are."""
        return next(iter(self.parameters())).device

    @classmethod
    def rename(cls, name: str) -> str:
        """Our name of a weight that a file calls `name`: where libraries spell one network's names in several ways."""
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
        revision: str | None = None,
        cache_dir: Any = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
    ) -> M:
        """The network of a folder with config.json and safetensors, ready for inference, on `device` (the CPU).

        `folder` may be a model's name on the hub, "owner/name", of which config.json and the weights of the `variant`
        are fetched, as the last five say (`HubOptions`).

        The dtype goes by any of the field's three names; None or "auto" is the dtype of the files (float32 where they
        mix several). Files are memory-mapped and checked by their headers before anything is loaded, so there is
        never a second copy of the network. Unlike the reference: a missing or surplus weight is an error.
        Raises ModelError, naming the file and the key, for anything that is not as the config says.
        """
        options = HubOptions(revision, cache_dir, local_files_only, token, force_download)
        source = model_source(folder, options)
        part, stem = subfolder or "", STEMS[cls.config_class.library]
        place = part_of(source.fetch([Part(part, ("config.json",))]), subfolder)
        config = cls.read_config(place / "config.json")  # before gigabytes come of another network than this
        source.fetch([Part(part, stem=stem)], variant)
        weights = files.read_weights(place, stem, variant)
        names = cls._own_names(weights, class_of(read_json(place / "config.json")))
        found = {own: weights[name] for own, name in names.items()}
        with runtime.empty_weights():
            model = cls(config)
        expected = {name: tuple(weight.shape) for name, weight in runtime.named_weights(model).items()}
        files.check_weights(expected, found, place, cls.__name__)
        chosen = _one_dtype(found, torch_dtype, mindspore_dtype, dtype)
        runtime.assign_weights(model, dict(files.read_tensors(found, names, chosen, device)))
        model.eval()
        return model

    def save_pretrained(
        self, folder: Any, max_shard_size: int | str = "10GB", variant: str | None = None
    ) -> None:
        """Write config.json and safetensors as diffusers and transformers read them, each file whole or not at all."""
        place = Path(folder)
        if place.exists() and not place.is_dir():
            raise ModelError(f"{place} is a file; save_pretrained needs a folder.")
        # transformers 5 dropped the prefixes from its own names and still reads them; transformers 4 needs them.
        prefix = self.config_class.file_prefix
        weights = {prefix + name: weight for name, weight in adapters.published_weights(self).items()}
        files.write_weights(place, STEMS[self.config_class.library], weights, max_shard_size, variant)
        config = self.config.published()
        if self.config_class.library == "transformers":
            config["dtype"] = runtime.dtype_name(self.dtype)
        files.write_json(place / "config.json", dict(sorted(config.items())))

    @classmethod
    def read_config(cls, file: Path) -> Any:
        """The config in a file; raises ModelError for one of another network, or with what is not known here."""
        values = read_json(file)
        named, kind = class_of(values), cls.config_class
        known = {cls.__name__, kind.class_name or cls.__name__, *kind.also_in}
        if named is not None and named not in known:
            raise ModelError(f"{file} is the config of {named}, not of {cls.__name__}.")
        return kind.read(file, values)

    @classmethod
    def _own_names(cls, weights: dict[str, files.Weight], named: str | None) -> dict[str, str]:
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


def _one_dtype(weights: dict[str, files.Weight], *asked: Any) -> Any:
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


def is_untouched(network: Any) -> bool:
    """Whether nobody has hooked, patched, compiled or wrapped the network."""
    return True
