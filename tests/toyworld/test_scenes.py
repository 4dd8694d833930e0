"""Scenes and their words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.errors import JobError
from longtake.toyworld import (
    COLOURS,
    KINDS,
    MOTIONS,
    PLACES,
    SIZES,
    Scene,
    prompt,
    random_scene,
    scene_from_text,
    vocabulary,
)
from longtake.toyworld.scenes import COLOURS_OF_PLACE, PENGUIN_COLOUR

seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_random_scenes_are_sound_and_repeatable(seed: int) -> None:
    scene = random_scene(np.random.default_rng(seed))
    assert scene == random_scene(np.random.default_rng(seed))
    assert scene.motion != "flies" or scene.kind == "bird"
    assert scene.colour in (*COLOURS_OF_PLACE[scene.place], PENGUIN_COLOUR)
    assert (scene.colour == PENGUIN_COLOUR) == (scene.kind == "penguin")


def test_random_scenes_show_everything() -> None:
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng) for _ in range(500)]
    for field, values in (("kind", KINDS), ("motion", MOTIONS), ("place", PLACES), ("size", SIZES)):
        assert {getattr(scene, field) for scene in scenes} == set(values)
    assert {scene.colour for scene in scenes} == {*COLOURS, PENGUIN_COLOUR}
    assert 0.35 < np.mean([scene.phase == 0 for scene in scenes]) < 0.65


@given(seeds, st.sampled_from(MOTIONS), st.sampled_from(PLACES))
def test_fixed_fields_stay(seed: int, motion: str, place: str) -> None:
    scene = random_scene(np.random.default_rng(seed), motion=motion, place=place)
    assert (scene.motion, scene.place) == (motion, place)


@given(seeds, st.sampled_from(COLOURS))
def test_a_fixed_colour_chooses_character_and_place(seed: int, colour: str) -> None:
    scene = random_scene(np.random.default_rng(seed), colour=colour)
    assert scene.colour == colour and scene.kind != "penguin" and colour in COLOURS_OF_PLACE[scene.place]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "dog"),
        ("colour", "black"),
        ("size", "huge"),
        ("place", "moon"),
        ("motion", "flies"),
        ("taste", 1),
    ],
)
def test_impossible_scenes_are_refused(field: str, value: object) -> None:
    with pytest.raises(JobError):
        random_scene(np.random.default_rng(0), **{"kind": "ball", field: value})


@given(seeds)
def test_the_canonical_prompt_says_what_is_seen(seed: int) -> None:
    scene = random_scene(np.random.default_rng(seed))
    read = scene_from_text(prompt(scene))
    for field in ("kind", "colour", "size", "place", "motion"):
        assert getattr(read, field) == getattr(scene, field)


@given(seeds)
def test_every_prompt_names_character_and_motion_in_few_words(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = random_scene(rng)
    text = prompt(scene, rng)
    read = scene_from_text(text)
    assert (read.kind, read.motion) == (scene.kind, scene.motion)
    assert set(text.lower().replace(",", "").replace(".", "").split()) <= set(vocabulary())
    assert len(vocabulary()) <= 120


def test_prompts_vary() -> None:
    rng = np.random.default_rng(0)
    texts = {prompt(Scene(motion="dances"), rng) for _ in range(200)}
    assert len(texts) > 20
    assert any("snow" not in text for text in texts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a penguin in the snow",
            {"kind": "penguin", "place": "snow", "motion": "stays still", "phase": 0.0},
        ),
        ("a small blue bird", {"kind": "bird", "colour": "blue", "size": "small"}),
        ("a bird", {"colour": "blue", "size": "medium"}),
        ("a big red star spins on the beach at night", {"kind": "star", "place": "night", "motion": "spins"}),
        ("A penguin dancing in the snow", {"motion": "dances"}),
        ("The little bird takes off and flies, flapping its wings!", {"motion": "flies", "size": "small"}),
        ("a box walks to the left", {"motion": "walks left"}),
        ("a green ball jumps up and down", {"motion": "bounces", "colour": "green"}),
    ],
)
def test_text_becomes_a_scene(text: str, expected: dict[str, object]) -> None:
    scene = scene_from_text(text)
    assert {field: getattr(scene, field) for field in expected} == expected
    assert scene == scene_from_text(text)
    assert scene != scene_from_text(text, seed=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a dragon in the snow", "'dragon'.*penguin, bird"),
        ("in the snow", "no character"),
        ("", "no character"),
        ("a red blue ball", "red and blue"),
        ("a penguin on the grass in the snow", "grass and snow"),
        ("a yellow penguin", "black and white"),
        ("a ball flies", "only a bird"),
    ],
)
def test_a_text_that_cannot_be_met_is_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        scene_from_text(text)
