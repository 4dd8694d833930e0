"""Weights on their way: what arrives, where it lies, and in which order a device with streams is asked for it."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from longtake import backend
from longtake.backend import nn, ops, runtime, transfer

RNG = np.random.default_rng(0)


def weights(count: int = 3) -> list[Any]:
    return [ops.from_numpy(RNG.standard_normal((3, 5 + i)).astype(np.float32)) for i in range(count)]


def test_a_network_s_tensors_are_held_put_and_given_back() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    found = {name: (owner, key, tensor) for name, owner, key, tensor in transfer.held(network)}
    assert sorted(found) == sorted(runtime.named_weights(network))
    owner, key, own = found["0.weight"]
    x = ops.from_numpy(np.ones((1, 3), np.float32))
    before = ops.to_numpy(network(x))
    stands = transfer.put(owner, key, ops.from_numpy(np.zeros((4, 3), np.float32)))
    assert owner.weight is stands and (ops.to_numpy(network(x)) != before).any()
    assert transfer.put(owner, key, own) is own and (ops.to_numpy(network(x)) == before).all()


def test_a_lane_brings_values_in_the_dtype_that_is_asked_for() -> None:
    given = weights()
    half = runtime.dtype("float16")
    lane = transfer.Lane("cpu", 2, sum(transfer.size_of(tensor) for tensor in given))
    first = lane.load(0, [(tensor, None) for tensor in given])()
    second = lane.load(1, [(tensor, half) for tensor in given])()
    for one, two, tensor in zip(first, second, given, strict=True):
        assert (ops.to_numpy(one) == ops.to_numpy(tensor)).all()
        assert two.dtype == half and (ops.to_numpy(two) == ops.to_numpy(tensor.to(half))).all()
    lane.leave(0)
    lane.close()
    assert transfer.lies_on(first[0], "cpu") and not transfer.lies_on(first[0], "cuda")


@pytest.mark.skipif(backend.name != "torch", reason="these are PyTorch's streams")
def test_a_buffer_is_filled_only_after_what_computes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which a device with streams is asked, on streams that write down what they are asked."""
    import torch

    asked: list[Any] = []

    class Stream:
        def __init__(self, device: Any = None) -> None: ...
        def __enter__(self) -> None:
            asked.append("copy")

        def __exit__(self, *_: Any) -> None: ...
        def wait_event(self, event: Any) -> None:
            asked.append(("wait", self, event.number))

        def synchronize(self) -> None:
            asked.append("end")

    class Event:
        made = 0

        def __init__(self, device: Any = None) -> None:
            Event.made += 1
            self.number = Event.made

        def record(self, stream: Any) -> None:
            asked.append(("record", stream, self.number))

        def synchronize(self) -> None:
            asked.append(("host waits", self.number))

    computing, empty = Stream(), torch.empty
    monkeypatch.setattr(torch, "Stream", Stream)
    monkeypatch.setattr(torch, "Event", Event)
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **k: empty(*a, **k))
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda device=None: computing)
    monkeypatch.setattr(transfer, "has_streams", lambda device: True)
    monkeypatch.setattr(transfer, "_numbered", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: False)
    monkeypatch.setattr(transfer, "_lies_there", lambda tensor, device: False)
    given = weights(2)
    lane = transfer.Lane("cpu:0", 1, 4096)
    own = lane._stream
    for turn in range(2):
        arrive = lane.load(0, [(tensor + turn, None) for tensor in given])
        found = arrive()
        assert all((one == tensor + turn).all() for one, tensor in zip(found, given, strict=True))
        lane.leave(0)
    lane.close()
    # When the buffer was made something may have computed with its memory (1): the copy waits for that. It is done at
    # 2, for which the computation waits; that is over at 3, for which the second copy waits. The pinned buffer is
    # written anew when the first copy has read it.
    assert asked == [
        ("record", computing, 1), "copy", ("wait", own, 1), ("record", own, 2), ("wait", computing, 2),
        ("record", computing, 3), ("host waits", 2), "copy", ("wait", own, 3), ("record", own, 4),
        ("wait", computing, 4), ("record", computing, 5), "end",
    ]  # fmt: skip
