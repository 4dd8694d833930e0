"""The autoencoder's own behaviour; tests/oracle/test_vae.py holds it against diffusers."""

import numpy as np
import pytest
import torch

from longtake.errors import ModelError
from longtake.models.vae import AutoencoderKLHunyuanVideo, CausalAttention, blend, scalings

TINY = {
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
}


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return AutoencoderKLHunyuanVideo(**TINY).eval()


@pytest.mark.parametrize("frames", [1, 5, 17, 33, 41])
def test_eight_pixels_and_four_frames_become_one_latent(vae, frames):
    with torch.no_grad():
        posterior = vae.encode(torch.randn(1, 3, frames, 24, 40)).latent_dist
        assert posterior.mean.shape == (1, 4, 1 + frames // 4, 3, 5)
        assert vae.decode(posterior.mode()).sample.shape == (1, 3, frames, 24, 40)


def test_frames_do_not_depend_on_later_ones_within_a_tile(vae):
    # Group norms look over time, so causality is tested where there are none: in the convolutions and the attention.
    latents = torch.randn(1, 4, 4, 3, 5)
    changed = latents.clone()
    changed[:, :, 3] += 1
    with torch.no_grad():
        conv = vae.decoder.conv_in
        assert torch.equal(conv(latents)[:, :, :3], conv(changed)[:, :, :3])


def test_attention_sees_the_same_and_earlier_frames_only():
    torch.manual_seed(0)
    attention = CausalAttention(8, 2).eval()
    attention.group_norm = torch.nn.Identity()
    x = torch.randn(2, 8, 3, 2, 2)
    changed = x.clone()
    changed[:, :, 2] += 1
    with torch.no_grad():
        before, after = attention(x), attention(changed)
    # Another number of keys may be summed in another order.
    torch.testing.assert_close(before[:, :, :2], after[:, :, :2], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(before[:, :, 2], after[:, :, 2])


def test_a_picture_is_a_clip_that_stands_still(vae):
    conv = vae.encoder.conv_in
    picture = torch.randn(1, 3, 1, 16, 16)
    with torch.no_grad():
        single, still = conv(picture), conv(picture.repeat(1, 1, 3, 1, 1))
    torch.testing.assert_close(single, still[:, :, :1], rtol=1e-5, atol=1e-6)


def test_slicing_gives_the_same_result(vae):
    x = torch.randn(3, 3, 5, 16, 16)
    with torch.no_grad():
        whole = vae.encode(x).latent_dist.mean
        vae.enable_slicing()
        sliced = vae.encode(x).latent_dist.mean
        vae.disable_slicing()
    torch.testing.assert_close(whole, sliced, rtol=1e-5, atol=1e-6)


def test_the_posterior_takes_noise_or_a_generator(vae):
    with torch.no_grad():
        posterior = vae.encode(torch.randn(1, 3, 1, 16, 16)).latent_dist
    noise = torch.randn_like(posterior.mean)
    torch.testing.assert_close(posterior.sample(noise=noise), posterior.mean + posterior.std * noise)
    one, two = (posterior.sample(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)


def test_blend_fades_from_one_tile_to_the_next():
    before, tile = torch.zeros(1, 1, 4, 1, 1), torch.ones(1, 1, 6, 1, 1)
    faded = blend(before, tile, 4, 2).flatten().tolist()
    assert faded == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert torch.equal(blend(before, tile, 0, 2), tile)


def test_space_changes_first_and_time_last(vae):
    assert scalings(vae.config) == [(1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 1, 1)]


def test_another_time_ratio_is_refused():
    with pytest.raises(ModelError, match="temporal_compression_ratio must be 4"):
        AutoencoderKLHunyuanVideo(**TINY, temporal_compression_ratio=8)


def test_tiles_of_space_are_near_to_whole_frames(vae):
    latents = torch.as_tensor(np.random.default_rng(0).normal(size=(1, 4, 1, 8, 8)), dtype=torch.float32)
    with torch.no_grad():
        whole = vae.decode(latents).sample
        vae.enable_tiling(48, 48, 16, 32, 32, 12)
        tiled = vae.decode(latents).sample
        vae.disable_tiling()
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)  # the norms see one tile
