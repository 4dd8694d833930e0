"""SigLIP's states of what a section is told to look like: of one picture, the mean of several, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from longtake.pipeline.encode import repeated

KEPT = 8
"""Means that are kept: neighbouring sections share theirs, and what is computed from it once."""


class States:
    """The states (B, N, E) of each set of pictures, given by the latent frames at which they stand.

    `found` are those of each picture, with one row or one for each prompt; `rows` is B. `known` are states that a
    caller gave for all of them. Without any picture they are zeros, as models are trained from text.
    """

    def __init__(
        self,
        found: Mapping[int, Any],
        rows: int,
        known: Any = None,
        blank: Any = None,
        place: Callable[[Any], Any] = lambda states: states,
    ) -> None:
        self._found, self._rows, self._known, self._blank = dict(found), rows, known, blank
        self._place = place
        self._made: dict[tuple[int, ...], Any] = {}

    def placed(self, place: Callable[[Any], Any]) -> States:
        """The same, each set brought by `place` to where it is used."""
        return States(self._found, self._rows, self._known, self._blank, place)

    @property
    def are_known(self) -> bool:
        """Tell if a caller gave the states of everything."""
        return self._known is not None

    def add(self, frame: int, states: Any) -> None:
        """Take the states of one more picture, which was made meanwhile."""
        self._found[frame] = states
        self._made.clear()

    def of(self, frames: Sequence[int], hidden: frozenset[int] = frozenset()) -> Any:
        """The states of these pictures but for the hidden ones: the very same object as long as it is in use."""
        seen = () if self._known is not None else tuple(frame for frame in frames if frame not in hidden)
        if seen not in self._made:
            while len(self._made) >= KEPT:
                del self._made[next(iter(self._made))]
            self._made[seen] = self._place(repeated(self._mean(seen), self._rows))
        return self._made[seen]

    def _mean(self, seen: tuple[int, ...]) -> Any:
        """Unlike the reference: diffusers computes the mean of first and last picture and then drops it."""
        if self._known is not None:
            return self._known
        if not seen:
            # Of any states, so that their number and width need not be known.
            return 0 * (next(iter(self._found.values())) if self._blank is None else self._blank)
        total = self._found[seen[0]]
        for frame in seen[1:]:
            total = total + self._found[frame]
        return total if len(seen) == 1 else total / len(seen)
