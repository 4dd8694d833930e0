"""The backend: chosen once, the same on both sides, each op as numpy has it, no name too many and none missing."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import longtake
from longtake import backend
from longtake.backend import ops, runtime
from longtake.errors import BackendError, LongtakeWarning

PACKAGE = Path(longtake.__file__).parent
SOURCES = [
    path
    for path in PACKAGE.rglob("*.py")
    if not {"torch", "mindspore"} & set(path.relative_to(PACKAGE).parts)
]
MODULES = ("eight", "kernels", "modules", "nn", "ops", "parallel", "runtime", "thirdparty", "transfer")
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4)).astype(np.float32)
HALVES = ("float16", "bfloat16") if backend.name == "torch" else ("float16",)


def parsed(framework: str, module: str) -> ast.Module:
    """A side's module, read and not imported: a process has one framework."""
    return ast.parse((PACKAGE / "backend" / framework / f"{module}.py").read_text())


def offered(framework: str, module: str) -> set[str]:
    """The names in `__all__`."""
    for node in parsed(framework, module).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"{framework}/{module}.py has no __all__")


def signatures(framework: str, module: str) -> dict[str, list[tuple[str, str]]]:
    """The parameters of the functions and classes that a side defines itself, each with its default."""
    found = {}
    for node in parsed(framework, module).body:
        if isinstance(node, ast.ClassDef):
            inits = [part for part in node.body if getattr(part, "name", "") == "__init__"]
            found |= {node.name: parameters(inits[0])[1:]} if inits else {}
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = parameters(node)
    return {name: each for name, each in found.items() if name in offered(framework, module)}


def parameters(function: ast.FunctionDef) -> list[tuple[str, str]]:
    """Names, and defaults as they are written."""
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + list(a.defaults)
    found = [
        (each.arg, "" if default is None else ast.unparse(default))
        for each, default in zip(positional, defaults, strict=True)
    ]
    found += [(f"*{a.vararg.arg}", "")] if a.vararg else []
    return found + [
        (each.arg, "" if default is None else ast.unparse(default))
        for each, default in zip(a.kwonlyargs, a.kw_defaults, strict=True)
    ]


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


@pytest.mark.parametrize("module", MODULES)
def test_the_vocabulary_is_closed(module):
    """Every name that a room uses exists, and every name that exists is used."""
    here = getattr(backend, module)
    assert {name for name in used(module) if not hasattr(here, name)} == set()
    assert offered(backend.name, module) - used(module) == set()
    assert used(module) - offered(backend.name, module) == set()


@pytest.mark.parametrize("module", MODULES)
def test_both_sides_have_the_same_names(module):
    assert offered("torch", module) == offered("mindspore", module)


@pytest.mark.parametrize("module", MODULES)
def test_both_sides_have_the_same_signatures(module):
    """Where both define a function or a class themselves."""
    ours, theirs = signatures("torch", module), signatures("mindspore", module)
    for name in ours.keys() & theirs.keys():
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize("module", ["nn", "ops"])
def test_what_torch_has_itself_is_called_by_torchs_names(module):
    """Names that PyTorch's side re-exports: MindSpore's parameters are some of torch's, in torch's order."""
    torch = pytest.importorskip("torch")
    rooms = (torch.nn, torch.nn.functional) if module == "nn" else (torch.nn.functional, torch)
    own = signatures("torch", module)
    for name, found in signatures("mindspore", module).items():
        if name in own or name == "Module":
            continue
        theirs = next(getattr(room, name) for room in rooms if hasattr(room, name))
        asked = [each.lstrip("*") for each, _ in found]
        assert any(asked == [each for each in known if each in asked] for known in forms(theirs)), name


@pytest.mark.parametrize("module", ["nn", "ops"])
def test_what_torch_has_itself_has_torchs_defaults(module):
    """A parameter that may be left out on one side may be left out on the other, and means the same."""
    torch = pytest.importorskip("torch")
    rooms = (torch.nn, torch.nn.functional) if module == "nn" else (torch.nn.functional, torch)
    own, none = signatures("torch", module), inspect.Parameter.empty
    for name, found in signatures("mindspore", module).items():
        theirs = next((getattr(room, name) for room in rooms if hasattr(room, name)), None)
        if name in own or theirs is None or inspect.isbuiltin(theirs):
            continue
        known = inspect.signature(theirs).parameters
        for parameter, default in found:
            if default and known[parameter].default not in (none, None):
                assert ast.literal_eval(default) == known[parameter].default, (name, parameter)


