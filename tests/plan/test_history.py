from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.errors import LongtakeError
from longtake.plan.history import History
from longtake.plan.plans import PLANS, inverted


def latents(first, count):
    """Each frame holds its own number."""
    numbers = np.arange(first, first + count, dtype=np.float32)
    return np.broadcast_to(numbers[None, None, :, None, None], (2, 3, count, 4, 5)).copy()


def numbers(array):
    return array[0, 0, :, 0, 0].tolist()


def test_reads_what_was_written_and_zeros():
    history = History()
    history.write(3, latents(3, 4))
    history.write(0, latents(0, 1))
    read = history.read((None, 6, 3, None))
    assert read.shape == (2, 3, 4, 4, 5) and read.dtype == np.float32
    assert numbers(read) == [0, 6, 3, 0]
    assert 5 in history and 2 not in history and len(history) == 5


def test_keeps_a_copy():
    history, window = History(), latents(1, 2)
    history.write(1, window)
    window[:] = -1
    assert numbers(history.read((1, 2))) == [1, 2]


@pytest.mark.parametrize("name", PLANS)
def test_serves_every_slot_of_a_plan(name):
    history = History()
    history.write(0, latents(0, 1))
    for section in PLANS[name](4):
        for slot in section.slots:
            assert numbers(history.read(slot)) == [frame or 0 for frame in slot.frames]
        history.write(section.frames[0], latents(section.frames[0], len(section.frames)))
    assert numbers(history.read(range(37))) == list(range(37))


def test_refuses_frames_that_are_not_there():
    history = History()
    with pytest.raises(LongtakeError, match=r"\[zeros\]; it holds \[\]"):
        history.read((None,))
    history.write(0, latents(0, 3))
    with pytest.raises(LongtakeError, match=r"\[2-3\]; it holds \[0-2\]"):
        history.read((2, 3))


def test_refuses_another_shape():
    history = History()
    history.write(0, latents(0, 1))
    with pytest.raises(LongtakeError, match="frame 1 has"):
        history.write(1, latents(1, 1)[..., :4])


def plans(name, sections, window, last_picture):
    """The plan, and the number of its last picture where there is one."""
    if name == "inverted" and last_picture:
        return inverted(sections, window, last_picture=True), 1 + window * sections
    return PLANS[name](sections, window), None


def played(plan, last, history):
    """What every section reads, and how many frames are held while each is made."""
    history.write(0, latents(0, 1))
    if last is not None:
        history.write(last, latents(last, 1))
    for section in plan:
        yield [numbers(history.read(slot)) for slot in section.slots], len(history)
        history.write(section.frames[0], latents(section.frames[0], len(section.frames)))


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(
    name=st.sampled_from(sorted(PLANS)),
    sections=st.integers(1, 60),
    window=st.integers(1, 12),
    last_picture=st.booleans(),
)
def test_with_its_plan_it_reads_the_same_and_stays_small(name, sections, window, last_picture):
    plan, last = plans(name, sections, window, last_picture)
    history = History(plan)
    for (pruned, held), (whole, _) in zip(
        played(plan, last, history), played(plan, last, History()), strict=True
    ):
        assert pruned == whole
        # The picture, the 19 frames that a section sees, and a last picture: whatever the number of sections.
        assert held <= 21
    assert len(history) == 0
    assert not Counter(history._readers).total()


def test_with_a_plan_sections_may_be_written_in_any_order():
    plan = PLANS["vanilla"](3)
    history = History(plan)
    history.write(0, latents(0, 1))
    history.write(plan[1].frames[0], latents(plan[1].frames[0], 9))
    history.write(plan[0].frames[0], latents(plan[0].frames[0], 9))
    for slot in plan[2].slots:
        assert numbers(history.read(slot)) == [frame or 0 for frame in slot.frames]
    history.write(plan[2].frames[0], latents(plan[2].frames[0], 9))
    assert len(history) == 0


def test_refuses_frames_that_it_let_go():
    plan = PLANS["vanilla"](4)
    history = History(plan)
    list(zip(range(4), played(plan, None, history), strict=False))
    with pytest.raises(LongtakeError, match=r"\[1\]; it holds \[0, "):
        history.read((1,))
