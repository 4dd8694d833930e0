import math

import numpy as np
import pytest

from longtake.backend import ops
from longtake.errors import JobError
from longtake.sampling import sigmas
from longtake.sampling.solvers import SNR_TIME, SOLVERS, Point, UniPC, euler, phi, unic, unip, unipc

MEAN, SPREAD = 0.7, 0.5


def velocity(latents, sigma):
    """That of data with a normal distribution, which has a closed form."""
    variance = (1 - sigma) ** 2 * SPREAD**2 + sigma**2
    clean = MEAN + (1 - sigma) * SPREAD**2 / variance * (latents - (1 - sigma) * MEAN)
    return (latents - clean) / sigma


def exact(noise, sigma):
    return (1 - sigma) * MEAN + math.sqrt((1 - sigma) ** 2 * SPREAD**2 + sigma**2) * noise


def schedule(steps, last=0.2):
    """From 1 to `last` in equal factors, then 0."""
    return [*np.geomspace(1.0, last, steps + 1).tolist(), 0.0]


def error(solver, steps, **settings):
    """How far the sample is off after `steps` steps, at the last sigma above 0."""
    noise = np.array([1.3, -0.4])
    taken = list(solver(velocity, noise, schedule(steps), **settings))
    return np.abs(taken[steps - 1].latents - exact(noise, 0.2)).max()


def convergence(solver, **settings):
    """The power of the step size by which the error falls."""
    return math.log2(error(solver, 40, **settings) / error(solver, 80, **settings))


def test_euler_converges_by_its_order():
    assert convergence(euler) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_converges_by_its_order(order, variant):
    # The corrector adds an order; the first step, of order 1 corrected, bounds the whole at about 3.
    assert convergence(unipc, order=order, variant=variant) > min(order + 1, 3) - 0.25


def test_unipc_beats_euler_at_equal_calls():
    # Without a shift: a large one leaves nearly all of the error to the last jump, which is the same for both.
    noise = np.array([1.3, -0.4])
    results = {
        name: list(solver(velocity, noise, sigmas.linear(10)))[-1].latents for name, solver in SOLVERS.items()
    }
    errors = {name: np.abs(result - exact(noise, 0.0)).max() for name, result in results.items()}
    assert errors["unipc"] < errors["euler"] / 3


@pytest.mark.parametrize("solver", SOLVERS.values())
def test_steps(solver):
    schedule = sigmas.flow_sigmas(6, shift=7.0)
    seen = []

    def watched(latents, sigma):
        seen.append(sigma)
        return velocity(latents, sigma)

    taken = list(solver(watched, np.ones(3), schedule))
    assert [step.index for step in taken] == list(range(6))
    # One call of the network for each step, none at 0.
    assert seen == [step.sigma for step in taken] == schedule[:-1]
    assert taken[-1].latents == pytest.approx(taken[-1].denoised, abs=1e-12)


@pytest.mark.parametrize("solver", SOLVERS.values())
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps(solver, steps):
    noise = np.array([1.0, -1.0])
    taken = list(solver(velocity, noise, sigmas.linear(steps)))
    assert len(taken) == steps
    assert np.isfinite(taken[-1].latents).all()
    assert taken[0].denoised == pytest.approx(np.full(2, MEAN))


@pytest.mark.parametrize("solver", SOLVERS.values())
def test_tensors_equal_arrays(solver):
    noise = np.random.default_rng(0).normal(size=(1, 4, 2, 3, 3)).astype(np.float32)
    ours = list(solver(velocity, noise, sigmas.linear(8)))
    theirs = list(solver(velocity, ops.from_numpy(noise), sigmas.linear(8)))
    for a, b in zip(ours, theirs, strict=True):
        latents = ops.to_numpy(b.latents)
        assert a.latents.dtype == latents.dtype == np.float32
        # float32 on both sides; a float64 scalar times an array rounds in its own way in each library.
        assert latents == pytest.approx(a.latents, abs=2e-5)


@pytest.mark.parametrize("solver", SOLVERS.values())
def test_sent_latents_take_the_place(solver):
    schedule = sigmas.linear(4)
    steps = solver(velocity, np.ones(2), schedule)
    next(steps)
    other = np.array([3.0, -3.0])
    second = steps.send(other)
    assert second.denoised == pytest.approx(other - 0.75 * velocity(other, 0.75))
    # What follows depends on the sent latents alone.
    again = solver(velocity, np.zeros(2), schedule)
    next(again)
    assert again.send(other).latents == pytest.approx(second.latents)


def test_unipc_is_exact_for_a_constant_prediction():
    clean, noise = np.array([2.0, -1.0]), np.array([0.5, 0.5])
    for step in unipc(lambda latents, sigma: (latents - clean) / sigma, noise, sigmas.linear(5)):
        following = sigmas.linear(5)[step.index + 1]
        assert step.latents == pytest.approx((1 - following) * clean + following * noise)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_order_three_follows_a_quadratic_prediction_in_its_own_time(variant):
    # The prediction is a quadratic in lambda, so three points tell it wholly and the step is exact.
    def denoised(sigma):
        place = SNR_TIME.lam(sigma)
        return 0.3 + 0.2 * place - 0.1 * place**2

    levels = [0.9, 0.8, 0.65]
    points = [Point(level, denoised(level)) for level in reversed(levels)]
    start, end = levels[-1], 0.5
    places = np.linspace(SNR_TIME.lam(start), SNR_TIME.lam(end), 20001)
    predictions = 0.3 + 0.2 * places - 0.1 * places**2
    heights = np.exp(places) * predictions
    integral = np.sum((heights[1:] + heights[:-1]) / 2 * np.diff(places))
    expected = end / start * 1.0 + end * integral
    # The trapezoid rule with 20000 steps is good to 1e-9.
    options = UniPC(3, variant, SNR_TIME)
    assert unip(1.0, points, end, options) == pytest.approx(expected, abs=1e-8)
    corrected = unic(1.0, points, end, denoised(end), options)
    assert corrected == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_phi_is_one_function_on_both_sides_of_the_switch(k):
    # The recursion is good to 1e-12 at 1.
    for sign in (1.0, -1.0):
        assert phi(k, sign * 0.999999999) == pytest.approx(phi(k, sign * 1.000000001), rel=1e-8)
    assert phi(k, 0.0) == pytest.approx(1 / math.factorial(k))


@pytest.mark.parametrize("solver", SOLVERS.values())
@pytest.mark.parametrize("schedule", [[], [0.0], [1.0, 0.5], [1.0, 0.5, 0.5, 0.0], [0.5, 1.0, 0.0]])
def test_no_schedule(solver, schedule):
    with pytest.raises(JobError, match="go down"):
        next(solver(velocity, np.ones(1), schedule))


@pytest.mark.parametrize("settings", [{"order": 0}, {"order": 4}, {"variant": "bh3"}])
def test_no_unipc(settings):
    with pytest.raises(JobError, match="UniPC has"):
        next(unipc(velocity, np.ones(1), sigmas.linear(3), **settings))
