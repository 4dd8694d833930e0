"""The stages: what their batches hold, that a step can be made, on which device, and that they go on exactly."""

import contextlib
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from longtake import toyworld
from longtake.backend import training
from longtake.errors import LongtakeWarning, ModelError
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.plan.lengths import shown_frames
from longtake.plan.plans import PLANS, inverted, vanilla
from longtake.sampling.codebooks import Codebook
from longtake.toy import autoencoder, batches, transformer
from longtake.toy.batches import Lesson
from longtake.toy.codes import load_or_fit_codebook
from longtake.toy.pool import Origin, Pool, load_or_make_pool, make_pool
from longtake.toy.scenes import SECTIONS, SHARES, training_scene
from longtake.training.loop import Length, run

CODEBOOK = Codebook({1: np.zeros((1, 4), np.float32)})
TINY_VAE = replace(autoencoder.CONFIG, block_out_channels=(4, 4, 8, 8), latent_channels=4)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(autoencoder, "CONFIG", TINY_VAE)
    monkeypatch.setattr(transformer, "TRANSFORMER", replace(
        transformer.TRANSFORMER, in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
        rope_axes_dim=(4, 2, 2), num_layers=1, num_single_layers=1))  # fmt: skip


@pytest.fixture(scope="module")
def pool():
    """Latents that are their own frame number, so that what a slot reads can be told."""
    frames = 9 * SECTIONS + 1
    latents = np.arange(frames, dtype=np.float16)[None, :, None, None, None] * np.ones(
        (3, 1, 4, 8, 8), np.float16
    )
    ends = -np.ones((3, SECTIONS, 4, 8, 8), np.float16)
    pictures = np.zeros((3, 1 + SECTIONS, 64, 64, 3), np.uint8)
    scenes = [toyworld.random_scene(np.random.default_rng(number)) for number in range(3)]
    return Pool(scenes, np.array([0, 0, 500]), latents, ends, pictures)


@pytest.fixture
def stage(tiny, tmp_path):
    """A transformer stage over a pool of two scenes, as often as it is asked for."""

    def make(folder=tmp_path, **options):
        torch.manual_seed(0)
        vae = AutoencoderKLHunyuanVideo(TINY_VAE)
        pool, origin = load_or_make_pool(folder, vae, 0, 2, 64)
        codebook = load_or_fit_codebook(folder, pool, origin, 1.0)
        return transformer.TransformerStage(
            folder, vae, pool, origin, codebook, lambda *_: {}, batch=2, **options
        )

    return make


def numbers(latents):
    return latents[:, 0, :, 0, 0].tolist()


def test_a_batch_reads_the_frames_that_the_plan_names(pool):
    sections = [vanilla(3)[2], inverted(3)[0]]
    lessons = tuple(Lesson(row, section) for row, section in enumerate(sections))
    rows = batches.clean_rows(pool, lessons, 0.5)
    assert numbers(rows.window) == [[n / 2 for n in section.frames] for section in sections]
    assert rows.window_times.tolist() == [list(section.times) for section in sections]
    (clean, clean_times), (double, _), (quadruple, _) = (rows.clean[scale] for scale in (1, 2, 4))
    assert numbers(clean) == [
        [0, 9],
        [0, 0],
    ]  # the inverted plan's first section sees nothing behind it: zeros
    assert numbers(double) == [[8, 8.5], [0, 0]]
    assert quadruple.shape == (2, 4, 16, 8, 8)
    assert clean_times.tolist() == [list(section.slots[1].times) for section in sections]


def test_an_end_picture_is_the_latent_of_the_frame_behind_the_end(pool):
    rows = batches.clean_rows(pool, (Lesson(2, inverted(2, end=True)[0], end=1),), 1.0)
    assert numbers(rows.clean[1][0]) == [[0, -1]]


def test_training_scenes_are_of_every_variant_near_and_far():
    drawn = [training_scene(0, number) for number in range(300)]
    assert sum(SHARES.values()) == pytest.approx(1)
    assert 60 < sum(start > 0 for _, start in drawn) < 140
    assert {"pan", "light", "guest"} <= {
        name for scene, _ in drawn for name in vars(scene.extras) if getattr(scene.extras, name)
    }
    for scene, start in drawn:
        events = [frame for frame, _ in scene.then] + [scene.extras.hidden_at] * (scene.extras.hidden_for > 0)
        assert all(start < frame < start + 36 * SECTIONS for frame in events)


