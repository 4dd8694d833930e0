import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.errors import JobError
from longtake.plan.layout import (
    KERNELS,
    Generated,
    Packed,
    Skipped,
    Slot,
    Structure,
    Tail,
    parse,
    slot_tokens,
    token_count,
)
from longtake.plan.plans import PLANS


def test_kernels_of_the_paper():
    assert KERNELS == {1: (1, 2, 2), 2: (2, 4, 4), 4: (4, 8, 8), 8: (8, 16, 16), 16: (16, 32, 32)}


@pytest.mark.parametrize(
    ("height", "width", "window", "clean", "x2", "x4"),
    [
        (640, 608, 13680, 3040, 380, 400),
        (480, 832, 14040, 3120, 390, 416),
        (512, 512, 9216, 2048, 256, 256),
        (384, 384, 5184, 1152, 144, 144),
        (256, 256, 2304, 512, 64, 64),
    ],
)
def test_token_counts_of_the_reference(height, width, window, clean, x2, x4):
    assert token_count(9, height, width) == window
    assert slot_tokens(Slot(1, (0, 9), (0, 19)), height, width) == clean
    assert slot_tokens(Slot(2, (None, None), (17, 18)), height, width) == x2
    assert slot_tokens(Slot(4, (None,) * 16, tuple(range(16))), height, width) == x4


def test_sizes_that_the_kernel_does_not_divide_are_padded():
    assert token_count(1, 16, 48, scale=4) == 1
    assert token_count(17, 64, 64, scale=4) == 5


@pytest.mark.parametrize(
    "name",
    [
        "f16k4f2k2f1k1_g9",
        "td_f16k4f2k2f1k1_g9",
        "td_f16k4f4k2f1k1_g9+D",
        "td_f16k4f4k2f1k1_g9_x_f1k1",
        "f1k1_x_g9_f1k1f2k2f16k4_td",
        "tc_f8k8f4k4f2k2f1k1_g9",
        "ta_f16k16f1k1_g33",
        *(kind.structure for kind in PLANS.values()),
    ],
)
def test_names_round_trip(name):
    assert str(parse(name)) == name


def test_a_name_says():
    structure = parse("td_f16k4f2k2f1k1_g9_x_f1k1+D")
    assert structure.parts[0] == Tail("td")
    assert structure.parts[2:4] == (Generated(9), Skipped())
    assert structure.packed == (Packed(16, 4), Packed(2, 2), Packed(1, 1), Packed(1, 1))
    assert (structure.window, structure.tail, structure.discrete) == (9, "td", True)
    assert structure.context_cost == 2.5


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "part ''"),
        ("hello", "part 'hello'"),
        ("f16k4", "how many frames"),
        ("g9_g9", "how many frames"),
        ("g0", "part 'g0'"),
        ("f0k1_g9", "part 'f0k1'"),
        ("f16k3_g9", "kernel k3"),
        ("f16k4 f2k2_g9", "part 'f16k4 f2k2'"),
        ("f1k1_td_g9", "first or last"),
        ("td_g9_td", "first or last"),
        ("f1k1_g9+d", r"part 'g9\+d'"),
        ("f1k1_g9_", "part ''"),
    ],
)
def test_no_name(name, says):
    with pytest.raises(JobError, match=says):
        parse(name)


stretches = st.lists(st.builds(Packed, st.integers(1, 99), st.sampled_from(list(KERNELS))), min_size=1).map(
    tuple
)
sides = st.lists(st.one_of(stretches, st.just(Skipped())), max_size=3).map(tuple)


@given(
    sides, st.integers(1, 99), sides, st.sampled_from([None, "td", "ta", "tc"]), st.booleans(), st.booleans()
)
def test_any_structure_round_trips(before, window, after, tail, tail_first, discrete):
    parts = (*before, Generated(window), *after)
    if tail:
        parts = (Tail(tail), *parts) if tail_first else (*parts, Tail(tail))
    structure = Structure(parts, discrete)
    assert parse(str(structure)) == structure
