"""Pixels: the same for the same scene and frame number, at any size, on a torus, fast enough to train on."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.toyworld import (
    MOTIONS,
    PLACES,
    Scene,
    background,
    random_scene,
    render,
    render_float,
    render_masks,
)
from longtake.toyworld.motion import pose, warped_seconds
from longtake.toyworld.scenes import still

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.lists(st.integers(0, 100_000), min_size=1, max_size=20))
@settings(max_examples=25)
def test_a_frame_depends_on_scene_and_number_alone(seed: int, numbers: list[int]) -> None:
    scene = random_scene(np.random.default_rng(seed))
    together = render(scene, numbers, 32, 32)
    for number, frame in zip(numbers, together, strict=True):
        assert np.array_equal(render(scene, [number], 32, 32)[0], frame)


@given(seeds, st.integers(8, 90), st.integers(8, 90))
@settings(max_examples=40)
def test_any_size(seed: int, height: int, width: int) -> None:
    scene = random_scene(np.random.default_rng(seed))
    frames = render(scene, range(0, 60, 7), height, width)
    masks = render_masks(scene, range(0, 60, 7), height, width)
    assert frames.shape == (9, height, width, 3) and frames.dtype == np.uint8
    assert masks.shape == frames.shape[:3] and masks.min() >= 0 and masks.max() <= 1
    # At fewer pixels, a character that turns or is squashed may be thinner than one, or fall between two.
    assert min(height, width) < 32 or (masks.max((1, 2)) > 0.9).all()


@given(seeds)
@settings(max_examples=20)
def test_outside_the_mask_there_is_only_the_place(seed: int) -> None:
    scene = random_scene(np.random.default_rng(seed))
    frames, masks = render(scene, range(5), 48, 64), render_masks(scene, range(5), 48, 64)
    empty = (background(scene, 48, 64) * 255 + 0.5).astype(np.uint8)
    assert np.array_equal(frames[masks == 0], np.broadcast_to(empty, frames.shape)[masks == 0])


@given(seeds)
@settings(max_examples=20)
def test_floats_are_the_same_picture(seed: int) -> None:
    scene = random_scene(np.random.default_rng(seed))
    bytes_, floats = render(scene, range(20)), render_float(scene, range(20))
    assert floats.dtype == np.float32
    assert np.abs((floats + 1) * 127.5 - bytes_).max() <= 0.5 + 1e-3  # rounding to bytes, and float32


@given(seeds, st.sampled_from(MOTIONS), st.sampled_from(("penguin", "bird", "box")))
@settings(max_examples=40)
def test_nobody_leaves_the_frame(seed: int, motion: str, kind: str) -> None:
    kind = "bird" if motion == "flies" else kind
    scene = random_scene(np.random.default_rng(seed), motion=motion, kind=kind)
    numbers = np.random.default_rng(seed).integers(0, 10_000, 12)
    masks = render_masks(scene, numbers, 64, 64)
    cut = (masks[:, :, (0, -1)] > 0.5).sum((1, 2)) + (masks[:, (0, -1)] > 0.5).sum((1, 2))
    assert cut.max() <= 7  # the tip of a tail, of a crown


def test_what_is_beyond_the_edge_is_cut_off() -> None:
    mask = render_masks(Scene("ball", "red", x=0.0), [0], 64, 64)[0]
    assert mask[:, 0].max() > 0.9 and mask[:, 32:].max() == 0


@given(seeds, st.sampled_from(MOTIONS))
@settings(max_examples=20)
def test_one_latent_holds_little_motion(seed: int, motion: str) -> None:
    scene = random_scene(np.random.default_rng(seed), motion=motion)
    now = pose(scene, np.arange(60, 360))
    for moved, most in ((now.x, 0.05), (now.lift, 0.09), (now.angle, 0.25)):
        assert np.abs(moved[4:] - moved[:-4]).max() < most


@pytest.mark.parametrize("place", PLACES)
def test_the_place_wraps_around(place: str) -> None:
    empty = background(Scene(place=place, seed=3), 64, 64)
    inside = np.abs(np.diff(empty, axis=1)).max()
    assert np.abs(empty[:, 0] - empty[:, -1]).max() <= inside + 1e-6
    assert not empty.flags.writeable


@given(seeds, st.sampled_from(MOTIONS))
@settings(max_examples=30)
def test_the_neutral_first_frame_does_not_tell_the_motion(seed: int, motion: str) -> None:
    fixed = {"kind": "bird", "colour": "red", "phase": 0.0}
    scene = random_scene(np.random.default_rng(seed), motion=motion, **fixed)
    assert np.array_equal(render(scene, [0]), render(still(scene), [0]))


def test_motion_goes_on_for_ever_and_never_jumps() -> None:
    for motion in MOTIONS:
        scene = random_scene(np.random.default_rng(1), kind="bird", motion=motion)
        for first in (0, 1_000_000):
            now = pose(scene, np.arange(first, first + 300))
            assert np.abs(np.diff(now.x)).max() < 0.02 and np.abs(np.diff(now.lift)).max() < 0.02


def test_time_runs_forward_at_an_uneven_pace() -> None:
    steps = np.array(
        [np.diff(warped_seconds(Scene(pace_seed=seed), np.arange(3000))) * 30 for seed in range(50)]
    )
    assert steps.min() > 0
    assert steps.mean() == pytest.approx(1, abs=0.02)
    assert steps.std() == pytest.approx(0.2, abs=0.02)


def test_a_bird_that_flies_starts_on_the_ground_and_never_lands() -> None:
    scene = random_scene(np.random.default_rng(2), motion="flies")
    lift = pose(scene, np.arange(3000)).lift
    assert lift[0] == 0 and lift[60:].min() > 0.15


def test_a_frame_costs_less_than_a_millisecond() -> None:
    scene = random_scene(np.random.default_rng(0), kind="bird", motion="flies")
    render(scene, range(16))
    start = time.process_time()
    render(scene, range(145))
    assert (time.process_time() - start) / 145 < 1e-3  # 0.1 ms on an idle core; generous for busy ones
