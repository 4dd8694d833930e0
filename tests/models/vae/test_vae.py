"""The autoencoder's own behaviour; tests/oracle/test_vae.py holds it against diffusers."""

import numpy as np
import pytest

from longtake.backend import nn, ops, runtime
from longtake.errors import JobError, ModelError
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.models.vae.causal import CausalAttention
from longtake.models.vae.halves import scalings
from longtake.models.vae.tiles import blend

TINY = {
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
}


@pytest.fixture(scope="module")
def vae(filled):
    return filled(AutoencoderKLHunyuanVideo(**TINY))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def through(function, array):
    """An array to an array."""
    with runtime.no_grad():
        return ops.to_numpy(function(ops.from_numpy(array)))


def mean(vae, frames):
    return through(lambda x: vae.encode(x).latent_dist.mean, frames)


def decoded(vae, latents):
    return through(lambda z: vae.decode(z).sample, latents)


@pytest.mark.parametrize("frames", [1, 5, 17, 33, 41])
def test_eight_pixels_and_four_frames_become_one_latent(vae, frames):
    latents = mean(vae, noise(1, 3, frames, 24, 40))
    assert latents.shape == (1, 4, 1 + frames // 4, 3, 5)
    assert decoded(vae, latents).shape == (1, 3, frames, 24, 40)


def test_frames_do_not_depend_on_later_ones_within_a_tile(vae):
    # Group norms look over time, so causality is tested where there are none: in the convolutions and the attention.
    latents = noise(1, 4, 4, 3, 5)
    changed = latents.copy()
    changed[:, :, 3] += 1
    before, after = (through(vae.decoder.conv_in, each) for each in (latents, changed))
    np.testing.assert_array_equal(before[:, :, :3], after[:, :, :3])


def test_attention_sees_the_same_and_earlier_frames_only(filled):
    attention = filled(CausalAttention(8, 2))
    attention.group_norm.factors = lambda clip, memory=None: [
        (ops.ones(1, 8, 1, 1, 1), ops.zeros(1, 8, 1, 1, 1))
    ]
    x = noise(2, 8, 3, 2, 2)
    changed = x.copy()
    changed[:, :, 2] += 1
    before, after = (through(lambda each: attention([each])[0], array) for array in (x, changed))
    # Another number of keys may be summed in another order.
    np.testing.assert_allclose(before[:, :, :2], after[:, :, :2], rtol=1e-6, atol=1e-6)
    assert not np.allclose(before[:, :, 2], after[:, :, 2])


def test_a_picture_is_a_clip_that_stands_still(vae):
    conv = vae.encoder.conv_in
    picture = noise(1, 3, 1, 16, 16)
    single, still = through(conv, picture), through(conv, picture.repeat(3, axis=2))
    np.testing.assert_allclose(single, still[:, :, :1], rtol=1e-5, atol=1e-6)


def test_slicing_gives_the_same_result(vae):
    x = noise(3, 3, 5, 16, 16)
    whole = mean(vae, x)
    vae.enable_slicing()
    sliced = mean(vae, x)
    vae.disable_slicing()
    # The same sums in another order.
    np.testing.assert_allclose(whole, sliced, rtol=1e-5, atol=2e-6)


def test_the_posterior_takes_noise_or_a_generator(vae):
    with runtime.no_grad():
        posterior = vae.encode(ops.from_numpy(noise(1, 3, 1, 16, 16))).latent_dist
    drawn = noise(1, 4, 1, 2, 2, seed=1)
    expected = ops.to_numpy(posterior.mean) + ops.to_numpy(posterior.std) * drawn
    found = ops.to_numpy(posterior.sample(noise=ops.from_numpy(drawn)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    one, two = (ops.to_numpy(posterior.sample(runtime.seeded(3))) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_blend_fades_from_one_tile_to_the_next():
    before, tile = ops.zeros(1, 1, 4, 1, 1), ops.ones(1, 1, 6, 1, 1)
    faded = ops.to_numpy(blend(before, tile, 4, 2)).reshape(-1)
    assert faded.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    np.testing.assert_array_equal(ops.to_numpy(blend(before, tile, 0, 2)), ops.to_numpy(tile))


def test_space_changes_first_and_time_last(vae):
    assert scalings(vae.config) == [(1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 1, 1)]


def test_another_time_ratio_is_refused():
    with pytest.raises(ModelError, match="temporal_compression_ratio must be 4"):
        AutoencoderKLHunyuanVideo(**TINY, temporal_compression_ratio=8)


def test_tiles_of_space_are_near_to_whole_frames(vae):
    latents = noise(1, 4, 1, 8, 8)
    whole = decoded(vae, latents)
    vae.enable_tiling(48, 48, 16, 32, 32, 12)
    tiled = decoded(vae, latents)
    vae.disable_tiling()
    assert tiled.shape == whole.shape
    assert not np.array_equal(tiled, whole)  # the norms see one tile


def test_the_published_attributes_choose_the_tiles(filled):
    vae, asked = filled(AutoencoderKLHunyuanVideo(**TINY)), filled(AutoencoderKLHunyuanVideo(**TINY))
    latents = noise(1, 4, 2, 8, 8)
    whole = decoded(vae, latents)
    asked.enable_tiling(48, 48, 16, 32, 32, 12)
    vae.tile_sample_min_height = vae.tile_sample_min_width = 48
    vae.tile_sample_stride_height = vae.tile_sample_stride_width = 32
    np.testing.assert_array_equal(decoded(vae, latents), whole)  # sizes alone tile nothing
    vae.use_tiling = True
    np.testing.assert_array_equal(decoded(vae, latents), decoded(asked, latents))
    assert not np.array_equal(decoded(vae, latents), whole)
    assert (asked.tile_sample_min_height, asked.tile_sample_stride_num_frames) == (48, 12)


def test_without_frame_wise_work_the_norms_see_the_whole_video(filled):
    vae, uncut = filled(AutoencoderKLHunyuanVideo(**TINY)), filled(AutoencoderKLHunyuanVideo(**TINY))
    uncut.tile_sample_min_num_frames = uncut.tile_sample_stride_num_frames = 400
    latents, frames = noise(1, 4, 7, 2, 2), noise(1, 3, 25, 16, 16)
    tiled, tiled_mean = decoded(vae, latents), mean(vae, frames)
    vae.use_framewise_decoding = vae.use_framewise_encoding = False
    np.testing.assert_array_equal(decoded(vae, latents), decoded(uncut, latents))
    np.testing.assert_array_equal(mean(vae, frames), mean(uncut, frames))
    assert not np.array_equal(decoded(vae, latents), tiled)
    assert not np.array_equal(mean(vae, frames), tiled_mean)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("tile_sample_min_height", 30, "multiples of 8 along height; 30"),
        ("tile_sample_min_width", 64, "Tiles of 64 every 192 along width leave gaps"),
        ("tile_sample_stride_num_frames", 0, "multiples of 4 along frames; 0"),
        ("tile_sample_stride_num_frames", 12.0, "12.0 was asked for"),
    ],
)
def test_tiles_that_cannot_be_cut_are_refused(name, value, words, filled):
    vae = filled(AutoencoderKLHunyuanVideo(**TINY))
    vae.enable_tiling()
    setattr(vae, name, value)
    with pytest.raises(JobError, match=words):
        decoded(vae, noise(1, 4, 1, 2, 2))


def test_accelerates_hook_is_asked_before_frames_are_made(filled, torch_only):
    hooks = pytest.importorskip("accelerate.hooks")
    brought = []

    class Bringing(hooks.ModelHook):
        def pre_forward(self, module, *args, **kwargs):
            brought.append(module)
            return args, kwargs

    vae = filled(AutoencoderKLHunyuanVideo(**TINY))
    hooks.add_hook_to_module(vae, Bringing())
    decoded(vae, mean(vae, noise(1, 3, 1, 16, 16)))
    assert brought == [vae, vae]


@pytest.mark.parametrize("frames", [1, 9, 21])
def test_a_hook_on_any_layer_takes_effect(frames, filled):
    vae = filled(AutoencoderKLHunyuanVideo(**TINY))
    pixels = noise(1, 3, frames, 24, 16)
    latents = mean(vae, pixels)
    video = decoded(vae, latents)
    called = set()
    layers = [
        (name, each) for name, each in vae.named_modules() if not isinstance(each, nn.ModuleList) and name
    ]
    for name, layer in layers:
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    # Sums in another order: clips are not cut, enlargement comes before its convolution. Without AVX-512 they are up to
    # 1.7e-5 apart.
    np.testing.assert_allclose(mean(vae, pixels), latents, rtol=1e-4, atol=3e-5)
    np.testing.assert_allclose(decoded(vae, latents), video, rtol=1e-4, atol=3e-5)
    assert called == {name for name, _ in layers}
