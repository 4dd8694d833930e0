"""The demands on a scene's video over time: which motion when, by which prompts, and what cannot be seen then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longtake import toyworld
from longtake.job import PromptSpan
from longtake.toyworld.extras import PLAIN, SLIDE

RECALL_SECONDS = 2
"""So long is judged what comes out from behind a curtain."""


def asked_motion(scene: toyworld.Scene, first: int, end: int) -> str | None:
    """The motion that is asked for in the frames first … end - 1; None if it changes among them.

    >>> scene = toyworld.Scene(motion="dances", then=((37, "bounces"),))
    >>> asked_motion(scene, 0, 37), asked_motion(scene, 30, 60), asked_motion(scene, 37, 90)
    ('dances', None, 'bounces')
    """
    begins = [(0, scene.motion), *scene.then]
    asked = [
        motion
        for (begin, motion), (until, _) in zip(begins, [*begins[1:], (end + 1, "")], strict=True)
        if begin < end and until > first
    ]
    return asked[0] if len(set(asked)) == 1 else None


def last_change(scene: toyworld.Scene, frames: int) -> int:
    """The frame from which on the last motion of a video of so many frames is asked for."""
    return max((begin for begin, _ in scene.then if begin < frames), default=0)


def spans(scene: toyworld.Scene, fps: int) -> tuple[PromptSpan, ...]:
    """The scene's prompts as a job's, if there are several; else none.

    >>> spans(toyworld.Scene(motion="dances"), 30)
    ()
    """
    told = toyworld.prompts(scene)
    if len(told) < 2:
        return ()
    ends = [frame for frame, _ in told[1:]]
    return tuple(
        PromptSpan(text, frame / fps, None if end is None else end / fps)
        for (frame, text), end in zip(told, [*ends, None], strict=True)
    )


def curtain(scene: toyworld.Scene) -> range:
    """The frames in which a curtain is in the way, coming and going included."""
    extras = scene.extras
    if not extras.hidden_for:
        return range(0)
    return range(extras.hidden_at - SLIDE, extras.hidden_at + extras.hidden_for + SLIDE)


def unseen(scene: toyworld.Scene, frames: int) -> np.ndarray:
    """For each frame of a video, whether the curtain hides the character."""
    numbers, hidden = np.arange(frames), curtain(scene)
    return (numbers >= hidden.start) & (numbers < hidden.stop) & (not scene.extras.guest)


def recalled(scene: toyworld.Scene) -> Sequence[int]:
    """The frames in which what was hidden is first seen again."""
    hidden = curtain(scene)
    return range(hidden.stop, hidden.stop + RECALL_SECONDS * toyworld.FPS) if hidden else range(0)


def is_certain(scene: toyworld.Scene) -> bool:
    """Tell if the first frame, or the first second, says all of a scene's future."""
    return scene.motion in ("stays still", "circles") and not scene.then and scene.extras == PLAIN
