"""A meter finds planted errors, whatever parts a video comes in, in memory that does not depend on its length."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from longtake.evaluation.making import noise_seed
from longtake.evaluation.meter import Meter, seams_of
from longtake.plan.plans import PLANS
from longtake.toyworld import Scene, background, render

SCENE = Scene("ball", "red", place="grass", motion="dances")


def measured(frames, scene=None, seams=(), parts=36, **options):
    meter = Meter(scene, seams, **options)
    for first in range(0, len(frames), parts):
        meter.push(frames[first : first + parts])
    return meter.finish()


def mean(found, name):
    return float(np.nanmean(found.curves[name].values))


@pytest.fixture(scope="module")
def true():
    return render(SCENE, range(90))


def test_the_parts_do_not_matter(true):
    whole, parts = measured(true, SCENE, parts=90), measured(true, SCENE, parts=7)
    for name, curve in whole.curves.items():
        assert parts.curves[name].values == pytest.approx(curve.values, nan_ok=True), name
    assert parts.similarity == pytest.approx(whole.similarity) and parts.seen == whole.seen == "dances"


def test_true_videos_are_right(true):
    found = measured(true, SCENE)
    for name, most in (("background", 0.002), ("size", 0.05), ("colour", 0.05), ("shape", 0.1), ("lost", 0)):
        assert mean(found, name) <= most, name
    assert mean(found, "count") == 1 and mean(found, "prompted") == 1
    assert mean(found, "sharpness") == pytest.approx(1, abs=0.05)


def test_a_shift_of_all_colours_is_found_as_large_as_it_is(true):
    shifted = true.copy()
    shifted[45:, ..., 2] -= np.minimum(shifted[45:, ..., 2], 20)
    found = measured(shifted)
    lost = np.minimum(true[45:, ..., 2], 20).mean() / 3 / 255
    assert found.curves["colours"].values[45:].mean() == pytest.approx(lost, abs=0.002)
    assert found.curves["colours"].values[:45].max() < 0.005
    truth = measured(shifted, SCENE).curves["background"].values
    assert truth[50:].mean() - truth[:40].mean() == pytest.approx(lost, rel=0.1)


def test_a_blurred_video_has_the_sharpness_of_its_frames(true):
    wide = np.pad(true.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    blurred = sum(wide[:, y : y + 64, x : x + 64] for y in range(3) for x in range(3)) / 9
    energy = []
    for frames in (true, np.rint(blurred)):
        bright = frames @ np.array([0.299, 0.587, 0.114]) / 255
        middle, other = bright[:, 1:-1, 1:-1], bright[:, :-2, 1:-1] + bright[:, 2:, 1:-1]
        energy.append(((4 * middle - other - bright[:, 1:-1, :-2] - bright[:, 1:-1, 2:]) ** 2).mean())
    found = measured(np.rint(blurred).astype(np.uint8), SCENE)
    assert mean(found, "sharpness") == pytest.approx(energy[1] / energy[0], rel=0.05)


def test_a_frozen_video_has_no_motion(true):
    frozen = np.repeat(true[20:21], 75, 0)
    found = measured(frozen, SCENE, seams=[37])
    assert [mean(found, name) for name in ("motion", "change", "speed")] == [0, 0, 0]
    assert found.curves["seam"].values.tolist() == [1] and found.seen == "stays still"
    assert mean(found, "prompted") == 0 and mean(found, "lost") == 0
    assert mean(measured(true, SCENE), "motion") > 0.01


def test_motion_that_ends_late_is_seen_where_it_ends():
    frames = render(SCENE, np.minimum(np.arange(240), 120))
    curve = measured(frames, SCENE).curves["prompted"]
    assert curve.values[curve.at <= 90].all() and not curve.values[curve.at >= 160].any()


def test_a_character_that_vanishes_is_lost(true):
    gone = true.copy()
    gone[40:75] = background(SCENE, 64, 64) * 255
    found = measured(gone, SCENE).curves
    assert found["lost"].values[45:70].all() and not found["lost"].values[:33].any()
    assert (found["count"].values[40:75] == 0).all()
    flicker = true.copy()
    flicker[40:50] = gone[40:50]  # a third of a second is none
    assert not measured(flicker, SCENE).curves["lost"].values.any()


def test_another_character_in_its_place_is_lost(true):
    box = render(Scene("box", "blue", "small", "grass", "dances"), range(90))
    assert measured(box, SCENE).curves["lost"].values.all()


def test_a_seam_is_found_where_it_was_planted():
    scene = replace(SCENE, motion="spins")
    frames = render(scene, np.arange(110) + 40 * (np.arange(110) >= 73))
    ratios = measured(frames, scene, seams=[37, 73]).curves["seam"]
    assert ratios.at.tolist() == [37, 73]
    assert 0.8 < ratios.values[0] < 1.2 and ratios.values[1] > 2


def test_the_first_frame_says_all_of_a_scene_that_stands_still():
    scene = replace(SCENE, motion="stays still")
    frames = render(scene, range(30))
    noisy = np.clip(frames + np.random.default_rng(0).normal(0, 10, frames.shape), 0, 255).astype(np.uint8)
    error = ((noisy.astype(float) - frames) ** 2).mean((1, 2, 3))
    assert measured(noisy, scene).curves["psnr"].values == pytest.approx(
        10 * np.log10(255**2 / error), abs=1e-3
    )
    assert "psnr" not in measured(frames, SCENE).curves
    assert "psnr" in measured(render(SCENE, range(30)), SCENE, certain=True).curves


def test_a_video_is_like_itself_where_it_repeats():
    frames = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3)).astype(np.uint8)
    found = measured(np.concatenate([frames, frames, frames])).similarity  # every two seconds
    assert found[2] == pytest.approx(1, abs=1e-4) and abs(found[1]) < 0.1 and 10 not in found


def test_memory_does_not_depend_on_the_length():
    frames = np.random.default_rng(0).integers(0, 256, (36, 48, 48, 3)).astype(np.uint8)
    peaks = []
    for parts in (2, 20):
        meter = Meter()
        meter.push(frames)
        tracemalloc.start()
        for _ in range(parts):
            meter.push(frames)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 18 parts more are 4.5 MB of frames; of them stay a few numbers each, and thumbnails of 3 kB twice a second.
    assert peaks[1] - peaks[0] < 0.25e6


@pytest.mark.parametrize("name", PLANS)
def test_seams_are_where_another_section_begins(name):
    plan = PLANS[name].lay_out(6, 9, False)
    assert seams_of(plan) == [37, 73, 109, 145, 181]


def test_each_video_has_noise_of_its_own():
    seeds = {noise_seed(seed, scene) for seed in range(5) for scene in range(100)}
    assert len(seeds) == 500
