"""Which frames are learned from: the numbers of musubi-tuner, whose code gave the tables here, and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.errors import JobError
from longtake.training.data.sizes import Sizes
from longtake.training.data.stretches import WAYS, Cut, Pace

TABLE = [
    # frame_extraction, target_frames, frame_stride, frame_sample, max_frames -> stretches of 150 frames
    ("uniform", (37, 75), 1, 4, 129, [(0, 37), (37, 37), (75, 37), (113, 37), (0, 73), (25, 73), (51, 73), (77, 73)]),
    ("uniform", (37,), 1, 1, 129, [(0, 37)]),
    ("chunk", (37, 73), 1, 1, 129, [(0, 37), (37, 37), (74, 37), (111, 37), (0, 73), (73, 73)]),
    ("slide", (41,), 30, 1, 129, [(0, 37), (30, 37), (60, 37), (90, 37)]),
    ("head", (109, 37, 80), 1, 1, 129, [(0, 37), (0, 73), (0, 109)]),
    ("full", (1,), 1, 1, 129, [(0, 109)]),
    ("full", (1,), 1, 1, 1000, [(0, 145)]),
]  # fmt: skip


@pytest.mark.parametrize(("how", "targets", "stride", "samples", "most", "found"), TABLE)
def test_stretches_are_musubi_tuners(how, targets, stride, samples, most, found):
    assert Cut(how, targets, stride, samples, most).stretches(150) == found


def test_the_pictures_of_its_documentation():
    """Its page draws forty frames, with sections of 12 frames: 13, 25."""
    starts = {n: [s for s, count in Cut("uniform", (13, 25), samples=4, window=3).stretches(40) if count == n]
              for n in (13, 25)}  # fmt: skip
    assert starts == {13: [0, 9, 18, 27], 25: [0, 5, 10, 15]}
    assert Cut("chunk", (13, 25), window=3).stretches(40) == [(0, 13), (13, 13), (26, 13), (0, 25)]
    slide = [(0, 13), (10, 13), (20, 13), (0, 25), (10, 25)]
    assert Cut("slide", (13, 25), stride=10, window=3).stretches(40) == slide
    assert [Cut(most=31, window=1).stretches(frames) for frames in (20, 25, 35)] == [
        [(0, 17)], [(0, 25)], [(0, 29)]
    ]  # fmt: skip


@given(
    st.sampled_from(WAYS), st.integers(1, 500), st.integers(1, 12), st.integers(1, 40), st.integers(1, 6),
    st.lists(st.integers(49, 200), min_size=1, max_size=3),
)  # fmt: skip
def test_stretches_are_whole_sections_that_lie_in_the_video(how, frames, window, stride, samples, targets):
    cut = Cut(how, tuple(targets), stride, samples, None, window)
    cut.check("here")
    for start, count in cut.stretches(frames):
        assert start >= 0 and start + count <= frames and count > 1 and (count - 1) % (4 * window) == 0


def test_frames_are_dropped_as_musubi_tuner_drops_them():
    drops = [0, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16, 18, 19, 20, 22, 23]
    assert Pace(30, 40).picked(np.arange(24) / 40, 1 / 40).tolist() == drops
    assert Pace(30, 59.94).picked(np.arange(12) / 59.94, 1 / 59.94).tolist() == [0, 2, 4, 6, 8, 10]
    assert Pace(30, 24).picked(np.arange(5) / 24, 1 / 24).tolist() == [0, 1, 2, 3, 4]


@given(st.floats(5, 240), st.integers(1, 400), st.integers(0, 10**6))
def test_at_each_moment_the_nearest_frame_is_taken(rate, count, seed):
    """Whatever the rate, and if frames come late or early."""
    times = np.sort((np.arange(count) + 0.8 * np.random.default_rng(seed).random(count)) / rate)
    times -= times[0]
    picked = Pace().picked(times, 1 / rate)
    assert (np.diff(picked) >= 0).all() and picked[0] == 0 and picked[-1] < count
    if not np.array_equal(picked, np.arange(count)):
        moments = np.arange(len(picked)) / 30
        errors = np.abs(times[picked] - moments)
        assert (errors <= np.abs(times[None] - moments[:, None]).min(1) + 1e-5).all()
        assert abs(len(picked) / 30 - (times[-1] + 1 / rate)) < 1 / 30 + 1e-3


def test_rates_that_are_nearly_thirty_are_thirty():
    for rate in (30000 / 1001, 30, 45000 / 1499):
        assert Pace().picked(np.arange(900) / rate, 1 / rate).tolist() == list(range(900))
    assert len(Pace().picked(np.arange(250) / 25, 1 / 25)) == 300
    assert Pace(None).picked(np.arange(7) / 5, 1 / 5).tolist() == list(range(7))


BUCKETS = [
    # resolution, size of the picture -> size
    ((960, 544), (1080, 1920), (544, 960)),
    ((960, 544), (1000, 1000), (720, 720)),
    ((960, 544), (5000, 100), (1472, 352)),
    ((640, 640), (1920, 1080), (848, 480)),
    ((512, 512), (300, 200), (624, 416)),
]


@pytest.mark.parametrize(("area", "size", "found"), BUCKETS)
def test_buckets_are_musubi_tuners(area, size, found):
    assert Sizes(area, True).of(*size) == found
    assert Sizes(area).of(*size) == area


def test_small_ones_stay_if_asked():
    sizes = Sizes((960, 544), True, upscale=False)
    assert sizes.of(333, 250) == (320, 240) and sizes.of(1920, 1080) == (960, 544)
    with pytest.raises(JobError, match="no multiple of 16 pixels; write 96 x 64"):
        Sizes((100, 60)).check("here")


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        (Cut("head", (1,)), "target_frames has 1, and one section needs 37"),
        (Cut("tail", (37,)), "no frame_extraction 'tail'; there are: full, head"),
        (Cut("slide", (37,), stride=0), "frame_stride must be at least 1"),
        (Cut(most=36), "max_frames is 36, and one section needs 37"),
    ],
)
def test_what_cuts_nothing_is_refused(cut, told):
    with pytest.raises(JobError, match=told):
        cut.check("here")
