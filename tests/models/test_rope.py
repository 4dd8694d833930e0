"""Rotary tables: positions, packing, rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.models import rope

AXES = (4, 6, 6)


def naive(times: list[int], height: int, width: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """The same in float64 and three dimensions: a full table, padded, averaged over blocks."""
    grid = np.stack(np.meshgrid(times, range(height), range(width), indexing="ij"), -1).astype(np.float64)
    angles = []
    for axis, dim in enumerate(AXES):
        frequencies = 256.0 ** (-np.arange(0, dim, 2) / dim)
        angles.append((grid[..., axis, None] * frequencies).repeat(2, -1))
    table = np.concatenate(angles, -1)
    pad = [(0, -size % scale) for size in table.shape[:3]]
    blocks = []
    for turn in (np.cos(table), np.sin(table)):
        full = np.pad(turn, [*pad, (0, 0)], mode="edge")
        t, h, w, d = full.shape
        means = full.reshape(t // scale, scale, h // scale, scale, w // scale, scale, d).mean((1, 3, 5))
        blocks.append(means.reshape(-1, d))
    return blocks[0], blocks[1]


@given(
    times=st.lists(st.integers(0, 60), min_size=1, max_size=17),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    scale=st.sampled_from([1, 2, 4]),
)
def test_packed_tables_are_means_over_blocks(times: list[int], height: int, width: int, scale: int) -> None:
    found = rope.rotary(np.array([times]), height, width, AXES, 256.0, scale)
    # An angle of 60 in float32 is known to 4e-6.
    for ours, true in zip(found, naive(times, height, width, scale), strict=True):
        np.testing.assert_allclose(ours[0], true, atol=8e-6)
        assert ours.dtype == np.float32


def test_rows_have_times_of_their_own() -> None:
    both = rope.rotary(np.array([[0, 5, 6], [0, 1, 2]]), 4, 2, AXES, scale=2)
    for row, times in enumerate(([0, 5, 6], [0, 1, 2])):
        alone = rope.rotary(np.array([times]), 4, 2, AXES, scale=2)
        for batched, single in zip(both, alone, strict=True):
            np.testing.assert_array_equal(batched[row], single[0])


def test_a_sequence_repeats_single_rows() -> None:
    many = rope.rotary(np.array([[0], [3]]), 2, 2, AXES)
    one = rope.rotary(np.array([[7]]), 2, 2, AXES)
    cos, sin = rope.sequence([many, one])
    assert cos.shape == sin.shape == (2, 4 + 4, 16)
    np.testing.assert_array_equal(cos[1, 4:8], one[0][0])


@pytest.mark.parametrize("scale", [2, 4])
def test_packing_shortens_the_vector(scale: int) -> None:
    cos, sin = rope.rotary(np.array([[0, 9, 17, 30]]), 8, 8, AXES, scale=scale)
    assert (cos**2 + sin**2 <= 1 + 1e-6).all()  # float32


def test_coarse_tables_are_means_over_what_a_token_stands_for() -> None:
    found = rope.coarse(np.array([[0, 7]]), (5, 6), (2, 3), AXES)
    full = [table.reshape(2, 5, 6, 16) for table in rope.rotary(np.array([[0, 7]]), 5, 6, AXES)]
    for ours, whole in zip(found, full, strict=True):
        assert ours.shape == (1, 2 * 2 * 3, 16)
        for row, rows in enumerate((slice(0, 2), slice(2, 5))):
            for column in range(3):
                part = whole[:, rows, 2 * column : 2 * column + 2]
                np.testing.assert_allclose(
                    ours.reshape(2, 2, 3, 16)[:, row, column], part.mean((1, 2)), atol=1e-6
                )
