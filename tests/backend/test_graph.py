"""Graph mode on MindSpore: compiled once for each set of shapes, and never behind the network's weights."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from longtake import backend
from longtake.backend import nn, ops, runtime
from longtake.errors import JobError

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


class Pair(nn.Module):
    def forward(self, pair, rows):
        first, second = pair
        seen = first[:, rows[0] : rows[1]] * second[:, rows[0] : rows[1]]
        return seen, seen + 1.0


def test_tensors_in_a_tuple_are_no_constants():
    """A block takes and gives such: with their values in the graph each step would be compiled anew."""
    net, pair = Pair(), (tensor(2, 4), tensor(2, 4) * 2)
    for _ in range(3):
        found = runtime.compiled(net)(pair, (0, 4))
        for one, wanted in zip(found, net(pair, (0, 4)), strict=True):
            np.testing.assert_allclose(ops.to_numpy(one), ops.to_numpy(wanted), rtol=1e-6)
        assert graphs(net) == 1
        pair = found


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


def test_the_mode_of_the_process_stays_as_it_is(monkeypatch):
    """It is the user's: other threads, and code between two steps, run in it too."""
    import mindspore as ms

    seen = []
    plain = runtime.Graph.compile_and_run

    def watched(self, *inputs):
        seen.append(ms.get_context("mode"))
        return plain(self, *inputs)

    monkeypatch.setattr(runtime.Graph, "compile_and_run", watched)
    both(Net(), tensor(2, 4), None, 0)
    assert seen == [ms.PYNATIVE_MODE] and ms.get_context("mode") == ms.PYNATIVE_MODE


def test_one_graph_is_compiled_at_a_time():
    """MindSpore's compiler has one state for all threads: two that compile at once stop with an error of its parser."""
    nets, x = [Net() for _ in range(4)], tensor(2, 4)
    expected = [ops.to_numpy(net(x, None, 0)) for net in nets]

    def work(net):
        # No eager operators beside it: MindSpore 2.10 has crashed where two threads run these at once.
        return [runtime.compiled(net)(x, None, 0) for _ in range(10)]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, nets))
    for each, wanted in zip(found, expected, strict=True):
        for one in each:
            np.testing.assert_allclose(ops.to_numpy(one), wanted, rtol=1e-5, atol=1e-6)


def test_a_copy_has_its_own_weights():
    net = Net()
    before = both(net, tensor(2, 4), None, 0)
    other = copy.deepcopy(net)
    runtime.write(other.layers[0].weight, np.ones((4, 4), np.float32))
    assert not np.allclose(both(other, tensor(2, 4), None, 0), before)
    np.testing.assert_array_equal(both(net, tensor(2, 4), None, 0), before)


class Checked(nn.Module):
    """A network that refuses, and compiles a part of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.part = Twice(nn.Linear(4, 4))

    def forward(self, x):
        if x.shape[0] > 2:
            raise JobError(f"{x.shape[0]} rows are too many.")
        return self.layers(x) + runtime.compiled(self.part)(x)


@pytest.fixture
def graph_mode():
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=ms.PYNATIVE_MODE)


def test_a_users_graph_mode_changes_nothing(request):
    net, calls = Checked(), []
    net.layers[0].register_forward_hook(lambda cell, inputs, output: calls.append(len(calls)))
    wanted = ops.to_numpy(net(tensor(2, 4)))
    request.getfixturevalue("graph_mode")
    before = len(calls)
    np.testing.assert_allclose(ops.to_numpy(net(tensor(2, 4))), wanted, rtol=1e-5, atol=1e-6)
    assert len(calls) > before  # hooks run too
    with pytest.raises(JobError, match="3 rows are too many"):
        net(tensor(3, 4))


def test_the_switch_makes_everything_eager(monkeypatch):
    monkeypatch.setattr(runtime, "graph", False)
    net = Net()
    assert runtime.compiled(net) is net
