import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.errors import JobError
from longtake.sampling import sigmas

# 25 steps under a shift of 7, as FramePack's own schedule prints them.
PUBLISHED = [
    1.0,
    0.9941,
    0.9877,
    0.9809,
    0.9735,
    0.9655,
    0.9568,
    0.9474,
    0.9370,
    0.9256,
    0.9130,
    0.8991,
    0.8835,
]
PUBLISHED += [
    0.8660,
    0.8462,
    0.8235,
    0.7975,
    0.7671,
    0.7313,
    0.6885,
    0.6364,
    0.5714,
    0.4884,
    0.3784,
    0.2258,
    0.0,
]


def test_published_schedule():
    # Four decimals are printed.
    assert sigmas.flow_sigmas(25, shift=7.0) == pytest.approx(PUBLISHED, abs=5.1e-5)
    assert sigmas.flow_sigmas(25, tokens=13680) == pytest.approx(sigmas.flow_sigmas(25, shift=7.0), abs=1e-6)


def test_linear():
    assert sigmas.linear(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert sigmas.flow_sigmas(4) == sigmas.linear(4)
    assert sigmas.flow_sigmas(4, shift=1.0) == sigmas.linear(4)


def test_dynamic_mu():
    assert sigmas.dynamic_mu(256) == pytest.approx(0.5)
    assert sigmas.dynamic_mu(4096) == pytest.approx(1.15)
    # The cap is met between 8797 and 8798 tokens.
    assert sigmas.dynamic_mu(8797) < math.log(7) == sigmas.dynamic_mu(8798)
    # 384 and 256 pixels square, a window of 9.
    assert math.exp(sigmas.dynamic_mu(5184)) == pytest.approx(3.80, abs=0.005)
    assert math.exp(sigmas.dynamic_mu(2304)) == pytest.approx(2.33, abs=0.005)


@given(st.integers(1, 100), st.floats(0.1, 20))
def test_any_schedule_descends_from_one_to_zero(steps, shift):
    schedule = sigmas.flow_sigmas(steps, shift=shift)
    assert len(schedule) == steps + 1
    assert schedule[0] == pytest.approx(1.0, abs=1e-6) and schedule[-1] == 0.0
    assert all(a > b for a, b in pairwise(schedule))
    assert schedule == [float(np.float32(sigma)) for sigma in schedule]


@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps(steps):
    with pytest.raises(JobError, match="at least one step"):
        sigmas.linear(steps)


def test_no_shift():
    with pytest.raises(JobError, match="above 0"):
        sigmas.shift([1.0, 0.0], 0.0)
    with pytest.raises(JobError, match="not both"):
        sigmas.flow_sigmas(4, shift=7.0, tokens=100)
