"""Solvers of the flow ODE dx/dsigma = velocity(x, sigma), from noise at sigma 1 to clean latents at 0.

A solver is a generator over (velocity, latents, sigmas) that yields one `Step` for each call of the network. Whoever
consumes it may `send` other latents into it, which then replace those of the step (and a multistep solver starts
anew from them). Arrays are numpy's or any framework's; sigmas are Python floats, so coefficients are float64.

`euler_step` and `unipc_step` are the arithmetic of one step. The solvers call them, and so do the scheduler classes of
`compat`, which are told each velocity from outside.

UniPC is Zhao et al. 2023, arXiv 2302.04867, in its multistep form that predicts clean data. Letters are those of the
paper and of its authors' code: lambda is the time in which is extrapolated and h a step of it; m are predictions of the
clean data, D their differences to the newest one, r how far away they were made, in steps; B(h) is the function that
tells bh1 from bh2 and rhos are the coefficients a_p of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from longtake.errors import JobError

Array = Any
"""A numpy array or a tensor of whichever framework; only arithmetic with floats and arrays is asked of it."""

Velocity = Callable[[Array, float], Array]
Variant = Literal["bh1", "bh2"]
VARIANTS: tuple[Variant, ...] = ("bh1", "bh2")


@dataclass(frozen=True)
class Step:
    """The result of one call of the network.

    `index` counts the calls; `sigma` is the noise level that the network saw; `latents` is the sample at the next
    sigma, in the last step the result; `denoised` are the clean latents predicted at `sigma`.
    """

    index: int
    sigma: float
    latents: Array
    denoised: Array


Steps = Generator[Step, "Array | None", None]
Solver = Callable[[Velocity, Array, Sequence[float]], Steps]


# ------------------------------------------------------------------------------------------- Euler


def euler_step(x: Array, velocity: Array, sigmas: Sequence[float], i: int) -> Array:
    """First order: a straight line from sigmas[i] to sigmas[i + 1]."""
    return x + (sigmas[i + 1] - sigmas[i]) * velocity


def euler(velocity: Velocity, latents: Array, sigmas: Sequence[float]) -> Steps:
    """Solve with one straight line for each step."""
    _check(sigmas)
    for i, sigma in enumerate(sigmas[:-1]):
        slope = velocity(latents, sigma)
        denoised = latents - sigma * slope
        latents = euler_step(latents, slope, sigmas, i)
        sent = yield Step(i, sigma, latents, denoised)
        latents = latents if sent is None else sent


# ------------------------------------------------------------------------------------------- UniPC


@dataclass(frozen=True)
class Time:
    """The variable in which UniPC extrapolates, as functions of sigma: lambda and alpha of the paper.

    x(sigma) is exact for constant predictions in either of the two below; they differ in which
    points the higher orders take to be equally far apart.
    """

    lam: Callable[[float], float]
    alpha: Callable[[float], float]


SIGMA_TIME = Time(lam=lambda sigma: -math.log(sigma), alpha=lambda sigma: 1.0)
"""FramePack's: lambda = -ln sigma."""

SNR_TIME = Time(lam=lambda sigma: math.log1p(-sigma) - math.log(sigma), alpha=lambda sigma: 1.0 - sigma)
"""diffusers': lambda = ln(alpha / sigma), alpha = 1 - sigma, as in the paper; sigma must be below 1."""


@dataclass(frozen=True)
class UniPC:
    """The options of UniPC; the defaults are FramePack's.

    `order` is that of the predictor, p of the paper; `variant` its B(h). With `lower_order_final` the order falls to 1
    at the end; after the steps in `disable_corrector` the sample is not corrected.
    """

    order: int = 3
    variant: Variant = "bh1"
    time: Time = SIGMA_TIME
    lower_order_final: bool = False
    disable_corrector: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 3:
            raise JobError(f"UniPC has the orders 1, 2 and 3; {self.order} was asked for.")
        if self.variant not in VARIANTS:
            raise JobError(
                f"UniPC has the variants {' and '.join(VARIANTS)}; {self.variant!r} was asked for."
            )

    def order_at(self, known: int, left: int) -> int:
        """The order of a step after `known` points, with `left` steps to make, this one included."""
        return min(known + 1, self.order, left if self.lower_order_final else self.order)


@dataclass(frozen=True)
class Point:
    """A sigma that was visited and m, the clean latents predicted there."""

    sigma: float
    m: Array


@dataclass(frozen=True)
class Past:
    """UniPC's memory of its last step: the points that it used, newest first, and the sample at the newest."""

    points: tuple[Point, ...]
    sample: Array


def unipc_step(
    x: Array, m: Array, sigmas: Sequence[float], i: int, past: Past | None, options: UniPC
) -> tuple[Array, Past]:
    """From sigmas[i], where x is the sample and m the prediction, to sigmas[i + 1]; and what the next step needs.

    The paper's UniPC-p (UniC of algorithm 1 after UniP of algorithm 2): the prediction that was made at the new sigma
    corrects the sample there and then serves the next step, so there is one call of the network for each step.
    """
    if past is not None and i - 1 not in options.disable_corrector:
        x = unic(past.sample, past.points, sigmas[i], m, options)
    points = (Point(sigmas[i], m), *(past.points if past is not None else ()))
    points = points[: options.order_at(len(points) - 1, len(sigmas) - 1 - i)]
    return unip(x, points, sigmas[i + 1], options), Past(points, x)


