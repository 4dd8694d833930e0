"""The loop on tiny problems: it learns, writes what it promises, and goes on exactly where it was stopped."""

import itertools
import json

import numpy as np
import pytest
import torch

from longtake.backend import training
from longtake.backend.torch import training as torch_training
from longtake.errors import ModelError, RunError
from longtake.training.loop import Length, learning_rate, run
from longtake.weights.arrays import read_arrays

ALWAYS = 0.0
"""Minutes between reports: one at every step."""


class Line:
    """Fit y = 2 x: the smallest thing that can be trained."""

    name = "line"
    rate = 0.05
    average = 0.5
    plain = ()

    def __init__(self, fails_at=None, shape=(4, 4)):
        torch.manual_seed(0)
        self.network = torch.nn.Linear(*shape, bias=True)
        self.networks = {"line": self.network}
        self.fails_at, self.steps = fails_at, 0

    def loss(self, rng, progress):
        if self.steps == self.fails_at:
            raise KeyboardInterrupt
        self.steps += 1
        x = torch.from_numpy(rng.standard_normal((8, 4), np.float32))
        # What the stage counts by itself decides its steps, as a pool's scenes do.
        error = ((self.network(x) - (2 + self.steps % 2 / 50) * x) ** 2).mean()
        return error, {"error": float(error.detach())}

    def report(self, sheets):
        return {"weight": float(self.network.weight.detach().diagonal().mean())}

    def state(self):
        return {"steps": self.steps}

    def load_state(self, state):
        self.steps = state["steps"]


def logged(folder):
    lines = [json.loads(line) for line in (folder / "line.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "minutes"} for line in lines]


def test_it_learns_and_writes_checkpoint_and_log(tmp_path):
    stage = Line()
    figures = run(stage, tmp_path, Length(steps=400))
    assert figures["weight"] == pytest.approx(2, abs=0.1)  # the target is 2 or 2.02
    assert (tmp_path / "line.safetensors").exists()
    assert logged(tmp_path)[-1] == {"step": 400, **figures}
    # What is left in the networks is the average, which the figures were taken with.
    assert stage.report(None) == figures


def test_a_run_in_minutes_ends_by_the_clock(tmp_path):
    run(Line(), tmp_path, Length(minutes=0.005))
    assert logged(tmp_path)[-1]["step"] > 0


@pytest.mark.parametrize("stopped", [1, 50, 59])
def test_a_run_that_was_stopped_and_goes_on_is_the_run_that_never_stopped(tmp_path, stopped):
    """Parameters, averages, both optimisers' moments and the log, bit for bit."""
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    figures = run(Line(), whole, Length(steps=60), report_every=ALWAYS)
    with pytest.raises(KeyboardInterrupt):
        run(Line(fails_at=stopped), halved, Length(steps=60), report_every=ALWAYS)
    assert run(Line(), halved, Length(steps=60), report_every=ALWAYS) == figures
    (one, _), (two, _) = (read_arrays(folder / "line.safetensors") for folder in (whole, halved))
    assert one.keys() == two.keys()
    assert {name.split("/")[0] for name in one} >= {"parameter", "average", "momentum", "exp_avg_sq", "step"}
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name], name)
    # A report stands twice if its checkpoint was the last before the stop.
    assert [line for line, _ in itertools.groupby(logged(halved))] == logged(whole)


def test_the_log_forgets_what_came_after_the_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        # One report at the end of the first 60 steps, then 55 more that no checkpoint holds.
        run(Line(), tmp_path, Length(steps=60))
        run(Line(fails_at=115), tmp_path, Length(steps=200), report_every=60)
    with (tmp_path / "line.jsonl").open("a") as log:
        log.write('{"step": 115, "min')
    run(Line(), tmp_path, Length(steps=200), report_every=60)
    assert [line["step"] for line in logged(tmp_path)] == [50, 60, 100, 150, 200, 200]


def test_a_run_that_is_over_only_reports(tmp_path):
    first = run(Line(), tmp_path, Length(steps=20))
    assert run(Line(), tmp_path, Length(steps=20)) == first


def test_without_resume_it_begins_anew(tmp_path):
    run(Line(), tmp_path, Length(steps=30))
    run(Line(), tmp_path, Length(steps=7), resume=False)
    assert [line["step"] for line in logged(tmp_path)] == [7]


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    run(Line(), tmp_path, Length(steps=3))
    with pytest.raises(ModelError, match="begun with the seed 0, and 1 was asked for"):
        run(Line(), tmp_path, Length(steps=3), seed=1)
    with pytest.raises(ModelError, match="other networks; 2 parameters differ"):
        run(Line(shape=(4, 5)), tmp_path, Length(steps=3))


def test_a_checkpoint_of_an_older_longtake_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"steps": torch.tensor(3)}, tmp_path / "line.safetensors", {"seconds": "1"})
    with pytest.raises(ModelError, match="older longtake"):
        run(Line(), tmp_path, Length(steps=3))


@pytest.mark.parametrize("given", [{}, {"steps": 3, "minutes": 1.0}])
def test_a_length_is_steps_or_minutes(given):
    with pytest.raises(ValueError, match="exactly one"):
        Length(**given)


def test_a_gradient_that_is_not_finite_is_named_and_never_used(tmp_path):
    stage = Line()
    optimiser = training.Optimiser(dict(stage.network.named_parameters()))
    optimiser.step(stage.loss(np.random.default_rng(0), 0)[0], 0.1)
    before = {name: tensor.clone() for name, tensor in optimiser.state().items()}
    with pytest.raises(RunError, match="gradient of step 1 is not finite") as caught:
        optimiser.step(stage.loss(np.random.default_rng(0), 0)[0] * float("nan"), 0.1)
    assert caught.value.step == 1
    after = optimiser.state()
    assert all(torch.equal(values, after[name]) for name, values in before.items())
    assert all(parameter.grad is None for parameter in stage.network.parameters())


def test_moments_come_back_in_the_parameters_order_of_memory():
    """A fused step walks parameter and moments side by side, so both must lie alike."""
    networks = [torch.nn.Conv3d(2, 3, 3).to(memory_format=torch.channels_last_3d) for _ in range(2)]
    first, second = (
        training.Optimiser(dict(network.named_parameters()), plain=("weight",)) for network in networks
    )
    clip = torch.randn(1, 2, 4, 4, 4)
    first.step((networks[0](clip) ** 2).mean(), 0.01)
    second.load_state({name: tensor.contiguous() for name, tensor in first.state().items()})
    for optimiser, network in zip((first, second), networks, strict=True):
        optimiser.step((network(clip) ** 2).mean(), 0.01)
    assert torch.equal(networks[0].weight, networks[1].weight)


def test_matrices_of_one_shape_are_orthogonalised_together_as_each_alone():
    torch.manual_seed(0)
    for shape in ((24, 8), (8, 24), (6, 2, 3, 3)):
        matrices = [torch.randn(shape) for _ in range(3)]
        together = torch_training.all_orthogonalised(matrices)
        for matrix, found in zip(matrices, together, strict=True):
            alone = training.orthogonalised(matrix)
            # Both round to bfloat16 at each product, 2 ** -8 each time, in another order.
            assert (found - alone).norm() < 0.05 * alone.norm()
    parameters = {str(n): torch.nn.Parameter(torch.zeros(2, 3 + n % 2)) for n in range(4)}
    assert torch_training.alike(parameters) == [["0", "2"], ["1", "3"]]


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
