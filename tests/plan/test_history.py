import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invented import invented
from longtake.errors import LongtakeError
from longtake.plan.history import Beyond, History
from longtake.plan.plans import PLANS, inverted, kind_named, vanilla

ENDS = [(name, end) for name, kind in PLANS.items() for end in ((False, True) if kind.sees_end else (False,))]


def latents(*frames):
    """Each frame holds its own number."""
    values = np.array(frames, dtype=np.float32)
    return np.broadcast_to(values[None, None, :, None, None], (2, 3, len(frames), 4, 5)).copy()


def numbers(array):
    return array[0, 0, :, 0, 0].tolist()


def test_reads_what_was_written_and_zeros():
    history = History()
    history.write(3, latents(3, 4, 5, 6))
    history.write((9, 0), latents(9, 0))
    read = history.read((None, 6, 3, None, 9))
    assert read.shape == (2, 3, 5, 4, 5) and read.dtype == np.float32
    assert numbers(read) == [0, 6, 3, 0, 9]
    assert 5 in history and 2 not in history and len(history) == 6


def test_keeps_a_copy():
    history, window = History(), latents(1, 2)
    history.write(1, window)
    window[:] = -1
    assert numbers(history.read((1, 2))) == [1, 2]


def test_refuses_frames_that_are_not_there():
    history = History()
    with pytest.raises(LongtakeError, match=r"\[zeros\]; it holds \[\]"):
        history.read((None,))
    history.write(0, latents(0, 1, 2))
    with pytest.raises(LongtakeError, match=r"\[2-3\]; it holds \[0-2\]"):
        history.read((2, 3))


def test_refuses_another_shape_or_count():
    history = History()
    history.write(0, latents(0))
    with pytest.raises(LongtakeError, match=r"given 1 of .* for the latent frames \[1\]"):
        history.write(1, latents(1)[..., :4])
    with pytest.raises(LongtakeError, match=r"given 1 of .* for the latent frames \[1-2\]"):
        history.write((1, 2), latents(1))


def played(plan, history):
    """What every section reads, and how many frames are held while each is made."""
    for frame in plan.anchors:
        history.write(frame, latents(frame))
    for section in plan:
        yield [numbers(history.read(slot)) for slot in section.slots.values()], len(history)
        history.write(section.frames, latents(*section.frames))


@settings(max_examples=60)  # a busy machine is no failure
@given(
    kind=st.none() | st.sampled_from(ENDS),
    sections=st.integers(1, 60),
    window=st.integers(1, 12),
)
def test_with_its_plan_it_reads_the_same_and_stays_small(kind, sections, window):
    plan = PLANS[kind[0]].lay_out(sections, window, kind[1]) if kind else invented()
    history = History(plan)
    for section, (pruned, held), (whole, _) in zip(
        plan, played(plan, history), played(plan, History()), strict=True
    ):
        assert pruned == whole == [[frame or 0 for frame in slot.frames] for slot in section.slots.values()]
        # Whatever the number of sections.
        assert held <= plan.horizon * plan.window + len(plan.lasting | set(plan.anchors))
    assert len(history) == 0


@settings(max_examples=30)
@given(
    name=st.sampled_from(
        ["tc_f2k2f1k1_g9", "ta_f1k1_x_f2k2f1k1_g9", "f1k1_x_g9_f1k1f2k2_tc", "f1k1_x_g9_f1k1_ta"]
    ),
    sections=st.integers(1, 12),
    window=st.integers(1, 6),
)
def test_what_lies_beyond_is_known_when_its_frames_are_gone(name, sections, window):
    plan = kind_named(name).lay_out(sections, window, False)
    history, whole = History(plan), History()
    for kept in (history, whole):
        kept.write(0, latents(0))
    for section in plan:
        far = section.far
        found, expected = history.far(far), whole.far(far)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        if far.appended:
            assert found.shape == (2, 3, len(far.frames), 2, 2) and numbers(found) == [*far.frames]
        else:
            assert found.shape == (2, 3, 1, 4, 5)
            np.testing.assert_allclose(numbers(found), [np.mean(far.frames) if far.frames else 0], rtol=1e-6)
        assert len(history) <= plan.horizon * plan.window + 1
        for kept in (history, whole):
            kept.write(section.frames, latents(*section.frames))


def test_another_far_end_than_the_next_sections_is_refused():
    plan = kind_named("tc_f1k1_g2").lay_out(4, 2, False)
    history = History(plan)
    with pytest.raises(LongtakeError, match="it holds nothing"):
        history.far(plan[0].far)
    history.write(0, latents(0))
    history.write((1, 2), latents(1, 2))
    with pytest.raises(LongtakeError, match=r"asked for all of the latent frames \[0-3\]; it knows \[0-1\]"):
        history.far(plan[2].far)
    with pytest.raises(LongtakeError, match=r"wants the latent frames \[0-1\]; they are gone"):
        Beyond().take(plan[1].far, {})


def test_with_a_plan_sections_may_be_written_in_any_order():
    plan = vanilla(8, window=19)
    history = History(plan)
    history.write(0, latents(0))
    for made in (2, 1, 0):
        history.write(plan[made].frames, latents(*plan[made].frames))
    assert len(history) == 20
    for slot in plan[3].slots.values():
        assert numbers(history.read(slot)) == [frame or 0 for frame in slot.frames]


def test_with_a_plan_sections_may_be_written_in_pieces():
    plan = inverted(2, window=19)
    history = History(plan)
    history.write(0, latents(0))
    history.write(20, latents(*range(20, 30)))
    history.write(30, latents(*range(30, 39)))
    for slot in plan[1].slots.values():
        assert numbers(history.read(slot)) == [frame or 0 for frame in slot.frames]


def test_refuses_frames_that_it_let_go():
    history = History(vanilla(5))
    list(zip(range(5), played(vanilla(5), history), strict=False))
    with pytest.raises(LongtakeError, match=r"\[1\]; it holds \[0, 10-"):
        history.read((1,))
