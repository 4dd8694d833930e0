"""Key frames, loops, blends, strengths and videos from text, through the one loop."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake.backend import ops
from longtake.errors import JobError
from longtake.events import Encoded, FramesReady, SectionDone, Stepped
from longtake.job import Anchor, Job, PromptSpan
from longtake.pipeline.decode import decode, to_frames
from longtake.pipeline.denoise import Change
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.pipeline.prepare import Inputs
from longtake.plan.pictures import frames_of
from longtake.plan.plans import Plan, plan_of
from longtake.video.fading import FADE

# 21 frames at 10 a second; a picture at 0.85 s stands at frame 9, behind one picture and eight made frames.
JOB = Job("a small blue bird takes off", frames=21, fps=10, window=2, steps=1, solver=None, seed=3)
AT, FRAME = 0.85, 9


class Run:
    """All events of one run."""

    def __init__(self, job: Job, networks: Networks, **inputs: Any) -> None:
        events = list(generate(job, networks, Inputs(**inputs)))
        self.ready = [event for event in events if isinstance(event, FramesReady)]
        self.frames = np.concatenate([event.frames for event in self.ready], axis=1)
        done = [event for event in events if isinstance(event, SectionDone)]
        self.made = [event.number for event in done]
        self.sections = {event.number: event for event in done}
        (encoded,) = (event for event in events if isinstance(event, Encoded))
        self.anchors = encoded.anchors
        self.steps = [event for event in events if isinstance(event, Stepped)]

    def latents(self, number: int) -> np.ndarray:
        return self.sections[number].latents


def whole(run: Run, networks: Networks, plan: Plan) -> np.ndarray:
    """The frames of each stretch's latents, decoded at once, with what is given back at the seams."""
    last = max(event.frame + event.latents.shape[2] - 1 for event in run.sections.values())
    by_frame = {frame: latents for frame, latents in run.anchors.items() if frame <= last}
    for section in run.sections.values():
        for place in range(section.latents.shape[2]):
            by_frame[section.frame + place] = section.latents[:, :, place : place + 1]
    edges = [*plan.starts, last + 1]
    stretches = [
        np.concatenate([by_frame[frame] for frame in range(first, end)], axis=2)
        for first, end in itertools.pairwise(edges)
    ]
    frames = np.concatenate([ops.to_numpy(decode(networks.vae, each)) for each in stretches], axis=2)
    frames = frames[:, :, : plan.frames]
    met = frames.copy()
    for seam in plan.seams:
        own, beyond = (frames[:, :, seam.own[place]] for place in (0, -1))
        made, before = (frames[:, :, seam.at - place] for place in (1, 2))
        step = own + (own - beyond + before - made) / 2 - made
        count = min(seam.span, FADE)
        for distance in range(1, count + 1):
            met[:, :, seam.at - distance] += (1 - distance / (count + 1)) * step
    return to_frames(ops.from_numpy(met))


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.fixture(scope="module")
def key() -> Image.Image:
    """The picture within the video."""
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (32, 48, 3), dtype=np.uint8))


@pytest.mark.parametrize("sampling", ["inverted", "planned"])
def test_a_key_frame_stands_where_it_was_asked_for_and_the_decoder_begins_anew_there(
    sampling: str, networks: Networks, picture: Image.Image, last_picture: Image.Image, key: Image.Image
) -> None:
    job = replace(JOB, sampling=sampling)
    given = {0: picture, AT: key, "end": last_picture}
    run = Run(job, networks, pictures=given)
    asked = replace(job, anchors=tuple(Anchor(at, "x.png") for at in given))
    plan = plan_of(asked)
    frames = frames_of(asked, plan)
    assert plan.shown(frames[AT]) == range(FRAME, FRAME + 1) and list(run.anchors) == [
        0,
        frames["end"],
        frames[AT],
    ]
    # One value in 255, since sums may be rounded otherwise.
    assert_near(run.frames, whole(run, networks, plan))
    assert [event.start for event in run.ready] == np.cumsum(
        [0, *(len(event.frames[0]) for event in run.ready)]
    )[:-1].tolist()
    other = Run(job, networks, pictures={**given, AT: picture})
    assert not np.array_equal(other.frames[:, :FRAME], run.frames[:, :FRAME]), (
        "what leads to it does not see it"
    )


