"""Where the transformer's training starts."""

import numpy as np
import torch

from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.toy.initialise import initialise, normal, spread

TINY = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "text_embed_dim": 24,
    "pooled_projection_dim": 12,
    "rope_axes_dim": (4, 6, 6),
    "has_image_proj": False,
}


def test_the_same_seed_gives_the_same_weights() -> None:
    models = [Transformer(**TINY) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        initialise(model, seed)
    one, same, other = (model.state_dict() for model in models)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["x_embedder.proj.weight"], other["x_embedder.proj.weight"])


def test_blocks_begin_as_the_identity_and_the_velocity_as_zero() -> None:
    model = Transformer(**TINY)
    initialise(model, 0)
    with torch.no_grad():
        tokens = model.embed(
            torch.randn(1, 16, 2, 4, 4),
            torch.tensor([500.0]),
            torch.randn(1, 3, 24),
            None,
            torch.randn(1, 12),
            None,
            None,
            None,
        )
        left = model.run_blocks(tokens)
        assert torch.equal(left, tokens.latents)  # without clean frames, the window is all
        assert not model.head(left, tokens).any()


def test_a_packed_kernel_is_the_mean_and_then_the_patch_projection() -> None:
    model = Transformer(**TINY)
    initialise(model, 0)
    latents = torch.randn(1, 16, 4, 8, 8)
    with torch.no_grad():
        packed = model.clean_x_embedder.proj_4x(latents)
        means = torch.nn.functional.avg_pool3d(latents, 4)
        once = torch.nn.functional.conv3d(means, model.x_embedder.proj.weight, stride=(1, 2, 2))
    bias = model.clean_x_embedder.proj_4x.bias[None, :, None, None, None]
    # float32 sums in two orders
    torch.testing.assert_close(packed - bias, once, atol=1e-6, rtol=1e-5)


def test_spread_keeps_the_sum() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 2, 1, 2, 2)).astype(np.float32)
    assert spread(kernel, 2).shape == (3, 2, 2, 4, 4)
    np.testing.assert_allclose(spread(kernel, 2).sum(), kernel.sum(), rtol=1e-5)  # float32 sums


def test_normal_has_its_deviation_and_no_tail() -> None:
    values = normal((200, 500), 0.02, np.random.default_rng(0))
    assert abs(values.std() / 0.02 - 1) < 0.01  # 100,000 draws: the deviation is known to 0.3 %
    assert np.abs(values).max() <= 0.02 * 2 / 0.8796 + 1e-9