def unip(x: Array, points: Sequence[Point], sigma: float, options: UniPC) -> Array:
    """The predictor UniP-p (algorithm 2): x from the sigma of `points[0]` to `sigma`, p the number of points."""
    if sigma == 0.0:
        # The limit of order 1. Unlike the reference: bh1 and higher orders too, which give NaN there.
        return points[0].m
    r, D = _differences(points, sigma, options.time)
    return _bh_update(x, points[0], sigma, r, D, options)


def unic(x: Array, points: Sequence[Point], sigma: float, m: Array, options: UniPC) -> Array:
    """The corrector UniC-p (algorithm 1): the same way again, now that m, the prediction at `sigma`, is known."""
    r, D = _differences(points, sigma, options.time)
    return _bh_update(x, points[0], sigma, [*r, 1.0], [*D, m - points[0].m], options)


def _differences(points: Sequence[Point], sigma: float, time: Time) -> tuple[list[float], list[Array]]:
    """r_k = (lambda_k - lambda_0) / h and D_k = m_k - m_0 of the points before the newest."""
    newest, *before = points
    lambda_0 = time.lam(newest.sigma)
    h = time.lam(sigma) - lambda_0
    return [(time.lam(point.sigma) - lambda_0) / h for point in before], [
        point.m - newest.m for point in before
    ]


def _bh_update(
    x: Array, newest: Point, sigma: float, r: Sequence[float], D: Sequence[Array], options: UniPC
) -> Array:
    """The form that predictor and corrector share, for the prediction of data; `sigma` is sigma_t:

    sigma_t / sigma_0 x + alpha_t (1 - e^-h) m_0 - alpha_t B(-h) sum(rho_k / r_k D_k)

    In both times alpha_t (1 - e^-h) is 1 - sigma_t / sigma_0. `hh` is -h, as in the authors' code.
    """
    kept = sigma / newest.sigma
    x_t = kept * x + (1.0 - kept) * newest.m
    if not r:
        return x_t
    hh = -(options.time.lam(sigma) - options.time.lam(newest.sigma))
    B = hh if options.variant == "bh1" else math.expm1(hh)
    rhos = _rhos(r, hh, B)
    total = sum((rho / r_k) * D_k for rho, r_k, D_k in zip(rhos, r, D, strict=True))
    return x_t - (options.time.alpha(sigma) * B) * total


def _rhos(r: Sequence[float], hh: float, B: float) -> list[float]:
    """Solve R_p(h) a_p B(h) = phi_p(h) of theorem 3.1: R_p(h) is the Vandermonde matrix of r h, row n of phi_p(h) is
    h^n n! phi_{n+1}(h). Both sides of row n are divided by h^(n-1) here, so that R is the matrix of r.
    """
    if len(r) == 1:
        # One half satisfies the condition whatever B(h) is (the paper's degenerate case).
        return [0.5]
    import numpy as np  # here, so that who wants to know the solvers' names does not wait for numpy

    p = len(r)
    R = np.array([[r_k**row for r_k in r] for row in range(p)])
    b = np.array([hh * phi(n + 1, hh) * math.factorial(n) / B for n in range(1, p + 1)])
    return [float(rho) for rho in np.linalg.solve(R, b)]


def phi(k: int, z: float) -> float:
    """phi_k(z) of exponential integrators: the sum of z**j / (j + k)! over j.

    >>> round(phi(1, 1.0), 6), round(phi(2, 0.0), 6)
    (1.718282, 0.5)
    """
    if abs(z) < 1.0:
        # The recursion below cancels at small z: at 0.01 it would lose eight of sixteen digits of phi_4.
        return sum(z**j / math.factorial(j + k) for j in range(20))
    value = math.expm1(z) / z
    for lower in range(1, k):
        value = (value - 1.0 / math.factorial(lower)) / z
    return value


def unipc_with(options: UniPC, velocity: Velocity, latents: Array, sigmas: Sequence[float]) -> Steps:
    """Solve by UniPC with any options. Orders grow from 1; the last step gives the denoised latents themselves."""
    _check(sigmas)
    past: Past | None = None
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = latents - sigma * velocity(latents, sigma)
        latents, past = unipc_step(latents, denoised, sigmas, i, past, options)
        sent = yield Step(i, sigma, latents, denoised)
        if sent is not None:
            # Unlike the reference: its corrector goes on from its own sample, and a callback's change is lost.
            latents, past = sent, None


def unipc(
    velocity: Velocity, latents: Array, sigmas: Sequence[float], order: int = 3, variant: Variant = "bh1"
) -> Steps:
    """Solve by UniPC as FramePack runs it."""
    options = UniPC(order, variant)
    # With few steps the order stays below the number of corrections, as in the reference.
    options = replace(options, order=max(1, min(order, len(sigmas) - 2)))
    return unipc_with(options, velocity, latents, sigmas)


SOLVERS: dict[str, Solver] = {"euler": euler, "unipc": unipc}


def _check(sigmas: Sequence[float]) -> None:
    if len(sigmas) < 2 or sigmas[-1] != 0.0 or any(b >= a for a, b in pairwise(sigmas)):
        raise JobError(
            f"Sigmas must go down at every step and end in 0; they are {[round(s, 4) for s in sigmas]}."
        )
