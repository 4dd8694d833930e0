"""The kernels of attention: found, chosen, asked for in one thread alone, and traced through by the compiler."""

from __future__ import annotations

import sys
import types
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from longtake import backend
from longtake.backend import kernels, ops
from longtake.errors import BackendError

if backend.name != "torch":
    pytest.skip("MindSpore has one kernel for each device (test_flash.py)", allow_module_level=True)

import torch
from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends

from longtake.backend.torch import kernels as own

CUDA = torch.device("cuda")


def noise(*shape):
    return ops.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


Q, K, V = (noise(1, 4, length, 8) for length in (6, 9, 9))
# Sums of float32 in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture
def cuda(monkeypatch):
    """PyTorch as it answers on a machine with a GPU of the capability that is set; nothing is computed there."""

    def capability(major):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (major, 0))

    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    return capability


@pytest.fixture
def packages(monkeypatch):
    """Libraries with other kernels, as their documentation has them, computed with what CPUs have; and their calls."""
    asked = []

    def plain(q, k, v, causal, scale):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)

    def swapped(q, k, v, causal, scale):
        return plain(*(x.transpose(1, 2) for x in (q, k, v)), causal, scale).transpose(1, 2)

    def sageattn(q, k, v, tensor_layout, is_causal, sm_scale):
        asked.append(("sage", tensor_layout))
        return plain(q, k, v, is_causal, sm_scale)

    def flash(q, k, v, softmax_scale, causal):
        asked.append(("flash-attn",))
        return swapped(q, k, v, causal, softmax_scale)

    def flash3(q, k, v, softmax_scale, causal):
        asked.append(("fa3",))
        return swapped(q, k, v, causal, softmax_scale), None

    def efficient(q, k, v, attn_bias, scale):
        asked.append(("xformers", attn_bias))
        return swapped(q, k, v, attn_bias is not None, scale)

    ops_of_xformers = types.SimpleNamespace(
        memory_efficient_attention=efficient, LowerTriangularMask=lambda: "below"
    )
    made = {
        "sageattention": {"sageattn": sageattn},
        "flash_attn": {"flash_attn_func": flash},
        "flash_attn_interface": {"flash_attn_func": flash3},
        "xformers": {"ops": ops_of_xformers},
        "xformers.ops": vars(ops_of_xformers),
    }
    for name, values in made.items():
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace()
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return asked


def test_a_cpu_has_pytorchs_own():
    assert own.found("cpu") == ("native", "flash", "math")
    assert kernels.chosen("auto", "cpu") == "native"
    for name in ("auto", "native", "flash", "math"):
        kernels.check(name, "cpu", "float32")


def test_what_is_not_there_is_refused_with_what_is():
    with pytest.raises(
        BackendError, match=r"'cudnn' is not there for cpu; there are: auto, native, flash, math"
    ):
        kernels.check("cudnn", "cpu")
    with pytest.raises(
        BackendError, match=r"'sage' is not there for cpu; it needs the package sageattention"
    ):
        kernels.check("sage", "cpu")
    with pytest.raises(BackendError, match="'nonsense' is not known"):
        kernels.check("nonsense", "cpu")


@pytest.mark.parametrize(
    ("capability", "name"), [(8, "native"), (9, "cudnn first"), (10, "cudnn first"), (12, "native")]
)
def test_cudnn_comes_first_where_it_is_faster(cuda, capability, name):
    cuda(capability)
    assert kernels.chosen("auto", CUDA) == name
    assert kernels.chosen("math", CUDA) == "math"


def test_packages_are_found_and_never_chosen(cuda, packages):
    cuda(9)
    assert own.found(CUDA) == (
        "native", "cudnn", "flash", "efficient", "math", "sage", "fa3", "flash-attn", "xformers",
    )  # fmt: skip
    assert kernels.chosen("auto", CUDA) == "cudnn first"
    with pytest.raises(BackendError, match=r"'sage' computes half precision alone.*--dtype bfloat16"):
        kernels.check("sage", CUDA, torch.float32)
    kernels.check("sage", CUDA, "bfloat16")


