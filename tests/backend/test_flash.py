"""The route of attention on Ascend, forced on a CPU: what the kernel would be asked, and what is made of its answer."""

from __future__ import annotations

import numpy as np
import pytest

from longtake import backend
from longtake.backend import ops

if backend.name != "mindspore":
    pytest.skip("PyTorch chooses its kernels itself", allow_module_level=True)

import mindspore as ms


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("dtype", "asked"), [("float32", ms.bfloat16), ("float16", ms.float16)])
def test_the_kernel_is_asked_for_the_same_attention(monkeypatch, masked, dtype, asked):
    rng = np.random.default_rng(0)
    half = {"float32": ms.float32, "float16": ms.float16}[dtype]
    q, k, v = (
        ops.from_numpy(rng.standard_normal((2, 4, 6, 8)).astype(np.float32)).astype(half) for _ in range(3)
    )
    mask = ops.from_numpy(np.arange(6)[None, None, None] < np.array([4, 6])[:, None, None, None])
    mask = mask if masked else None
    plain = ops.to_numpy(ops.attention(q, k, v, mask))
    seen = {}

    def kernel(query, key, value, head_num, attn_mask=None, scalar_value=1.0, input_layout="BSH"):
        seen.update(heads=head_num, layout=input_layout, dtypes={x.dtype for x in (query, key, value)})
        seen.update(mask=None if attn_mask is None else tuple(attn_mask.shape), scale=scalar_value)
        scores = ops.to_numpy(query) @ ops.to_numpy(key).swapaxes(-1, -2) * scalar_value
        if attn_mask is not None:
            # Ascend's kernel hides what is True.
            scores = np.where(attn_mask.asnumpy(), -np.inf, scores)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return ops.from_numpy(weights / weights.sum(-1, keepdims=True) @ ops.to_numpy(value)).astype(
            query.dtype
        )

    monkeypatch.setattr(ops, "flash", True)
    monkeypatch.setattr(ops.native, "flash_attention_score", kernel)
    found = ops.attention(q, k, v, mask)
    assert found.dtype == q.dtype
    assert seen == {
        "heads": 4,
        "layout": "BNSD",
        "dtypes": {asked},
        "mask": (2, 1, 6, 6) if masked else None,
        "scale": pytest.approx(8**-0.5),
    }
    # bfloat16 has 8 bits: 4e-3 of each value.
    np.testing.assert_allclose(ops.to_numpy(found), plain, atol=3e-2)
