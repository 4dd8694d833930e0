"""The one loop: events, lengths, seeds, solvers, changes, cancelling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from longtake.backend import ops, runtime
from longtake.compat.schedulers import UniPCMultistepScheduler
from longtake.errors import JobError, JobTypeError, LongtakeWarning, MemoryRunError, ModelError
from longtake.events import Encoded, Event, FramesReady, Planned, Preview, SectionDone, Stepped
from longtake.job import Job, Lora, SectionChange
from longtake.pipeline.decode import crossfade, decode, stages, to_frames
from longtake.pipeline.denoise import Change
from longtake.pipeline.loading import load_networks
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks, save_networks
from longtake.pipeline.prepare import Inputs, settled

# Three sections of two latent frames: 25 frames, of which 20 are asked for.
JOB = Job("a small blue bird takes off", frames=20, window=2, steps=2, solver=None, seed=3)


def events_of(job: Job, networks: Networks, *given: Any) -> list[Event]:
    return list(generate(job, networks, Inputs(*given)))


def frames_of(job: Job, networks: Networks, *given: Any) -> np.ndarray:
    return np.concatenate(
        [e.frames for e in events_of(job, networks, *given) if isinstance(e, FramesReady)], axis=1
    )


@pytest.mark.parametrize(("sampling", "numbers"), [("inverted", [2, 1, 0]), ("vanilla", [0, 1, 2])])
def test_events_come_in_order(
    sampling: str, numbers: list[int], networks: Networks, picture: Image.Image
) -> None:
    events = events_of(replace(JOB, sampling=sampling), networks, picture)
    section = [Stepped, Stepped, SectionDone]
    others = [event for event in events if not isinstance(event, FramesReady)]
    assert [type(event) for event in others] == [Planned, Encoded, *section, *section, *section]
    assert events[0] == Planned(sections=3, frames=20, steps=2)
    done = [event for event in events if isinstance(event, SectionDone)]
    assert [(event.section, event.number) for event in done] == list(enumerate(numbers))
    assert all(event.latents.shape == (1, 4, 2, 4, 6) and event.latents.dtype == np.float32 for event in done)
    steps = [(e.section, e.step, e.steps) for e in events if isinstance(e, Stepped)]
    assert steps == [(section, step, 2) for section in range(3) for step in range(2)]
    ready = [event for event in events if isinstance(event, FramesReady)]
    starts = np.cumsum([0, *(event.frames.shape[1] for event in ready)])
    assert [event.start for event in ready] == starts[:-1].tolist() and starts[-1] == 20
    assert all(event.frames.shape[2:] == (32, 48, 3) and event.frames.dtype == np.uint8 for event in ready)
    assert events[-1] is ready[-1]


def test_frames_leave_as_soon_as_they_are_final(networks: Networks, picture: Image.Image) -> None:
    # Ten sections of two latent frames: a tile of five and a stride of three are done well before the end.
    job = replace(JOB, frames=81, steps=1)
    before: dict[str, list[int]] = {}
    for sampling in ("vanilla", "inverted"):
        sections, before[sampling] = 0, []
        for event in generate(replace(job, sampling=sampling), networks, Inputs(picture)):
            sections += isinstance(event, SectionDone)
            if isinstance(event, FramesReady):
                before[sampling].append(sections)
                # In pieces, none of which is longer than a few tiles.
                assert event.frames.shape[1] <= 25
    assert before["vanilla"][0] <= 3 and len(set(before["vanilla"])) >= 5
    assert set(before["inverted"]) == {10} and len(before["inverted"]) >= 5


def test_every_section_is_shown_where_that_is_asked_for(networks: Networks, picture: Image.Image) -> None:
    events = [
        e
        for e in generate(JOB, networks, Inputs(picture), preview="decode")
        if isinstance(e, SectionDone | Preview)
    ]
    assert [type(event) for event in events] == [SectionDone, Preview] * 3
    assert [event.number for event in events] == [2, 2, 1, 1, 0, 0]
    assert all(event.frames.shape == (1, 8, 32, 48, 3) for event in events if isinstance(event, Preview))
    with pytest.raises(JobError, match="No preview 'sketch'"):
        next(generate(JOB, networks, Inputs(picture), preview="sketch"))


@pytest.mark.parametrize("sampling", ["inverted", "vanilla"])
def test_the_frames_are_those_of_the_whole_video_decoded_at_once(
    sampling: str, networks: Networks, picture: Image.Image
) -> None:
    job = replace(JOB, frames=41, steps=1, sampling=sampling)
    events = events_of(job, networks, picture)
    done = [event for event in events if isinstance(event, SectionDone)]
    (start,) = (event.anchors[0] for event in events if isinstance(event, Encoded))
    *_, latents = stages(start, done, forward=sampling == "vanilla")
    whole = decode(networks.vae, latents)
    found = np.concatenate([event.frames for event in events if isinstance(event, FramesReady)], axis=1)
    np.testing.assert_array_equal(found, to_frames(whole))


@pytest.mark.parametrize("frames", [1, 2, 8, 9, 10, 17])
@pytest.mark.parametrize("sampling", ["inverted", "vanilla"])
def test_exactly_the_frames_asked_for_come_out(
    frames: int, sampling: str, networks: Networks, picture: Image.Image
) -> None:
    assert frames_of(replace(JOB, frames=frames, sampling=sampling), networks, picture).shape[1] == frames


def test_the_same_seed_makes_the_same_frames_and_another_does_not(
    networks: Networks, picture: Image.Image
) -> None:
    one, two = frames_of(JOB, networks, picture), frames_of(JOB, networks, picture)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, frames_of(replace(JOB, seed=4), networks, picture))


def test_frameworks_own_random_state_is_left_alone(
    networks: Networks, picture: Image.Image, torch_only: Any
) -> None:
    torch = torch_only
    state = torch.get_rng_state()
    frames_of(JOB, networks, picture)
    assert torch.equal(state, torch.get_rng_state())


def test_closing_the_iterator_cancels(networks: Networks, picture: Image.Image) -> None:
    calls = []
    networks = replace(networks, transformer=Counted(networks.transformer, calls))
    events = generate(JOB, networks, Inputs(picture))
    assert isinstance(next(events), Planned)
    assert isinstance(next(events), Encoded)
    assert not calls
    assert isinstance(next(events), Stepped)
    events.close()
    assert len(calls) == 1


def test_gradients_stay_on_for_the_consumer(
    networks: Networks, picture: Image.Image, torch_only: Any
) -> None:
    events = generate(replace(JOB, frames=5), networks, Inputs(picture))
    for _ in events:
        assert torch_only.is_grad_enabled()
    cancelled = generate(replace(JOB, frames=5), networks, Inputs(picture))
    assert [type(next(cancelled)) for _ in range(3)] == [Planned, Encoded, Stepped]
    cancelled.close()
    assert torch_only.is_grad_enabled()


class Counted:
    """A transformer that keeps its calls."""

    def __init__(self, network: Any, calls: list[dict[str, Any]]) -> None:
        self.network, self.calls = network, calls
        self.config, self.device, self.dtype = network.config, network.device, network.dtype

    def __call__(self, **inputs: Any) -> Any:
        self.calls.append(inputs)
        return self.network(**inputs)


def test_the_last_picture_is_seen_by_the_first_made_section_alone(
    networks: Networks, picture: Image.Image, last_picture: Image.Image
) -> None:
    calls: list[dict[str, Any]] = []
    counted = replace(networks, transformer=Counted(networks.transformer, calls))
    events_of(replace(JOB, frames=17, steps=1), counted, picture, last_picture)
    neighbours = [ops.to_numpy(call["latents_clean"])[:, :, 1] for call in calls]
    assert len(neighbours) == 2
    assert np.abs(neighbours[0]).max() > 0
    blank: list[dict[str, Any]] = []
    counted = replace(networks, transformer=Counted(networks.transformer, blank))
    events_of(replace(JOB, frames=17, steps=1), counted, picture)
    assert np.abs(ops.to_numpy(blank[0]["latents_clean"])[:, :, 1]).max() == 0


def test_guidance_and_timestep_are_in_thousandths(networks: Networks, picture: Image.Image) -> None:
    calls: list[dict[str, Any]] = []
    counted = replace(networks, transformer=Counted(networks.transformer, calls))
    events_of(replace(JOB, frames=5, guidance=9.0), counted, picture)
    assert calls[0]["guidance"].tolist() == [9000.0]
    assert calls[0]["timestep"].tolist() == [1000.0]
    assert calls[1]["timestep"].tolist() == pytest.approx([875.0])  # 0.5 under a shift of 7


def test_classifier_free_guidance_calls_twice_and_changes_the_video(
    networks: Networks, picture: Image.Image
) -> None:
    calls: list[dict[str, Any]] = []
    counted = replace(networks, transformer=Counted(networks.transformer, calls))
    guided = frames_of(replace(JOB, frames=5, cfg_scale=4.0, negative_prompt="a red ball"), counted, picture)
    assert len(calls) == 4
    assert not np.array_equal(guided, frames_of(replace(JOB, frames=5), networks, picture))


def test_a_consumers_changes_are_taken(networks: Networks, picture: Image.Image) -> None:
    events = generate(replace(JOB, frames=9), networks, Inputs(picture))
    done, change = [], None
    with pytest.raises(StopIteration):
        while True:
            event = events.send(change)
            taken = isinstance(event, Stepped)
            change = Change(latents=event.latents * 0 + event.step) if taken else None
            done += [event] if isinstance(event, SectionDone) else []
    assert done
    for event in done:
        np.testing.assert_array_equal(event.latents, np.ones_like(event.latents))


@pytest.mark.parametrize(("sampling", "frames"), [("vanilla", 9), ("inverted", 5)])
def test_a_consumer_may_stop_and_gets_the_frames_of_what_is_finished(
    sampling: str, frames: int, networks: Networks, picture: Image.Image
) -> None:
    events = generate(replace(JOB, sampling=sampling), networks, Inputs(picture))
    found, change = [], None
    with pytest.raises(StopIteration):
        while True:
            event = events.send(change)
            change = Change(stop=True) if isinstance(event, Stepped) and event.section == 1 else None
            found += [event.frames] if isinstance(event, FramesReady) else []
    made = np.concatenate(found, axis=1)
    assert made.shape[1] == frames
    if sampling == "vanilla":
        shorter = frames_of(replace(JOB, sampling=sampling, frames=9), networks, picture)
        np.testing.assert_array_equal(made, shorter)


def test_two_streams_over_one_set_of_networks_do_not_disturb_each_other(
    networks: Networks, picture: Image.Image
) -> None:
    jobs = [replace(JOB, frames=9, steps=3), replace(JOB, frames=9, steps=3, seed=8)]
    scheduler = UniPCMultistepScheduler(
        flow_shift=7.0, use_flow_sigmas=True, prediction_type="flow_prediction"
    )
    shared = replace(networks, scheduler=scheduler)
    alone = [frames_of(job, shared, picture) for job in jobs]
    streams = [generate(job, shared, Inputs(picture)) for job in jobs]
    found: list[list[np.ndarray]] = [[], []]
    for events in zip(*streams, strict=True):
        for frames, event in zip(found, events, strict=True):
            frames += [event.frames] if isinstance(event, FramesReady) else []
    for frames, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(np.concatenate(frames, axis=1), expected)


def test_a_wrapped_velocity_is_new_for_each_section_and_branch(
    networks: Networks, picture: Image.Image
) -> None:
    wraps: list[list[float]] = []

    def wrap(velocity: Any) -> Any:
        levels: list[float] = []
        wraps.append(levels)

        def wrapped(latents: Any, sigma: float) -> Any:
            levels.append(sigma)
            return velocity(latents, sigma)

        return wrapped

    job = replace(JOB, cfg_scale=2.0)
    events = list(generate(job, networks, Inputs(picture), wrap=wrap))
    assert len(wraps) == 2 * 3 and all(len(levels) == 2 for levels in wraps)
    plain = frames_of(job, networks, picture)
    found = np.concatenate([e.frames for e in events if isinstance(e, FramesReady)], axis=1)
    np.testing.assert_array_equal(found, plain)


def test_several_rows_stream_as_one_does(networks: Networks, picture: Image.Image) -> None:
    prompts = ["a small blue bird takes off", "a red ball bounces"]
    inputs = Inputs(picture, prompts=prompts, videos=2)
    events = list(generate(JOB, networks, inputs))
    found = np.concatenate([e.frames for e in events if isinstance(e, FramesReady)], axis=1)
    assert found.shape == (4, 20, 32, 48, 3)
    # Rows are computed together, in another order of float32 sums than alone.
    alone = frames_of(JOB, networks, picture)
    assert np.abs(found[:1].astype(int) - alone).max() <= 1


def test_a_want_of_memory_is_one_sentence_with_its_place(networks: Networks, picture: Image.Image) -> None:
    def wrap(velocity: Any) -> Any:
        def greedy(latents: Any, sigma: float) -> Any:
            raise MemoryError

        return greedy

    events = generate(JOB, networks, Inputs(picture), wrap=wrap)
    with pytest.raises(MemoryRunError, match="not enough memory for step 1 of section 2") as caught:
        list(events)
    assert (caught.value.section, caught.value.step) == (2, 0)


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_every_solver_runs_and_the_default_is_the_schedulers(
    solver: str, networks: Networks, picture: Image.Image
) -> None:
    job = replace(JOB, frames=5, steps=4)
    asked = frames_of(replace(job, solver=solver), networks, picture)
    assert np.array_equal(asked, frames_of(job, networks, picture)) == (solver == "euler")


def test_a_shift_of_the_job_wins_over_the_schedulers(networks: Networks, picture: Image.Image) -> None:
    def levels(shift: float | None) -> list[float]:
        events = generate(replace(JOB, frames=5, shift=shift), networks, Inputs(picture), convert=None)
        return [event.sigma for event in events if isinstance(event, Stepped)]

    assert levels(None) == pytest.approx([1.0, 0.875])
    assert levels(7.0) == levels(None)
    assert levels(1.0) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 50}, "multiple of 16"),
        ({"frames": 0}, "frames"),
        ({"sampling": "sideways"}, "sideways"),
        ({"solver": "magic"}, "magic"),
    ],
)
def test_a_bad_request_is_one_sentence(
    changes: dict[str, Any], words: str, networks: Networks, picture: Image.Image
) -> None:
    with pytest.raises(JobError, match=words):
        events_of(replace(JOB, **changes), networks, picture)


def test_a_last_picture_needs_inverted_sampling(networks: Networks, picture: Image.Image) -> None:
    with pytest.raises(JobError, match="inverted"):
        events_of(replace(JOB, sampling="vanilla"), networks, picture, picture)


def test_a_picture_alone_is_no_inputs(networks: Networks, picture: Image.Image) -> None:
    with pytest.raises(JobTypeError, match=r"write Inputs\(picture=…\)"):
        generate(JOB, networks, picture)  # type: ignore[arg-type]


def test_a_model_that_needs_a_picture_begins_with_black_and_says_so(networks: Networks) -> None:
    job = replace(JOB, frames=5, steps=1)
    with pytest.warns(LongtakeWarning, match="begins with plain black"):
        found = frames_of(job, networks)
    np.testing.assert_array_equal(found, frames_of(job, networks, Image.new("RGB", (48, 32))))
    with pytest.raises(JobError, match="reference begins with a picture"):
        events_of(replace(job, reference=True), networks)
    with pytest.raises(JobError, match="was not trained to"):
        events_of(replace(job, from_text=True), networks)


def test_a_model_without_a_size_takes_the_bucket_nearest_to_the_picture(networks: Networks) -> None:
    def size_of(job: Job, networks: Networks, picture: Any) -> tuple[int | None, int | None]:
        job = settled(job, networks, picture)
        return job.width, job.height

    picture = Image.new("RGB", (100, 100))
    assert size_of(JOB, networks, picture) == (48, 32)
    assert size_of(JOB, replace(networks, settings={}), picture) == (608, 640)
    assert size_of(replace(JOB, width=64, height=96), networks, picture) == (64, 96)
    assert replace(networks, settings={}).default_size == (832, 480)


def test_networks_are_saved_and_loaded(networks: Networks, picture: Image.Image, tmp_path: Any) -> None:
    save_networks(networks, tmp_path, "HunyuanVideoFramepackPipeline")
    loaded = load_networks(tmp_path)
    assert loaded.default_size == (48, 32)
    assert loaded.scheduler.shift == 7.0
    job = replace(JOB, frames=5, steps=1)
    again, before = frames_of(job, loaded, picture), frames_of(job, networks, picture)
    # Mapped weights lie otherwise in memory, which changes the order of float32 sums.
    assert np.abs(again.astype(int) - before).max() <= 1
    half = load_networks(
        tmp_path, {"default": "float32", "transformer": "float16"}, given={"vae": networks.vae}
    )
    found = [runtime.dtype_name(network.dtype) for network in (half.transformer, half.text_encoder)]
    assert found == ["float16", "float32"]
    assert half.vae is networks.vae
    assert frames_of(job, half, picture).shape == (1, 5, 32, 48, 3)


def test_a_part_that_does_not_exist_is_refused(networks: Networks, tmp_path: Any) -> None:
    save_networks(networks, tmp_path, "HunyuanVideoFramepackPipeline")
    with pytest.raises(ModelError, match="unet"):
        load_networks(tmp_path, given={"unet": networks.vae})


def test_the_reference_switch_makes_the_references_sections_and_never_cuts(
    networks: Networks, picture: Image.Image
) -> None:
    # ceil(12 / 5) = 3 sections, where 2 would do.
    events = events_of(replace(JOB, frames=12, reference=True), networks, picture)
    planned = events[0]
    assert isinstance(planned, Planned)
    assert (planned.sections, planned.frames) == (3, 25)
    assert planned.notice is not None
    assert isinstance(events[-1], FramesReady)
    assert events[-1].frames.shape[1] == 25


def test_a_crossfade_ends_in_either_side() -> None:
    earlier, later = ops.zeros(1, 1, 5, 1, 1), ops.ones(1, 1, 5, 1, 1)
    joined = ops.to_numpy(crossfade(earlier, later, 3)).reshape(-1).tolist()
    assert joined == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0]


def test_a_seed_of_one_section_draws_for_every_row(networks: Networks, picture: Image.Image) -> None:
    job = replace(JOB, frames=9, sampling="vanilla", changes=(SectionChange(0, seed=77),))
    inputs = Inputs(picture, prompts=["a red ball bounces"] * 2)
    (done,) = (event for event in generate(job, networks, inputs) if isinstance(event, SectionDone))
    assert done.latents.shape[0] == 2
    assert not np.allclose(done.latents[0], done.latents[1])


def test_a_stream_without_a_lora_does_not_see_that_of_another(
    networks: Networks, picture: Image.Image, tmp_path: Any
) -> None:
    width = networks.transformer.config.num_attention_heads * networks.transformer.config.attention_head_dim
    rng = np.random.default_rng(0)
    tensors = {
        f"transformer.transformer_blocks.0.attn.to_q.lora_{side}.weight": rng.standard_normal(
            shape, np.float32
        )
        for side, shape in (("A", (2, width)), ("B", (width, 2)))
    }
    save_file(tensors, tmp_path / "strong.safetensors")
    plain = replace(JOB, frames=9, steps=2)
    strong = replace(plain, loras=(Lora(str(tmp_path / "strong.safetensors"), (3.0,)),))
    alone = [frames_of(job, networks, picture) for job in (plain, strong)]
    assert not np.array_equal(*alone)
    streams = [generate(job, networks, Inputs(picture)) for job in (plain, strong)]
    found: list[list[np.ndarray]] = [[], []]
    for events in zip(*streams, strict=True):
        for frames, event in zip(found, events, strict=True):
            frames += [event.frames] if isinstance(event, FramesReady) else []
    for stream in streams:
        stream.close()
    for frames, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(np.concatenate(frames, axis=1), expected)