def test_what_a_section_is_told_of_is_the_mean_of_its_stretchs_pictures(
    networks: Networks, picture: Image.Image, key: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, Any] = {}
    forward = type(networks.transformer).prompted

    def prompted(self: Any, states: Any, mask: Any, pooled: Any, image_states: Any) -> Any:
        seen[len(seen)] = ops.to_numpy(image_states)
        return forward(self, states, mask, pooled, image_states)

    monkeypatch.setattr(type(networks.transformer), "prompted", prompted)
    Run(JOB, networks, pictures={0: picture, AT: key})
    # Backwards: the last stretch is told of the key frame alone, the first one of both; each once.
    assert len(seen) == 2
    Run(JOB, networks, pictures={0: picture})
    np.testing.assert_allclose(seen[1], (seen[2] + seen[0]) / 2, atol=1e-6)


def test_a_forward_plan_refuses_what_it_cannot_foresee_or_begins_anew(
    networks: Networks, picture: Image.Image, key: Image.Image
) -> None:
    job = replace(JOB, sampling="vanilla")
    with pytest.raises(JobError, match="unforeseen"):
        Run(job, networks, pictures={0: picture, AT: key})
    run = Run(replace(job, unforeseen="restart"), networks, pictures={0: picture, AT: key})
    before, other = (
        Run(replace(job, unforeseen="restart"), networks, pictures={0: first, AT: second})
        for first, second in ((key, key), (picture, picture))
    )
    # A cut: behind it nothing of what was before is known, and before it nothing of what comes.
    np.testing.assert_array_equal(run.frames[:, FRAME:], before.frames[:, FRAME:])
    np.testing.assert_array_equal(run.frames[:, :FRAME], other.frames[:, :FRAME])
    assert not np.array_equal(run.frames[:, FRAME:], other.frames[:, FRAME:])
    assert run.ready[0].start == 0 and run.frames.shape[1] == 21


@pytest.mark.parametrize("sampling", ["inverted", "endpoint"])
def test_a_loop_sees_its_beginning_behind_its_end(
    sampling: str, networks: Networks, picture: Image.Image
) -> None:
    job = replace(JOB, sampling=sampling, frames=25)
    loop = Run(replace(job, loop=True), networks, picture=picture)
    assert list(loop.anchors) == [0]
    # The same as a last picture that is the first one, but for its sample of the autoencoder's posterior.
    latents = loop.anchors[0]
    same = Run(job, networks, picture=picture, last_picture=picture, last_latents=latents)
    for number in same.made:
        np.testing.assert_array_equal(loop.latents(number), same.latents(number))
    assert_near(loop.frames, whole(loop, networks, plan_of(replace(job, loop=True))))
    assert not np.array_equal(loop.frames, same.frames), "the step to the beginning is not given back"
    assert not np.array_equal(loop.frames[:, -8:], Run(job, networks, picture=picture).frames[:, -8:])
    with pytest.raises(JobError, match="A loop needs a sampling that sees the end"):
        Run(replace(JOB, sampling="vanilla", loop=True), networks, picture=picture)


def test_strengths_are_mixtures_of_velocities(
    networks: Networks, picture: Image.Image, last_picture: Image.Image
) -> None:
    def made(strength: float) -> Run:
        anchors = (Anchor(0, "x.png"), Anchor("end", "x.png", strength))
        job = replace(JOB, anchors=anchors, steps=1, frames=9)
        return Run(job, networks, picture=picture, last_picture=last_picture)

    none, half, full, double = (made(strength) for strength in (0, 0.5, 1, 2))
    # One step of the Euler method is linear in the velocity.
    section = max(full.sections)
    parts = [run.latents(section) for run in (none, half, full, double)]
    np.testing.assert_allclose(parts[1], (parts[0] + parts[2]) / 2, atol=1e-5)
    np.testing.assert_allclose(parts[3], 2 * parts[2] - parts[0], atol=1e-5)
    assert np.abs(parts[0] - parts[2]).max() > 1e-3
    assert [run.steps[0].velocities for run in (none, half, full, double)] == [1, 2, 1, 2]


def test_a_prompt_blends_into_the_next_by_velocities(networks: Networks, picture: Image.Image) -> None:
    job = replace(JOB, sampling="vanilla", prompts=(PromptSpan("a red ball bounces", 0.8),))
    plain, blended = (Run(replace(job, blend=n), networks, picture=picture) for n in (0, 1))
    never = Run(replace(job, prompts=()), networks, picture=picture)
    # The first section of the new prompt has half of each; before it nothing is changed.
    changed = next(n for n in plain.made if not np.array_equal(plain.latents(n), never.latents(n)))
    np.testing.assert_array_equal(blended.latents(changed - 1), plain.latents(changed - 1))
    mean = (plain.latents(changed) + never.latents(changed)) / 2
    np.testing.assert_allclose(blended.latents(changed), mean, atol=1e-5)
    assert [step.velocities for step in blended.steps].count(2) == 1


