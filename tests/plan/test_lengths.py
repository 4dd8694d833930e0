import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.errors import JobError
from longtake.plan.lengths import (
    nearest_section_count,
    reference_section_count,
    section_count,
    shown_frames,
    video_frames,
)


@given(frames=st.integers(1, 5000), window=st.integers(1, 12))
def test_section_count_is_the_smallest_that_suffices(frames, window):
    sections = section_count(frames, window)
    assert video_frames(sections, window) >= frames
    assert sections == 1 or video_frames(sections - 1, window) < frames


@given(frames=st.integers(1, 5000), window=st.integers(1, 12))
def test_nearest_section_count_is_as_it_was(frames, window):
    # As 0.1.0 rounded, in floats.
    rounded = max(1, int((frames - 1) / (video_frames(1, window) - 1) + 0.5))
    assert nearest_section_count(frames, window) == rounded


def test_section_counts():
    assert [section_count(frames) for frames in (1, 37, 38, 73, 145, 146)] == [1, 1, 2, 2, 4, 5]
    assert [reference_section_count(frames) for frames in (1, 33, 34, 91, 129, 145)] == [1, 1, 2, 3, 4, 5]
    assert [video_frames(sections) for sections in (1, 4, 8, 50, 100)] == [37, 145, 289, 1801, 3601]


@given(st.integers(0, 50))
def test_shown_frames_cover_the_video(last):
    shown = [number for frame in range(last + 1) for number in shown_frames(frame)]
    assert shown == list(range(4 * last + 1))


@pytest.mark.parametrize("count", [section_count, nearest_section_count, reference_section_count])
def test_no_frames(count):
    with pytest.raises(JobError, match="at least one frame"):
        count(0)
    with pytest.raises(JobError, match="at least one latent frame"):
        count(1, 0)
