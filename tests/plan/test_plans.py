import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.errors import JobError
from longtake.plan.layout import Slot
from longtake.plan.plans import (
    PLANS,
    Section,
    inverted,
    paddings,
    ranges,
    reference_section_count,
    section_count,
    table,
    tokens,
    vanilla,
    video_frames,
)

# What the published demos compute, by number of sections: blank windows before each section made.
PADDINGS = {
    1: [0],
    2: [1, 0],
    3: [2, 1, 0],
    4: [3, 2, 1, 0],
    5: [3, 2, 2, 1, 0],
    6: [3, 2, 2, 2, 1, 0],
    7: [3, 2, 2, 2, 2, 1, 0],
    8: [3, 2, 2, 2, 2, 2, 1, 0],
}
# First time of the window, and of the 1x, 2x and 4x frames behind it, by the number of blank windows of 9.
INVERTED_TIMES = {0: (1, 10, 11, 13), 1: (10, 19, 20, 22), 2: (19, 28, 29, 31), 3: (28, 37, 38, 40)}
# First frame that each section of a vanilla or inverted plan makes.
FIRST_FRAMES = [1, 10, 19, 28, 37, 46, 55, 64]


def span(first, size):
    return tuple(range(first, first + size))


@pytest.mark.parametrize("sections", range(1, 9))
def test_vanilla(sections):
    plan = vanilla(sections)
    assert [section.number for section in plan] == list(range(sections))
    for section, first in zip(plan, FIRST_FRAMES, strict=False):
        # One table for all sections: prefix 0 | 4x 1-16 | 2x 17-18 | 1x 19 | window 20-28.
        assert section.times == span(20, 9)
        assert section.clean.times == (0, 19)
        assert section.x2.times == (17, 18)
        assert section.x4.times == span(1, 16)
        assert section.frames == span(first, 9)
        assert section.clean.frames == (0, first - 1)


def test_vanilla_history():
    # The reference starts with 19 zero frames and the picture: what lies before frame 0 is not there.
    plan = vanilla(3)
    assert [section.x2.frames for section in plan] == [(None, None), (7, 8), (16, 17)]
    assert plan[0].x4.frames == (None,) * 16
    assert plan[1].x4.frames == (None,) * 9 + span(0, 7)
    assert plan[2].x4.frames == span(0, 16)


@pytest.mark.parametrize("sections", range(1, 9))
def test_inverted(sections):
    plan = inverted(sections)
    assert paddings(sections) == PADDINGS[sections]
    assert [section.number for section in plan] == list(range(sections))[::-1]
    for section, padding in zip(plan, PADDINGS[sections], strict=True):
        window, x1, x2, x4 = INVERTED_TIMES[padding]
        assert section.times == span(window, 9)
        assert section.clean.times == (0, x1)
        assert section.x2.times == span(x2, 2)
        assert section.x4.times == span(x4, 16)
        assert section.frames == span(FIRST_FRAMES[section.number], 9)


def test_inverted_history():
    # The reference starts with 19 zero frames: what lies behind the end is not there.
    plan = inverted(4)
    assert [section.clean.frames for section in plan] == [(0, None), (0, 28), (0, 19), (0, 10)]
    assert [section.x2.frames for section in plan] == [(None, None), (29, 30), (20, 21), (11, 12)]
    assert plan[0].x4.frames == (None,) * 16
    assert plan[1].x4.frames == span(31, 6) + (None,) * 10
    assert plan[2].x4.frames == (*span(22, 15), None)
    assert plan[3].x4.frames == span(13, 16)


def test_last_picture_is_seen_by_the_first_section_made_alone():
    plain, plan = inverted(3), inverted(3, last_picture=True)
    assert plan[0].clean == Slot(1, (0, 28), plain[0].clean.times)
    assert (plan[0].x2, plan[0].x4) == (plain[0].x2, plain[0].x4)
    assert plan[1:] == plain[1:]


@pytest.mark.parametrize("name", PLANS)
@given(sections=st.integers(1, 40), window=st.integers(1, 12))
def test_any_plan_makes_every_frame_once_and_reads_what_is_there(name, sections, window):
    made = [0]
    for section in PLANS[name](sections, window=window):
        for slot in section.slots:
            assert len(slot.frames) == len(slot.times)
            assert {frame for frame in slot.frames if frame is not None} <= set(made)
        times = [time for slot in section.slots for time in slot.times] + list(section.times)
        assert len(set(times)) == len(times)
        assert len(section.times) == len(section.frames)
        made += section.frames
    assert sorted(made) == list(range(1 + window * sections))


@given(frames=st.integers(1, 5000), window=st.integers(1, 12))
def test_section_count_is_the_smallest_that_suffices(frames, window):
    sections = section_count(frames, window)
    assert video_frames(sections, window) >= frames
    assert sections == 1 or video_frames(sections - 1, window) < frames


def test_section_counts():
    assert [section_count(frames) for frames in (1, 37, 38, 73, 145, 146)] == [1, 1, 2, 2, 4, 5]
    assert [reference_section_count(frames) for frames in (1, 33, 34, 91, 129, 145)] == [1, 1, 2, 3, 4, 5]
    assert [video_frames(sections) for sections in (1, 4, 8, 50, 100)] == [37, 145, 289, 1801, 3601]


@pytest.mark.parametrize("plan", PLANS.values())
@pytest.mark.parametrize(("sections", "window"), [(0, 9), (-1, 9), (1, 0)])
def test_no_plan(plan, sections, window):
    with pytest.raises(JobError, match="at least one"):
        plan(sections, window)


def test_no_frames():
    with pytest.raises(JobError, match="at least one frame"):
        section_count(0)


@pytest.mark.parametrize(
    ("height", "width", "count"), [(640, 608, 17500), (480, 832, 17966), (512, 512, 11776), (256, 256, 2944)]
)
def test_tokens_of_a_section(height, width, count):
    for section in vanilla(2) + inverted(5):
        assert tokens(section, height, width) == count


def test_table_says_everything():
    lines = table(inverted(5), 640, 608).splitlines()
    assert len(lines) == 6
    assert lines[1].split("  ")[0].strip() == "" and lines[1].split()[0] == "4"
    assert "37-45 @28-36" in lines[1] and "0, zeros @0, 37" in lines[1] and "16 zeros @40-55" in lines[1]
    assert "1-9 @1-9" in lines[5] and "11-12 @11-12" in lines[5] and lines[5].endswith("17500")
    assert len({len(line) for line in lines}) == 1


def test_ranges():
    assert ranges([]) == ""
    assert ranges([3]) == "3"
    assert ranges([None]) == "zeros"
    assert ranges([0, 9, 10, None, None]) == "0, 9-10, 2 zeros"


def test_sections_are_values():
    assert inverted(3) == inverted(3)
    assert len({section.number for section in set(vanilla(4))}) == 4
    assert isinstance(vanilla(1)[0], Section)
