"""The characters: each a list of soft shapes, laid over each other from back to front.

A character lives in its own coordinates: height 1, centre (0, 0), feet at y = 0.5, y down, looking to the right.
Distances are signed, negative inside, in the same unit (https://iquilezles.org/articles/distfunctions2d).
Legend: N frames drawn at once, P side of the patch around the character; arrays are (N, P, P), pose values (N, 1, 1).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

RGB = {
    "red": (0.90, 0.16, 0.17),
    "orange": (0.98, 0.53, 0.09),
    "yellow": (0.99, 0.84, 0.16),
    "green": (0.16, 0.66, 0.27),
    "blue": (0.14, 0.36, 0.90),
    "purple": (0.55, 0.22, 0.78),
    "pink": (0.97, 0.45, 0.68),
    "black": (0.10, 0.11, 0.16),
}
_WHITE, _DARK, _BEAK = (0.97, 0.97, 0.96), (0.08, 0.08, 0.12), (0.98, 0.60, 0.13)
# How far a character reaches from its centre when it turns.
REACH = {"penguin": 0.60, "bird": 0.66, "ball": 0.57, "box": 0.64, "star": 0.66}
# How wide it stands.
WIDTH = {"penguin": 0.78, "bird": 1.12, "ball": 1.0, "box": 1.02, "star": 1.06}

Array = npt.NDArray[np.float32]
Colour = tuple[float, float, float]
Layers = Iterator[tuple[Array, Colour]]


def _ellipse(x: Array, y: Array, cx: float | Array, cy: float | Array, rx: float, ry: float) -> Array:
    """Distance to an ellipse, exact to first order at its edge; negative inside."""
    ax, ay = (x - cx) * np.float32(1 / rx), (y - cy) * np.float32(1 / ry)
    if rx == ry:
        return (np.sqrt(ax * ax + ay * ay) - 1) * np.float32(rx)
    ax, ay = ax * ax, ay * ay
    near = np.sqrt(ax + ay)
    slope = np.sqrt(ax * np.float32(rx**-2) + ay * np.float32(ry**-2)) + np.float32(1e-6)
    return np.asarray(near * (near - 1) / slope)


def _leaf(
    x: Array, y: Array, cx: float, cy: float, angle: float | Array, out: float, rx: float, ry: float
) -> Array:
    """Distance to an ellipse that turns by `angle` about (cx, cy), its middle `out` away along its own axis."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = x - np.float32(cx), y - np.float32(cy)
    return _ellipse(cos * x + sin * y, cos * y - sin * x, out, 0.0, rx, ry)


def _slab(x: Array, y: Array, cx: float, cy: float, half: float, round_: float) -> Array:
    """Distance to a square with rounded corners."""
    ax, ay = (
        np.abs(x - np.float32(cx)) - np.float32(half - round_),
        np.abs(y - np.float32(cy)) - np.float32(half - round_),
    )
    outside = np.sqrt(np.maximum(ax, 0) ** 2 + np.maximum(ay, 0) ** 2)
    return np.asarray(outside + np.minimum(np.maximum(ax, ay), 0) - np.float32(round_))


def _five_points(x: Array, y: Array, radius: float, round_: float) -> Array:
    """Distance to a five-pointed star with rounded tips, one of them up."""
    y = -y
    x = np.abs(x)
    # Mirrors that carry the five arms onto the one that points up.
    kx, ky = np.float32(np.cos(np.pi / 5)), np.float32(np.sin(np.pi / 5))
    far = 2 * np.maximum(kx * x - ky * y, 0)
    x, y = x - far * kx, y + far * ky
    far = 2 * np.maximum(-kx * x - ky * y, 0)
    x, y = np.abs(x + far * kx), y + far * ky
    tip = radius - round_
    inner = 0.50 * tip  # fatter than a pentagram: soft and easy to see
    ex, ey = inner * np.sin(np.pi / 5), inner * np.cos(np.pi / 5) - tip
    y = y - np.float32(tip)
    along = np.clip((x * np.float32(ex) + y * np.float32(ey)) / np.float32(ex * ex + ey * ey), 0, 1)
    away = np.sqrt((x - along * np.float32(ex)) ** 2 + (y - along * np.float32(ey)) ** 2)
    inside = x * np.float32(ey) - y * np.float32(ex)
    return np.where(inside > 0, -away, away) - np.float32(round_)


