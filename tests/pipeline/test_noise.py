"""Noise: keyed by seed and section, or drawn in the order of mindone and diffusers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from longtake.backend import ops, runtime
from longtake.errors import JobError
from longtake.pipeline.noise import LAST_PICTURE, PICTURE, keyed, noise_source

SHAPE = (1, 4, 2, 3, 3)


def test_a_seeds_noise_depends_on_what_it_is_for_and_not_on_the_order() -> None:
    first, second = noise_source(5), noise_source(5)
    forwards = [first(what, SHAPE, "float32") for what in (PICTURE, LAST_PICTURE, 0, 1)]
    backwards = [second(what, SHAPE, "float32") for what in (1, 0, LAST_PICTURE, PICTURE)]
    for a, b in zip(forwards, reversed(backwards), strict=True):
        np.testing.assert_array_equal(a, b)
    for a in range(4):
        for b in range(a):
            assert not np.array_equal(forwards[a], forwards[b])


def test_a_seeds_noise_stays_what_it_is() -> None:
    # A change here changes every video that was ever made from a seed.
    assert keyed(0)(0, (2,), "float32").tolist() == pytest.approx([-0.0049438956, -0.7574195])
    assert keyed(2**70)(PICTURE, (1,), "float32").tolist() == pytest.approx([0.2433640])


def test_video_b_of_a_seed_is_the_one_that_the_seed_plus_b_makes_alone() -> None:
    many = noise_source(7, videos=3)(2, (3, *SHAPE[1:]), "float32")
    for video in range(3):
        np.testing.assert_array_equal(many[video : video + 1], noise_source(7 + video)(2, SHAPE, "float32"))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_numpy_generator_draws_in_mindones_manner(dtype: str) -> None:
    source = noise_source(np.random.Generator(np.random.PCG64(seed=0)))
    theirs = np.random.Generator(np.random.PCG64(seed=0))
    for what in (PICTURE, LAST_PICTURE, 3, 2):
        # float64 first, then rounded.
        np.testing.assert_array_equal(source(what, SHAPE, dtype), theirs.standard_normal(SHAPE).astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_framework_generator_draws_in_diffusers_manner(dtype: str, torch_only: Any) -> None:
    torch = torch_only
    source = noise_source(torch.Generator().manual_seed(3))
    theirs = torch.Generator().manual_seed(3)
    for what in (PICTURE, 1, 0):
        expected = torch.randn(SHAPE, generator=theirs, dtype=getattr(torch, dtype)).float()
        np.testing.assert_array_equal(source(what, SHAPE, dtype), expected.numpy())


def test_a_framework_generator_is_a_stream() -> None:
    source, theirs = noise_source(runtime.seeded(3)), runtime.seeded(3)
    for what in (PICTURE, 1, 0):
        expected = ops.to_numpy(runtime.randn(SHAPE, theirs))
        np.testing.assert_array_equal(source(what, SHAPE, "float32"), expected)


def test_no_generator_is_the_frameworks_own_state(torch_only: Any) -> None:
    torch_only.manual_seed(4)
    mine = noise_source(None)(0, SHAPE, "float32")
    torch_only.manual_seed(4)
    np.testing.assert_array_equal(mine, torch_only.randn(SHAPE).numpy())


def test_no_generator_is_other_noise_every_time() -> None:
    one, two = (noise_source(None)(0, SHAPE, "float32") for _ in range(2))
    assert one.shape == SHAPE and not np.array_equal(one, two)


def test_a_list_has_one_generator_for_each_video() -> None:
    source = noise_source([runtime.seeded(1), runtime.seeded(2), 9], videos=3)
    drawn = source(0, (3, *SHAPE[1:]), "float32")
    for video, alone in enumerate((runtime.seeded(1), runtime.seeded(2), 9)):
        np.testing.assert_array_equal(drawn[video : video + 1], noise_source(alone)(0, SHAPE, "float32"))


def test_a_list_of_one_is_that_one() -> None:
    shape = (2, *SHAPE[1:])
    listed = noise_source([runtime.seeded(1)], videos=2)(0, shape, "float32")
    np.testing.assert_array_equal(listed, noise_source(runtime.seeded(1), videos=2)(0, shape, "float32"))


@pytest.mark.parametrize(
    ("generator", "words"), [("7", "str"), (-1, "negative"), ([1, 2], "2 generators for 3")]
)
def test_what_is_no_generator_is_refused(generator: object, words: str) -> None:
    with pytest.raises(JobError, match=words):
        noise_source(generator, videos=3)
