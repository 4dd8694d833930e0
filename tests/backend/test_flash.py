"""The route of attention on Ascend, forced on a CPU: what the kernel would be asked, and what is made of its answer."""

from __future__ import annotations

import numpy as np
import pytest

from longtake import backend
from longtake.backend import nn, ops, runtime

if backend.name != "mindspore":
    pytest.skip("PyTorch chooses its kernels itself", allow_module_level=True)

import mindspore as ms
from mindspore import mint
from mindspore import ops as native


class Kernel:
    """Ascend's, as its documentation describes it, computed with what CPUs have; it records what it is asked."""

    def __init__(self):
        self.asked = {}

    def __call__(
        self, query, key, value, head_num, attn_mask=None, scalar_value=1.0, input_layout="BSH", sparse_mode=0
    ):
        assert query.shape[-1] == key.shape[-1] == value.shape[-1] and query.shape[-1] % 8 == 0
        self.asked = {
            "heads": head_num,
            "layout": input_layout,
            "dtypes": {x.dtype for x in (query, key, value)},
            "mask": None if attn_mask is None else tuple(attn_mask.shape),
            "scale": scalar_value,
            "sparse_mode": sparse_mode,
        }
        scores = ops.to_numpy(query) @ ops.to_numpy(key).swapaxes(-1, -2) * scalar_value
        if sparse_mode == 2:
            attn_mask = ops.from_numpy(~np.tri(*scores.shape[-2:], dtype=bool))
        if attn_mask is not None:
            # What is True is hidden.
            scores = np.where(attn_mask.asnumpy(), -np.inf, scores)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        seen = weights / weights.sum(-1, keepdims=True) @ ops.to_numpy(value)
        return ops.from_numpy(seen).astype(query.dtype)


KEYS = np.arange(6)[None, None, None] < np.array([4, 6])[:, None, None, None]
PAIRS = np.random.default_rng(1).random((2, 1, 6, 6)) < 0.8


@pytest.fixture
def kernel(monkeypatch):
    found = Kernel()
    monkeypatch.setattr(ops, "flash", True)
    monkeypatch.setattr(ops.native, "flash_attention_score", found)
    return found


@pytest.mark.parametrize(
    ("mask", "causal", "shape"),
    [
        (None, False, None),
        (KEYS, False, None),  # no mask of length by length
        (PAIRS, False, (2, 1, 6, 6)),
        (None, True, (6, 6)),
        (KEYS, True, (6, 6)),
        (PAIRS, True, (2, 1, 6, 6)),
    ],
)
@pytest.mark.parametrize(("dtype", "asked"), [("float32", ms.bfloat16), ("float16", ms.float16)])
def test_the_kernel_is_asked_for_the_same_attention(monkeypatch, kernel, mask, causal, shape, dtype, asked):
    rng = np.random.default_rng(0)
    half = {"float32": ms.float32, "float16": ms.float16}[dtype]
    q, k, v = (
        ops.from_numpy(rng.standard_normal((2, 4, 6, 8)).astype(np.float32)).astype(half) for _ in range(3)
    )
    mask = None if mask is None else ops.from_numpy(mask)
    found = ops.attention(q, k, v, mask, causal)
    monkeypatch.setattr(ops, "flash", False)
    plain = ops.to_numpy(ops.attention(q, k, v, mask, causal))
    assert found.dtype == q.dtype and found.shape == q.shape
    assert kernel.asked == {
        "heads": 4,
        "layout": "BNSD",
        "dtypes": {asked},
        "mask": shape,
        "scale": pytest.approx(8**-0.5),
        "sparse_mode": 0,
    }
    # bfloat16 has 8 bits: 4e-3 of each value.
    np.testing.assert_allclose(ops.to_numpy(found), plain, atol=3e-2)


@pytest.mark.parametrize("dtype", [ms.float16, ms.bfloat16])
def test_hidden_keys_have_no_weight_at_all(kernel, dtype):
    q, k, v = (ops.from_numpy(np.full((2, 1, 6, 128), 3.0, np.float32)).astype(dtype) for _ in range(3))
    huge = ops.from_numpy(np.where(KEYS, 1.0, 1e4).astype(np.float32).reshape(2, 1, 6, 1))
    found = ops.to_numpy(ops.attention(q, k, (v * huge).astype(dtype), ops.from_numpy(KEYS)))
    np.testing.assert_array_equal(found, np.full_like(found, 3.0))


def test_a_long_triangle_is_asked_by_its_pattern(monkeypatch, kernel):
    monkeypatch.setattr(ops, "TRIANGLE", 4)
    q, k, v = (ops.from_numpy(np.random.default_rng(n).random((1, 2, 6, 8), np.float32)) for n in range(3))
    found = ops.to_numpy(ops.attention(q, k, v, causal=True))
    assert (kernel.asked["mask"], kernel.asked["sparse_mode"]) == ((4, 4), 2)
    monkeypatch.setattr(ops, "flash", False)
    np.testing.assert_allclose(found, ops.to_numpy(ops.attention(q, k, v, causal=True)), atol=3e-2)


class Attending(nn.Module):
    def forward(self, q, k, v, mask):
        return ops.attention(q, k, v, mask)


@pytest.mark.parametrize("masked", [False, True])
def test_the_route_can_be_compiled(monkeypatch, masked):
    """The blocks are a graph, whose parser takes less than Python does."""

    def kernel(q, k, v, heads, attn_mask=None, scalar_value=1.0, input_layout="BSH", sparse_mode=0):
        scores = mint.matmul(q, k.swapaxes(-1, -2)) * scalar_value
        return mint.matmul(native.softmax(scores, -1), v)

    monkeypatch.setattr(runtime, "graph", True)
    q, k, v = (
        ops.from_numpy(np.random.default_rng(n).random((2, 2, 6, 8), np.float32)).astype(ms.float16)
        for n in range(3)
    )
    mask = ops.from_numpy(KEYS) if masked else None
    plain = ops.to_numpy(ops.attention(q, k, v, mask))
    monkeypatch.setattr(ops, "flash", True)
    monkeypatch.setattr(ops.native, "flash_attention_score", kernel)
    found = runtime.compiled(Attending())(q, k, v, mask)
    # float16 has 11 bits.
    np.testing.assert_allclose(ops.to_numpy(found), plain, atol=5e-3)


@pytest.mark.parametrize("coarse", [False, True])
def test_only_a_cpu_is_asked_for_an_exponential_in_float64(monkeypatch, coarse):
    asked = []
    monkeypatch.setattr(ops, "coarse_exp", coarse)
    plain = ops.native.exp
    monkeypatch.setattr(ops.native, "exp", lambda x: asked.append(x.dtype) or plain(x))
    ops.exp(ops.ones(3))
    assert asked == [ms.float64 if coarse else ms.float32]
    ops.frequencies(3, 10000.0, ops.ones(1))
    assert len(asked) == 1
