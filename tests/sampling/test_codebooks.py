"""Codebooks: planted clusters are found, more codes leave less, and the lookup is exact in bounded memory."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from longtake.errors import ModelError
from longtake.sampling import codebooks
from longtake.sampling.codebooks import Codebook, fit, fit_groups, nearest, quantised, residual


def planted(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres (K, 4) far from each other, and 200 vectors close around each."""
    centres = 10 * rng.standard_normal((count, 4)).astype(np.float32)
    around = np.repeat(centres, 200, 0)
    return centres, around + 0.05 * rng.standard_normal(around.shape).astype(np.float32)


def test_planted_clusters_are_found() -> None:
    rng = np.random.default_rng(0)
    centres, vectors = planted(12, rng)
    codes = fit(vectors, 12, rng)
    # Each centre has one code of its own, at the mean of 200 vectors: 0.05 / sqrt(200) off in each of 4 channels.
    found, apart = nearest(centres, codes)
    assert sorted(found) == list(range(12))
    assert apart.max() < (6 * 0.05 / np.sqrt(200)) ** 2 * 4
    # What is left is the noise around the centres.
    assert residual(vectors, codes) == pytest.approx(0.05**2 * 4 / vectors.var(0).sum(), rel=0.1)


def test_one_code_is_the_mean_and_more_codes_leave_less() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((6000, 3)).astype(np.float32)
    assert np.allclose(fit(vectors, 1, rng), vectors.mean(0), atol=1e-6)
    left = [residual(vectors, fit(vectors, count, rng)) for count in (1, 4, 16, 64)]
    assert left[0] == pytest.approx(1, abs=1e-6)
    assert all(after < 0.7 * before for before, after in pairwise(left))


def test_as_many_codes_as_different_vectors_leave_nothing() -> None:
    rng = np.random.default_rng(2)
    vectors = np.repeat(np.arange(5, dtype=np.float32)[:, None], 3, 1).repeat(20, 0)
    assert residual(vectors, fit(vectors, 5, rng)) == 0
    with pytest.raises(ModelError, match="only 5 different latent pixels for 6 codes"):
        fit(vectors, 6, rng)
    with pytest.raises(ModelError, match="cannot be fitted to 100 latent pixels"):
        fit(vectors, 101, rng)


def test_the_lookup_equals_all_distances_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    vectors, codes = (
        rng.standard_normal((500, 6)).astype(np.float32),
        rng.standard_normal((40, 6)).astype("f"),
    )
    apart = ((vectors[:, None] - codes[None]) ** 2).sum(-1)
    monkeypatch.setattr(codebooks, "AT_ONCE", 40 * 7)  # 7 rows at once, which 500 is no multiple of
    found, distances = nearest(vectors, codes)
    assert (found == apart.argmin(1)).all()
    assert np.allclose(distances, apart.min(1), atol=1e-4)


def test_the_lookup_of_a_large_history_takes_little_memory() -> None:
    # 19 frames of 640 x 608 pixels, 2048 codes: all distances at once would be 947 MB.
    latents = np.zeros((1, 16, 2, 80, 76), np.float32)
    codes = np.random.default_rng(4).standard_normal((2048, 16)).astype(np.float32)
    tracemalloc.start()
    quantised(latents, codes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # 2 blocks of distances of 16 MB each, and some copies of the latents


def test_latents_become_their_nearest_codes() -> None:
    rng = np.random.default_rng(5)
    codes = rng.standard_normal((7, 4)).astype(np.float32)
    chosen = rng.integers(0, 7, (2, 3, 5, 6))
    true = np.moveaxis(codes[chosen], -1, 1)
    assert np.array_equal(quantised(true + 1e-4, codes), true)
    with pytest.raises(ModelError, match="is one of 4 channels and the latents have 16"):
        quantised(np.zeros((1, 16, 1, 2, 2), np.float32), codes)


def test_groups_of_channels_have_codes_of_their_own() -> None:
    rng = np.random.default_rng(6)
    # Two channels that know nothing of two others: 4 values of each pair make 16 of both.
    pairs = rng.standard_normal((2, 4, 2)).astype(np.float32)
    chosen = rng.integers(0, 4, (2, 3000))
    vectors = np.concatenate([pairs[0][chosen[0]], pairs[1][chosen[1]]], 1)
    codes = fit_groups(vectors, 4, 2, rng)
    assert codes.shape == (4, 4)
    assert residual(vectors, codes, groups=2) < 1e-6 < 0.05 < residual(vectors, fit(vectors, 4, rng))
    latents = vectors[:60].T.reshape(1, 4, 3, 4, 5) + 0.01
    np.testing.assert_allclose(quantised(latents, codes, 2), latents - 0.01, atol=1e-5)
    with pytest.raises(ModelError, match="4 channels cannot be cut into 3 equal groups"):
        fit_groups(vectors, 4, 3, rng)


def test_a_codebook_says_what_it_has() -> None:
    book = Codebook({4: np.zeros((4, 2)), 16: np.zeros((16, 2))})
    assert book.of(4).shape == (4, 2)
    with pytest.raises(ModelError, match="no 8 codes; it has: 4, 16"):
        book.of(8)
