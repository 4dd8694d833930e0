"""Intervals cover what they should, and know that seeds of one scene are alike."""

import numpy as np
import pytest

from longtake.evaluation.bootstrap import drawn_weights, intervals


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, inside = np.random.default_rng(0), 0
    scenes = np.repeat(np.arange(30), 3).tolist()
    for trial in range(100):
        values = rng.normal(0, 1, 30).repeat(3) + rng.normal(0, 1, 90)
        found = intervals(values[:, None], scenes, draws=400, seed=trial)[0]
        inside += found.low <= 0 <= found.high
    # 95 of 100 in the limit; with 30 scenes 93, and the deviation of 100 trials is 2.5.
    assert 86 <= inside <= 100


def test_seeds_of_a_scene_are_not_scenes_of_their_own():
    values = np.random.default_rng(1).normal(0, 1, 20).repeat(3)[:, None]
    wide = intervals(values, np.repeat(np.arange(20), 3).tolist())[0]
    narrow = intervals(values)[0]
    assert wide.mean == narrow.mean == pytest.approx(values.mean())
    assert wide.high - wide.low > 1.4 * (narrow.high - narrow.low)


def test_each_draw_is_as_large_as_the_sample():
    weights = drawn_weights(["a", "a", "b", "b", "c", "c"], 50)
    assert (weights.sum(1) == 6).all() and (weights[:, :2].sum(1) % 2 == 0).all()
    assert (weights[:, 0] != weights[:, 1]).any()


def test_what_is_not_known_is_left_out():
    found = intervals([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    assert found[0].mean == 2 and found[0].videos == 2 and 1 <= found[0].low <= found[0].high <= 3
    assert np.isnan(found[1].mean) and found[1].videos == 0


def test_paired_differences_are_surer_than_their_parts():
    rng = np.random.default_rng(2)
    one = rng.normal(0, 1, 40)
    other = one + 0.1 + rng.normal(0, 0.05, 40)
    difference = intervals((other - one)[:, None])[0]
    assert difference.low > 0 and difference.high < 0.2
    assert intervals(one[:, None])[0].low < 0
