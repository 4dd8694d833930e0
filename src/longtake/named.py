"""Published models that have a short name: where their parts lie on the hub, and what they were trained for; data.

A name is a name wherever a model is asked for, as "embedded" is: a folder that is called so is written `./framepack`.
What a name means may change with longtake; so a job on disk holds the places, and not the name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FPS = 30
"""Frames a second that FramePack's models were trained on, the embedded one too."""

SIZE = "buckets"
"""The setting of a model that has no size of its own, but FramePack's table of them: that number of pixels a side."""


@dataclass(frozen=True)
class Named:
    """A model: the repository of most of it, the places of its other `parts`, and what it was trained for.

    `dtype` is the one that it was published in, which a CPU computes it in; `buckets` is the size of FramePack's table;
    `fps` is the rate of the videos that it was trained on.
    """

    base: str
    parts: Mapping[str, str]
    sampling: str
    steps: int = 25
    guidance: float = 10.0
    dtype: str = "bfloat16"
    buckets: int = 640
    fps: int = FPS

    @property
    def settings(self) -> dict[str, Any]:
        """The entries of `Networks.settings` that tell of it."""
        return {"sampling": self.sampling, SIZE: self.buckets, "fps": self.fps}


SIGLIP = "lllyasviel/flux_redux_bfl"


def _framepack(transformer: str, sampling: str) -> Named:
    parts = {"transformer": transformer, "image_encoder": SIGLIP, "feature_extractor": SIGLIP}
    return Named("hunyuanvideo-community/HunyuanVideo", parts, sampling)


NAMED: dict[str, Named] = {
    "framepack": _framepack("lllyasviel/FramePackI2V_HY", "inverted"),
    "framepack-f1": _framepack("lllyasviel/FramePack_F1_I2V_HY_20250503", "vanilla"),
}

TRAINED = {"FramePackI2V_HY": "inverted", "FramePack_F1_I2V_HY": "vanilla"}
"""The sampling that a transformer was trained for, by how the name of its folder, repository or file begins."""


def named(model: Any) -> Named | None:
    """The model of a short name; None for anything else.

    >>> named("framepack-f1").sampling, named("./framepack"), named(None)
    ('vanilla', None, None)
    """
    return NAMED.get(model) if isinstance(model, str) else None


def places(model: Any, parts: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    """The place of a model, and of those of its parts that are elsewhere; `parts` go before the name's own.

    >>> places("framepack", {"transformer": "mine"})[1]["transformer"], places("owner/name")
    ('mine', ('owner/name', {}))
    """
    found = named(model)
    return (model, dict(parts or {})) if found is None else (found.base, {**found.parts, **(parts or {})})


def trained_for(model: Any, parts: Mapping[str, Any] | None = None) -> str | None:
    """The sampling that a model's transformer was published for, as far as its place tells.

    >>> trained_for("framepack"), trained_for("x/y", {"transformer": "a/FramePack_F1_I2V_HY_20250503_fp8.safetensors"})
    ('inverted', 'vanilla')
    """
    found = named(model)
    if found is not None and "transformer" not in (parts or {}):
        return found.sampling
    words = str((parts or {}).get("transformer", model)).replace("\\", "/").rstrip("/").split("/")
    return next(
        (kind for start, kind in TRAINED.items() for word in words[-2:] if word.startswith(start)), None
    )


def mismatch(sampling: str, trained: Any, alike: Sequence[str] = ()) -> str | None:
    """The sentence about a sampling that a model was not trained for; None if there is nothing to say.

    `alike` are other names of that sampling.
    """
    if trained is None or trained in (sampling, *alike):
        return None
    return (
        f"This model was trained for {trained} sampling, and {sampling} was asked for; it makes worse videos so "
        f"(--sampling {trained} is its own, in Python sampling={trained!r})."
    )


def tempo(fps: float, settings: Mapping[str, Any]) -> str | None:
    """The sentence about a video that is played at another rate than its model makes; None if there is nothing to say.

    `settings` are those of the model's folder (`Networks.settings`). A rate changes no frame: motion is learned.

    >>> print(tempo(15, {"fps": 30}))  # doctest: +ELLIPSIS
    This model makes 30 frames a second, and they are played at 15: everything moves at 0.5 of its speed, ...
    >>> tempo(24, {"fps": 24})
    """
    made = settings.get("fps", FPS)
    if fps == made:
        return None
    return (
        f"This model makes {made:g} frames a second, and they are played at {fps:g}: everything moves at "
        f"{fps / made:.3g} of its speed, and no frame is added or left out (--fps {made:g} is its own speed)."
    )
