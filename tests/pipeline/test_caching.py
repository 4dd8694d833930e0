"""Step caches in the loop: what they save, what they share, what they keep to themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake import backend, toyworld
from longtake.backend import ops, runtime
from longtake.errors import JobError
from longtake.events import SectionDone, Stepped
from longtake.job import Job
from longtake.jobs.folder import JobFolder
from longtake.models.pretrained import walking
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.pipeline import change as measures
from longtake.pipeline.caching import PUBLISHED, cache_of
from longtake.pipeline.calibrate import Calibration
from longtake.pipeline.denoise import Change
from longtake.pipeline.loading import load_networks
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.pipeline.prepare import Inputs
from longtake.plan.plans import plan_of

STEPS, SECTIONS = 8, 2
# Two sections of two latent frames.
JOB = Job("a small blue bird takes off", frames=17, window=2, steps=STEPS, sampling="vanilla", seed=3)
GUIDED = replace(JOB, cfg_scale=2.0, negative_prompt="a red ball")
CACHES = {
    "easy": "easy:1.5",
    "mag": "mag:0.5,2,0.2;1,1.01,0.99",
    "tea": "tea:0.3",
    "first": "first:1.5",
}
OPENING = ("tea", "first")
TESTED = tuple(CACHES) if backend.name == "torch" else ("easy", "tea")
"""One of each kind is enough where every operator takes a millisecond to begin."""
once = pytest.mark.skipif(
    backend.name != "torch", reason="no operator of its own; MindSpore's take long to begin"
)


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """No graphs, which MindSpore would compile anew for each of the small networks here."""
    monkeypatch.setattr(runtime, "graph", False)


@pytest.fixture(scope="module")
def several(networks: Networks, filled: Callable[[Any], Any]) -> Networks:
    """Networks whose transformer has five blocks."""
    config = replace(networks.transformer.config, num_layers=2, num_single_layers=3)
    return replace(networks, transformer=filled(Transformer(config)))


def made(
    job: Job, networks: Networks, picture: Image.Image, **given: Any
) -> tuple[np.ndarray, list[Stepped]]:
    """The latents of all sections, and the steps."""
    latents, steps = [], []
    for event in generate(job, networks, Inputs(picture), convert=None, **given):
        if isinstance(event, SectionDone):
            latents.append(event.latents)
        if isinstance(event, Stepped):
            steps.append(event)
    return np.concatenate(latents, 2), steps


class Counting:
    """A walk that fetches blocks one at a time, and notes it."""

    def __init__(self) -> None:
        self.fetched: list[int] = []
        self.closed = 0

    def __call__(self, blocks: Iterable[Any]) -> Iterator[Any]:
        try:
            for number, block in enumerate(blocks):
                self.fetched.append(number)
                yield block
        except GeneratorExit:
            self.closed += 1
            raise


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("job", [JOB, GUIDED], ids=["plain", "guided"])
def test_a_cache_saves_steps(cache: str, job: Job, several: Networks, picture: Image.Image) -> None:
    plain, steps = made(job, several, picture)
    branches = 1 if job is JOB else 2
    assert {(step.velocities, step.computed) for step in steps} == {(branches, branches)}
    cached, steps = made(replace(job, cache=CACHES[cache]), several, picture)
    computed = [step.computed for step in steps]
    assert {step.velocities for step in steps} == {branches}
    assert sum(computed) < 0.8 * branches * len(steps)
    for section in range(SECTIONS):
        own = computed[section * STEPS : (section + 1) * STEPS]
        assert own[0] == own[-1] == branches
    assert np.isfinite(cached).all() and not np.array_equal(cached, plain)


@pytest.mark.parametrize("cache", TESTED)
def test_a_threshold_of_nothing_computes_every_step_and_changes_nothing(
    cache: str, several: Networks, picture: Image.Image
) -> None:
    text = "mag:0;1,1" if cache == "mag" else f"{cache}:0"
    cached, steps = made(replace(GUIDED, cache=text), several, picture)
    assert all(step.computed == step.velocities == 2 for step in steps)
    np.testing.assert_array_equal(cached, made(GUIDED, several, picture)[0])


@once
@pytest.mark.parametrize("cache", TESTED)
def test_it_is_the_same_again(cache: str, several: Networks, picture: Image.Image) -> None:
    job = replace(GUIDED, cache=CACHES[cache])
    np.testing.assert_array_equal(made(job, several, picture)[0], made(job, several, picture)[0])
    assert several.transformer.walks == ()


@pytest.mark.parametrize("cache", OPENING)
def test_blocks_that_are_skipped_are_not_fetched(cache: str, several: Networks, picture: Image.Image) -> None:
    counting = Counting()
    with walking(several.transformer, counting):
        latents, steps = made(replace(JOB, cache=CACHES[cache]), several, picture)
    computed = [step.computed for step in steps]
    wanted = [number for run in computed for number in (range(5) if run else range(1))]
    assert counting.fetched == wanted and computed.count(0) > 2
    assert counting.closed == computed.count(0)
    np.testing.assert_array_equal(latents, made(replace(JOB, cache=CACHES[cache]), several, picture)[0])


@once
@pytest.mark.parametrize("cache", OPENING)
def test_blocks_are_compiled_as_without_a_cache(
    cache: str, several: Networks, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(runtime, "compiled", lambda module: (asked.append(id(module)), module)[1])
    made(replace(JOB, cache=CACHES[cache]), several, picture)
    assert {id(block) for block in several.transformer.blocks} <= set(asked)


@once
@pytest.mark.parametrize("cache", TESTED)
def test_branches_and_sections_keep_their_own(
    cache: str, several: Networks, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that the network gives in one branch or section serves in another: each is shifted by its own number."""
    from longtake.pipeline import caching

    runs: list[list[Any]] = []
    original = caching.StepCache.__call__

    def noting(self: Any, velocity: Any) -> Any:
        seen: list[Any] = []
        runs.append(seen)
        cached = original(self, velocity)
        return lambda latents, sigma: (seen.append(cached(latents, sigma)), seen[-1])[1]

    monkeypatch.setattr(caching.StepCache, "__call__", noting)
    made(replace(GUIDED, cache=CACHES[cache]), several, picture)
    assert [len(run) for run in runs] == [STEPS] * (2 * SECTIONS)
    with_both = [ops.to_numpy(run[1]) for run in runs]
    runs.clear()
    # Alone, and told the same, the prompt's branch decides and gives the same in its first steps.
    made(replace(JOB, cache=CACHES[cache]), several, picture)
    alone = ops.to_numpy(runs[0][0])
    runs.clear()
    made(replace(GUIDED, cache=CACHES[cache]), several, picture)
    np.testing.assert_array_equal(ops.to_numpy(runs[0][0]), alone)
    np.testing.assert_array_equal([ops.to_numpy(run[1]) for run in runs], with_both)
    assert not np.allclose(with_both[0], with_both[1]) and not np.allclose(with_both[0], with_both[2])