def forms(function) -> list[list[str]]:
    """The parameters' names; of a function without a signature those of each form that its description begins with."""
    try:
        return [list(inspect.signature(function).parameters)]
    except ValueError:
        written = re.findall(
            rf"^(?:\.\. function:: )?{function.__name__}\(([^)]*)\)", function.__doc__, re.MULTILINE
        )
        return [[re.split("[=:]", part)[0].strip(" *") for part in each.split(",")] for each in written]


def test_the_choice_follows_the_environment(monkeypatch):
    for name in ("torch", "mindspore"):
        monkeypatch.setenv("LONGTAKE_BACKEND", name)
        assert backend.choose() == name
    monkeypatch.setenv("LONGTAKE_BACKEND", "abacus")
    with pytest.raises(BackendError, match=r"abacus.*torch.*mindspore"):
        backend.choose()


@pytest.mark.parametrize(
    ("imported", "installed", "chosen"),
    [
        ({"torch"}, {"torch", "mindspore"}, "torch"),
        ({"mindspore"}, {"torch", "mindspore"}, "mindspore"),
        # Many thirdparty import torch by themselves.
        ({"torch", "mindspore"}, {"torch", "mindspore"}, "mindspore"),
        (set(), {"torch", "mindspore"}, "torch"),
        (set(), {"mindspore"}, "mindspore"),
    ],
)
def test_else_what_is_imported_and_else_what_is_installed(monkeypatch, imported, installed, chosen):
    monkeypatch.delenv("LONGTAKE_BACKEND", raising=False)
    monkeypatch.setattr(backend, "sys", type("Sys", (), {"modules": dict.fromkeys(imported)}))
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: name in installed or None)
    assert backend.choose() == chosen


def test_without_a_framework_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.delenv("LONGTAKE_BACKEND", raising=False)
    monkeypatch.setattr(backend, "sys", type("Empty", (), {"modules": {}}))
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install"):
        backend.choose()


def test_training_is_torchs_alone():
    if backend.name == "torch":
        assert hasattr(backend.training, "Optimiser")
    else:
        with pytest.raises(BackendError, match="LONGTAKE_BACKEND=torch"):
            _ = backend.training


def both(*shape, seed=1):
    """An array, and it as a tensor."""
    array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return array, ops.from_numpy(array)


def conv(x, weight, bias, stride):
    """A convolution of any number of axes, in float64."""
    kernel = weight.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, tuple(range(2, x.ndim)))
    windows = windows[(..., *(slice(None, None, step) for step in stride), *[slice(None)] * len(kernel))]
    axes = [1, *range(x.ndim, windows.ndim)]
    summed = np.tensordot(windows.astype(np.float64), weight, (axes, list(range(1, weight.ndim))))
    return np.moveaxis(summed, -1, 1) + bias.reshape(-1, *[1] * len(kernel))


W2, B2 = (both(5, 3, 2, 2, seed=2)[0], both(5, seed=3)[0])
PICTURES = both(2, 3, 6, 7)[0]
FRAMES = both(1, 2, 2, 3, 2)[0]
W3 = both(5, 2, 2, 2, 1, seed=4)[0]
INDEX = np.array([2, 0, 0])
# MindSpore's tanh is 1e-4 off on CPUs, absolutely; its GELU is not made of it, but is held to no more than that.
TANH = 1e-6 if backend.name == "torch" else 1e-4


def exact_gelu(x):
    from math import erf, sqrt

    return x * np.vectorize(lambda value: 0.5 * (1 + erf(value / sqrt(2))))(x.astype(np.float64))


TURNS = np.repeat(np.exp(1j * RNG.standard_normal((1, 3, 2))), 2, -1).astype(np.complex64)


def turned(x):
    """Each pair of channels as a complex number, times its angle's."""
    pairs = (x[..., ::2] + 1j * x[..., 1::2]) * TURNS[..., ::2]
    return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)


