"""Videos whose sections do not come in their own order: frames leave as soon as their beginning is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake.errors import JobError
from longtake.events import Encoded, FramesReady, SectionDone, Stepped
from longtake.job import Job
from longtake.pipeline.decode import decode, to_frames
from longtake.pipeline.denoise import Change
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.pipeline.prepare import Inputs
from longtake.plan.plans import plan_of

# Five sections of two latent frames: with planned, a stretch of four and an end right behind it.
JOB = Job("a small blue bird takes off", frames=41, window=2, steps=1, seed=3)


def joined(events: list[Any]) -> np.ndarray:
    return np.concatenate([event.frames for event in events if isinstance(event, FramesReady)], axis=1)


def whole(events: list[Any], networks: Networks) -> np.ndarray:
    """All latents in the video's order, decoded at once."""
    done = sorted((event for event in events if isinstance(event, SectionDone)), key=lambda each: each.number)
    (start,) = (event.anchors[0] for event in events if isinstance(event, Encoded))
    latents = np.concatenate([start, *(event.latents for event in done)], axis=2)
    return to_frames(decode(networks.vae, latents))


class Kept:
    """A store in memory; it loses what it is told to lose."""

    def __init__(self, sections: dict[int, np.ndarray]) -> None:
        self.sections = sections

    def begin(self, job: Job, form: str) -> None: ...

    def read_section(self, number: int) -> np.ndarray | None:
        return self.sections.get(number)

    def write_section(self, number: int, latents: np.ndarray) -> None:
        self.sections[number] = latents


@pytest.mark.parametrize(
    "sampling", ["planned", "td_f2k2f1k1_g2_f1k1f2k2", "tc_f2k2f1k1_g2", "ta_f1k1_x_f1k1_g2"]
)
def test_streamed_and_resumed_after_every_section_the_frames_are_those_of_the_whole(
    sampling: str, networks: Networks, picture: Image.Image
) -> None:
    job = replace(JOB, sampling=sampling)
    kept = Kept({})
    events = list(generate(job, networks, Inputs(picture), store=kept))
    frames = joined(events)
    np.testing.assert_array_equal(frames, whole(events, networks))
    order = [section.number for section in plan_of(job)]
    assert [event.number for event in events if isinstance(event, SectionDone)] == order
    for count in range(len(order)):
        sections = {number: kept.sections[number] for number in order[:count]}
        again = list(generate(job, networks, Inputs(picture), store=Kept(sections)))
        made = {event.section for event in again if isinstance(event, Stepped)}
        assert made == set(range(count, len(order)))
        np.testing.assert_array_equal(joined(again), frames)


def test_frames_leave_when_an_end_and_what_is_before_it_are_there(
    networks: Networks, picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # Ten sections: the stretches begin with the sections made as 0, 4 and 8.
    job = replace(JOB, sampling="planned", frames=81)
    done, left, waiting = 0, [], 0
    for event in generate(job, networks, Inputs(picture)):
        done += isinstance(event, SectionDone)
        waiting = max(waiting, len(list(tmp_path.glob("*/*.npy"))))
        if isinstance(event, FramesReady):
            left.append(done)
    # A section whose beginning is there does not wait: one end at a time does.
    assert waiting == 1 and not list(tmp_path.iterdir())
    assert left[0] <= 4 and left[-1] == 10 and len(set(left)) >= 4


def test_what_lies_beyond_needs_a_network_that_can_see_it(
    networks: Networks, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(JOB, sampling="ta_f1k1_g2", frames=17)

    def latents(networks: Networks) -> list[np.ndarray]:
        events = generate(job, networks, Inputs(picture), convert=None)
        return [event.latents for event in events if isinstance(event, SectionDone)]

    opened = latents(networks)
    with pytest.raises(JobError, match="longtake's own transformer can see; this is a SimpleNamespace"):
        network = networks.transformer
        foreign = SimpleNamespace(config=network.config, device=network.device, dtype=network.dtype)
        latents(replace(networks, transformer=foreign))
    # As soon as its user has hung something on it, the network is called whole.
    monkeypatch.setattr("longtake.pipeline.predict.is_untouched", lambda network: False)
    for whole, one in zip(latents(networks), opened, strict=True):
        np.testing.assert_allclose(whole, one, atol=1e-5)


def test_an_end_that_is_made_first_sees_the_last_picture(
    networks: Networks, picture: Image.Image, last_picture: Image.Image
) -> None:
    job = replace(JOB, sampling="endpoint", frames=25)
    made = [
        [event for event in generate(job, networks, inputs, convert=None) if isinstance(event, SectionDone)]
        for inputs in (Inputs(picture, last_picture), Inputs(picture))
    ]
    assert [event.number for event in made[0]] == [2, 0, 1]
    assert not np.array_equal(made[0][0].latents, made[1][0].latents)


# After one section there is an end alone, which begins without a picture; after three, two more are joined to that.
@pytest.mark.parametrize(("stopped", "frames"), [(1, 5), (3, 17)])
def test_stopped_early_it_gives_what_joins_from_the_first_section_that_is_there(
    stopped: int, frames: int, networks: Networks, picture: Image.Image
) -> None:
    events = generate(replace(JOB, sampling="planned"), networks, Inputs(picture))
    found, change = [], None
    with pytest.raises(StopIteration):
        while True:
            event = events.send(change)
            change = Change(stop=True) if isinstance(event, Stepped) and event.section == stopped else None
            found += [event] if isinstance(event, FramesReady) else []
    assert joined(found).shape[1] == frames
