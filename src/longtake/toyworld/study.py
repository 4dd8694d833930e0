"""Scenes for the study of drift and of memory: each variant adds one thing that the first picture does not settle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from longtake.errors import JobError
from longtake.toyworld.extras import Extras
from longtake.toyworld.scenes import COLOURS_OF_PLACE, KINDS, MOTIONS, Scene, random_scene

SECTION = 36
"""Frames of a section; the first of a video has one more."""
VARIANTS = ("plain", "pan", "light", "guest", "hidden", "hidden guest", "circles", "change")


def study_scene(variant: str, rng: np.random.Generator, scene: Scene | None = None, **fixed: Any) -> Scene:
    """Draws a scene of one of `VARIANTS`, or makes one of `scene`; fields of `Scene` in `fixed` keep their value.

    "pan": the camera goes over a wider place and back. "light": from day to dusk and back. "guest": a second character
    comes in. "hidden": a curtain hides the character for one to three seconds, "hidden guest" the guest. "circles": the
    future follows from the first frames. "change": another motion from a section's first frame on.

    >>> study_scene("light", np.random.default_rng(0)).extras.light > 0
    True
    """
    if variant not in VARIANTS:
        raise JobError(f"There is no variant {variant!r} of a scene; choose from {', '.join(VARIANTS)}.")
    if scene is None:
        small = {"size": "small"} if "guest" in variant else {}  # so that there is room for two
        scene = random_scene(rng, **{**small, **fixed})
    if variant == "circles":
        return replace(scene, motion="circles")
    if variant == "change":
        return changing(scene, rng, 1 + SECTION * int(rng.integers(1, 4)))
    return replace(scene, extras=_extras(variant, scene, rng))


def changing(scene: Scene, rng: np.random.Generator, frame: int) -> Scene:
    """The scene with another motion from this frame on, in the same place and from the same pose."""
    others = [
        motion for motion in MOTIONS if motion != scene.motion and (motion != "flies" or scene.kind == "bird")
    ]
    return replace(scene, then=(*scene.then, (frame, str(rng.choice(others)))))


def _extras(variant: str, scene: Scene, rng: np.random.Generator) -> Extras:
    side = int(rng.choice((-1, 1)))
    if "guest" in variant and scene.motion.startswith("walks"):
        side = -1 if scene.motion == "walks right" else 1  # where the walker never goes
    kind = str(rng.choice([each for each in KINDS if each != scene.kind]))
    colour = str(rng.choice([each for each in COLOURS_OF_PLACE[scene.place] if each != scene.colour]))
    guest_at, length = int(rng.integers(40, 80)), int(rng.integers(30, 90))
    guest: dict[str, Any] = {"guest": kind, "guest_colour": colour, "guest_at": guest_at, "guest_side": side}
    if variant == "pan":
        return Extras(pan=side * float(rng.uniform(0.8, 1.4)))
    if variant == "light":
        return Extras(light=float(rng.uniform(0.7, 1.0)))
    if variant == "guest":
        return Extras(**guest)
    if variant == "hidden":
        return Extras(hidden_at=int(rng.integers(60, 120)), hidden_for=length)
    if variant == "hidden guest":
        return Extras(**guest, hidden_at=guest_at + 90, hidden_for=length)
    return Extras()
