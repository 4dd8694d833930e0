"""The motion of characters: the pose of a scene's character at any frame number, in closed form.

The pace of a scene wanders, so that what comes seconds from now is known in kind but not in phase.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from longtake.toyworld.characters import WIDTH
from longtake.toyworld.scenes import Scene

FPS = 30
CYCLES = {
    "dances": 0.5,
    "walks left": 0.9,
    "walks right": 0.9,
    "bounces": 0.65,
    "flies": 0.8,
    "spins": 0.15,
}
"""Cycles a second of the scene's own time: slow, since four frames become one latent. In that time a spin turns by
seven degrees, and nothing but the tip of a wing goes further than five of 64 pixels."""
LAP = 3.2
"""Seconds of its own time that a walker takes to the far side and back."""
CIRCLE_LAP = 4.0
"""Seconds that a round takes."""
BLEND = 20
"""Frames in which one motion becomes the next."""

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
    pivot: float | Array = 0.5


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
    numbers = np.asarray(frames, np.float64)
    now = _pose_from(scene, numbers, 0)
    for count, (begin, motion) in enumerate(scene.then):
        at = pose(replace(scene, then=scene.then[:count]), [begin])
        turns = 2 * np.pi * np.round(at.angle[0] / (2 * np.pi))
        after = _pose_from(replace(scene, motion=motion, phase=0.0), numbers, begin)
        now = _blended(replace(now, angle=now.angle - turns), after, smoothstep((numbers - begin) / BLEND))
    return now


def _blended(one: Pose, other: Pose, share: Array) -> Pose:
    """From one pose (share 0) to the other (share 1)."""
    values = ((field.name, getattr(one, field.name), getattr(other, field.name)) for field in fields(Pose))
    return Pose(**{name: first + share * (second - first) for name, first, second in values})


def _pose_from(scene: Scene, frames: Array, begin: int) -> Pose:
    """The pose in the scene's motion, if that begins at frame `begin`."""
    q = np.maximum(warped_seconds(scene, frames) - warped_seconds(scene, [begin]), 0.0)
    zero, one = np.zeros_like(q), np.ones_like(q)
    standing = Pose(
        scene.x + zero,
        scene.ground + zero,
        zero,
        zero,
        one,
        body=float(scene.facing) * one,
        look=zero,
        wing=zero,
        step=zero,
    )
    if scene.motion == "stays still":
        return standing
    if scene.motion == "circles":
        return _circle(standing, frames, scene)
    cycle = CYCLES[scene.motion] * q + scene.phase
    if scene.motion == "dances":
        return _dance(standing, cycle, scene.facing)
    if scene.motion in ("walks left", "walks right"):
        return _walk(standing, q, cycle, scene)
    if scene.motion == "bounces":
        return _bounce(standing, q, cycle, scene)
    if scene.motion == "flies":
        return _fly(standing, q, cycle, scene)
    return replace(standing, angle=2 * np.pi * cycle * scene.facing, pivot=0.0)


def centres(scene: Scene, frames: npt.ArrayLike) -> Array:
    """The character's true centre (N, 2) in shorter sides of a square frame, x from the left and y from the top."""
    now = pose(scene, frames)
    above = now.pivot * scene.height * now.stretch
    y = now.ground - now.lift - (0.5 - now.pivot) * scene.height - np.cos(now.angle) * above
    return np.stack((now.x + np.sin(now.angle) * above, y), 1)


def _circle(standing: Pose, frames: Array, scene: Scene) -> Pose:
    """Round and round at one speed whatever the pace of the scene, from the ground on: all of it follows from the
    first frames."""
    turn = 2 * np.pi * (frames / (CIRCLE_LAP * FPS) + scene.phase)
    radius = float(np.clip((scene.ground - 1.02 * scene.height) / 2, 0.08, 0.18))
    return replace(
        standing, x=standing.x + scene.facing * radius * np.sin(turn), lift=radius * (1 - np.cos(turn))
    )


def _dance(standing: Pose, cycle: Array, side: int) -> Pose:
    sway = side * np.sin(2 * np.pi * cycle)
    return replace(
        standing,
        x=standing.x + 0.05 * sway,
        angle=0.22 * sway,
        stretch=1 - 0.08 * sway**2,
        wing=-0.5 * np.abs(sway),
    )


def _walk(standing: Pose, q: Array, cycle: Array, scene: Scene) -> Pose:
    """To one side, then back to where it began, again and again: it is never on the other side of that."""
    way = 1 if scene.motion == "walks right" else -1
    lap = 2 * np.pi * q / LAP
    far = 0.5 - 0.5 * np.arcsin(0.97 * np.cos(lap)) / np.arcsin(0.97)  # 0 at home, 1 where it turns
    heading = way * np.where(lap < np.pi / 2, 1.0, np.clip(2.5 * np.sin(lap), -1, 1))
    turned = smoothstep(q / 0.35)  # it turns round first, so that frame 0 does not tell where it will go
    step = np.sin(2 * np.pi * cycle)
    return replace(
        standing,
        x=standing.x + way * walking_distance(scene) * far,
        lift=0.02 * step**2,
        angle=0.07 * step,
        body=standing.body + (heading - standing.body) * turned,
        look=heading * turned,
        step=step,
    )


def walking_distance(scene: Scene) -> float:
    """The way that a walker goes, in frame widths: up to the edge of a square frame and not over it."""
    room = 1 - scene.x if scene.motion == "walks right" else scene.x
    return float(np.clip(room - WIDTH[scene.kind] / 2 * scene.height - 0.03, 0.12, 0.25))


def _bounce(standing: Pose, q: Array, cycle: Array, scene: Scene) -> Pose:
    jump = np.abs(np.sin(np.pi * cycle))
    landed = (1 - jump) ** 4 * smoothstep(q / 0.3)  # squashed where it lands, but not before the first jump
    high = float(np.clip(scene.ground - 1.05 * scene.height, 0.14, 0.18))  # its head stays in the frame
    return replace(standing, lift=high * jump, stretch=1 + 0.05 * jump - 0.15 * landed)


def _fly(standing: Pose, q: Array, cycle: Array, scene: Scene) -> Pose:
    """Takes off at time 0, is aloft within a second, hovers to and fro above where it stood, and never lands."""
    wave = 2 * np.pi * (0.2 * q + scene.phase)
    aloft = smoothstep(q / 0.9)
    nose = -0.25 * np.sin(np.pi * np.clip(q / 0.9, 0, 1)) - 0.06 * aloft * np.cos(wave)
    return replace(
        standing,
        x=standing.x + scene.facing * aloft * 0.08 * np.sin(0.7 * wave),
        lift=aloft * (0.24 + 0.03 * np.sin(wave)),
        angle=nose * scene.facing,
        wing=smoothstep(q / 0.25) * (0.6 * np.sin(2 * np.pi * cycle - 0.5) - 0.3),
        pivot=0.0,
    )


def smoothstep(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """0 up to x = 0, 1 from x = 1 on, and smooth between."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * (3 - 2 * x))