@pytest.mark.parametrize(
    ("name", "function", "truth", "tolerance"),
    [
        ("silu", ops.silu, lambda x: x / (1 + np.exp(-x)), 1e-6),
        ("quick_gelu", ops.quick_gelu, lambda x: x / (1 + np.exp(-1.702 * x)), 1e-6),
        ("gelu", ops.gelu, exact_gelu, 1e-6),
        ("gelu", lambda x: ops.gelu(x, approximate="tanh"),
         lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))), TANH),
        ("exp", ops.exp, np.exp, 1e-6),
        ("sin", lambda x: ops.sin(1000 * x), lambda x: np.sin((np.float32(1000) * x).astype(np.float64)), 1e-6),
        ("cos", lambda x: ops.cos(1000 * x), lambda x: np.cos((np.float32(1000) * x).astype(np.float64)), 1e-6),
        ("rsqrt", lambda x: ops.rsqrt(x * x + 1), lambda x: 1 / np.sqrt(x * x + 1), 1e-6),
        ("clamp", lambda x: ops.clamp(x, -0.5, 0.5), lambda x: np.clip(x, -0.5, 0.5), 0),
        ("cat", lambda x: ops.cat([x, x], 1), lambda x: np.concatenate([x, x], 1), 0),
        ("cat", lambda x: ops.cat((x, x), -1), lambda x: np.concatenate([x, x], -1), 0),
        ("narrow", lambda x: ops.narrow(x, 2, 1, 2), lambda x: x[:, :, 1:3], 0),
        ("index_select", lambda x: ops.index_select(x, 2, ops.from_numpy(INDEX)), lambda x: x[:, :, INDEX], 0),
        ("argmax", lambda x: ops.argmax(x, -1), lambda x: x.argmax(-1), 0),
        ("argmax", lambda x: ops.argmax((x > 0).int(), -1), lambda x: (x > 0).argmax(-1), 0),
        ("arange", lambda x: ops.arange(5, like=x), lambda x: np.arange(5), 0),
        ("ones", lambda x: ops.ones(2, 3), lambda x: np.ones((2, 3)), 0),
        ("zeros", lambda x: ops.zeros(2, 3), lambda x: np.zeros((2, 3)), 0),
        ("linear", lambda x: ops.linear(x, ops.from_numpy(W2[:, 0, 0, :1] + X[0, 0])),
         lambda x: x @ (W2[:, 0, 0, :1] + X[0, 0]).T, 1e-6),
        ("linear", lambda x: ops.linear(x, ops.from_numpy(W2[:, 0, 0, :1] + X[0, 0]), ops.from_numpy(B2)),
         lambda x: x @ (W2[:, 0, 0, :1] + X[0, 0]).T + B2, 1e-6),
        ("conv2d", lambda x: ops.conv2d(*map(ops.from_numpy, (PICTURES, W2, B2)), (2, 1)),
         lambda x: conv(PICTURES, W2, B2, (2, 1)), 2e-6),
        ("conv3d", lambda x: ops.conv3d(ops.from_numpy(FRAMES), ops.from_numpy(W3), None, (1, 2, 1)),
         lambda x: conv(FRAMES, W3, np.zeros(5), (1, 2, 1)), 2e-6),
        ("moments", lambda x: ops.cat([each[None] for each in ops.moments(ops.from_numpy(FRAMES))]),
         lambda x: np.stack([FRAMES.mean((3, 4)), FRAMES.var((3, 4))]), 2e-6),
        ("scale_shift", lambda x: ops.scale_shift(x, x[:1], x[:, :1]), lambda x: x * x[:1] + x[:, :1], 1e-6),
        ("rotate_pairs", lambda x: ops.rotate_pairs(x, ops.turning(*map(ops.from_numpy, (TURNS.real, TURNS.imag)))),
         turned, 1e-6),
        ("channels_last", lambda x: ops.channels_last(ops.from_numpy(FRAMES)), lambda x: FRAMES, 0),
        ("pad", lambda x: ops.pad(ops.from_numpy(FRAMES), (1, 1, 1, 1, 2, 0), mode="replicate"),
         lambda x: np.pad(FRAMES, ((0, 0), (0, 0), (2, 0), (1, 1), (1, 1)), "edge"), 0),
        ("pad", lambda x: ops.pad(ops.from_numpy(PICTURES), (1, 0, 2, 1), mode="replicate"),
         lambda x: np.pad(PICTURES, ((0, 0), (0, 0), (2, 1), (1, 0)), "edge"), 0),
    ],
)  # fmt: skip
def test_ops_are_what_numpy_says(name, function, truth, tolerance):
    found, expected = ops.to_numpy(function(ops.from_numpy(X))), truth(X)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


