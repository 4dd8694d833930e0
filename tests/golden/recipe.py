"""Golden files: how they are read, and the numbers that they need not hold, since these follow from a name.

A file is an npz archive: `config` and `shapes` (JSON), `given/NAME` (small inputs: token ids, times, masks) and
`expected/NAME` (what the reference computed in float64, rounded to float32). Weights and large inputs are drawn:
uniform with mean 0 and variance 1, from the raw bits of a Philox counter keyed by the SHA-256 of the name. That is
exact arithmetic on 64-bit words, so every machine and every version of numpy has the same float32 values.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values (float32) with mean 0 and variance 1 that follow from `name` alone.

    >>> draw("a name", (2,)).tolist()
    [-0.3059264123439789, -1.6427292823791504]
    """
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    bits = np.random.Philox(key=key).random_raw(math.prod(shape))
    unit = (bits >> np.uint64(11)) * 2.0**-53
    return ((2.0 * unit - 1.0) * math.sqrt(3.0)).astype(np.float32).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight of that name: biases near 0, scales of norms near 1, matrices that keep the size of what they see."""
    values = draw(f"weight {name}", shape)
    if name.endswith("bias"):
        return np.float32(0.1) * values
    if len(shape) == 1:
        return np.float32(1.0) + np.float32(0.1) * values
    return values / np.float32(math.sqrt(math.prod(shape[1:])))


class Stream:
    """A generator of noise with numpy's method `standard_normal`: each call draws the next name."""

    def __init__(self, name: str) -> None:
        self.name, self.calls = name, 0

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next values."""
        self.calls += 1
        return draw(f"{self.name} {self.calls}", tuple(shape))


@dataclass
class Golden:
    """One golden file: a config, inputs by name, expected outputs by name."""

    name: str
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    given: dict[str, np.ndarray]
    expected: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """Drawn and given inputs, by name."""
        drawn = {name: draw(f"{self.name} {name}", shape) for name, shape in self.shapes.items()}
        return drawn | self.given

    def write(self) -> Path:
        """Write the file; the same content gives the same bytes."""
        arrays: dict[str, Any] = {f"given/{name}": value for name, value in self.given.items()}
        arrays |= {f"expected/{name}": np.asarray(value, np.float32) for name, value in self.expected.items()}
        texts = {"config": json.dumps(self.config), "shapes": json.dumps(self.shapes)}
        file = HERE / f"{self.name}.npz"
        np.savez_compressed(file, **{key: np.array(text) for key, text in texts.items()}, **arrays)
        return file


def read(name: str) -> Golden:
    """The golden file of that name."""
    with np.load(HERE / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}

    def part(kind: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(kind): value for key, value in arrays.items() if key.startswith(kind)}

    shapes = {key: tuple(shape) for key, shape in json.loads(str(arrays["shapes"])).items()}
    return Golden(name, json.loads(str(arrays["config"])), shapes, part("given/"), part("expected/"))


def names(prefix: str) -> list[str]:
    """The golden files whose names begin so."""
    return sorted(file.stem for file in HERE.glob(f"{prefix}*.npz"))


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The weights of a network, from their names and shapes."""
    return {name: weight(name, tuple(shape)) for name, shape in shapes.items()}
