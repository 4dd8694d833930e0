"""The loop on a tiny problem: it learns, writes what it promises, and goes on where it was stopped."""

import json

import numpy as np
import pytest
import torch

from longtake.backend import training
from longtake.training.loop import learning_rate, run


class Line:
    """Fit y = 2 x: the smallest thing that can be trained."""

    name = "line"
    rate = 0.05
    average = 0.5
    plain = ()

    def __init__(self) -> None:
        self.network = torch.nn.Linear(4, 4, bias=True)
        torch.nn.init.zeros_(self.network.weight)
        self.networks = {"line": self.network}

    def loss(self, rng, progress):
        x = torch.from_numpy(rng.standard_normal((8, 4), np.float32))
        error = ((self.network(x) - 2 * x) ** 2).mean()
        return error, {"error": float(error.detach())}

    def report(self, sheets):
        return {"weight": float(self.network.weight.detach().diagonal().mean())}


def test_it_learns_and_writes_checkpoint_and_log(tmp_path):
    stage = Line()
    # A fraction of a second is enough on a machine that has nothing else to do.
    figures = run(stage, tmp_path, minutes=0.08)
    assert figures["weight"] == pytest.approx(2, abs=0.3)
    assert (tmp_path / "line.safetensors").exists()
    lines = [json.loads(line) for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert lines[-1]["weight"] == figures["weight"]
    # What is left in the networks is the average, which the figures were taken with.
    assert stage.report(None) == figures


def test_a_run_that_is_over_only_reports(tmp_path):
    first = run(Line(), tmp_path, minutes=0.01)
    again = Line()
    assert run(again, tmp_path, minutes=0.01) == first


def test_without_resume_it_begins_anew(tmp_path):
    run(Line(), tmp_path, minutes=0.005)
    steps = int(training.load_tensors(tmp_path / "line.safetensors")[0]["steps"])
    run(Line(), tmp_path, minutes=0.005, resume=False)
    fresh = int(training.load_tensors(tmp_path / "line.safetensors")[0]["steps"])
    assert fresh < 2 * steps + 500  # not the sum of both, within the noise of a shared machine


def test_optimiser_state_goes_through_a_file(tmp_path):
    torch.manual_seed(0)
    one, two = (torch.nn.Linear(3, 3) for _ in range(2))
    first = training.Optimiser(dict(one.named_parameters()))
    x = torch.randn(5, 3)
    for _ in range(3):
        first.step((one(x) ** 2).mean(), 0.01)
    training.save_tensors(tmp_path / "state.safetensors", first.state(), {"seconds": "1"})
    tensors, metadata = training.load_tensors(tmp_path / "state.safetensors")
    second = training.Optimiser(dict(two.named_parameters()))
    second.load_state(tensors)
    assert metadata == {"seconds": "1"}
    for optimiser, network in ((first, one), (second, two)):
        optimiser.step((network(x) ** 2).mean(), 0.01)
    for mine, loaded in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, loaded)


def test_orthogonalised_updates_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((6, 20), (20, 6), (8, 4, 3, 3, 3)):
        values = torch.linalg.svdvals(training.orthogonalised(torch.randn(shape)).flatten(1))
        # Five steps of the quintic leave them between about 0.7 and 1.2.
        assert float(values.min()) > 0.4 and float(values.max()) < 1.4


def test_the_rate_warms_up_stays_and_goes_down():
    assert learning_rate(1.0, 0, 0.0) == pytest.approx(0.01)
    assert learning_rate(1.0, 1000, 0.3) == 1.0
    assert learning_rate(1.0, 1000, 0.8) == pytest.approx(0.5)
    assert 0 < learning_rate(1.0, 1000, 1.0) < 0.01