@pytest.mark.parametrize("cache", TESTED)
def test_a_job_goes_on_with_its_cache(
    cache: str, several: Networks, picture: Image.Image, tmp_path: Path
) -> None:
    job = replace(GUIDED, cache=CACHES[cache], width=48, height=32)
    whole, _ = made(job, several, picture)
    with JobFolder.create(tmp_path / "job", job, picture) as folder:
        for event in generate(folder.job, several, folder.inputs, store=folder, convert=None):
            if isinstance(event, SectionDone):
                break
    with JobFolder.open(tmp_path / "job") as folder:
        assert folder.job.cache == job.cache
        events = list(generate(folder.job, several, folder.inputs, store=folder, convert=None))
        assert len([e for e in events if isinstance(e, Stepped)]) == STEPS
        latents = np.concatenate([e.latents for e in events if isinstance(e, SectionDone)], 2)
        np.testing.assert_array_equal(latents, whole)
        # Another cache is another recipe.
        assert folder.change(replace(folder.job, cache="")) == [0, 1]


@once
def test_a_file_of_ratios_becomes_part_of_the_job(
    several: Networks, picture: Image.Image, tmp_path: Path
) -> None:
    file = tmp_path / "ratios.json"
    file.write_text('{"ratios": [[1, 1.01, 0.99]]}')
    job = replace(JOB, cache=f"mag:0.5,2,0.2;{file}", width=48, height=32)
    latents, _ = made(job, several, picture)
    np.testing.assert_array_equal(latents, made(replace(job, cache=CACHES["mag"]), several, picture)[0])
    with JobFolder.create(tmp_path / "job", job, picture) as folder:
        file.unlink()
        assert folder.job.cache == "mag:0.5,2,0.2,1;1,1.01,0.99"


