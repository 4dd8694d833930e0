"""The backend: chosen once, each op as numpy has it, no name too many and none missing."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import longtake
from longtake import backend
from longtake.backend import ops, runtime
from longtake.errors import BackendError

SOURCES = [path for path in Path(longtake.__file__).parent.rglob("*.py") if "backend" not in path.parts]
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4)).astype(np.float32)


def used(module: str) -> set[str]:
    """The names that the package takes from a module of the backend, as in `ops.cat`."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == module
            ):
                found.add(node.attr)
    return found


@pytest.mark.parametrize("module", ["nn", "ops", "runtime"])
def test_the_vocabulary_is_closed(module):
    """Every name that a room uses exists, and every name that exists is used."""
    offered = getattr(backend, module)
    assert {name for name in used(module) if not hasattr(offered, name)} == set()
    if module != "runtime":
        assert set(offered.__all__) - used(module) == set()


def test_the_choice_follows_the_environment(monkeypatch):
    monkeypatch.setenv("LONGTAKE_BACKEND", "torch")
    assert backend.choose() == "torch"
    monkeypatch.setenv("LONGTAKE_BACKEND", "abacus")
    with pytest.raises(BackendError, match=r"abacus.*torch"):
        backend.choose()


def test_without_a_framework_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.delenv("LONGTAKE_BACKEND", raising=False)
    monkeypatch.setattr(backend, "sys", type("Empty", (), {"modules": {}}))
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install"):
        backend.choose()


@pytest.mark.parametrize(
    "function, truth",
    [
        (ops.silu, lambda x: x / (1 + np.exp(-x))),
        (ops.quick_gelu, lambda x: x / (1 + np.exp(-1.702 * x))),
        (ops.exp, np.exp),
        (lambda x: ops.clamp(x, -0.5, 0.5), lambda x: np.clip(x, -0.5, 0.5)),
        (lambda x: ops.cat([x, x], 1), lambda x: np.concatenate([x, x], 1)),
        (lambda x: ops.narrow(x, 2, 1, 2), lambda x: x[:, :, 1:3]),
        (lambda x: ops.pad(x, (1, 0), mode="replicate"), lambda x: x[:, :, [0, 0, 1, 2, 3]]),
    ],
)  # fmt: skip
def test_ops_are_what_numpy_says(function, truth):
    np.testing.assert_allclose(ops.to_numpy(function(ops.from_numpy(X))), truth(X), rtol=1e-6, atol=1e-6)


def test_attention_is_softmax_of_scaled_products():
    q, k, v = (RNG.standard_normal((1, 2, 5, 4)).astype(np.float32) for _ in range(3))
    scores = q @ k.swapaxes(2, 3) / 2
    scores[..., 3:] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    truth = weights / weights.sum(-1, keepdims=True) @ v
    mask = ops.from_numpy((np.arange(5) < 3)[None, None, None])
    found = ops.attention(*(ops.from_numpy(x) for x in (q, k, v)), mask=mask)
    np.testing.assert_allclose(ops.to_numpy(found), truth, rtol=1e-5, atol=1e-6)


def test_arrays_go_over_and_come_back():
    like = torch.zeros(1, dtype=torch.bfloat16)
    assert ops.from_numpy(X, like).dtype == torch.bfloat16
    assert ops.to_numpy(ops.from_numpy(X, like)).dtype == np.float32
    assert ops.arange(3, like).tolist() == [0, 1, 2]


def test_dtypes_go_by_name():
    assert runtime.dtype("bfloat16") is torch.bfloat16
    assert runtime.dtype_name(torch.float16) == "float16"
    with pytest.raises(BackendError, match=r"float8.*float32"):
        runtime.dtype("float8")
