"""The motion of characters: the pose of a scene's character at any frame number, in closed form.

The pace of a scene wanders, so that what comes seconds from now is known in kind but not in phase.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from longtake.toyworld.scenes import Scene

FPS = 30

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """The character's place and posture, arrays of N frames.

    `x` its centre in frame widths; `ground` what it stands on, in frame heights from the top; `lift` how far it is
    above that, in the frame's shorter side; `angle` clockwise radians about the feet (`pivot` 0.5) or the centre
    (`pivot` 0); `stretch` its height over the neutral one (the width shrinks by as much); `body` from -1, facing left,
    to 1, facing right; `look` the same for a face that looks at us at 0; `wing` radians; `step` which foot is up.
    """

    x: Array
    ground: Array
    lift: Array
    angle: Array
    stretch: Array
    body: Array
    look: Array
    wing: Array
    step: Array
    pivot: float = 0.5


@lru_cache(maxsize=1024)
def _pace_waves(pace_seed: int) -> Array:
    rng = np.random.default_rng(pace_seed)
    periods = 3.0 * 4.0 ** rng.random(3)  # 3 to 12 seconds
    return np.stack((2 * np.pi / periods, 2 * np.pi * rng.random(3)))


def warped_seconds(scene: Scene, frames: npt.ArrayLike) -> Array:
    """The scene's own time at each frame: the integral of a smoothly wandering pace (deviation 0.2)."""
    seconds = np.asarray(frames, np.float64)[:, None] / FPS
    rate, start = _pace_waves(scene.pace_seed)
    wander = 0.163 / rate * (np.cos(start) - np.cos(rate * seconds + start))
    return np.asarray(scene.pace * (seconds[:, 0] + wander.sum(1)))


def pose(scene: Scene, frames: npt.ArrayLike) -> Pose:
    """The character's pose at each frame number (N,); any numbers in any order."""
    q = warped_seconds(scene, frames)
    zero, one = np.zeros_like(q), np.ones_like(q)
    standing = Pose(
        scene.x + zero,
        scene.ground + zero,
        zero,
        zero,
        one,
        body=scene.facing * one,
        look=zero,
        wing=zero,
        step=zero,
    )
    cycle = q + scene.phase
    if scene.motion == "dances":
        return _dance(standing, cycle, scene.facing)
    if scene.motion in ("walks left", "walks right"):
        return _walk(standing, q, cycle, 1 if scene.motion == "walks right" else -1)
    if scene.motion == "bounces":
        return _bounce(standing, q, cycle)
    if scene.motion == "flies":
        return _fly(standing, q, scene)
    if scene.motion == "spins":
        return replace(standing, angle=np.pi * cycle * scene.facing, pivot=0.0)
    return standing


def _dance(standing: Pose, cycle: Array, side: int) -> Pose:
    sway = side * np.sin(2 * np.pi * cycle)
    return replace(
        standing,
        x=standing.x + 0.065 * sway,
        angle=0.26 * sway,
        stretch=1 - 0.09 * sway**2,
        wing=-0.5 * np.abs(sway),
    )


def _walk(standing: Pose, q: Array, cycle: Array, way: int) -> Pose:
    step = np.sin(2 * np.pi * cycle)
    turned = smoothstep(q / 0.35)  # it turns round first, so that frame 0 does not tell where it will go
    return replace(
        standing,
        x=standing.x + 0.25 * way * q,
        lift=0.03 * step**2,
        angle=0.07 * step,
        body=standing.body + (way - standing.body) * turned,
        look=float(way) * turned,
        step=step,
    )


def _bounce(standing: Pose, q: Array, cycle: Array) -> Pose:
    jump = np.abs(np.sin(np.pi * cycle))
    landed = (1 - jump) ** 4 * smoothstep(q / 0.3)  # squashed where it lands, but not before the first jump
    return replace(standing, lift=0.22 * jump, stretch=1 + 0.05 * jump - 0.15 * landed)


def _fly(standing: Pose, q: Array, scene: Scene) -> Pose:
    """Takes off at time 0 and never lands."""
    wave = 2 * np.pi * (0.28 * q + scene.phase)
    aloft = smoothstep(q / 1.2)
    rise = (
        scene.ground - 0.5 * scene.height - 0.31
    )  # its centre flies at 0.31 of the frame, whatever its size
    nose = -0.35 * np.sin(np.pi * np.clip(q / 1.2, 0, 1)) - 0.07 * aloft * np.cos(wave)
    return replace(
        standing,
        x=standing.x + scene.facing * aloft * (0.10 * q + 0.02 * np.sin(0.7 * wave)),
        lift=aloft * (rise + 0.045 * np.sin(wave)),
        angle=nose * scene.facing,
        wing=smoothstep(q / 0.25) * (0.85 * np.sin(4 * np.pi * q - 0.5) - 0.35),
        pivot=0.0,
    )


def smoothstep(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """0 up to x = 0, 1 from x = 1 on, and smooth between."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * (3 - 2 * x))
