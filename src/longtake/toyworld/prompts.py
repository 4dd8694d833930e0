"""Plain English for scenes, in about 120 words: what a text encoder trained on this world has to know."""

from __future__ import annotations

import numpy as np

from longtake.toyworld.scenes import COLOURS, KINDS, PENGUIN_COLOUR, Scene

# The first of each is the canonical one. {who} is replaced by the character.
_MOTION_PHRASES = {
    "dances": (
        "{who} dances",
        "{who} is dancing happily",
        "{who} dances and sways from side to side",
        "{who} dancing",
    ),
    "walks left": (
        "{who} walks to the left and back",
        "{who} walks left",
        "{who} walks left and back",
        "{who} walks to the left",
        "{who} is walking to the left and back",
        "{who} walking to the left",
    ),
    "walks right": (
        "{who} walks to the right and back",
        "{who} walks right",
        "{who} walks right and back",
        "{who} walks to the right",
        "{who} is walking to the right and back",
        "{who} walking to the right",
    ),
    "bounces": (
        "{who} bounces up and down",
        "{who} bounces",
        "{who} is bouncing",
        "{who} jumps up and down",
        "{who} bouncing up and down",
        "{who} hops",
    ),
    "flies": (
        "{who} takes off and flies, flapping its wings",
        "{who} flies",
        "{who} takes off and flies",
        "{who} flying",
        "{who} is flying and flapping its wings",
        "{who} takes off and flies up in the air",
    ),
    "spins": (
        "{who} spins around",
        "{who} spins",
        "{who} is spinning around",
        "{who} spins around slowly",
        "{who} spinning",
        "{who} turns around and around",
    ),
    "stays still": (
        "{who} stays still",
        "{who} stands still",
        "{who} does not move",
        "{who} standing still",
    ),
}
_PLACE_PHRASES = {
    "snow": ("in the snow", "on the snow", "in a snowy place"),
    "grass": ("on the grass", "in the grass", "in a meadow"),
    "beach": ("on the beach", "on a sandy beach", "by the sea"),
    "night": ("at night", "under the moon", "in the night"),
}
_PLACE_BELOW = {
    "snow": ("over the snow",),
    "grass": ("over the grass", "over a meadow"),
    "beach": ("over the beach", "over the sea"),
    "night": ("at night", "under the moon", "in the night"),
}
_SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("",), "big": ("big", "large")}


def prompt(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """Says what the scene shows; with `rng` in one of several ways, sometimes without place, colour or size.

    The motion is always named: it is what a picture does not tell.

    >>> prompt(Scene(kind="bird", colour="blue", size="small", place="beach", motion="flies"))
    'A small blue bird takes off and flies, flapping its wings, over the beach.'
    """
    size = _choose(_SIZE_WORDS[scene.size], rng)
    colour = "" if scene.colour == PENGUIN_COLOUR else scene.colour
    place = _choose((_PLACE_BELOW if scene.motion == "flies" else _PLACE_PHRASES)[scene.place], rng)
    motion = _choose(_MOTION_PHRASES[scene.motion], rng)
    article = "a"
    if rng is not None:
        place, colour, size = (word if rng.random() < 0.8 else "" for word in (place, colour, size))
        article = "the" if rng.random() < 0.25 else "a"
    who = " ".join(word for word in (size, colour, scene.kind) if word)
    article = "an" if article == "a" and who[0] in "aeiou" else article
    sentence = motion.format(who=f"{article} {who}")
    comma = "," if place and "," in sentence else ""
    sentence = f"{sentence}{comma} {place}".rstrip()
    if rng is not None and rng.random() < 0.25:
        return sentence  # as people type: no capital, no full stop
    return f"{sentence[0].upper()}{sentence[1:]}."


def _choose(phrases: tuple[str, ...], rng: np.random.Generator | None) -> str:
    # The canonical phrasing is a third of all, so that it is learned best.
    if rng is None or rng.random() < 1 / 3:
        return phrases[0]
    return phrases[int(rng.integers(len(phrases)))]


def vocabulary() -> tuple[str, ...]:
    """Every word that a prompt can have, in lower case and sorted."""

    phrases = [*KINDS, *COLOURS, "a an the"]
    for table in (_MOTION_PHRASES, _PLACE_PHRASES, _PLACE_BELOW, _SIZE_WORDS):
        phrases += [phrase for options in table.values() for phrase in options]
    text = " ".join(phrases).replace("{who}", "").replace(",", "")
    return tuple(sorted(set(text.split())))
