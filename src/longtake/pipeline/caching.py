"""Step caches at work: what they measure, what they keep, and where they stand.

`easy` and `mag` stand around the velocity, so they serve any network. `tea` and `first` stand between the blocks of our
own (`pipeline.between`). What a cache keeps belongs to one branch of guidance in one section; all rows of a batch are
decided together.

What a decision waits for: `mag` for nothing; the others once at each step that may be skipped, for one small tensor.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import cycle
from typing import Any

from longtake.backend import runtime
from longtake.errors import JobError
from longtake.job import Job
from longtake.models import adapters
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.pipeline.between import HEADS, Between
from longtake.pipeline.change import mean, numbers
from longtake.pipeline.networks import Networks
from longtake.plan.plans import Plan, kind_named, names_like
from longtake.sampling.caching import METHODS, ORDER, Cache, Decisions, parse, reach
from longtake.sampling.ratios import published, ratios_of, with_file
from longtake.sampling.solvers import Velocity

Tensor = Any
PUBLISHED = {"num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 20, "num_single_layers": 40}
"""The shape of the networks whose ratios are published."""

RATIOS = "mag_ratios"
"""The setting under which a model's folder holds ratios by the name of a sampling."""


def cache_of(job: Job, networks: Networks, plan: Plan) -> Cache | None:
    """The step cache that the job asks for, ready to run; JobError if it cannot serve these networks."""
    cache = parse(job.cache)
    if cache is None:
        return None
    transformer = networks.part("transformer")
    if cache.of.opens:
        check_blocks(transformer, f"The cache {cache.method!r}", f"{', '.join(CLOSED)} serve any")
    if not cache.of.ratios or cache.ratios:
        return cache
    if cache.file:
        return with_file(cache)
    known = networks.settings.get(RATIOS, {})
    own = next((known[name] for name in (job.sampling, *names_like(job.sampling)) if name in known), None)
    if own is not None:
        return replace(cache, ratios=ratios_of({"ratios": own}, f"the model's {RATIOS}"))
    other = any(getattr(transformer.config, name, None) != size for name, size in PUBLISHED.items())
    if other or not any(kind_named(name).published for name in names_like(job.sampling)):
        raise JobError(
            f"The ratios of this {'model' if other else 'sampling'} are not known, which the cache {cache.method!r} "
            f"needs; measure them by longtake calibrate and name their file ({cache.method}:ratios.json), or take "
            "another cache (easy)."
        )
    return replace(cache, ratios=published(plan.forward))


CLOSED = tuple(name for name, method in METHODS.items() if not method.opens)


def check_blocks(transformer: Any, who: str, advice: str) -> None:
    """Raise JobError if nobody can stand between the transformer's blocks."""
    own = isinstance(transformer, HunyuanVideoFramepackTransformer3DModel)
    if not own or len(transformer.blocks) < 2 or len(transformer.transformer_blocks) < 1:
        raise JobError(
            f"{who} stands between the blocks of longtake's own transformer, and this one is a "
            f"{type(transformer).__name__}{' of one block' if own else ''}; {advice}."
        )


class StepCache:
    """The step cache of one run: called, as a `Wrap`, once for each section and branch of guidance; it counts, too.

    `steps` are those of a section; `branches` says how many velocities each of them takes.
    """

    def __init__(self, cache: Cache, transformer: Any, steps: int, branches: int) -> None:
        self.cache, self.transformer, self.steps = cache, transformer, steps
        self._count = branches
        self._asked = self._computed = self._changes = 0
        self.begin()

    def begin(self) -> None:
        """Begin a section, perhaps again: the prompt's branch comes first, then the negative prompt's."""
        self._branches = cycle(range(self._count))

    def __call__(self, velocity: Velocity) -> Velocity:
        branch = next(self._branches)
        ratios = self.cache.ratios
        decisions = Decisions(self.cache, self.steps, ratios[min(branch, len(ratios) - 1)] if ratios else ())
        if self.cache.of.opens:
            return Between(self, velocity, decisions, HEADS[self.cache.method])
        return Around(self, velocity, decisions)

    def changed(self) -> None:
        """Tell that what the network is told is another from now on, so that nothing old serves the next step."""
        self._changes += 1

    @property
    def mark(self) -> tuple[int, int]:
        """Another one whenever what was kept is outdated."""
        return self._changes, adapters.revision(self.transformer)

    def count(self, computed: bool) -> None:
        """Count one velocity."""
        self._asked += 1
        self._computed += computed

    def taken(self) -> tuple[int, int]:
        """Velocities that were asked for, and those of them that the whole network computed, since the last call."""
        counted, self._asked, self._computed = (self._asked, self._computed), 0, 0
        return counted


class Around:
    """A cached velocity: what comes out is kept, and continued along the line through the last two.

    Unlike EasyCache, which keeps the difference of what comes out and what goes in: a velocity of flow matching is
    nearly constant, and the difference is not. `order` 0 takes the last velocity as it is.
    """

    def __init__(self, cache: StepCache, velocity: Velocity, decisions: Decisions) -> None:
        self._cache, self._velocity, self._decisions = cache, velocity, decisions
        self._order = cache.cache.number(ORDER)
        self._mark = cache.mark
        self._known: list[Known] = []
        self._seen: Tensor = None

    def __call__(self, latents: Tensor, sigma: float) -> Tensor:
        if self._mark != self._cache.mark:
            self._mark, self._known = self._cache.mark, []
        computes = self._decisions.computes(lambda: self._change(latents), not self._known)
        self._cache.count(computes)
        if computes:
            velocity = self._velocity(latents, sigma)
            # In float32: the line through two velocities is a small difference of theirs.
            known = Known(latents, sigma, runtime.place(velocity, dtype="float32"))
            self._known = [*self._known[-1:], known]
        self._seen = latents
        return velocity if computes else self._continued(sigma)

    def _continued(self, sigma: float) -> Tensor:
        last = self._known[-1]
        if not self._order or len(self._known) < 2:
            return last.velocity
        before = self._known[0]
        return last.velocity + reach(sigma, last.sigma, before.sigma) * (last.velocity - before.velocity)

    def _change(self, latents: Tensor) -> float:
        """The estimate of the velocity's change since the last step, as a share of it."""
        if len(self._known) < 2:
            return math.inf
        before, last = self._known
        moved, answered, way, size = numbers(
            mean(latents - self._seen),
            mean(last.velocity - before.velocity),
            mean(last.latents - before.latents),
            mean(last.velocity),
        )
        return answered / way * moved / size if way and size else math.inf


class Known:
    """One step that was computed."""

    def __init__(self, latents: Tensor, sigma: float, velocity: Tensor) -> None:
        self.latents, self.sigma, self.velocity = latents, sigma, velocity
