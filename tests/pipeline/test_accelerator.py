"""The whole loop on an accelerator that is not here: nothing is left on the CPU, and nothing waits without need."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake import backend
from longtake.events import Encoded, FramesReady, SectionDone, Stepped
from longtake.job import Job
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import NETWORKS, Networks
from longtake.pipeline.prepare import Inputs
from longtake.sampling.driven import schedule_of

pytestmark = pytest.mark.skipif(backend.name != "torch", reason="the device that is not there is PyTorch's")

JOB = Job("a small blue bird takes off", frames=17, window=2, steps=3, cfg_scale=2.0, sampling="vanilla")


@pytest.mark.parametrize("sampling", ["vanilla", "inverted"])
def test_the_whole_loop_runs_there_and_gives_the_same_frames(
    sampling: str, networks: Networks, picture: Image.Image
) -> None:
    from fake_device import accelerator

    job = replace(JOB, sampling=sampling)
    plain = [e.frames for e in generate(job, networks, Inputs(picture)) if isinstance(e, FramesReady)]
    networks = replace(networks, scheduler=schedule_of(networks.scheduler))
    parts: dict[str, Any] = {name: copy.deepcopy(getattr(networks, name)) for name in NETWORKS}
    with accelerator() as traffic:
        there = replace(networks, **{name: part.to("npu") for name, part in parts.items()})
        frames, steps = [], []
        for event in generate(job, there, Inputs(picture)):
            if isinstance(event, Stepped):
                steps.append((event.section, event.step, traffic.counts))
            if isinstance(event, FramesReady):
                frames.append(event.frames)
            if isinstance(event, Encoded | Stepped | SectionDone | FramesReady):
                traffic.clear()
    # Sums are ordered otherwise there, and rotary tables spelt out.
    difference = np.abs(np.concatenate(frames, 1).astype(int) - np.concatenate(plain, 1))
    assert difference.max() <= 1
    # After the first section nothing is sent there in a step, and one number comes back: the sum of the step before,
    # which is there by then, so that the device is never waited for in the middle of its work.
    later = {step: counts for section, step, counts in steps if section == 1}
    assert [later[step][0] for step in (1, 2)] == [0, 0]
    assert all(downloads <= 1 for _, downloads, _ in (later[step] for step in (1, 2)))
    assert all(waits == 0 for _, _, waits in later.values())
