import numpy as np
import pytest

from longtake.errors import LongtakeError
from longtake.plan.history import History
from longtake.plan.sections import PLANS


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
