"""The additions of a study to scenes: true at every frame, off by default, measured as well as a plain scene."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.errors import JobError
from longtake.toyworld import (
    VARIANTS,
    Extras,
    Scene,
    background,
    centres,
    changing,
    classify_motion,
    guest_masks,
    light,
    measure,
    motion_of,
    prompt,
    prompts,
    random_scene,
    render,
    render_float,
    render_masks,
    scene_from_text,
    study_scene,
)
from longtake.toyworld.extras import PLAIN
from longtake.toyworld.motion import BLEND, pose

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.sampled_from(VARIANTS))
@settings(max_examples=24)
def test_any_frame_of_any_variant_is_a_function_of_its_number(seed: int, variant: str) -> None:
    scene = study_scene(variant, np.random.default_rng(seed))
    assert scene == study_scene(variant, np.random.default_rng(seed))
    together = render(scene, [0, 333, 57, 120], 32, 40)
    for number, frame in ((333, together[1]), (120, together[3])):
        assert np.array_equal(render(scene, [number], 32, 40)[0], frame)
    floats = render_float(scene, [333], 32, 40)[0]
    assert np.abs((floats + 1) * 127.5 - together[1]).max() <= 0.5 + 1e-3
    outside = render_masks(scene, [333], 32, 40)[0] == 0
    empty = background(scene, 32, 40, 333) * 255
    assert np.abs(empty - together[1])[outside].max() <= 0.5 + 1e-3


def test_the_first_picture_shows_no_extra() -> None:
    for number, variant in enumerate(("light", "guest", "hidden", "hidden guest", "change")):
        scene = study_scene(variant, np.random.default_rng(number))
        plain = replace(scene, extras=PLAIN, then=())
        assert np.array_equal(render(scene, [0]), render(plain, [0]))
        assert not np.array_equal(render(scene, [115]), render(plain, [115]))


@pytest.mark.parametrize("variant", ["pan", "light", "guest", "hidden guest"])
def test_extras_are_no_errors(variant: str) -> None:
    scene = study_scene(variant, np.random.default_rng(7), motion="dances", place="grass")
    numbers = range(0, 300, 20)
    found = measure(render(scene, numbers), scene, numbers)
    assert np.median(found.size_error) < 0.05 and np.median(found.colour_error) < 0.03
    assert found.background_error.max() < 0.004
    plain = replace(scene, extras=PLAIN)
    assert measure(render(plain, [160]), scene, [160]).background_error > 2 * found.background_error.max()


def test_a_camera_that_pans_sees_what_the_first_picture_does_not_and_returns() -> None:
    scene = Scene(extras=Extras(pan=1.0), seed=3)
    first, far, again = (background(scene, 48, 64, frame) for frame in (0, 240, 480))
    assert np.abs(far - first).mean() > 0.03 and np.abs(again - first).max() < 1e-4
    steps = np.abs(np.diff([background(scene, 48, 64, frame) for frame in range(100, 110)], axis=0))
    assert 0 < steps.mean() < 0.02  # less than a pixel a frame


def test_light_goes_down_and_comes_back() -> None:
    shares = light(Extras(light=1.0), [0, 240, 480])
    assert shares[0].min() == shares[2].min() == 1 and shares[1].max() < 0.7
    assert len(set(shares[1].tolist())) == 3  # a tint


def test_a_guest_stays_and_is_the_same_behind_its_curtain() -> None:
    scene = study_scene("hidden guest", np.random.default_rng(2), motion="stays still")
    extras = scene.extras
    seen = guest_masks(
        scene, [0, extras.guest_at + 60, extras.hidden_at, extras.hidden_at + extras.hidden_for + 40]
    )
    assert seen[0].max() == seen[2].max() == 0 and seen[1].max() > 0.9
    assert np.array_equal(seen[1], seen[3])


def test_a_hidden_character_is_not_seen_for_just_so_many_frames() -> None:
    scene = Scene("ball", "red", motion="bounces", extras=Extras(hidden_at=40, hidden_for=30))
    share = render_masks(scene, range(130)).sum((1, 2))
    assert (share[40:70] == 0).all() and share[39] >= 0 and share[:10].min() > 0 and share[100:].min() > 0


def test_a_circle_follows_from_its_first_frames() -> None:
    one, other = (Scene("star", "red", motion="circles", pace_seed=seed) for seed in (1, 2))
    assert np.array_equal(centres(one, range(200)), centres(other, range(200)))
    steps = np.linalg.norm(np.diff(centres(one, range(200)), axis=0), axis=1)
    assert steps.std() < 1e-3 * steps.mean()
    assert np.allclose(centres(one, [0]), centres(one, [120]))
    frames = render(one, range(0, 120, 10))
    found = measure(frames, one)
    # A star's pixels have their centre a little beside its middle, the same in every frame.
    offset = np.stack((found.x, found.y), 1) - centres(one, range(0, 120, 10))
    assert np.ptp(offset, axis=0).max() < 0.012
    assert classify_motion(render(one, range(150)), one) == "circles"


@given(seeds)
@settings(max_examples=15)
def test_one_motion_becomes_another_without_a_jump(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = changing(random_scene(rng, kind="bird"), rng, 73)
    now = pose(scene, np.arange(60, 110))
    for values, most in ((now.x, 0.03), (now.lift, 0.035), (np.exp(1j * now.angle), 0.35)):
        assert np.abs(np.diff(values)).max() < most
    before = pose(replace(scene, then=()), np.arange(60, 74))
    assert np.allclose(now.x[:14], before.x) and np.allclose(np.exp(1j * (now.angle[:14] - before.angle)), 1)


def test_both_motions_are_seen_and_told() -> None:
    scene = Scene("ball", "red", motion="spins", place="grass", then=((109, "bounces"),))
    found = measure(render(scene, range(230)), scene)
    assert motion_of(found[:109], scene, (64, 64)) == "spins"
    assert motion_of(found[109 + BLEND :], scene, (64, 64)) == "bounces"
    assert [frame for frame, _ in prompts(scene)] == [0, 109]
    assert "spins" in prompts(scene)[0][1] and "bounces" in prompts(scene)[1][1]
    assert prompt(scene) == prompts(scene)[0][1]


def test_a_guest_is_named_while_it_comes_in() -> None:
    scene = study_scene("guest", np.random.default_rng(1))
    told = [scene.extras.guest in text for _, text in prompts(scene)]
    assert told == [False, True, False]


def test_prompts_of_extras_say_them() -> None:
    said = prompt(Scene(extras=Extras(pan=-1, light=1, hidden_for=30), motion="dances"))
    for words in ("camera pans to the left", "gets dark", "curtain"):
        assert words in said
    assert scene_from_text("a penguin dances").extras == PLAIN


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"extras": Extras(guest="dog")}, "no guest 'dog'"),
        ({"extras": Extras(guest="box", guest_colour="grey")}, "no colour 'grey'"),
        ({"extras": Extras(light=2)}, "by 0 to 1"),
        ({"extras": Extras(hidden_at=3, hidden_for=9)}, "frames to come down"),
        ({"then": ((0, "dances"),)}, "begins after"),
        ({"then": ((9, "swims"),)}, "'swims'"),
        ({"then": ((9, "flies"),)}, "only a bird"),
    ],
)
def test_impossible_additions_are_refused(fields: dict, said: str) -> None:
    with pytest.raises(JobError, match=said):
        Scene(**fields)
    with pytest.raises(JobError, match="no variant"):
        study_scene("rain", np.random.default_rng(0))