LAYERS = {
    "Conv2d": ((3, 5, 2, (2, 1)), PICTURES, lambda x, w: conv(x, w["weight"], w["bias"], (2, 1))),
    "Conv3d": ((2, 4, 2), FRAMES, lambda x, w: conv(x, w["weight"], w["bias"], (1, 1, 1))),
    "Embedding": ((7, 3), np.array([[1, 6], [0, 1]]), lambda x, w: w["weight"][x]),
    "GroupNorm": (
        (1, 2),
        FRAMES,
        lambda x, w: normed(x, (1, 2, 3, 4)) * spread(w["weight"]) + spread(w["bias"]),
    ),
    "Identity": ((), X, lambda x, w: x),
    "LayerNorm": ((4,), X, lambda x, w: normed(x, -1) * w["weight"] + w["bias"]),
    "Linear": ((4, 5), X, lambda x, w: x @ w["weight"].T + w["bias"]),
    "RMSNorm": ((4,), X, lambda x, w: x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * w["weight"]),
}
# What RMSNorm adds by default differs by less than float32 shows here.
EPS = 1e-7


def normed(x, axes):
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-5)


def spread(values):
    return values.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_what_numpy_says(name, filled):
    arguments, x, truth = LAYERS[name]
    options = {"eps": EPS} if name == "RMSNorm" else {}
    layer = filled(getattr(backend.nn, name)(*arguments, **options))
    weights = {key: ops.to_numpy(value) for key, value in runtime.named_weights(layer).items()}
    assert set(weights) <= {"weight", "bias"}
    with runtime.no_grad():
        found = ops.to_numpy(layer(ops.from_numpy(x)))
    expected = truth(x, weights)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=3e-6)


def test_layers_without_bias_or_weights():
    assert set(runtime.named_weights(backend.nn.Linear(3, 4, bias=False))) == {"weight"}
    plain = backend.nn.LayerNorm(4, eps=1e-6, elementwise_affine=False)
    assert not runtime.named_weights(plain)
    np.testing.assert_allclose(ops.to_numpy(plain(ops.from_numpy(X))), normed(X, -1), rtol=1e-4, atol=1e-4)


