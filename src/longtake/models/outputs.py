"""What networks return: dataclasses that also answer as tuples and by key, as the field's libraries do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


class Output:
    """Base of the outputs: `out.sample`, `out["sample"]`, `out[0]` and `tuple(out)` all work."""

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))  # type: ignore[arg-type]
        return tuple(value for value in values if value is not None)

    def __getitem__(self, key: int | slice | str) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_tuple())

    def __len__(self) -> int:
        return len(self.to_tuple())


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
    """Token states (B, L, D); the pooled state (B, D); the states after every layer where asked for."""

    last_hidden_state: Any
    pooler_output: Any = None
    hidden_states: tuple[Any, ...] | None = None
