"""The treatment of the history in the loop: what the network receives, rows, guidance, caches, jobs that go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake import backend
from longtake.backend import ops, runtime
from longtake.errors import JobError, ModelError
from longtake.events import Encoded, SectionDone, Stepped
from longtake.job import Job, PromptSpan, SectionChange
from longtake.jobs.folder import JobFolder
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.pipeline.correcting import Correcting
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.pipeline.noise import beside
from longtake.pipeline.prepare import Inputs
from longtake.plan.history import History
from longtake.plan.plans import plan_of, vanilla
from longtake.sampling.codebooks import Codebook, nearest
from longtake.sampling.treatments import Drift, over_scales, treatment_of

# Three sections of two latent frames.
JOB = Job(
    "a small blue bird takes off",
    frames=25,
    window=2,
    steps=2,
    sampling="vanilla",
    seed=3,
    width=48,
    height=32,
)
CODES = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
BOOK = Codebook({8: CODES}, split={(8, 2): CODES})
once = pytest.mark.skipif(backend.name != "torch", reason="the same on both frameworks")


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """No graphs, which MindSpore would compile anew."""
    monkeypatch.setattr(runtime, "graph", False)


@pytest.fixture
def model(networks: Networks) -> Networks:
    """Networks with a codebook of eight codes."""
    return replace(networks, codebook=BOOK)


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, np.ndarray]]:
    """The frames that the transformer packs, by scale, for each section and correction."""
    found: list[dict[int, np.ndarray]] = []
    context = Transformer.context

    def noting(self: Any, shape: Any, times: Any, clean: Any, *beyond: Any) -> Any:
        found.append({scale: ops.to_numpy(latents) for scale, (latents, _) in clean.items()})
        return context(self, shape, times, clean, *beyond)

    monkeypatch.setattr(Transformer, "context", noting)
    return found


def made(job: Job, networks: Networks, *given: Any, **options: Any) -> Made:
    return Made(job, generate(job, networks, Inputs(*given), convert=None, **options))


class Made:
    """The sections of a run, its history as it was made, and the steps."""

    def __init__(self, job: Job, events: Iterator[Any]) -> None:
        self.job, self.plan = job, plan_of(job)
        self.history, self.sections, self.steps = History(), list[np.ndarray](), list[Stepped]()
        self.made: list[int] = []
        for event in events:
            if isinstance(event, Encoded):
                self.picture = event.anchors[0]
                self.history.write(0, self.picture)
            if isinstance(event, Stepped):
                self.steps.append(event)
                self.made = sorted({*self.made, event.section})
            if isinstance(event, SectionDone):
                self.sections.append(event.latents)
                self.history.write(self.plan[event.section].frames, event.latents)

    def expected(self, number: int, text: str, drift: Drift | None = None) -> dict[int, np.ndarray]:
        """The sight of section `number` of a plan that goes forward, by the treatments' own arithmetic."""
        section = self.plan[number]
        clean = {scale: self.history.read(slot) for scale, slot in section.slots.items()}
        rows = len(self.picture)
        where = {
            scale: np.tile([frame not in (None, 0) for frame in slot.frames], (rows, 1))
            for scale, slot in section.slots.items()
        }
        treatment = treatment_of(text, BOOK.of, self.picture, drift or Drift())
        rngs = [beside(self.job.seed + row, number) for row in range(rows)]
        return clean if treatment is None else over_scales(treatment, clean, where, rngs)


