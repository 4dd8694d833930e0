"""Step caches on a device that is not here: streamed blocks that are skipped do not come, and little is waited for."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake import backend
from longtake.backend import transfer
from longtake.events import SectionDone, Stepped
from longtake.job import Job
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.pipeline.budget import Layout
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import NETWORKS, Networks
from longtake.pipeline.place import place
from longtake.pipeline.prepare import Inputs
from longtake.sampling.driven import schedule_of

pytestmark = pytest.mark.skipif(backend.name != "torch", reason="the device that is not there is PyTorch's")

STEPS, BLOCKS = 6, 5
JOB = Job("a small blue bird takes off", frames=17, window=2, steps=STEPS, sampling="vanilla", seed=3)
CACHES = {"easy": "easy:2", "mag": "mag:0.5,2,0.2;1,1.01,0.99", "tea": "tea:0.3", "first": "first:1.5"}


@pytest.fixture(scope="module")
def several(networks: Networks, filled: Any) -> Networks:
    """The same model with a transformer of five blocks."""
    config = replace(networks.transformer.config, num_layers=2, num_single_layers=BLOCKS - 2)
    transformer = filled(HunyuanVideoFramepackTransformer3DModel(config))
    return replace(networks, transformer=transformer, scheduler=schedule_of(networks.scheduler))


def copied(networks: Networks) -> Networks:
    return replace(networks, **{name: copy.deepcopy(getattr(networks, name)) for name in NETWORKS})


def streamed(layout: Layout) -> Layout:
    lies = replace(layout.parts["transformer"], how="streamed", resident=0, modulations=False)
    return replace(layout, parts={**layout.parts, "transformer": lies}, together=False)


def made(
    job: Job, networks: Networks, picture: Image.Image, traffic: Any = None
) -> tuple[np.ndarray, list[tuple[int, Any]]]:
    """The latents; for each step whether it was computed, and what went to and from the device."""
    latents, steps = [], []
    for event in generate(job, networks, Inputs(picture), convert=None):
        if isinstance(event, SectionDone):
            latents.append(event.latents)
        if isinstance(event, Stepped):
            steps.append((event.computed, None if traffic is None else traffic.counts))
        if traffic is not None:
            traffic.clear()
    return np.concatenate(latents, 2), steps


@pytest.mark.parametrize("cache", CACHES)
def test_a_cache_there_is_the_cache_here_and_waits_at_most_once_a_step(
    cache: str, several: Networks, picture: Image.Image
) -> None:
    from fake_device import accelerator

    job = replace(JOB, cache=CACHES[cache])
    here, decided = made(job, several, picture)
    with accelerator() as traffic:
        networks = copied(several)
        for name in NETWORKS:
            getattr(networks, name).to("npu")
        there, steps = made(job, networks, picture, traffic)
    assert [computed for computed, _ in steps] == [computed for computed, _ in decided]
    # Sums are ordered otherwise there.
    np.testing.assert_allclose(there, here, atol=1e-3)
    # In the second section: one number is read anyway, that of the step before; the cache reads one more at most.
    later = [counts for _, counts in steps[STEPS + 1 :]]
    reads = 1 if cache == "mag" else 2
    assert all(uploads == 0 and downloads <= reads for uploads, downloads, _ in later), later


@pytest.mark.parametrize("cache", ["easy", "tea", "first"])
def test_streamed_blocks_that_are_skipped_do_not_come(
    cache: str, several: Networks, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fake_device import accelerator

    job = replace(JOB, cache=CACHES[cache])
    loads = [0]
    original = transfer.Lane.load

    def counted(self: Any, *given: Any) -> Any:
        loads[0] += 1
        return original(self, *given)

    monkeypatch.setattr(transfer.Lane, "load", counted)
    with accelerator():
        resident = copied(several)
        for name in NETWORKS:
            getattr(resident, name).to("npu")
        whole, steps = made(job, resident, picture)
        assert loads == [0]
        networks = place(copied(several), device="npu", form=streamed)
        made(JOB, networks, picture)
        plain, loads[0] = loads[0], 0
        found, again = made(job, networks, picture)
    np.testing.assert_array_equal(found, whole)
    assert [computed for computed, _ in again] == [computed for computed, _ in steps]
    skipped = sum(not computed for computed, _ in steps)
    # A block that is on its way when the decision falls is not called back: at most one ring of two for each step.
    assert skipped >= 4 and plain - loads[0] >= skipped * (BLOCKS - 2)