def test_caches_and_guidance_count_each_voice(networks: Networks, picture: Image.Image) -> None:
    anchors = (Anchor(0, "x.png", 0.5),)
    job = replace(JOB, anchors=anchors, frames=9, steps=4, cfg_scale=2.0)
    run = Run(job, networks, picture=picture)
    assert [step.velocities for step in run.steps] == [4] * 4
    cached = Run(replace(job, cache="easy:0"), networks, picture=picture)
    assert [step.computed for step in cached.steps] == [4] * 4
    np.testing.assert_array_equal(cached.frames, run.frames)
    skipping = Run(replace(job, cache="easy:100,0"), networks, picture=picture)
    assert [step.computed for step in skipping.steps] == [4, 4, 0, 4]


def test_a_consumers_states_hold_for_the_sections_own_prompt(
    networks: Networks, picture: Image.Image
) -> None:
    job = replace(JOB, anchors=(Anchor(0, "x.png", 0.5),), frames=9, steps=2)
    events = generate(job, networks, Inputs(picture=picture))
    change, steps, text = None, [], None
    while True:
        try:
            event = events.send(change)
        except StopIteration:
            break
        change = None
        if isinstance(event, Encoded):
            text = event.text.states
        if isinstance(event, Stepped):
            steps.append(ops.to_numpy(event.latents))
            change = Change(prompt_states=-text) if event.step == 0 else None
    plain = Run(job, networks, picture=picture)
    np.testing.assert_array_equal(steps[0], ops.to_numpy(plain.steps[0].latents))
    assert not np.allclose(steps[1], ops.to_numpy(plain.steps[1].latents), atol=1e-4)


@pytest.fixture
def spoken(networks: Networks) -> Networks:
    """Networks that say that they were trained from text."""
    return replace(networks, settings={**networks.settings, "from_text": True})


@pytest.mark.parametrize("sampling", ["inverted", "vanilla"])
def test_from_text_the_first_frame_is_made_and_the_rest_is_told_of_its_picture(
    sampling: str, spoken: Networks
) -> None:
    job = replace(JOB, sampling=sampling, frames=13)
    run = Run(job, spoken)
    assert run.made[0] == 0 and run.latents(0).shape == (1, 4, 1, 4, 6) and run.frames.shape[1] == 13
    assert not run.anchors
    plan = plan_of(replace(job, from_text=True))
    assert [section.number for section in plan] == run.made
    again = Run(job, spoken)
    np.testing.assert_array_equal(again.frames, run.frames)
    other = Run(replace(job, seed=4), spoken)
    assert not np.array_equal(other.frames[:, :1], run.frames[:, :1])


def test_a_loop_from_text_with_a_key_frame(spoken: Networks, key: Image.Image) -> None:
    run = Run(replace(JOB, loop=True), spoken, pictures={AT: key})
    job = replace(JOB, loop=True, from_text=True, anchors=(Anchor(AT, "x.png"),))
    plan = plan_of(job)
    assert run.frames.shape[1] == plan.frames
    assert_near(run.frames, whole(run, spoken, plan))
    assert len(plan.seams) == 2


def test_rows_of_a_batch_are_the_videos_made_alone(spoken: Networks, key: Image.Image) -> None:
    job = replace(JOB, frames=13, anchors=(Anchor(0.5, "x.png", 0.5),))
    both = Run(
        job, spoken, pictures={0.5: key}, prompts=["a red ball", "a small blue bird"], generator=[7, 9]
    )
    for row, (prompt, seed) in enumerate((("a red ball", 7), ("a small blue bird", 9))):
        alone = Run(replace(job, prompt=prompt, seed=seed), spoken, pictures={0.5: key})
        for number in both.made:
            np.testing.assert_allclose(both.latents(number)[row], alone.latents(number)[0], atol=2e-4)


def test_a_picture_is_given_once(networks: Networks, picture: Image.Image) -> None:
    with pytest.raises(JobError, match="given twice"):
        Run(JOB, networks, picture=picture, pictures={0: picture})
