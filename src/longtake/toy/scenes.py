"""The scenes that the embedded model learns from: most are plain, some change on the way or hide what they hold.

The study asks for what the first picture does not show, so the model has to have seen such worlds, too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from longtake import toyworld
from longtake.plan.lengths import video_frames
from longtake.toyworld import Scene

SECTIONS = 5
"""The length of a training scene in sections: above four, inverted plans cap the gap to the picture."""
FAR_SHARE = 1 / 3
"""The part of the scenes whose stretch lies far behind the picture, as the late sections of a long video do."""
FAR_FRAMES = (150, 1800)
"""Between these frames such a stretch begins: up to a minute after the picture."""
SHARES = {
    "plain": 0.58,
    "change": 0.16,
    "pan": 0.07,
    "light": 0.06,
    "guest": 0.05,
    "hidden": 0.04,
    "hidden guest": 0.04,
}
"""The share of each variant."""


def training_scene(seed: int, number: int) -> tuple[Scene, int]:
    """The scene with this number of an endless list, and the frame at which its stretch begins: 0, or far from it.

    None of them is one of those that are held out.
    """
    rng = np.random.default_rng((seed, number))
    start = int(rng.integers(*FAR_FRAMES)) if rng.random() < FAR_SHARE else 0
    variant = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    if variant == "change":
        scene = toyworld.random_scene(rng)
        for place in np.flatnonzero(rng.random(SECTIONS - 1) < 0.4):
            scene = toyworld.changing(scene, rng, start + video_frames(int(place) + 1))
        return scene, start
    scene = toyworld.study_scene(variant, rng)
    extras = scene.extras
    # What happens in it happens within the stretch.
    moved = replace(extras, guest_at=extras.guest_at + start, hidden_at=extras.hidden_at + start)
    return replace(scene, extras=moved), start


def told(scene: Scene, frame: int, rng: np.random.Generator) -> str:
    """The prompt that says what is seen at a frame, in one of several ways."""
    return [text for begin, text in toyworld.prompts(scene, rng) if begin <= frame][-1]
