"""Plain English for scenes, in about 120 words: what a text encoder trained on this world has to know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from longtake.toyworld.extras import SLIDE, Extras
from longtake.toyworld.scenes import COLOURS, KINDS, MOTIONS, PENGUIN_COLOUR, Scene

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
    "circles": ("{who} goes around in a circle",),
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

    The motion is always named: it is what a picture does not tell. Of a scene that changes on the way it says how it
    begins (`prompts` has the rest).

    >>> prompt(Scene(kind="bird", colour="blue", size="small", place="beach", motion="flies"))
    'A small blue bird takes off and flies, flapping its wings, over the beach.'
    """
    return _sentence(scene, rng, _clauses(scene))


def prompts(scene: Scene, rng: np.random.Generator | None = None) -> tuple[tuple[int, str], ...]:
    """Each prompt of the scene and the frame from which it says what is seen.

    A guest is named while it comes in and not later: what it looked like has to be remembered.

    >>> prompts(Scene(motion="dances", then=((37, "bounces"),)))
    ((0, 'A penguin dances in the snow.'), (37, 'A penguin bounces up and down in the snow.'))
    """
    begins = {0: scene.motion, **dict(scene.then)}
    extras = scene.extras
    guest = (extras.guest_at, extras.guest_at + 2 * SLIDE) if extras.guest else ()
    told, motion = [], scene.motion
    for frame in sorted({*begins, *guest}):
        motion = begins.get(frame, motion)
        clauses = _clauses(scene)
        if guest and guest[0] <= frame < guest[1]:
            clauses = (*clauses, _guest_clause(extras))
        told.append((frame, _sentence(replace(scene, motion=motion, then=()), rng, clauses)))
    return tuple(told)


def _clauses(scene: Scene) -> tuple[str, ...]:
    """The clauses about the scene beside the character and its place, said all through."""
    extras = scene.extras
    clauses = []
    if extras.pan:
        clauses.append(f"the camera pans to the {'right' if extras.pan > 0 else 'left'} and back")
    if extras.light:
        clauses.append("it gets dark and light again")
    if extras.hidden_for:
        clauses.append("a curtain hides the guest" if extras.guest else "a curtain hides it")
    return tuple(clauses)


def _guest_clause(extras: Extras) -> str:
    who = extras.guest if extras.guest == "penguin" else f"{extras.guest_colour} {extras.guest}"
    return f"{'an' if who[0] in 'aeiou' else 'a'} {who} comes in"


def _sentence(scene: Scene, rng: np.random.Generator | None, clauses: tuple[str, ...]) -> str:
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
    sentence = ", and ".join((f"{sentence}{comma} {place}".rstrip(), *clauses))
    if rng is not None and rng.random() < 0.25:
        return sentence  # as people type: no capital, no full stop
    return f"{sentence[0].upper()}{sentence[1:]}."


def _choose(phrases: tuple[str, ...], rng: np.random.Generator | None) -> str:
    # The canonical phrasing is a third of all, so that it is learned best.
    if rng is None or rng.random() < 1 / 3:
        return phrases[0]
    return phrases[int(rng.integers(len(phrases)))]


def vocabulary() -> tuple[str, ...]:
    """Every word that the prompt of a random scene can have, in lower case and sorted."""

    phrases = [*KINDS, *COLOURS, "a an the"]
    drawn = {motion: _MOTION_PHRASES[motion] for motion in MOTIONS}
    for table in (drawn, _PLACE_PHRASES, _PLACE_BELOW, _SIZE_WORDS):
        phrases += [phrase for options in table.values() for phrase in options]
    text = " ".join(phrases).replace("{who}", "").replace(",", "")
    return tuple(sorted(set(text.split())))