@once
@pytest.mark.parametrize("cache", TESTED)
def test_what_a_consumer_changes_is_seen_at_the_next_step(
    cache: str, several: Networks, picture: Image.Image
) -> None:
    events = generate(replace(JOB, cache=CACHES[cache]), several, Inputs(picture))
    steps: list[Stepped] = []
    event: Any = next(events)
    skipped = None
    while skipped is None or len(steps) < skipped + 2:
        change = None
        if isinstance(event, Stepped):
            steps.append(event)
            if not event.computed and skipped is None:
                skipped = len(steps) - 1
                change = Change(latents=event.latents + 1.0)
        event = events.send(change)
    events.close()
    assert skipped is not None and steps[skipped + 1].computed == 1
    # The very latents that were shown are no change.
    events = generate(replace(JOB, cache=CACHES[cache]), several, Inputs(picture))
    event, same = next(events), []
    while not isinstance(event, SectionDone):
        stepped = isinstance(event, Stepped)
        same += [event.computed] if stepped else []
        event = events.send(Change(latents=event.latents) if stepped else None)
    events.close()
    assert (
        same
        == [step.computed for step in made(replace(JOB, cache=CACHES[cache]), several, picture)[1]][:STEPS]
    )


@once
def test_a_callers_wrap_goes_around_the_cache(several: Networks, picture: Image.Image) -> None:
    calls: list[float] = []

    def wrap(velocity: Any) -> Any:
        return lambda latents, sigma: (calls.append(sigma), velocity(latents, sigma))[1]

    _, steps = made(replace(JOB, cache=CACHES["easy"]), several, picture, wrap=wrap)
    assert len(calls) == len(steps) > sum(step.computed for step in steps)


@pytest.mark.parametrize("cache", TESTED)
def test_a_network_that_is_called_whole_is_cached_too(
    cache: str, several: Networks, picture: Image.Image
) -> None:
    opened, steps = made(replace(JOB, cache=CACHES[cache]), several, picture)
    own = copy.deepcopy(several.transformer)

    class Hooked(Transformer):
        """Called whole, since it is not ours any more."""

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

        construct = forward

    own.__class__ = Hooked
    whole, again = made(replace(JOB, cache=CACHES[cache]), replace(several, transformer=own), picture)
    assert [step.computed for step in again] == [step.computed for step in steps]
    # The same operations; sums may be ordered otherwise.
    np.testing.assert_allclose(whole, opened, atol=1e-4)


def foreign(networks: Networks) -> Networks:
    inner = networks.transformer

    class Theirs:
        dtype, device, config = inner.dtype, inner.device, inner.config

        def __call__(self, **given: Any) -> Any:
            return inner(**given)

    return replace(networks, transformer=Theirs())


@once
@pytest.mark.parametrize("cache", TESTED)
def test_a_foreign_network_is_cached_around_its_velocity(
    cache: str, several: Networks, picture: Image.Image
) -> None:
    job, theirs = replace(JOB, cache=CACHES[cache]), foreign(several)
    if cache in OPENING:
        with pytest.raises(JobError, match=f"{cache!r} stands between the blocks .* easy, mag serve any"):
            generate(job, theirs, Inputs(picture))
    else:
        _, steps = made(job, theirs, picture)
        assert sum(step.computed for step in steps) < 0.8 * len(steps)


def test_the_reference_has_no_cache() -> None:
    with pytest.raises(JobError, match="The reference computes every step; leave cache out"):
        replace(JOB, reference=True, cache="easy").check()


