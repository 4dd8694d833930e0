"""The judge judges true videos well, wrong ones badly."""

import numpy as np
import pytest

from longtake import toyworld
from longtake.toy import judge as toy


@pytest.fixture(scope="module")
def scenes():
    return toy.held_out_scenes(7)


@pytest.fixture(scope="module")
def videos(scenes):
    return toy.true_videos(scenes, 73, 64)


def test_held_out_scenes_take_the_motions_in_turn(scenes):
    assert [scene.motion for scene in scenes] == list(toyworld.MOTIONS)
    assert toy.held_out_scenes(3, first=2) == toy.held_out_scenes(5)[2:]


def test_true_videos_are_right(scenes, videos):
    summary = toy.figures_of(videos, scenes).summary()
    assert summary["motion"] == 1
    assert summary["size_error"] < 0.05 and summary["colour_error"] < 0.05
    assert summary["background_error"] < 0.01


def test_videos_of_other_scenes_are_wrong(scenes, videos):
    figures = toy.figures_of(np.roll(videos, 1, axis=0), scenes)
    assert figures.summary()["motion"] < 0.3
    assert set(figures.by_motion()) == set(toyworld.MOTIONS)


def test_psnr():
    black, grey = np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 4, 4, 3), 26, np.uint8)
    assert toy.psnr(black, grey) == pytest.approx(19.8, abs=0.05)
