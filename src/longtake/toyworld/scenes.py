"""Scenes: each is one character, one place, one motion, and the few numbers that make it one of a kind.

A scene is data. `draw` turns (scene, frame number) into pixels, `prompts` into English, `measure` finds it again in
frames. At phase 0 the first frame is the neutral pose of every motion, so one picture can start any of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from longtake.errors import JobError
from longtake.toyworld.extras import PLAIN, SLIDE, Extras

KINDS = ("penguin", "bird", "ball", "box", "star")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
SIZES = ("small", "medium", "big")
PLACES = ("snow", "grass", "beach", "night")
MOTIONS = ("dances", "walks left", "walks right", "bounces", "flies", "spins", "stays still")
STUDY_MOTIONS = ("circles",)
"""Motions that are drawn only where they are asked for: one whose whole future follows from its first frames."""
PENGUIN_COLOUR = "black"  # penguins come in one colour, which no prompt needs to name

# Colours that stand out against every part of a place that the character passes in front of.
COLOURS_OF_PLACE = {
    "snow": ("red", "orange", "green", "blue", "purple", "pink"),
    "grass": ("red", "orange", "yellow", "blue", "purple", "pink"),
    "beach": ("red", "orange", "green", "blue", "purple", "pink"),
    "night": ("red", "orange", "yellow", "green", "pink"),
}
HEIGHT_OF_SIZE = {"small": 0.44, "medium": 0.53, "big": 0.62}
_BIRD_HEIGHT = 0.85  # of the others', since it is as wide as they are high
_KIND_SHARES = (0.24, 0.31, 0.15, 0.15, 0.15)  # a bird has one motion more than the others to show


@dataclass(frozen=True)
class Scene:
    """One character in one place doing one thing for ever; its state is a function of the frame number alone.

    `x` is the start of the character's centre in frame widths, `ground` the line it stands on in frame heights from
    the top, `facing` 1 for right and -1 for left at frame 0, `phase` a part of a cycle (0 is the neutral pose),
    `pace` the mean speed of its time (1 is normal); `seed` varies the place, `pace_seed` the pace in it.
    `then` are later motions and the frames at which they begin; `extras` what a study adds.
    """

    kind: str = "penguin"
    colour: str = PENGUIN_COLOUR
    size: str = "medium"
    place: str = "snow"
    motion: str = "stays still"
    x: float = 0.5
    ground: float = 0.88
    facing: int = 1
    phase: float = 0.0
    pace: float = 1.0
    seed: int = 0
    pace_seed: int = 0
    then: tuple[tuple[int, str], ...] = ()
    extras: Extras = PLAIN

    def __post_init__(self) -> None:
        colours = (PENGUIN_COLOUR,) if self.kind == "penguin" else COLOURS
        motions = (*MOTIONS, *STUDY_MOTIONS)
        known = {"kind": KINDS, "size": SIZES, "place": PLACES, "motion": motions, "colour": colours}
        for field, values in known.items():
            if getattr(self, field) not in values:
                raise JobError(
                    f"A {self.kind} has no {field} {getattr(self, field)!r}; choose from {', '.join(values)}."
                )
        if "flies" in (self.motion, *(motion for _, motion in self.then)) and self.kind != "bird":
            raise JobError(f"A {self.kind} cannot fly; only a bird can.")
        _check_then(self.then)
        _check_extras(self.extras)

    @property
    def height(self) -> float:
        """The character's height as a part of the frame's shorter side."""
        return HEIGHT_OF_SIZE[self.size] * (_BIRD_HEIGHT if self.kind == "bird" else 1)


def _check_then(then: tuple[tuple[int, str], ...]) -> None:
    before = 0
    for frame, motion in then:
        if motion not in MOTIONS or frame <= before:
            raise JobError(
                f"A later motion is one of {', '.join(MOTIONS)} and begins after the one before it; "
                f"{motion!r} at frame {frame} was asked for."
            )
        before = frame


def _check_extras(extras: Extras) -> None:
    if extras.guest and extras.guest not in KINDS:
        raise JobError(f"There is no guest {extras.guest!r}; choose from {', '.join(KINDS)}.")
    if extras.guest and extras.guest_colour not in COLOURS and extras.guest != "penguin":
        raise JobError(f"A guest has no colour {extras.guest_colour!r}; choose from {', '.join(COLOURS)}.")
    if not 0 <= extras.light <= 1:
        raise JobError(f"Light goes towards dusk by 0 to 1; {extras.light:g} was asked for.")
    if extras.hidden_for and extras.hidden_at < SLIDE:
        raise JobError(
            f"A curtain needs {SLIDE} frames to come down; hidden from frame {extras.hidden_at} was asked for."
        )


def random_scene(rng: np.random.Generator, **fixed: Any) -> Scene:
    """Draws a scene; the fields of `Scene` that are named in `fixed` keep their value and the others fit them.

    Half of the scenes start in the neutral pose (phase 0), the others anywhere in the cycle.

    >>> random_scene(np.random.default_rng(0), motion="flies").kind
    'bird'
    """
    unknown = sorted(set(fixed) - set(Scene.__dataclass_fields__))
    if unknown:
        raise JobError(
            f"A scene has no field {unknown[0]!r}; choose from {', '.join(Scene.__dataclass_fields__)}."
        )
    kind = str(rng.choice(KINDS, p=_KIND_SHARES))
    kind = fixed.get(
        "kind", "bird" if fixed.get("motion") == "flies" else _kind_with_colour(kind, fixed.get("colour"))
    )
    motion = str(rng.choice(MOTIONS if kind == "bird" else [name for name in MOTIONS if name != "flies"]))
    places = [
        place
        for place in PLACES
        if fixed.get("colour", PENGUIN_COLOUR) in (*COLOURS_OF_PLACE[place], PENGUIN_COLOUR)
    ]
    place = str(fixed.get("place", rng.choice(places or PLACES)))
    colours = COLOURS_OF_PLACE.get(place, COLOURS)
    colour = (
        "blue" if kind == "bird" and "blue" in colours and rng.random() < 0.35 else str(rng.choice(colours))
    )
    scene: dict[str, Any] = {
        "kind": kind,
        "colour": PENGUIN_COLOUR if kind == "penguin" else colour,
        "size": str(rng.choice(SIZES)),
        "place": place,
        "motion": motion,
        "x": float(rng.uniform(0.46, 0.54)),
        "ground": float(rng.uniform(0.85, 0.90)),
        "facing": int(rng.choice((-1, 1))),
        "phase": float(rng.random() * (rng.random() < 0.5)),
        "pace": float(rng.uniform(0.8, 1.2)),
        "seed": int(rng.integers(2**31)),
        "pace_seed": int(rng.integers(2**31)),
    }
    return Scene(**{**scene, **fixed})


def _kind_with_colour(kind: str, colour: str | None) -> str:
    if colour == PENGUIN_COLOUR:
        return "penguin"
    return "ball" if kind == "penguin" and colour is not None else kind


_WORDS_OF: dict[str, dict[str, str]] = {
    "kind": {kind: f"{kind} {kind}s" for kind in KINDS},
    "colour": {colour: colour for colour in COLOURS},
    "size": {"small": "small little tiny", "medium": "medium", "big": "big large"},
    "place": {
        "snow": "snow snowy ice",
        "grass": "grass meadow lawn field",
        "beach": "beach sand sandy sea",
        "night": "night moon moonlight",
    },
    "motion": {
        "dances": "dance dances dancing sway sways swaying",
        "walks": "walk walks walking wander wanders moves moving",
        "bounces": "bounce bounces bouncing jump jumps jumping hop hops hopping",
        "flies": "fly flies flying flaps flapping takes taking",
        "spins": "spin spins spinning turn turns turning rotate rotates rotating",
        "stays still": "still stays stay stand stands standing sits sitting rests waits move",
    },
    "direction": {"left": "left", "right": "right"},
}
_MEANING = {
    word: (field, value)
    for field, values in _WORDS_OF.items()
    for value, words in values.items()
    for word in words.split()
}
_FILLER_TEXT = """
a an the in on at over of to from and with its it is up down side off there air place wings around toward towards by
under back happily slowly again now who that not does for ever here high above as then into across black white away
"""
_FILLERS = frozenset(_FILLER_TEXT.split())


def scene_from_text(text: str, seed: int = 0) -> Scene:
    """Reads a scene from plain English; what the text leaves open is drawn from `seed`, the motion is to stay still.

    Raises `JobError` for a word that it does not know, for two values of one thing, and for a text without character.

    >>> scene = scene_from_text("a big red star spins on the beach at night")
    >>> scene.size, scene.colour, scene.kind, scene.motion, scene.place
    ('big', 'red', 'star', 'spins', 'night')
    """
    found = _read_words(text)
    if found.get("motion") == "walks" or ("direction" in found and "motion" not in found):
        found["motion"] = f"walks {found.get('direction', 'right')}"
    found.pop("direction", None)
    if "kind" not in found:
        raise JobError(f"There is no character in {text!r}; name one of {', '.join(KINDS)}.")
    if found["kind"] == "penguin" and found.pop("colour", ""):
        raise JobError("A penguin is black and white; leave its colour out or take another character.")
    fixed: dict[str, Any] = {
        "size": "medium",
        "motion": "stays still",
        "facing": 1,
        "x": 0.5,
        "phase": 0.0,
        **found,
    }
    if fixed["kind"] == "bird" and "colour" not in fixed and fixed.get("place") != "night":
        fixed["colour"] = "blue"
    return random_scene(np.random.default_rng(seed), **fixed)


def _read_words(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in _FILLERS:
            continue
        if word not in _MEANING:
            raise JobError(f"{word!r} in {text!r} is not understood; {_understood()}.")
        field, value = _MEANING[word]
        if field == "place" and "night" in (value, found.get(field)):
            value = "night"  # "on the beach at night": the dark decides what is seen
        if found.setdefault(field, value) != value and not (field == "place" and value == "night"):
            raise JobError(f"{text!r} asks for two things at once, {found[field]} and {value}; name one.")
        found[field] = value
    return found


def _understood() -> str:
    lists = (
        ("characters", KINDS),
        ("colours", COLOURS),
        ("sizes", SIZES),
        ("places", PLACES),
        ("motions", MOTIONS),
    )
    return "; ".join(f"{name}: {', '.join(values)}" for name, values in lists)


def still(scene: Scene) -> Scene:
    """The same scene with its character standing in the neutral pose."""
    return replace(scene, motion="stays still", phase=0.0, then=(), extras=PLAIN)
