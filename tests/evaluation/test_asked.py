"""Worlds in which more happens: what is asked when, what a curtain hides, what is remembered, what is certain."""

from dataclasses import replace

import numpy as np
import pytest

from longtake.evaluation.asked import curtain, is_certain, recalled, spans
from longtake.evaluation.making import Arm, evaluate_videos
from longtake.evaluation.meter import Meter
from longtake.evaluation.records import Record
from longtake.job import Job
from longtake.toyworld import Extras, Scene, prompts, render

PLAIN = Scene("ball", "red", place="grass", motion="dances")


def measured(scene, frames):
    meter = Meter(scene)
    for first in range(0, len(frames), 50):
        meter.push(frames[first : first + 50])
    return meter.finish()


def test_a_motion_is_judged_by_what_is_asked_then():
    scene = replace(PLAIN, then=((109, "bounces"),))
    found = measured(scene, render(scene, range(240)))
    curve = found.curves["prompted"]
    across = (curve.at - 45 < 109) & (curve.at + 45 > 109)
    assert np.isnan(curve.values[across]).all() and (curve.values[~across] == 1).all()
    assert found.seen == "bounces"
    still = measured(scene, render(PLAIN, range(240)))  # which never changes
    assert still.seen == "dances" and not still.curves["prompted"].values[~across][-1]
    assert still.curves["prompted"].values[0] == 1


def test_what_a_curtain_hides_is_not_lost():
    scene = replace(PLAIN, extras=Extras(hidden_at=60, hidden_for=40))
    assert (curtain(scene), recalled(scene)) == (range(36, 124), range(124, 184))
    found = measured(scene, render(scene, range(200))).curves
    assert not found["lost"].values.any()
    assert np.isnan(found["size"].values[36:124]).all() and found["size"].values[124:].max() < 0.2
    assert found["background"].values.max() < 0.01
    assert found["recalled"].at.tolist() == list(range(124, 184))
    other = measured(scene, render(replace(scene, kind="box", colour="blue"), range(200))).curves
    assert np.nanmean(other["recalled"].values) > np.nanmean(found["recalled"].values) + 0.1


def test_a_guest_that_comes_back_in_another_colour_is_not_recalled():
    extras = Extras(guest="star", guest_colour="blue", guest_at=10, hidden_at=90, hidden_for=30)
    scene = Scene("ball", "red", "small", "grass", "stays still", extras=extras)
    true = render(scene, range(200))
    wrong = true.copy()
    wrong[120:] = render(replace(scene, extras=replace(extras, guest_colour="yellow")), range(200))[120:]
    right, other = measured(scene, true).curves, measured(scene, wrong).curves
    assert np.nanmax(right["guest"].values) < 0.02 and np.isnan(right["guest"].values[:10]).all()
    assert right["recalled"].values.mean() < 0.02 and other["recalled"].values.mean() > 0.2
    assert np.nanmean(other["guest"].values[:90]) < 0.02


def test_what_is_certain():
    assert is_certain(replace(PLAIN, motion="circles")) and is_certain(replace(PLAIN, motion="stays still"))
    assert not is_certain(PLAIN) and not is_certain(replace(PLAIN, motion="circles", extras=Extras(pan=1.0)))


def test_prompts_that_change_are_said_in_their_sections(networks):
    scene = replace(PLAIN, then=((17, "bounces"),))
    (one, other) = spans(scene, 30)
    assert (one.start, one.end, other.start, other.end) == (0, 17 / 30, 17 / 30, None)
    assert [one.text, other.text] == [text for _, text in prompts(scene)]
    arm = Arm("vanilla", Job("", frames=33, window=2, steps=1, sampling="vanilla"))
    found = [
        {
            (each.scene, each.seed): each
            for each in evaluate_videos([arm], lambda job: networks, scenes, (0, 1), stills=5)
            if isinstance(each, Record)
        }
        for scenes in ({0: scene, 1: PLAIN}, {0: PLAIN})
    ]
    assert found[0].keys() == {(0, 0), (0, 1), (1, 0), (1, 1)}
    changed, plain = (each[0, 0].stills.astype(int) for each in found)
    # The first section was told the same; a batch of others rounds otherwise.
    assert np.abs(changed[:2] - plain[:2]).max() <= 1 and np.abs(changed[3:] - plain[3:]).max() > 3
    assert found[0][0, 0].asked == "bounces" and found[0][1, 0].asked == "dances"


@pytest.mark.parametrize("variant", ["pan", "light", "guest", "hidden guest"])
def test_true_videos_of_every_world_are_right(variant):
    from longtake.toyworld import study_scene

    scene = study_scene(variant, np.random.default_rng(1), motion="bounces")
    found = measured(scene, render(scene, range(240)))
    assert np.nanmean(found.curves["background"].values) < 0.01 and found.seen == "bounces"
    assert not found.curves["lost"].values.any() and np.nanmean(found.curves["size"].values) < 0.15
