"""The two stages: what their batches hold, and that a step can be made."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from longtake import toyworld
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.plan.plans import inverted, vanilla
from longtake.toy import autoencoder, transformer
from longtake.toy.pool import SECTIONS, Pool, batches, gather, make_pool

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
    return Pool(scenes, latents, ends, pictures)


def numbers(latents):
    return latents[:, 0, :, 0, 0].tolist()


def test_a_batch_reads_the_frames_that_the_plan_names(pool):
    sections = [vanilla(3)[2], inverted(3)[0]]
    rows = gather(pool, [0, 1], sections, [None, None], 0.5)
    assert numbers(rows.window) == [[n / 2 for n in section.frames] for section in sections]
    assert rows.window_times.tolist() == [list(section.times) for section in sections]
    (clean, clean_times), (double, _), (quadruple, _) = rows.clean
    assert numbers(clean) == [
        [0, 9],
        [0, 0],
    ]  # the inverted plan's first section sees nothing behind it: zeros
    assert numbers(double) == [[8, 8.5], [0, 0]]
    assert quadruple.shape == (2, 4, 16, 8, 8)
    assert clean_times.tolist() == [list(section.clean.times) for section in sections]


def test_an_end_picture_is_the_latent_of_the_frame_behind_the_end(pool):
    rows = gather(pool, [2], [inverted(2, last_picture=True)[0]], [1], 1.0)
    assert numbers(rows.clean[0][0]) == [[0, -1]]


def test_scenes_are_all_seen_before_any_comes_again():
    drawn = batches(np.random.default_rng(0), 10, 4)
    seen = np.concatenate([next(drawn) for _ in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))


def test_random_sections_come_from_both_plans():
    rng = np.random.default_rng(0)
    drawn = [transformer.draw_section(rng) for _ in range(200)]
    assert {section.times[0] for section, _ in drawn} >= {20, 1, 10, 19, 28}
    assert any(end is not None for _, end in drawn)


def test_history_noise_leaves_what_is_not_there_alone():
    latents = np.zeros((1, 4, 2, 2, 2), np.float32)
    latents[:, :, 1] = 1
    found = transformer.blurred(latents, np.full((1, 1, 1, 1, 1), 0.1, np.float32), np.random.default_rng(0))
    assert not found[:, :, 0].any()
    assert 0 < np.abs(found[:, :, 1] - 1).max() < 1


def test_levels_move_towards_noise():
    assert transformer.shifted(np.array([0.0, 0.5, 1.0])).tolist() == pytest.approx([0, 2 / 3, 1])


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


def test_a_step_of_the_transformer_reaches_every_network(tiny, tmp_path):
    vae = AutoencoderKLHunyuanVideo(TINY_VAE)
    scenes = transformer.scenes_of(0, 2)
    stage = transformer.TransformerStage(tmp_path, vae, make_pool(vae, scenes, 64), lambda *_: {}, batch=2)
    # The last layer starts at zero and lets no gradient through.
    torch.nn.init.normal_(stage.transformer.proj_out.weight)
    loss, parts = stage.loss(np.random.default_rng(0), 0.0)
    loss.backward()
    assert parts and set(parts) <= {"low", "high"}
    for name, network in stage.networks.items():
        assert any(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters()), name


def test_training_text_is_what_the_pipeline_reads(tiny, tmp_path):
    """The states that the transformer learns from are those that it is given later."""
    from longtake.pipeline.encode import encode_text

    vae = AutoencoderKLHunyuanVideo(TINY_VAE)
    stage = transformer.TransformerStage(
        tmp_path, vae, make_pool(vae, transformer.scenes_of(0, 2), 64), lambda *_: {}, batch=2
    )
    rng = np.random.default_rng(3)
    prompts = []
    for row in (0, 1):
        prompts.append(
            "" if rng.random() < transformer.DROPPED_PROMPTS else toyworld.prompt(stage.pool.scenes[row], rng)
        )
    with torch.no_grad():
        states, mask, pooled = stage._text(np.random.default_rng(3), np.array([0, 1]))
        text = encode_text(stage.model(), prompts)
    for row in (0, 1):
        count = int(mask[row].sum())
        assert count == int(text.mask[row].sum())
        # bfloat16 in training, float32 in the pipeline.
        torch.testing.assert_close(states[row, :count], text.states[row, :count], rtol=0.05, atol=0.05)
    torch.testing.assert_close(pooled, text.pooled, rtol=0.05, atol=0.05)
