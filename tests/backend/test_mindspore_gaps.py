"""What MindSpore lacks on a CPU, and what stands in its place (docs/backends.md): each test notices a repair.

A test that fails here is good news: take the work-around out.
"""

from __future__ import annotations

import numpy as np
import pytest

from longtake import backend

if backend.name != "mindspore":
    pytest.skip("these are facts about MindSpore", allow_module_level=True)

import mindspore as ms
from mindspore import Tensor, mint, ops

F = mint.nn.functional
X = Tensor(np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32))
V = X[:, :, None]
ROWS = Tensor(np.array([1, 0]))

NO_KERNEL = {
    "mint.stack": lambda: mint.stack([X, X], 0),
    "mint.arange": lambda: mint.arange(4),
    "mint.argmax": lambda: mint.argmax(X, -1),
    "mint.index_select": lambda: mint.index_select(X, 0, ROWS),
    "mint.nn.functional.layer_norm": lambda: F.layer_norm(X, (4,), None, None),
    "mint.nn.functional.gelu": lambda: F.gelu(X),
    "mint.nn.functional.conv2d": lambda: F.conv2d(X, X[:, :, :2, :2]),
    "mint.nn.functional.conv3d": lambda: F.conv3d(V, V[:, :, :, :2, :2]),
    "mint.nn.functional.pad, replicate": lambda: F.pad(V, (1, 1, 1, 1, 2, 0), mode="replicate"),
    "mint.randn": lambda: mint.randn(2, 3),
    "matmul of bfloat16": lambda: mint.matmul(X.astype(ms.bfloat16), X.astype(ms.bfloat16)),
    "conv3d of bfloat16": lambda: ops.conv3d(V.astype(ms.bfloat16), V[:, :, :, :2, :2].astype(ms.bfloat16)),
    "flash_attention_score": lambda: ops.flash_attention_score(
        X.astype(ms.float16), X.astype(ms.float16), X.astype(ms.float16), 3, input_layout="BNSD"
    ),
}


@pytest.mark.parametrize("name", NO_KERNEL)
def test_it_has_no_kernel(name):
    with pytest.raises((RuntimeError, TypeError, ValueError, NotImplementedError)):
        NO_KERNEL[name]().asnumpy()


def test_there_is_no_attention_of_several_heads_to_call():
    assert not hasattr(F, "scaled_dot_product_attention")
    assert not hasattr(ops, "scaled_dot_product_attention")


def test_the_exponential_is_coarse():
    x = np.linspace(-9, 0, 128).astype(np.float32)
    found = ops.exp(Tensor(x)).asnumpy()
    # float32 can do 6e-8.
    assert np.abs(found / np.exp(x.astype(np.float64)) - 1).max() > 1e-6