def test_a_section_is_told_what_its_middle_shows(pool):
    scene = replace(pool.scenes[0], motion="bounces", then=((37, "stays still"),))
    changed = replace(pool, scenes=[scene, *pool.scenes[1:]])
    batch = batches.draw_batch(
        changed,
        "vanilla",
        np.zeros(30, int),
        np.full(30, 0.5, np.float32),
        1.0,
        np.random.default_rng(1),
        batches.blurred,
    )
    for lesson, text in zip(batch.lessons, batch.prompts, strict=True):
        still = any(word in text for word in ("still", "not move", "standing"))
        made = lesson.section.frames
        middle = shown_frames(made[len(made) // 2])
        assert not text or still == (middle[len(middle) // 2] >= 37), text


def test_scenes_are_all_seen_before_any_comes_again():
    seen = np.concatenate([batches.rows_at(step, 10, 4, seed=0) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    few = np.concatenate([batches.rows_at(step, 3, 7, seed=0) for step in range(3)])
    assert all(sorted(few[lap : lap + 3]) == [0, 1, 2] for lap in range(0, 21, 3))


def test_the_mix_has_every_kind_of_plan_and_adds_up():
    structures = {kind.structure: name for name, kind in PLANS.items()}
    learned = {PLANS[name].structure for name in batches.SHARES if name != batches.PICTURE}
    assert learned == set(structures)
    assert sum(batches.SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", batches.SHARES)
def test_every_kind_of_plan_is_learned_from_what_the_pool_has(pool, kind):
    rng = np.random.default_rng(0)
    for _ in range(20):
        level = np.full(3, 0.5, np.float32)
        batch = batches.draw_batch(pool, kind, np.arange(3), level, 1.0, rng, batches.blurred)
        assert batch.seen.window.shape[0] == len(batch.prompts) == 3
        assert all(batch.prompts) or kind != batches.PICTURE  # nothing else says what the picture shows
        far = batch.lessons[2].section
        # Far from the picture, nothing near it is seen or made.
        near = {f for slot in far.slots.values() for f in slot.frames if f is not None} - {0}
        assert kind == batches.PICTURE or min(near | set(far.frames)) > batches.FAR - 19


def test_some_groups_have_shorter_or_longer_sections(pool):
    rng, level = np.random.default_rng(0), np.full(3, 0.5, np.float32)
    windows = [
        batches.draw_batch(
            pool, "inverted", np.arange(3), level, 1.0, rng, batches.blurred
        ).seen.window.shape[2]
        for _ in range(60)
    ]
    assert 30 < windows.count(9) < 58
    assert min(windows) >= batches.WINDOWS[0] and max(windows) <= batches.WINDOWS[1]


def test_a_step_is_made_of_groups_at_levels_that_are_evenly_spread(pool):
    rng = np.random.default_rng(0)
    step = batches.draw_step(pool, np.array([0, 1, 2, 0, 1, 2]), 1.0, rng, CODEBOOK)
    assert [len(batch.lessons) for batch in step] == [2, 2, 2]
    levels = np.sort(np.concatenate([batch.level for batch in step]))
    assert (np.searchsorted(batches.shifted(np.arange(7) / 6), levels) == np.arange(1, 7)).all()


def test_some_groups_see_a_discrete_history(pool):
    rng = np.random.default_rng(0)
    seen = [batches.draw_treatment(CODEBOOK, rng) for _ in range(60)]
    discrete = [treat for treat in seen if treat is not batches.blurred]
    assert 2 < len(discrete) < 20
    latents = np.ones((1, 4, 2, 1, 1), np.float32)
    found = discrete[0](latents, np.array([[False, True]]), rng)
    assert found[0, :, :, 0, 0].tolist() == [[1.0, 0.0]] * 4  # the one code is zero; what is given stays


def test_the_codebook_is_fitted_once_for_each_autoencoder(pool, tmp_path):
    origin = Origin(0, 3, 64, "one")
    noisy = replace(pool, latents=pool.latents + np.random.default_rng(0).standard_normal(pool.latents.shape))
    first = load_or_fit_codebook(tmp_path, noisy, origin, 0.5)
    # 8832 pixels of 4 channels: more codes would learn them by heart, and 8 groups are more than there are channels.
    assert set(first.pairs) == {(1, 1), (16, 1), (256, 1), (256, 4)}
    left = [first.left[pair] for pair in ((256, 4), (256, 1), (16, 1), (1, 1))]
    assert left == sorted(left)
    again = load_or_fit_codebook(tmp_path, pool, origin, 0.5)
    assert all((again.pairs[pair] == codes).all() for pair, codes in first.pairs.items())
    other = load_or_fit_codebook(tmp_path, noisy, replace(origin, encoder="two"), 1.0)
    assert other.facts["encoder"] == "two"
    assert other.codes[1].mean() == pytest.approx(2 * first.codes[1].mean(), rel=0.1)


def test_history_noise_leaves_alone_what_is_given_and_what_is_not_there():
    latents = np.ones((1, 4, 2, 2, 2), np.float32)
    found = batches.blurred(latents, np.array([[False, True]]), np.random.default_rng(0))
    assert (found[:, :, 0] == 1).all()
    assert 0 < np.abs(found[:, :, 1] - 1).max() < 1


def test_levels_move_towards_noise():
    assert batches.shifted(np.array([0.0, 0.5, 1.0])).tolist() == pytest.approx([0, 2 / 3, 1])


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.9])
def test_a_step_of_the_autoencoder_has_a_finite_gradient(tiny, progress):
    stage = autoencoder.AutoencoderStage(batch=2)
    loss, parts = stage.loss(np.random.default_rng(0), progress)
    loss.backward()
    assert np.isfinite(parts["psnr"])
    assert all(torch.isfinite(p.grad).all() for p in stage.vae.parameters() if p.grad is not None)


def test_the_decoder_stage_leaves_the_encoder_alone(tiny):
    stage = autoencoder.DecoderStage(AutoencoderKLHunyuanVideo(TINY_VAE), batch=2)
    stage.loss(np.random.default_rng(0), 0.0)[0].backward()
    assert all(p.grad is None for p in stage.vae.encoder.parameters())
    assert any(p.grad is not None for p in stage.vae.decoder.parameters())


def test_a_step_of_the_transformer_reaches_every_network(stage):
    made = stage()
    # The last layer starts at zero and lets no gradient through.
    torch.nn.init.normal_(made.transformer.proj_out.weight)
    loss, parts = made.loss(np.random.default_rng(0), 0.0)
    loss.backward()
    assert parts and set(parts) <= {"low", "high"}
    for name, network in made.networks.items():
        assert any(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters()), name


def test_training_text_is_what_the_pipeline_reads(stage):
    """The states that the transformer learns from are those that it is given later."""
    from longtake.pipeline.encode import encode_text

    made = stage()
    prompts = ["", toyworld.prompt(made.pool.scenes[1], np.random.default_rng(3))]
    with torch.no_grad():
        states, mask, pooled = made.read(prompts)
        text = encode_text(made.model(), prompts)
    for row in (0, 1):
        count = int(mask[row].sum())
        assert count == int(text.mask[row].sum())
        # bfloat16 in training, float32 in the pipeline.
        torch.testing.assert_close(states[row, :count], text.states[row, :count], rtol=0.05, atol=0.05)
    torch.testing.assert_close(pooled, text.pooled, rtol=0.05, atol=0.05)


def test_a_transformer_that_was_stopped_goes_on_exactly(stage, tmp_path):
    """Scenes that come new into the pool included: at the sixth step there is one that the pool was not made with."""
    length = Length(steps=transformer.FRESH_EVERY + 2)
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    for folder in (whole, halved):
        folder.mkdir()
    one = stage(whole)
    run(one, whole, length)

    stopped = stage(halved)
    draw = stopped.draw
    stopped.draw = lambda rng: draw(rng) if stopped.steps <= transformer.FRESH_EVERY else 1 / 0
    with pytest.raises(ZeroDivisionError):
        run(stopped, halved, length, report_every=0)
    two = stage(halved)
    run(two, halved, length)
    assert two.pool.scenes == one.pool.scenes != [training_scene(0, number)[0] for number in range(2)]
    for name, array in one.pool.arrays().items():
        np.testing.assert_array_equal(array, two.pool.arrays()[name])
    for name, network in one.networks.items():
        for (key, mine), other in zip(
            network.named_parameters(), two.networks[name].parameters(), strict=True
        ):
            assert torch.equal(mine, other), f"{name}.{key}"


def test_a_pool_is_used_again_by_those_alone_that_would_make_the_same(tiny, tmp_path):
    torch.manual_seed(0)
    vae, other = (AutoencoderKLHunyuanVideo(TINY_VAE) for _ in range(2))
    first, origin = load_or_make_pool(tmp_path, vae, 0, 2, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Another decoder makes the same latents.
        torch.nn.init.zeros_(vae.decoder.conv_in.conv.weight)
        again, same = load_or_make_pool(tmp_path, vae, 0, 2, 64)
    assert same == origin and again.scenes == first.scenes
    np.testing.assert_array_equal(again.latents, first.latents)
    for maker, seed, said in ((vae, 1, "seed 0 in place of 1"), (other, 1, "another autoencoder")):
        with pytest.warns(LongtakeWarning, match=said):
            made, _ = load_or_make_pool(tmp_path, maker, seed, 2, 64)
        scenes, starts = zip(*(training_scene(seed, number) for number in range(2)), strict=True)
        again = make_pool(maker, scenes, 64, starts=starts)
        np.testing.assert_array_equal(made.latents, again.latents)


def test_a_transformer_goes_on_with_its_own_pool_alone(stage):
    made = stage()
    state = made.state()
    for name in ("batch", "words"):
        with pytest.raises(ModelError, match=f"trained with another {name}"):
            made.load_state({**state, name: 1})
    made.load_state({key: value for key, value in state.items() if key in ("steps", "pool")})  # an older one
    made.origin = replace(made.origin, seed=3)
    with pytest.raises(ModelError, match="seed 0 in place of 3"):
        made.load_state(state)


def test_a_decoder_goes_on_with_its_own_encoder_alone(tiny):
    states = [autoencoder.DecoderStage(AutoencoderKLHunyuanVideo(TINY_VAE)) for _ in range(2)]
    states[0].load_state(states[0].state())
    with pytest.raises(ModelError, match="another encoder"):
        states[0].load_state(states[1].state())


# An accelerator ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cast_on(monkeypatch):
    """The devices that mixed precision was asked for; torch has none on "meta"."""
    asked = []
    monkeypatch.setattr(
        training, "autocast", lambda _, device: asked.append(device) or contextlib.nullcontext()
    )
    return asked


def devices_in(network):
    return {tensor.device.type for tensor in network.parameters()}


def test_every_network_and_batch_is_on_the_device_that_is_trained_on(stage, cast_on):
    """ "meta" stands for the accelerator that is not here: a tensor left on the CPU cannot be computed with there."""
    made = stage(device="meta")
    assert {device for network in made.networks.values() for device in devices_in(network)} == {"meta"}
    assert devices_in(made.vae) == {"meta"}
    (batch, *_) = made.draw(np.random.default_rng(0))
    cast_on.clear()  # the pool was made on the CPU
    assert made.errors(batch).device.type == "meta"
    assert set(cast_on) == {"meta"}


@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_autoencoders_are_on_the_device_that_is_trained_on(tiny, cast_on, progress):
    first = autoencoder.AutoencoderStage(batch=2, device="meta")
    second = autoencoder.DecoderStage(AutoencoderKLHunyuanVideo(TINY_VAE), batch=2, device="meta")
    for made in (first, second):
        assert devices_in(made.vae) == {"meta"}
        assert {part.device.type for part in made.compare(np.random.default_rng(0), progress)} == {"meta"}
    assert set(cast_on) == {"meta"}
