"""MagCache's ratios: how the size of what the blocks add changes from one step to the next.

They are a network's own. Those of the published networks are known, a model's folder may hold some, and `longtake
calibrate` measures them into a file:

    {"ratios": [[1, 1.3, …], [1, 1.28, …]], …}      a list for each branch of guidance, or one for both
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from longtake import disk, strictjson
from longtake.errors import JobError
from longtake.sampling.caching import Cache, check_ratios

Ratios = tuple[tuple[float, ...], ...]

FRAMEPACK: Ratios = (
    (
        1, 1.30469, 1.22656, 1.05469, 1.02344, 1.03906, 1.02344, 1.03906, 1.05469, 1.02344, 1.03906, 0.99609, 1.02344,
        1.03125, 1.01562, 1.02344, 1.00781, 1.03906, 0.98828, 1, 1, 0.98828, 0.94531, 0.93359, 0.78516,
    ),
)  # fmt: skip
"""Of lllyasviel/FramePackI2V_HY, 25 steps at 640 (calibrated for FramePack-Studio)."""

FRAMEPACK_F1: Ratios = (
    (
        1, 1.27344, 1.07031, 1.03906, 1.00781, 1.00781, 1.00781, 1.03125, 1.04688, 1.00781, 1.03125, 0.99219, 1.01562,
        1.01562, 1.01562, 1.00781, 0.98438, 1.05469, 0.98438, 0.96875, 1.03125, 0.97266, 0.92578, 0.95703, 0.77734,
    ),
)  # fmt: skip
"""Of lllyasviel/FramePack_F1_I2V_HY_20250503, likewise."""


def published(forward: bool) -> Ratios:
    """The published network's that makes a plan's sections: F1 makes those that come in the order of the video."""
    return FRAMEPACK_F1 if forward else FRAMEPACK


def with_file(cache: Cache) -> Cache:
    """The cache with the ratios of its file in the file's place, if it names one; JobError for a file without any."""
    if cache.file is None:
        return cache
    file = Path(cache.file).expanduser()
    try:
        values = strictjson.parse(file.read_text("utf-8"), f"a file of ratios ({file})")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise JobError(f"The ratios of the cache cannot be read from {file}: {reason}.") from None
    return replace(cache, ratios=ratios_of(values, str(file)), file=None)


def ratios_of(values: Any, place: str) -> Ratios:
    """The ratios in such values; JobError, naming their place, if there are none."""
    lists = values.get("ratios") if isinstance(values, Mapping) else None
    if not isinstance(lists, list) or not lists or not all(isinstance(one, list) for one in lists):
        raise JobError(
            f'{place} holds no ratios: {{"ratios": [[1, 1.3, …], …]}} is needed; see longtake calibrate.'
        )
    ratios = tuple(tuple(branch) for branch in lists)
    check_ratios(ratios, place)
    return ratios


def write_ratios(file: Path, ratios: Ratios, facts: Mapping[str, Any]) -> None:
    """Write a file of ratios with the facts of how they were measured."""
    rounded = [[round(ratio, 5) for ratio in branch] for branch in ratios]
    disk.write(file, (json.dumps({**facts, "ratios": rounded}, ensure_ascii=False) + "\n").encode())
