import numpy as np
import pytest

from longtake.backend import ops
from longtake.sampling.guidance import cfg

rng = np.random.default_rng(0)
positive, negative = rng.normal(size=(2, 2, 3, 4, 5, 6))


def test_plain():
    assert np.allclose(cfg(positive, negative, 3.0), negative + 3.0 * (positive - negative))
    assert cfg(positive, negative, 1.0) is positive


def test_rescale_restores_the_deviation_of_every_entry():
    guided = cfg(positive, negative, 5.0, rescale=1.0)
    axes = (1, 2, 3, 4)
    assert np.allclose(guided.std(axes), positive.std(axes))
    half = cfg(positive, negative, 5.0, rescale=0.5)
    assert np.allclose(half, (guided + cfg(positive, negative, 5.0)) / 2)


def test_tensors_equal_arrays():
    arrays = [each.astype(np.float32) for each in (positive, negative)]
    theirs = cfg(*(ops.from_numpy(each) for each in arrays), 5.0, rescale=0.7)
    # float32 on both sides, sums in another order.
    assert ops.to_numpy(theirs) == pytest.approx(cfg(*arrays, 5.0, rescale=0.7), abs=2e-5)
