"""Solvers of the flow ODE dx/dsigma = velocity(x, sigma), from noise at sigma 1 to clean latents at 0.

A solver is a generator over (velocity, latents, sigmas) that yields one `Step` for each call of the network. Whoever
consumes it may `send` other latents into it, which then replace those of the step (and a multistep solver starts
anew from them). Arrays are numpy's or any framework's; sigmas are Python floats, so coefficients are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from longtake.errors import JobError

Array = Any
"""A numpy array or a tensor of whichever framework; only arithmetic with floats and arrays is asked of it."""

Velocity = Callable[[Array, float], Array]
Variant = Literal["bh1", "bh2"]
VARIANTS: tuple[Variant, ...] = ("bh1", "bh2")


@dataclass(frozen=True)
class Step:
    """What one call of the network gave.

    `index` counts the calls; `sigma` is the noise level that the network saw; `latents` is the sample at the next
    sigma, in the last step the result; `denoised` are the clean latents predicted at `sigma`.
    """

    index: int
    sigma: float
    latents: Array
    denoised: Array


Steps = Generator[Step, "Array | None", None]


def euler(velocity: Velocity, latents: Array, sigmas: Sequence[float]) -> Steps:
    """First order: one straight line for each step."""
    _check(sigmas)
    for index, (sigma, following) in enumerate(pairwise(sigmas)):
        slope = velocity(latents, sigma)
        denoised = latents - sigma * slope
        latents = latents + (following - sigma) * slope
        sent = yield Step(index, sigma, latents, denoised)
        latents = latents if sent is None else sent


def unipc(
    velocity: Velocity, latents: Array, sigmas: Sequence[float], order: int = 3, variant: Variant = "bh1"
) -> Steps:
    """UniPC (Zhao et al. 2023, arXiv 2302.04867; multistep, predicting clean data) as FramePack runs it.

    The prediction made at a new sigma first corrects the sample there and then serves the next step, so there is one
    call of the network for each step. Orders grow from 1; the last step gives the denoised latents themselves.
    """
    _check(sigmas)
    _check_unipc(order, variant)
    # With few steps the order stays below the number of corrections, as in the reference.
    order = max(1, min(order, len(sigmas) - 2))
    points: list[Point] = []
    before = latents
    for index, (sigma, following) in enumerate(pairwise(sigmas)):
        denoised = latents - sigma * velocity(latents, sigma)
        corrected = latents
        if points:
            corrected = unipc_update(before, points, sigma, variant, SIGMA_TIME, at_target=denoised)
        points = [Point(sigma, denoised), *points][:order]
        before, latents = corrected, unipc_update(corrected, points, following, variant, SIGMA_TIME)
        sent = yield Step(index, sigma, latents, denoised)
        if sent is not None:
            # Unlike the reference: its corrector goes on from its own sample, and a callback's change is lost.
            latents, points = sent, []


SOLVERS: dict[str, Callable[..., Steps]] = {"euler": euler, "unipc": unipc}


@dataclass(frozen=True)
class Point:
    """A sigma that was visited and the clean latents predicted there."""

    sigma: float
    denoised: Array


@dataclass(frozen=True)
class TimeScale:
    """In which variable UniPC extrapolates.

    x(sigma) is exact for constant predictions in either one; they differ in what the higher orders take for
    equally far apart. `position` is lambda of the paper, `weight` its alpha.
    """

    position: Callable[[float], float]
    weight: Callable[[float], float]


SIGMA_TIME = TimeScale(position=lambda sigma: -math.log(sigma), weight=lambda sigma: 1.0)
"""FramePack's: lambda = -ln sigma."""

SNR_TIME = TimeScale(
    position=lambda sigma: math.log1p(-sigma) - math.log(sigma),
    weight=lambda sigma: 1.0 - sigma,
)
"""diffusers': lambda = ln((1 - sigma) / sigma); sigma must be below 1."""


def unipc_update(
    sample: Array,
    points: Sequence[Point],
    sigma: float,
    variant: Variant,
    time: TimeScale,
    at_target: Array | None = None,
) -> Array:
    """`sample` taken from the sigma of `points[0]` to `sigma`, by as many orders as there are points (newest first).

    Without `at_target` this is the paper's predictor UniP; with it, the prediction made at `sigma`, its corrector UniC.
    """
    origin = points[0]
    if sigma == 0.0:
        # The limit of order 1. Unlike the reference: bh1 and higher orders too, which give NaN there.
        return origin.denoised
    here = time.position(origin.sigma)
    h = time.position(sigma) - here
    nodes = [((time.position(point.sigma) - here) / h, point.denoised) for point in points[1:]]
    if at_target is not None:
        nodes.append((1.0, at_target))
    kept = sigma / origin.sigma
    moved = kept * sample + (1.0 - kept) * origin.denoised
    if not nodes:
        return moved
    base = _base(-h, variant)
    weights = _weights(-h, base, [ratio for ratio, _ in nodes])
    bent = sum(
        (weight / ratio) * (denoised - origin.denoised)
        for weight, (ratio, denoised) in zip(weights, nodes, strict=True)
    )
    return moved - (time.weight(sigma) * base) * bent


def _base(z: float, variant: Variant) -> float:
    """B(h) of the paper, for z = -h."""
    return z if variant == "bh1" else math.expm1(z)


def _weights(z: float, base: float, ratios: Sequence[float]) -> list[float]:
    """Coefficients of the differences at `ratios`: the paper's order conditions, one for each node."""
    if len(ratios) == 1:
        # One half satisfies the order condition whatever B(h) is (the paper's degenerate case).
        return [0.5]
    count = len(ratios)
    powers = np.array([[ratio**row for ratio in ratios] for row in range(count)])
    moments = np.array([z * phi(row + 2, z) * math.factorial(row + 1) / base for row in range(count)])
    return [float(weight) for weight in np.linalg.solve(powers, moments)]


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


def _check(sigmas: Sequence[float]) -> None:
    if len(sigmas) < 2 or sigmas[-1] != 0.0 or any(b >= a for a, b in pairwise(sigmas)):
        raise JobError(
            f"Sigmas must go down at every step and end in 0; they are {[round(s, 4) for s in sigmas]}."
        )


def _check_unipc(order: int, variant: str) -> None:
    if not 1 <= order <= 3:
        raise JobError(f"UniPC has the orders 1, 2 and 3; {order} was asked for.")
    if variant not in VARIANTS:
        raise JobError(f"UniPC has the variants {' and '.join(VARIANTS)}; {variant!r} was asked for.")