def _penguin(x: Array, y: Array, look: Array, wing: Array, step: Array, colour: Colour) -> Layers:
    side = look * np.float32(0.075)  # the face looks where it walks; a standing penguin looks at us
    for sign in (-1, 1):
        yield _ellipse(x, y, sign * 0.15, 0.455 - 0.06 * np.maximum(sign * step, 0), 0.14, 0.055), _BEAK
    for sign in (-1, 1):
        yield _leaf(sign * x, y, 0.24, -0.08, 1.15 + wing, 0.17, 0.21, 0.085), colour
    yield _ellipse(x, y, 0.0, 0.09, 0.33, 0.38), colour
    yield _ellipse(x, y, 0.0, -0.24, 0.245, 0.255), colour
    yield _ellipse(x, y, side * 0.6, 0.14, 0.235, 0.29), _WHITE
    yield _ellipse(x, y, side, -0.225, 0.165, 0.125), _WHITE
    for sign in (-1, 1):
        yield _ellipse(x, y, side + sign * 0.085, -0.265, 0.055, 0.055), _DARK
    yield _ellipse(x, y, side * 1.5, -0.155, 0.10, 0.06), _BEAK


def _bird(x: Array, y: Array, look: Array, wing: Array, step: Array, colour: Colour) -> Layers:
    for sign in (-1, 1):
        yield _ellipse(x, y, -0.02 + 0.09 * sign, 0.42 - 0.06 * np.maximum(sign * step, 0), 0.06, 0.08), _BEAK
    yield _leaf(x, y, -0.24, 0.02, 0.35, -0.14, 0.19, 0.095), _mix(colour, _DARK, 0.35)
    yield _ellipse(x, y, 0.46, -0.16, 0.12, 0.08), _BEAK
    yield _ellipse(x, y, -0.02, 0.08, 0.35, 0.29), colour
    yield _ellipse(x, y, 0.23, -0.20, 0.235, 0.225), colour
    yield _ellipse(x, y, 0.10, 0.20, 0.20, 0.14), _mix(colour, _WHITE, 0.65)
    yield _ellipse(x, y, 0.29, -0.24, 0.10, 0.10), _WHITE
    yield _ellipse(x, y, 0.32, -0.235, 0.06, 0.06), _DARK
    yield _leaf(x, y, 0.02, 0.0, -0.15 - wing * 1.3, -0.21, 0.25, 0.125), _mix(colour, _DARK, 0.35)


def _ball(x: Array, y: Array, look: Array, wing: Array, step: Array, colour: Colour) -> Layers:
    disc = _ellipse(x, y, 0.0, 0.0, 0.5, 0.5)
    yield disc, colour
    # Not through the middle, so that half a turn does not look like none.
    yield np.maximum(disc, np.abs(y + np.float32(0.10)) - np.float32(0.115)), _WHITE
    yield _ellipse(x, y, 0.0, 0.27, 0.10, 0.10), _mix(colour, _DARK, 0.6)


def _box(x: Array, y: Array, look: Array, wing: Array, step: Array, colour: Colour) -> Layers:
    yield _slab(x, y, 0.0, 0.0, 0.47, 0.10), colour
    yield _slab(x, y, 0.20, -0.20, 0.17, 0.06), _mix(colour, _WHITE, 0.72)
    yield _slab(x, y, -0.20, 0.20, 0.17, 0.06), _mix(colour, _DARK, 0.42)


def _star(x: Array, y: Array, look: Array, wing: Array, step: Array, colour: Colour) -> Layers:
    y = y - np.float32(0.04)
    star = _five_points(x, y, 0.56, 0.09)
    yield star, colour
    yield np.maximum(star, _ellipse(x, y, 0.0, -0.54, 0.27, 0.27)), _mix(colour, _DARK, 0.5)
    for sign in (-1, 1):
        yield _ellipse(x, y, sign * 0.11, -0.02, 0.06, 0.08), _DARK


LAYERS = {"penguin": _penguin, "bird": _bird, "ball": _ball, "box": _box, "star": _star}


def _mix(colour: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (a + share * (b - a) for a, b in zip(colour, other, strict=True))
    return red, green, blue
