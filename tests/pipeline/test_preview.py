"""Previews: a linear map from latents to colours, published or fitted, and a section decoded alone."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from longtake import toyworld
from longtake.backend import ops, runtime
from longtake.errors import JobError, ModelError
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.pipeline.decode import decode, from_frames, to_frames
from longtake.pipeline.preview import (
    HUNYUAN_VIDEO,
    Projection,
    colours,
    decoded_alone,
    fit,
    previewer,
    projection_of,
    shown_by,
)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model(channels, **settings):
    """What `projection_of` looks at."""
    return SimpleNamespace(
        vae=SimpleNamespace(config=SimpleNamespace(latent_channels=channels)), settings=settings
    )


# ------------------------------------------------------------------------------------------- the linear map


def test_every_latent_frame_becomes_a_small_picture():
    frames = colours(random(2, 16, 9, 5, 7), HUNYUAN_VIDEO)
    assert frames.shape == (2, 9, 5, 7, 3) and frames.dtype == np.uint8


def test_colours_are_the_matrix_product():
    latents = random(1, 16, 2, 3, 4)
    frames = colours(latents, HUNYUAN_VIDEO)
    signed = latents[0, :, 1, 2, 3] @ HUNYUAN_VIDEO.factors + HUNYUAN_VIDEO.bias
    assert np.abs(frames[0, 1, 2, 3] - (signed + 1) * 127.5).max() <= 0.5
    # Latents of zero are nearly grey: the colours' range is [-1, 1].
    assert np.abs(colours(np.zeros((1, 16, 1, 1, 1)), HUNYUAN_VIDEO).astype(int) - 127.5).max() < 11


def test_colours_out_of_range_are_cut():
    one = Projection(np.ones((1, 3), np.float32), np.zeros(3, np.float32))
    assert colours(np.array([9.0, -9.0]).reshape(1, 1, 2, 1, 1), one).reshape(2, 3).tolist() == [
        [255] * 3,
        [0] * 3,
    ]


def test_zoom_repeats_pixels():
    latents = random(1, 16, 2, 3, 4)
    small, large = colours(latents, HUNYUAN_VIDEO), colours(latents, HUNYUAN_VIDEO, zoom=8)
    assert large.shape == (1, 2, 24, 32, 3)
    assert np.array_equal(large[:, :, 5::8, 2::8], small)


def test_a_latent_pixel_may_become_several():
    # The four pixels of a latent pixel take one channel each, row by row.
    factors = np.repeat(np.eye(4, dtype=np.float32), 3, axis=1)
    frames = colours(
        np.array([-1, -0.5, 0.5, 1]).reshape(1, 4, 1, 1, 1), Projection(factors, np.zeros(12, np.float32))
    )
    assert frames[0, 0, :, :, 0].tolist() == [[0, 64], [191, 255]]


def test_other_latents_are_refused():
    with pytest.raises(ModelError, match="16 channels; the latents have 4"):
        colours(random(1, 4, 1, 2, 2), HUNYUAN_VIDEO)


@pytest.mark.parametrize("detail", [1, 2])
def test_fitting_finds_the_map_that_there_is(detail):
    true = Projection(random(5, 3 * detail**2) * 0.1, random(3 * detail**2, seed=1) * 0.1)
    latents = random(3, 5, 3, 4, 4, seed=2)
    shown = colours(latents, true)
    # Nine frames of which each latent frame's share is the same picture, each pixel twice.
    frames = shown[:, [0, 1, 1, 1, 1, 2, 2, 2, 2]].repeat(2, axis=2).repeat(2, axis=3)
    found = fit(latents, frames, detail)
    # 8-bit pictures are off by 1/255 at the most, and the errors average out over 144 pixels.
    assert np.abs(found.factors - true.factors).max() < 2e-3
    assert np.abs(found.bias - true.bias).max() < 2e-3


def test_what_a_perfect_preview_shows():
    frames = np.zeros((1, 5, 4, 4, 3), np.uint8)
    frames[0, 0, :2, :2] = 255
    frames[0, 1:3, 2:, 2:] = 255  # half of the latent frame's four
    shown = shown_by(frames, 2)
    assert shown.shape == (1, 2, 2, 2, 3)
    assert shown[0, :, :, :, 0].tolist() == [[[1, -1], [-1, -1]], [[-1, -1], [-1, 0]]]


# -------------------------------------------------------------------------------------- which map of a model


def test_settings_come_first_then_what_is_published():
    own = Projection(random(16, 3), random(3))
    found = projection_of(model(16, latent_rgb=own.to_settings(digits=8)))
    assert np.allclose(found.factors, own.factors, atol=1e-7) and np.allclose(found.bias, own.bias, atol=1e-7)
    assert projection_of(model(16)) is HUNYUAN_VIDEO
    assert projection_of(model(4)) is None
    with pytest.raises(ModelError, match="for 16 channels; its autoencoder has 4"):
        projection_of(model(4, latent_rgb=own.to_settings()))


@pytest.mark.parametrize(
    "values",
    [
        None,
        {},
        {"factors": [[1, 2, 3]]},
        {"factors": [[1, 2, 3]], "bias": [1]},
        {"factors": [[1, 2, 3], [1]], "bias": [1, 2, 3]},
        {"factors": [[1] * 6], "bias": [1] * 6},
        {"factors": [["a", "b", "c"]], "bias": [1, 2, 3]},
        {"factors": [[]], "bias": []},
    ],
)
def test_settings_that_are_no_projection(values):
    with pytest.raises(ModelError, match="latent_rgb of the model's settings"):
        Projection.of(values)


def test_previews_are_chosen_by_name(networks):
    with pytest.raises(JobError, match="No preview 'best'"):
        previewer(networks, "best")
    with pytest.raises(JobError, match="4 channels; ask for the preview"):
        previewer(networks, "rgb")
    own = dataclasses.replace(
        networks, settings={"latent_rgb": Projection(random(4, 12), random(12)).to_settings()}
    )
    assert previewer(own, "rgb")(random(1, 4, 2, 4, 6)).shape == (1, 2, 8, 12, 3)
    assert previewer(networks, "decode")(random(1, 4, 2, 4, 6)).shape == (1, 8, 32, 48, 3)


def test_a_section_is_decoded_alone(networks):
    latents = random(1, 4, 2, 4, 6)
    frames = decoded_alone(networks.vae, latents)
    assert frames.shape == (1, 8, 32, 48, 3) and frames.dtype == np.uint8
    held = np.concatenate([latents[:, :, :1], latents], axis=2)
    assert np.array_equal(frames, to_frames(decode(networks.vae, held))[:, 1:])


def test_the_embedded_model_shows_what_is_there():
    from longtake.config import read_json
    from longtake.weights.folder import find_model

    place = find_model("embedded")
    projection = Projection.of(read_json(place / "model_index.json")["_longtake"]["latent_rgb"])
    assert projection.factors.shape == (32, 12) and projection.detail == 2
    vae = AutoencoderKLHunyuanVideo.from_pretrained(place, subfolder="vae", dtype="float32")
    scene = toyworld.scene_from_text("a blue bird flies over the grass")
    frames = toyworld.render(scene, range(9), 64, 64)[None]
    with runtime.no_grad():
        mean = ops.to_numpy(vae.encode(ops.from_numpy(from_frames(frames))).latent_dist.mean)
    errors = colours(mean * vae.config.scaling_factor, projection) / 127.5 - 1 - shown_by(frames, 16)
    # 23.3 dB over 28 held-out scenes (benchmarks/latent_rgb.py); without the scaling factor it is 15 dB.
    assert 10 * np.log10(4 / np.mean(errors**2)) > 20
