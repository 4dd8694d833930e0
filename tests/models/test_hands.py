"""A network that somebody hooked, patched, compiled or wrapped is no longer opened."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from typing import Any

import pytest

from longtake import backend
from longtake.backend import nn, runtime
from longtake.models.pretrained import is_untouched
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.pipeline.networks import NETWORKS, Networks

# What the framework calls when a module is called.
CALLED = "forward" if backend.name == "torch" else "construct"


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, networks: Networks) -> Any:
    """Each part in turn, one of the test's own."""
    return copy.deepcopy(getattr(networks, request.param))


def inner(network: Any) -> Any:
    """Some module deep inside."""
    return [module for _, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv3d)][-1]


def test_ours_may_be_opened(network: Any) -> None:
    assert is_untouched(network)
    network.to(runtime.dtype("float16"))
    assert is_untouched(network)


@pytest.mark.parametrize("place", [lambda network: network, inner], ids=["itself", "inside"])
def test_hooks_and_patches_of_objects_are_seen_and_seen_to_go(network: Any, place: Callable) -> None:
    module = place(network)
    for register in (module.register_forward_hook, module.register_forward_pre_hook):
        handle = register(lambda *_: None)
        assert not is_untouched(network)
        handle.remove()
        assert is_untouched(network)
    call = getattr(module, CALLED)
    setattr(module, CALLED, lambda *args, **kwargs: call(*args, **kwargs))
    assert not is_untouched(network)


@pytest.mark.parametrize("place", [lambda network: network, inner], ids=["itself", "inside"])
def test_patches_of_classes_are_seen(network: Any, place: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(place(network))
    original = getattr(kind, CALLED)

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs)

    for patch in (patched, functools.wraps(original)(patched)):
        with monkeypatch.context() as context:
            context.setattr(kind, CALLED, patch)
            assert not is_untouched(network)
        assert is_untouched(network)


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_the_autoencoders_own_calls_are_among_them(
    method: str, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = copy.deepcopy(networks.vae)
    setattr(vae, method, lambda *args, **kwargs: None)
    assert not is_untouched(vae)
    vae = copy.deepcopy(networks.vae)
    original = getattr(type(vae), method)
    monkeypatch.setattr(type(vae), method, lambda self, *args, **kwargs: original(self, *args, **kwargs))
    assert not is_untouched(vae)


def test_a_subclass_that_changes_the_call_is_seen(networks: Networks) -> None:
    class Mine(Transformer):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    class Named(Transformer):
        """One that changes nothing."""

    assert not is_untouched(Mine(networks.transformer.config))
    assert is_untouched(Named(networks.transformer.config))


def test_what_is_not_ours_is_never_opened(networks: Networks) -> None:
    assert not is_untouched(object())
    assert not is_untouched(nn.Linear(2, 2))
    assert not is_untouched(lambda **_: None)


@pytest.mark.skipif(backend.name != "torch", reason="torch.compile, accelerate")
def test_compilation_and_accelerates_hooks_are_seen(network: Any) -> None:
    torch = pytest.importorskip("torch")
    assert not is_untouched(torch.compile(network))
    inner(network).compile()
    assert not is_untouched(network)
    inner(network)._compiled_call_impl = None
    hooks = pytest.importorskip("accelerate.hooks")
    hooks.add_hook_to_module(inner(network), hooks.AlignDevicesHook(execution_device="cpu"))
    assert not is_untouched(network)
    hooks.remove_hook_from_module(inner(network))
    assert is_untouched(network)


@pytest.mark.skipif(backend.name != "mindspore", reason="what MindSpore calls is construct")
def test_a_forward_that_mindspore_would_not_call_is_refused(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longtake.errors import BackendError

    original = Transformer.forward
    monkeypatch.setattr(Transformer, "forward", lambda self, *a, **k: original(self, *a, **k))
    with pytest.raises(BackendError, match="MindSpore calls construct; replace that one"):
        is_untouched(networks.transformer)


@pytest.mark.skipif(backend.name != "torch", reason="PyTorch's modules")
def test_to_look_costs_little() -> None:
    """A look at every step: about 1 ms for the 1600 modules of the published transformer."""
    with runtime.empty_weights():
        model = Transformer()
    is_untouched(model)
    spent = []
    for _ in range(5):
        begin = time.perf_counter()
        assert is_untouched(model)
        spent.append(time.perf_counter() - begin)
    # Ten times what is measured, for machines with other work on them.
    assert min(spent) < 0.02, spent
    print(f"{min(spent) * 1e3:.2f} ms for {sum(1 for _ in model.modules())} modules")