def attended(q, k, v, seen=None, scale=None):
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scores = q @ k.swapaxes(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if seen is None else np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


KEYS = (np.arange(5) < 3)[None, None, None]


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, None),
        ({"mask": KEYS}, KEYS),
        ({"mask": np.where(KEYS, 0, -np.inf).astype(np.float32)}, KEYS),
        ({"causal": True}, np.tri(5, dtype=bool)),
        ({"scale": 0.1}, None),
    ],
    ids=["plain", "boolean", "added", "causal", "scaled"],
)
@pytest.mark.parametrize("heads", [2, 1])
def test_attention_is_softmax_of_scaled_products(options, seen, heads):
    q, k, v = (RNG.standard_normal((2, n, 5, 4)).astype(np.float32) for n in (2, heads, heads))
    given = {key: ops.from_numpy(x) if isinstance(x, np.ndarray) else x for key, x in options.items()}
    found = ops.to_numpy(ops.attention(*(ops.from_numpy(x) for x in (q, k, v)), **given))
    shared = (x.repeat(2 // heads, 1) for x in (k, v))
    # MindSpore's exponential is 2e-6 off on CPUs.
    np.testing.assert_allclose(found, attended(q, *shared, seen, options.get("scale")), rtol=1e-5, atol=4e-6)


def test_arrays_go_over_and_come_back():
    like = runtime.place(ops.zeros(1), dtype=HALVES[-1])
    assert runtime.dtype_name(ops.from_numpy(X, like).dtype) == HALVES[-1]
    assert ops.to_numpy(ops.from_numpy(X, like)).dtype == np.float32
    assert ops.to_numpy(ops.arange(3, like)).tolist() == [0, 1, 2]
    for kind in (np.int64, np.int32, np.bool_, np.float32):
        array = np.array([[1, 0, 1]], kind)
        back = ops.to_numpy(ops.from_numpy(array))
        assert back.dtype == kind
        np.testing.assert_array_equal(back, array)
    np.testing.assert_array_equal(ops.to_numpy(ops.from_numpy(X.T)), X.T)
    assert ops.to_numpy(ops.from_numpy(np.array(7))).shape == ()


def test_what_is_written_to_the_array_afterwards_is_nobodys_business():
    """Parts of the pipeline reuse arrays; a tensor that shares memory with one would change with it."""
    if backend.name == "torch":
        pytest.skip("torch.from_numpy shares memory, and its users here do not write")
    array = X.copy()
    tensor = ops.from_numpy(array)
    array[:] = 0
    np.testing.assert_array_equal(ops.to_numpy(tensor), X)


def test_frequencies():
    found = ops.to_numpy(ops.frequencies(128, 10000.0, ops.ones(1)))
    assert found.dtype == np.float32
    # Exponents to -9 in float32 are good to 5e-7.
    np.testing.assert_allclose(found, 10000.0 ** (-np.arange(128) / 128), rtol=2e-6)


def test_dtypes_go_by_name():
    for name in ("float32", *HALVES):
        assert runtime.dtype_name(runtime.dtype(name)) == name
        assert runtime.dtype(runtime.dtype(name)) == runtime.dtype(name)
    with pytest.raises(BackendError, match=r"float8.*float32"):
        runtime.dtype("float8")


@pytest.mark.skipif(backend.name != "mindspore", reason="PyTorch computes bfloat16 everywhere")
def test_bfloat16_becomes_float32_with_one_warning_where_nothing_computes_it():
    """The page's scripts name bfloat16, and run on a CPU as they stand."""
    if runtime.target() != "CPU":
        pytest.skip("about the CPU")
    runtime._tell_no_bfloat16.cache_clear()
    with pytest.warns(LongtakeWarning, match="no bfloat16 on a CPU; float32 is taken") as told:
        assert runtime.dtype_name(runtime.dtype("bfloat16")) == "float32"
        layer = backend.nn.Linear(3, 2).to("bfloat16")
        layer = layer.to(device="CPU", dtype=runtime.DTYPES["bfloat16"])
    assert len(told) == 1
    assert runtime.dtype_name(layer.weight.dtype) == "float32"
    assert np.isfinite(ops.to_numpy(layer(ops.ones(1, 3)))).all()


def test_weights_are_read_and_replaced_by_name(filled):
    layer = filled(backend.nn.Linear(3, 2))
    before = ops.to_numpy(runtime.named_weights(layer)["weight"]).copy()
    runtime.assign_weights(layer, {"bias": ops.from_numpy(np.array([5.0, 6.0], np.float32))})
    weights = {name: ops.to_numpy(value) for name, value in runtime.named_weights(layer).items()}
    assert weights["bias"].tolist() == [5, 6]
    np.testing.assert_array_equal(weights["weight"], before)


def test_the_frameworks_generator_repeats():
    one, two = (ops.to_numpy(runtime.randn((2, 3), runtime.seeded(4))) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert isinstance(runtime.seeded(4), runtime.Generator)


@pytest.mark.skipif(backend.name != "torch", reason="it is PyTorch that has a compiler to load")
def test_empty_weights_load_no_compiler():
    code = (
        "import sys; from longtake.backend import nn, runtime\n"
        "with runtime.empty_weights(): layer = nn.Embedding(3, 4)\n"
        "assert layer.weight.is_meta and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_auto_is_the_best_device_that_is_here():
    assert runtime.check_device("auto") == runtime.best_device()
    assert str(runtime.best_device()).lower() == "cpu"
    assert runtime.auto_dtype(runtime.best_device()) == "float32"


@pytest.mark.skipif(backend.name != "torch", reason="the device that is not there is PyTorch's")
def test_auto_is_an_accelerator_where_there_is_one():
    from fake_device import accelerator

    with accelerator():
        assert runtime.check_device("auto") == "npu"
        assert runtime.auto_dtype("npu") == "bfloat16"
    assert runtime.check_device("auto") == "cpu"


@pytest.mark.skipif(backend.name != "torch", reason="PyTorch's older way")
def test_auto_knows_the_accelerators_of_older_torch_by_name(monkeypatch):
    import torch

    monkeypatch.delattr(torch, "accelerator")
    assert runtime.best_device() == "cpu"
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    assert runtime.best_device() == "xpu"


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:132] DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), True),
        (RuntimeError("Allocate memory failed, size: 99")
         if backend.name == "mindspore" else RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)  # fmt: skip
def test_an_error_of_memory_is_known(error, ran_out):
    assert runtime.out_of_memory(error) == ran_out


@pytest.mark.skipif(backend.name != "torch", reason="PyTorch's own error")
def test_pytorchs_own_errors_of_memory_are_known():
    import torch

    assert runtime.out_of_memory(torch.OutOfMemoryError("no words"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert runtime.out_of_memory(caught.value)


def test_a_device_that_is_not_here_is_a_sentence():
    assert runtime.check_device(None) is None
    runtime.check_device("cpu" if backend.name == "torch" else "CPU")
    with pytest.raises(BackendError, match="cannot use the device 'nowhere' here"):
        runtime.check_device("nowhere")