@once
def test_one_number_is_waited_for_in_a_step(
    several: Networks, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    original = measures.numbers
    from longtake.pipeline import caching

    def counted(*values: Any) -> list[float]:
        reads.append(len(values))
        return original(*values)

    monkeypatch.setattr(measures, "numbers", counted)
    monkeypatch.setattr(caching, "numbers", counted)
    for cache, first in (("easy", 2), ("tea", 1), ("first", 1), ("mag", STEPS)):
        reads.clear()
        made(replace(JOB, cache=CACHES[cache]), several, picture)
        # Once for each step but those that are computed whatever has changed.
        most = SECTIONS * max(0, STEPS - 1 - first)
        assert most - SECTIONS <= len(reads) <= most, cache


def test_easy_is_near_at_half_of_the_steps_on_the_embedded_model() -> None:
    networks = load_networks("embedded", "float32", "cpu")
    scene = toyworld.scene_from_text("a penguin in the snow")
    picture = Image.fromarray(toyworld.render(scene, [0], 64, 64)[0])
    job = Job("A penguin dances in the snow.", frames=37, steps=12, sampling="vanilla", seed=1)
    plain, _ = made(job, networks, picture)
    for cache, most, least in (("easy:0.1", 0.6, 25.0), ("mag:0.3,4", 0.7, 20.0)):
        cached, steps = made(replace(job, cache=cache), networks, picture)
        error = 10 * np.log10(np.mean(plain**2) / np.mean((plain - cached) ** 2))
        assert sum(step.computed for step in steps) <= most * len(steps) and error > least, (cache, error)


# MagCache's ratios ----------------------------------------------------------------------------------------------------


def test_ratios_are_measured_for_each_step_and_branch(several: Networks, picture: Image.Image) -> None:
    measured = Calibration(several.transformer, STEPS, 2)
    latents, _ = made(GUIDED, several, picture, wrap=measured)
    np.testing.assert_array_equal(latents, made(GUIDED, several, picture)[0])
    positive, negative = measured.ratios
    assert len(positive) == len(negative) == STEPS and positive != negative
    assert positive[0] == negative[0] == 1.0
    assert all(0.2 < ratio < 5 for ratio in positive[1:])
    assert len(measured.runs) == 2 * SECTIONS


@once
def test_published_ratios_are_those_of_published_samplings() -> None:
    config = SimpleNamespace(**PUBLISHED)
    networks = SimpleNamespace(part=lambda name: SimpleNamespace(config=config), settings={})

    def ratios(sampling: str) -> Any:
        job = Job("", sampling=sampling, cache="mag")
        return cache_of(job, networks, plan_of(job)).ratios  # type: ignore[arg-type, union-attr]

    assert ratios("anchored") == ratios("vanilla") != ratios("inverted")
    with pytest.raises(JobError, match="ratios of this sampling are not known"):
        ratios("planned")


@once
def test_a_model_may_know_its_own_ratios(several: Networks, picture: Image.Image) -> None:
    known = {"mag_ratios": {"vanilla": [[1, 1.01, 0.99]]}}
    own = replace(several, settings={**several.settings, **known})
    latents, _ = made(replace(JOB, cache="mag:0.5,2,0.2"), own, picture)
    np.testing.assert_array_equal(latents, made(replace(JOB, cache=CACHES["mag"]), several, picture)[0])
    for networks, job in ((several, JOB), (own, replace(JOB, sampling="inverted"))):
        with pytest.raises(JobError, match=r"ratios of this model are not known, .* longtake calibrate"):
            generate(replace(job, cache="mag"), networks, Inputs(picture))


# The transformer's own cache ------------------------------------------------------------------------------------------


@once
def test_enable_cache_serves_every_job_that_names_no_other(several: Networks, picture: Image.Image) -> None:
    own = replace(several, transformer=copy.deepcopy(several.transformer))
    transformer = own.transformer
    transformer.enable_cache("easy:1.5")
    assert transformer.is_cache_enabled
    latents, _ = made(JOB, own, picture)
    np.testing.assert_array_equal(latents, made(replace(JOB, cache="easy:1.5"), several, picture)[0])
    other = made(replace(JOB, cache="first:1.5"), own, picture)[0]
    np.testing.assert_array_equal(other, made(replace(JOB, cache="first:1.5"), several, picture)[0])
    with pytest.raises(JobError, match=r"There is the cache 'easy:1\.5,0\.1,1' already"):
        transformer.enable_cache("first")
    transformer.disable_cache()
    assert not transformer.is_cache_enabled
    np.testing.assert_array_equal(made(JOB, own, picture)[0], made(JOB, several, picture)[0])