def assert_same(found: dict[int, np.ndarray], expected: dict[int, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for scale, latents in expected.items():
        np.testing.assert_array_equal(found[scale], latents)


TEXTS = ["noise:0.3", "discrete:8,2+noise:0.1", "statistics:0.5"]


@pytest.mark.parametrize("text", TEXTS if backend.name == "torch" else TEXTS[1:2])
def test_the_network_receives_the_treated_values(
    text: str, model: Networks, picture: Image.Image, received: list[dict[int, np.ndarray]]
) -> None:
    run = made(replace(JOB, history=text), model, picture)
    assert len(received) == 3
    for number, found in enumerate(received):
        assert_same(found, run.expected(number, text))
    # The picture is given, and what lies before it is blank: both as they are.
    assert np.array_equal(received[2][1][:, :, 0], run.picture[:, :, 0])
    assert not received[0][4].any() and received[2][4].any()


@once
def test_discrete_history_has_codes_alone(
    model: Networks, picture: Image.Image, received: list[dict[int, np.ndarray]]
) -> None:
    made(replace(JOB, history="discrete:8"), model, picture)
    pixels = np.moveaxis(received[2][1][0, :, 1], 0, -1).reshape(-1, 4)
    assert nearest(pixels, CODES)[1].max() == 0


@once
def test_each_row_is_the_video_that_its_seed_makes_alone(
    model: Networks, picture: Image.Image, last_picture: Image.Image
) -> None:
    pictures = [picture, last_picture]
    for text in ("statistics:0.5+adaptive:0.5,0.001+noise:0.2", "correct:1,1"):
        job = replace(JOB, history=text, cfg_scale=2.0)
        both = made(job, model, pictures, None, None, None, [JOB.prompt] * 2)
        for row in range(2):
            alone = made(replace(job, seed=JOB.seed + row), model, pictures[row])
            for beside_another, single in zip(both.sections, alone.sections, strict=True):
                # Products of two rows and of one are summed in another order.
                np.testing.assert_allclose(beside_another[row : row + 1], single, atol=1e-3)


@once
def test_adaptive_noise_comes_when_a_section_has_left_the_mean(
    model: Networks, picture: Image.Image, received: list[dict[int, np.ndarray]]
) -> None:
    job = replace(JOB, frames=33, history="adaptive:0.5,0.001")
    run = made(job, model, picture)
    drift = Drift(0.001)
    for number, found in enumerate(received):
        assert_same(found, run.expected(number, job.history, drift))
        drift.add(run.sections[number])
    assert drift.left is not None and drift.left.all()
    # Up to the second section there is nothing to compare with.
    assert_same(received[1], run.expected(1, ""))
    assert not np.array_equal(received[2][1], run.expected(2, "")[1])


@once
def test_a_job_that_goes_on_makes_the_same(model: Networks, picture: Image.Image, tmp_path: Path) -> None:
    text = "discrete:8+adaptive:0.5,0.001+correct:1,1"
    job = replace(JOB, frames=33, history=text)
    whole = made(job, model, picture)
    with JobFolder.create(tmp_path / "job", job, picture) as folder:
        events = generate(folder.job, model, folder.inputs, store=folder, convert=None)
        for event in events:
            if isinstance(event, SectionDone) and event.section == 1:
                break
        events.close()
    with JobFolder.open(tmp_path / "job") as folder:
        run = Made(folder.job, generate(folder.job, model, folder.inputs, store=folder, convert=None))
        assert run.made == [2, 3]
        for found, expected in zip(run.sections, whole.sections, strict=True):
            np.testing.assert_array_equal(found, expected)
        assert "codes=" in folder.made.form
        # The same job with other codes would be a mixture.
        other = replace(model, codebook=Codebook({8: CODES + 1}))
        with pytest.raises(JobError, match="were made with the networks in float32,codes="):
            generate(folder.job, other, folder.inputs, store=folder)
        # One section anew, and only what depends on it: here all that follows.
        folder.change(replace(folder.job, changes=(SectionChange(2, seed=9),)))
        run = Made(folder.job, generate(folder.job, model, folder.inputs, store=folder, convert=None))
        assert run.made == [2, 3]
        np.testing.assert_array_equal(run.sections[1], whole.sections[1])
        assert not np.array_equal(run.sections[3], whole.sections[3])


@once
def test_a_network_that_is_hooked_receives_the_same(model: Networks, picture: Image.Image) -> None:
    job = replace(JOB, history="noise:0.4+correct:1,1")
    plain = made(job, model, picture)
    seen = []
    handle = model.transformer.register_forward_pre_hook(
        lambda module, given, options: seen.append(options["latents_clean"][0, :, 1:].clone()),
        with_kwargs=True,
    )
    try:
        hooked = made(job, model, picture)
    finally:
        handle.remove()
    # Two steps and a correction for each section; the correction sees the picture alone (section 0 has no more).
    assert len(seen) == 9 and [bool(latents.any()) for latents in seen[3:]] == [True, False, True] * 2
    for found, expected in zip(hooked.sections, plain.sections, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_correction_denoises_by_the_picture_and_takes_fresh_noise() -> None:
    plan, rng = vanilla(3, 2), np.random.default_rng(1)
    section, history = plan[2], History()
    history.write(0, rng.standard_normal((2, 4, 5, 4, 6)).astype(np.float32))
    velocity = rng.standard_normal((2, 4, 2, 4, 6)).astype(np.float32)

    class Predict:
        def begin(self, section: Any, history: History) -> None:
            self.read = {scale: history.read(slot) for scale, slot in section.slots.items()}

        def mixed(self, *told: Any) -> Any:
            self.told = told
            return ops.from_numpy(velocity)

    predict = Predict()
    correct = Correcting(predict, plan, 2, 0.5)  # type: ignore[arg-type]
    correct.begin(section, history, (7, 8))
    for scale, slot in section.slots.items():
        blank = [frame if frame == 0 else None for frame in slot.frames]
        assert np.array_equal(predict.read[scale], history.read(blank))
    assert [correct.is_due(step, [1.0, 0.6, 0.4, 0.3, 0.1]) for step in range(5)] == [0, 0, 1, 1, 0]
    latents = rng.standard_normal(velocity.shape).astype(np.float32)

    class Told:
        negative = None

    found = ops.to_numpy(correct((), Told(), ops.from_numpy(latents), 2, [1.0, 0.6, 0.4]))  # type: ignore[arg-type]
    noise = np.stack([beside(seed, 2, 3).standard_normal((4, 2, 4, 6)) for seed in (7, 8)])
    np.testing.assert_allclose(found, 0.6 * (latents - 0.4 * velocity) + 0.4 * noise, atol=1e-5)


def test_corrections_are_counted(model: Networks, picture: Image.Image) -> None:
    run = made(replace(JOB, frames=9, steps=3, history="correct:1,1"), model, picture)
    assert [step.velocities for step in run.steps] == [1, 2, 1]
    assert np.isfinite(run.sections[0]).all()


@once
@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_step_caches_know_of_corrections(solver: str, model: Networks, picture: Image.Image) -> None:
    job = replace(JOB, frames=9, steps=4, solver=solver, history="correct:2,1", cfg_scale=2.0)
    run = made(job, model, picture)
    # The second and the third step see a corrected state: two velocities more, with guidance.
    assert [step.velocities for step in run.steps] == [2, 4, 4, 2]
    cached = made(replace(job, cache="easy:0"), model, picture)
    assert [step.computed for step in cached.steps] == [2, 4, 4, 2]
    for found, expected in zip(cached.sections, run.sections, strict=True):
        np.testing.assert_array_equal(found, expected)
    # With a threshold that skips all it can, a corrected state is still computed.
    skipping = made(replace(job, cache="easy:100,0", history=""), model, picture)
    assert [step.computed for step in skipping.steps] == [2, 2, 0, 2]
    skipping = made(replace(job, cache="easy:100,0"), model, picture)
    assert [step.computed for step in skipping.steps] == [2, 4, 4, 2]


@once
def test_a_change_of_prompt_is_seen_with_the_far_history_gone(
    model: Networks, picture: Image.Image, received: list[dict[int, np.ndarray]]
) -> None:
    spans = (PromptSpan("a red ball bounces", start=0.6),)
    job = replace(JOB, frames=33, prompts=spans, history="forget")
    run = made(job, model, picture)
    for number, found in enumerate(received):
        assert_same(found, run.expected(number, ""))
    # At the change (section 2) all but the picture and the nearest frame is gone; afterwards it comes again.
    there = [[bool(frame.any()) for frame in np.moveaxis(found[2][0], 1, 0)] for found in received]
    assert there == [[False, False], [True, True], [False, False], [False, True]]
    assert np.array_equal(received[2][1][:, :, 1], run.sections[1][:, :, -1])


@once
def test_what_cannot_be_done_is_refused_before_anything_is_computed(
    networks: Networks, model: Networks, picture: Image.Image
) -> None:
    def ask(text: str, on: Networks) -> None:
        generate(replace(JOB, history=text), on, Inputs(picture))

    with pytest.raises(ModelError, match="have no codebook, which a discrete history needs; fit one by"):
        ask("discrete:8", networks)
    with pytest.raises(ModelError, match="no 16 codes; it has: 8, 8x2"):
        ask("discrete:16", model)
    with pytest.raises(JobError, match="is one of 3 channels and the latents have 4"):
        ask("discrete:8", replace(networks, codebook=Codebook({8: CODES[:, :3]})))
    with pytest.raises(JobError, match="The reference sees its history as it is"):
        replace(JOB, history="noise", reference=True).check()
    with pytest.raises(JobError, match="'correct' comes between two steps; a section has 1 step"):
        replace(JOB, history="correct", steps=1).check()
    with pytest.raises(JobError, match="which the sampling unanchored does not keep in sight"):
        replace(JOB, history="correct", sampling="unanchored").check()
