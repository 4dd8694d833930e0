"""The outputs of networks: dataclasses that also answer by place and by name, as those of the field's libraries do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


class Output:
    """Base of the outputs: read by attribute, by place (`out[0]`) and as a mapping of the fields that are not None.

    As with the field's, iterating gives the names; `to_tuple` gives the values.
    """

    def keys(self) -> list[str]:
        """The names of the fields that are not None, in order."""
        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        return [name for name in names if getattr(self, name) is not None]

    def values(self) -> list[Any]:
        """Their values."""
        return [getattr(self, name) for name in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        """Names and values."""
        return [(name, getattr(self, name)) for name in self.keys()]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a field, or `default` if there is none."""
        return getattr(self, name) if name in self else default

    def to_tuple(self) -> tuple[Any, ...]:
        """The values as a tuple."""
        return tuple(self.values())

    def __getitem__(self, key: int | slice | str) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in self:
            raise KeyError(key)
        return getattr(self, key)

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())


@dataclass
class Sample(Output):
    """One tensor: a velocity (B, C, T, H, W) or decoded frames (B, 3, T, H, W)."""

    sample: Any


@dataclass
class Encoded(Output):
    """The posterior of the autoencoder."""

    latent_dist: Any


@dataclass
class TextStates(Output):
    """Token states (B, L, D); the pooled state (B, D); the states after every layer if they were asked for."""

    last_hidden_state: Any
    pooler_output: Any = None
    hidden_states: tuple[Any, ...] | None = None
