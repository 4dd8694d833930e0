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
    return np.stack([toyworld.render(scene, range(73)) for scene in scenes])


def test_held_out_scenes_take_the_motions_in_turn(scenes):
    assert [scene.motion for scene in scenes] == list(toyworld.MOTIONS)
    assert toy.held_out_scenes(3, first=2) == toy.held_out_scenes(5)[2:]


def test_true_videos_are_right(scenes, videos):
    found = toy.figures_of(videos, scenes)
    assert found["motion"] == 1
    assert found["size_error"] < 0.05 and found["colour_error"] < 0.05
    assert found["background_error"] < 0.01


def test_videos_of_other_scenes_are_wrong(scenes, videos):
    found = toy.figures_of(np.roll(videos, 1, axis=0), scenes)
    assert found["motion"] < 0.3 and found["background_error"] > 0.05
