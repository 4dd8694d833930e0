"""The step caches' configs of diffusers, known by what they have, as texts that name caches of ours."""

from __future__ import annotations

from typing import Any

from longtake.errors import JobError, JobTypeError
from longtake.sampling.caching import METHODS, ORDER, Cache, parse

FIRST = {"threshold"}
MAG = {"threshold", "max_skip_steps", "retention_ratio", "mag_ratios"}


def text_of(config: Any) -> str:
    """The text of a cache: of a text itself, a FirstBlockCacheConfig or a MagCacheConfig; checked.

    Raises JobError for a config of another cache, and for one that asks to calibrate.
    """
    if isinstance(config, str):
        cache = parse(config)
        if cache is None:
            raise JobError(f"A cache has a name ({', '.join(METHODS)}); to have none is disable_cache.")
        return cache.text
    has = set(getattr(config, "__dict__", {}))
    if has == FIRST:
        cache = Cache("first", (float(config.threshold),))
    elif has >= MAG:
        cache = _mag(config)
    else:
        raise JobTypeError(
            f"The cache of a {type(config).__name__} is not made here; give a text "
            f"({', '.join(METHODS)}), a FirstBlockCacheConfig or a MagCacheConfig, or run it by "
            "longtake.integrations.diffusers."
        )
    cache.check()
    return cache.text


def _mag(config: Any) -> Cache:
    if getattr(config, "calibrate", False) or config.mag_ratios is None:
        raise JobError(
            "A MagCacheConfig needs mag_ratios here; measure them by longtake calibrate, which writes a file for "
            "mag:FILE."
        )
    ratios = tuple(float(ratio) for ratio in config.mag_ratios)
    numbers = (float(config.threshold), config.max_skip_steps, float(config.retention_ratio), ORDER.default)
    return Cache("mag", numbers, (ratios,))
