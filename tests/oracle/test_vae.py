"""The autoencoder against diffusers' class with the same weights."""

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo as Stock

from longtake.models.vae import AutoencoderKLHunyuanVideo

TINY = {
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
}
THREE = {
    "down_block_types": ("HunyuanVideoDownBlock3D",) * 3,
    "up_block_types": ("HunyuanVideoUpBlock3D",) * 3,
    "block_out_channels": (4, 8, 12),
    "layers_per_block": 2,
    "norm_num_groups": 2,
}
CONFIGS = [
    TINY,
    {**THREE, "latent_channels": 3},
    {**TINY, "mid_block_add_attention": False, "spatial_compression_ratio": 4},
]
SIZES = [(1, 32, 48, False), (5, 24, 16, False), (17, 16, 24, False), (33, 16, 16, False), (37, 16, 24, False),
         (1, 64, 48, True), (21, 40, 56, True)]  # fmt: skip


def relative(found, truth):
    return float((found - truth).norm() / truth.norm())


@pytest.fixture(scope="module", params=range(len(CONFIGS)))
def pair(request):
    torch.manual_seed(request.param)
    # float64: random norms over a few values amplify rounding a hundredfold, which says nothing about the code.
    stock = Stock(**CONFIGS[request.param]).double().eval()
    ours = AutoencoderKLHunyuanVideo(**CONFIGS[request.param]).double().eval()
    ours.load_state_dict(stock.state_dict())
    return ours, stock


@pytest.mark.parametrize("frames, height, width, tiling", SIZES)
def test_encode_and_decode_equal_diffusers(pair, frames, height, width, tiling):
    ours, stock = pair
    for vae in pair:
        vae.enable_tiling(32, 32, 16, 24, 24, 12) if tiling else vae.disable_tiling()
    x = torch.randn(2, 3, frames, height, width, dtype=torch.float64)
    with torch.no_grad():
        found, truth = ours.encode(x).latent_dist, stock.encode(x).latent_dist
        assert relative(found.mean, truth.mean) < 1e-10
        assert relative(found.std, truth.std) < 1e-10
        assert relative(ours.decode(truth.mode()).sample, stock.decode(truth.mode()).sample) < 1e-10


def test_float32_is_within_1e5(pair):
    ours, stock = (vae.float() for vae in pair)
    x = torch.randn(1, 3, 5, 32, 32)
    with torch.no_grad():
        truth = stock.encode(x).latent_dist.mode()
        assert relative(ours.encode(x).latent_dist.mode(), truth) < 1e-5
        assert relative(ours.decode(truth).sample, stock.decode(truth).sample) < 1e-5
    for vae in pair:
        vae.double()


def test_samples_of_the_posterior_equal_diffusers(pair):
    ours, stock = pair
    x = torch.randn(1, 3, 5, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        found, truth = (
            vae.encode(x).latent_dist.sample(torch.Generator().manual_seed(0)) for vae in (ours, stock)
        )
    assert relative(found, truth) < 1e-10