@pytest.mark.parametrize("name", ["sage", "fa3", "flash-attn", "xformers"])
@pytest.mark.parametrize("causal", [False, True])
def test_a_package_is_asked_for_the_same_attention(packages, name, causal):
    q = noise(1, 4, 9, 8)
    with own.around(own._kernel(name)):
        found = ops.attention(q, K, V, causal=causal, scale=0.3)
        assert packages[-1][0] == name
        with pytest.raises(
            BackendError, match=rf"'{name}' cannot compute 4 heads of 8 in float32, with a mask"
        ):
            ops.attention(q, K, V, torch.ones(1, 1, 1, 9, dtype=torch.bool))
    torch.testing.assert_close(found, ops.attention(q, K, V, causal=causal, scale=0.3), **CLOSE)


@pytest.mark.parametrize("name", ["flash", "math", "cudnn first"])
def test_pytorchs_kernels_compute_the_same(name):
    mask = torch.arange(9)[None, None, None] < 7
    for options in ({}, {"mask": mask}, {"scale": 0.2}):
        plain = ops.attention(Q, K, V, **options)
        with own.around(own._kernel(name)):
            torch.testing.assert_close(ops.attention(Q, K, V, **options), plain, **CLOSE)


def test_cudnn_is_asked_before_flash(monkeypatch):
    """The order that PyTorch is given, at the moment when it chooses."""
    seen = []
    monkeypatch.setattr(own, "native", lambda *_: seen.append(_cur_sdpa_kernel_backends(with_priority=True)))
    before = _cur_sdpa_kernel_backends(with_priority=True)
    with own.around(own._kernel("cudnn first")):
        ops.attention(Q, K, V)
    assert seen[0][:4] == [
        SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH,
    ]  # fmt: skip
    assert _cur_sdpa_kernel_backends(with_priority=True) == before


def test_a_kernel_that_cannot_is_no_other_in_silence():
    with (
        own.around(own._kernel("flash")),
        pytest.raises(BackendError, match="'flash' cannot compute 4 heads"),
    ):
        ops.attention(Q.double().requires_grad_(), K.double(), V.double(), noise(1, 4, 6, 9).requires_grad_())


def test_a_thread_knows_its_own_kernel_alone():
    both, seen = Barrier(2, timeout=20), {}

    def work(name):
        def kernel(query, *_):
            seen.setdefault(name, set()).add(name)
            return query

        with own.around(kernel):
            for _ in range(20):
                both.wait()
                ops.attention(Q, K, V)

    before = _cur_sdpa_kernel_backends(with_priority=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, "ab"))
    assert seen == {"a": {"a"}, "b": {"b"}}
    assert not own.here.own and _cur_sdpa_kernel_backends(with_priority=True) == before


def test_streams_beside_each_other_leave_pytorchs_order_as_it_was():
    before = _cur_sdpa_kernel_backends(with_priority=True)

    def work(name):
        with own.around(own._kernel(name)):
            return [ops.attention(Q, K, V) for _ in range(50)][-1]

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(work, ["math", "cudnn first", "flash"]):
            torch.testing.assert_close(found, ops.attention(Q, K, V), **CLOSE)
    assert _cur_sdpa_kernel_backends(with_priority=True) == before


def test_compiled_code_runs_on_any_kernel_without_compiling_anew():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    asked = []

    def mine(query, key, value, mask, causal, scale):
        asked.append(len(asked))
        return own.native(query, key, value, mask, causal, scale)

    def attend(q, k, v):
        return ops.attention(q, k, v).permute(0, 2, 1, 3).flatten(2)

    compiled, plain = torch.compile(attend, backend="aot_eager", fullgraph=True), attend(Q, K, V)
    with torch.no_grad():
        torch.testing.assert_close(compiled(Q, K, V), plain, **CLOSE)
        for kernel in (mine, own._kernel("math"), mine):
            with own.around(kernel):
                torch.testing.assert_close(compiled(Q, K, V), plain, **CLOSE)
    assert len(asked) == 2
    # One with PyTorch's choice in the code, one for all others.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    torch._dynamo.reset()
