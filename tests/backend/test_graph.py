"""Graph mode on MindSpore: compiled once for each set of shapes, and never behind the network's weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from longtake import backend
from longtake.backend import nn, ops, runtime

if backend.name != "mindspore":
    pytest.skip("PyTorch's blocks run as they are", allow_module_level=True)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.sign = 1.0

    def forward(self, x, mask, skip, *more):
        for layer in self.layers:
            x = layer(x)
        for each in more:
            x = x + each
        if mask is not None:
            x = x * mask
        return x[:, skip:] * self.sign


class Twice(nn.Module):
    def __init__(self, base) -> None:
        super().__init__()
        self.base = base

    def forward(self, x):
        return 2 * self.base(x)


@pytest.fixture(autouse=True)
def graph(monkeypatch):
    monkeypatch.setattr(runtime, "graph", True)


def tensor(*shape):
    return ops.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


def both(net, *inputs):
    compiled = ops.to_numpy(runtime.compiled(net)(*inputs))
    eager = ops.to_numpy(net(*inputs))
    # Sums of four products in another order.
    np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-6)
    return compiled


def graphs(net):
    return len(vars(net)[runtime.COMPILED].graph.compile_cache)


def test_one_compilation_for_each_set_of_shapes():
    net = Net()
    for step in range(3):
        both(net, tensor(2, 4) + step, None, 1, tensor(2, 4) * step, tensor(2, 4) - step)
        assert graphs(net) == 1
    both(net, tensor(3, 4), None, 1, tensor(3, 4), tensor(3, 4))
    assert graphs(net) == 2
    both(net, tensor(2, 4), tensor(2, 4), 1, tensor(2, 4), tensor(2, 4))
    assert graphs(net) == 3


def test_weights_that_are_written_are_seen_without_compiling():
    net = Net()
    before = both(net, tensor(2, 4), None, 0)
    runtime.write(net.layers[0].weight, np.ones((4, 4), np.float32))
    assert not np.allclose(both(net, tensor(2, 4), None, 0), before)
    assert graphs(net) == 1


@pytest.mark.parametrize("change", ["assigned", "moved", "wrapped", "flagged"])
def test_what_is_replaced_is_seen(change):
    net = Net()
    before = both(net, tensor(2, 4), None, 0)
    if change == "assigned":
        runtime.assign_weights(net, {"layers.1.weight": tensor(4, 4)})
    elif change == "moved":
        net.to(dtype="float16")
        net.to(dtype="float32")
        runtime.write(net.layers[1].bias, np.ones(4, np.float32))
    elif change == "wrapped":
        net.layers[0] = Twice(net.layers[0])
    else:
        net.sign = -1.0
    runtime.structure_changed(net)
    assert not np.allclose(both(net, tensor(2, 4), None, 0), before)


def test_graph_mode_ends_with_the_call():
    import mindspore as ms

    both(Net(), tensor(2, 4), None, 0)
    assert ms.get_context("mode") == ms.PYNATIVE_MODE


def test_the_switch_makes_everything_eager(monkeypatch):
    monkeypatch.setattr(runtime, "graph", False)
    net = Net()
    assert runtime.compiled(net) is net


def test_a_copy_computes_with_its_own_weights():
    net = Net()
    before = both(net, tensor(2, 4), None, 0)
    other = copy.deepcopy(net)
    runtime.write(other.layers[1].weight, np.zeros((4, 4), np.float32))
    assert not np.allclose(both(other, tensor(2, 4), None, 0), before)
    np.testing.assert_array_equal(both(net, tensor(2, 4), None, 0), before)
