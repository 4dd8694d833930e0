"""Measurements find the truth again, in true videos and in blurred, noisy ones."""

import numpy as np
import numpy.typing as npt
import pytest

from longtake.toyworld import (
    MOTIONS,
    Scene,
    background,
    classify_motion,
    joined,
    measure,
    random_scene,
    render,
)
from longtake.toyworld.motion import pose


def spoiled(frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """What a lossy autoencoder might leave: a Gaussian blur of one pixel and noise of 0.03."""
    weights = np.exp(-0.5 * np.arange(-3, 4) ** 2)
    weights /= weights.sum()
    values = frames / 255.0
    for axis in (1, 2):
        padding = [(0, 0)] * 4
        padding[axis] = (3, 3)
        wide = np.pad(values, padding, mode="edge")
        length = values.shape[axis]
        values = sum(weight * np.take(wide, range(i, i + length), axis) for i, weight in enumerate(weights))
    return (np.clip(values + rng.normal(0, 0.03, values.shape), 0, 1) * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_is_recognised(motion: str) -> None:
    rng = np.random.default_rng(11)
    for _ in range(2):
        scene = random_scene(rng, motion=motion)
        frames = render(scene, range(91))
        assert classify_motion(frames, scene) == motion, scene
        assert classify_motion(spoiled(frames, rng), scene) == motion, scene


def test_the_motion_is_read_from_the_frames_not_from_the_scene() -> None:
    scene = random_scene(np.random.default_rng(4), kind="bird", motion="spins")
    other = random_scene(np.random.default_rng(4), kind="bird", motion="bounces")
    assert classify_motion(render(other, range(109)), scene) == "bounces"
    frozen = np.repeat(render(scene, [7]), 109, 0)
    assert classify_motion(frozen, scene) == "stays still"


def test_true_videos_have_small_errors() -> None:
    rng = np.random.default_rng(5)
    errors = []
    for _ in range(8):
        scene = random_scene(rng)
        frames = render(scene, range(0, 145, 12))
        for video, most in ((frames, 0.002), (spoiled(frames, rng), 0.035)):
            found = measure(video, scene).medians
            # Bytes leave 0.001 in the background; noise of 0.03 has a mean absolute value of 0.024.
            assert found["background_error"] < most
            errors.append((found["size_error"], found["colour_error"]))
    # Pose, and edges under blur: medians over 200 scenes are 0.007 and 0.004, blurred 0.013 and 0.012.
    assert (np.median(errors, 0) < 0.04).all()


def test_the_track_follows_a_walker_there_and_back() -> None:
    scene = Scene("ball", "red", "small", "snow", "walks right")
    frames = np.arange(240)
    found = measure(render(scene, frames), scene)
    truth = pose(scene, frames).x
    assert truth.max() - 0.5 > 0.2 and truth.min() >= 0.5
    assert np.abs(found.x - truth).max() < 0.05  # a waddle tilts the centre about the feet


def test_wrong_size_and_colour_are_seen() -> None:
    scene = Scene("ball", "red", "medium", "grass", "stays still")
    for field, other in (
        ("size_error", Scene("ball", "red", "big", "grass", "stays still")),
        ("colour_error", Scene("ball", "blue", "medium", "grass", "stays still")),
    ):
        assert measure(render(other, range(5)), scene).medians[field] > 0.25


def test_a_changed_background_cannot_hide_as_a_character() -> None:
    scene = Scene("ball", "red", "small", "grass", "stays still")
    elsewhere = Scene("ball", "red", "small", "night", "stays still")
    assert measure(render(elsewhere, range(3)), scene).medians["background_error"] > 0.2


def test_an_empty_place_has_no_character() -> None:
    scene = Scene("star", "red", place="snow")
    empty = np.repeat((background(scene, 64, 64) * 255).astype(np.uint8)[None], 3, 0)
    found = measure(empty, scene)
    assert found.area.max() == 0 and found.size_error.min() == 1 and np.isfinite(found.colour_error).all()


def test_parts_of_a_video_are_measured_as_the_whole() -> None:
    scene = Scene("bird", "red", place="snow", motion="flies")
    frames = render(scene, range(40))
    parts = joined([measure(frames[:17], scene), measure(frames[17:], scene, first=17)])
    for name, values in measure(frames, scene).arrays().items():
        assert np.array_equal(values, getattr(parts, name)), name


def test_another_shape_and_another_face_are_seen() -> None:
    scene = Scene("star", "red", place="grass")
    right, wrong = (measure(render(each, [0]), scene) for each in (scene, Scene("box", "red", place="grass")))
    assert right.shape_error[0] < 0.02 and wrong.shape_error[0] > 0.25
    assert right.look_error[0] < 0.02 and wrong.look_error[0] > 0.2


def test_a_second_character_and_a_torn_one_are_counted() -> None:
    scene = Scene("ball", "red", "small", "grass", x=0.25)
    one, other = render(scene, [0]), render(Scene("ball", "red", "small", "grass", x=0.75), [0])
    both = np.where(np.arange(64)[:, None] < 32, one, other)
    assert measure(one, scene).count == 1 and measure(both, scene).count == 2
    torn = one.copy()  # its left half where it was, its right half half a frame away
    torn[:, :, 16:32] = one[:, :, 48:]
    torn[:, :, 36:52] = one[:, :, 16:32]
    assert measure(torn, scene).count == 2
