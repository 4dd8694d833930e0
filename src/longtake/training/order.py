"""Order in which sections are learnt from: by laps, in batches of equal shape, from seed and step alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from longtake.errors import ModelError
from longtake.training.examples import Examples


@dataclass(frozen=True)
class Row:
    """One place of a lap: the part `place` of `places` of an example, which is row `number` of the whole run."""

    number: int
    example: int
    place: int
    places: int


class Order:
    """The rows of every step. An epoch (a lap) takes each section of each example once, an example's `repeats` times.

    Examples of the same size stand in one bucket, and a step takes `rows` from one bucket; a bucket that they do not
    divide is filled up from its own beginning, so that no example is left out.
    """

    def __init__(self, examples: Examples, window: int, rows: int, seed: int) -> None:
        if not len(examples):
            raise ModelError("There is nothing to learn from; the data hold no example.")
        self.rows, self.seed = rows, seed
        self.buckets: dict[tuple[int, ...], list[tuple[int, int, int]]] = {}
        for number in range(len(examples)):
            frames, height, width = examples.shape(number)
            if 1 < frames <= window:
                raise ModelError(
                    f"Example {number} has {frames} latent frames, which hold no section of {window}; take a smaller "
                    "window, or leave it out."
                )
            places = max(1, (frames - 1) // window)
            repeats = repeats_of(examples, number)
            bucket = self.buckets.setdefault((height, width, int(frames == 1)), [])
            bucket += [(number, place, places) for place in range(places) for _ in range(repeats)]
        self.lap = sum(-(-len(bucket) // rows) for bucket in self.buckets.values())
        self._lap = lru_cache(maxsize=2)(self._shuffled)

    def at(self, step: int) -> list[Row]:
        """The rows of a step."""
        lap, place = divmod(step, self.lap)
        return [Row(step * self.rows + n, *each) for n, each in enumerate(self._lap(lap)[place])]

    def _shuffled(self, lap: int) -> list[list[tuple[int, int, int]]]:
        rng = np.random.default_rng((self.seed, 0, lap))
        batches = []
        for bucket in self.buckets.values():
            mixed = [bucket[place] for place in rng.permutation(len(bucket))]
            batches += [
                [mixed[n % len(mixed)] for n in range(start, start + self.rows)]
                for start in range(0, len(mixed), self.rows)
            ]
        return [batches[place] for place in rng.permutation(len(batches))]


def repeats_of(examples: Examples, number: int) -> int:
    """The count of times that an epoch takes an example; the set's own if it knows without reading it."""
    known = getattr(examples, "repeats", None)
    return int(known(number)) if known is not None else examples[number].repeats
