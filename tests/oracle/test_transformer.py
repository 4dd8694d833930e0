"""The packed transformer against diffusers'."""

from typing import Any

import pytest
import torch

from longtake.backend import runtime
from longtake.config import PUBLISHED
from longtake.models.layers import sinusoid
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer

diffusers = pytest.importorskip("diffusers")

TINY: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 2,
    "in_channels": 4,
    "out_channels": 4,
    "text_embed_dim": 24,
    "pooled_projection_dim": 12,
    "rope_axes_dim": (4, 6, 6),
    "image_proj_dim": 20,
    "has_image_proj": True,
    "has_clean_x_embedder": True,
}
CONFIGS: list[dict[str, Any]] = [
    {},
    {
        "num_attention_heads": 3,
        "attention_head_dim": 24,
        "rope_axes_dim": (8, 8, 8),
        "num_layers": 1,
        "mlp_ratio": 2.5,
    },
    {"guidance_embeds": False, "out_channels": 6, "num_refiner_layers": 1, "rope_theta": 100.0},
    {"qk_norm": None, "num_single_layers": 0},
]
# (batch, height, width, text tokens, valid tokens of each row): sides even, most not divisible by 4 or 8.
SHAPES = [
    (1, 8, 8, 7, [5]),
    (1, 6, 10, 7, [7]),
    (1, 2, 14, 3, [1]),
    (2, 10, 6, 9, [9, 3]),
    (3, 4, 2, 9, [2, 8, 5]),
    (2, 8, 16, 5, [3, 3]),
]


def twins(changes: dict[str, Any], dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    torch.manual_seed(0)
    reference = diffusers.HunyuanVideoFramepackTransformer3DModel(**{**TINY, **changes}).eval()
    for parameter in reference.parameters():
        # Norms of 1 and small biases would hide mistakes.
        parameter.data += 0.1 * torch.randn_like(parameter)
    ours = Transformer(reference.config).eval()
    ours.load_state_dict(reference.state_dict())
    return reference.to(dtype), ours.to(dtype)


def inputs(
    batch: int, height: int, width: int, text: int, counts: list[int], dtype: torch.dtype
) -> dict[str, Any]:
    source = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=source).to(dtype)

    return {
        "hidden_states": noise(batch, 4, 9, height, width),
        "timestep": torch.rand(batch, generator=source) * 1000,
        "encoder_hidden_states": noise(batch, text, 24),
        "encoder_attention_mask": (torch.arange(text) < torch.tensor(counts)[:, None]).long(),
        "pooled_projections": noise(batch, 12),
        "image_embeds": noise(batch, 5, 20),
        "indices_latents": torch.arange(20, 29),
        "guidance": torch.full((batch,), 6000.0),
        "latents_clean": noise(batch, 4, 2, height, width),
        "indices_latents_clean": torch.tensor([0, 19]),
        "latents_history_2x": noise(batch, 4, 2, height, width),
        "indices_latents_history_2x": torch.tensor([17, 18]),
        "latents_history_4x": noise(batch, 4, 16, height, width),
        "indices_latents_history_4x": torch.arange(1, 17),
    }


def error(changes: dict[str, Any], shape: tuple[int, int, int, int, list[int]], **other: Any) -> float:
    dtype = other.pop("dtype", torch.float32)
    reference, ours = twins(changes, dtype)
    arguments = {**inputs(*shape, dtype), **other}
    with torch.no_grad():
        expected, found = reference(**arguments).sample.float(), ours(**arguments).sample.float()
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("changes", CONFIGS)
def test_equals_diffusers(changes: dict[str, Any], shape: tuple[int, int, int, int, list[int]]) -> None:
    # Sums in another order; the limit for networks.
    assert error(changes, shape) < 1e-5


@pytest.mark.parametrize("frames", [1, 3, 17])
def test_equals_diffusers_where_history_does_not_fill_a_kernel(frames: int) -> None:
    history = torch.randn(2, 4, frames, 6, 10, generator=torch.Generator().manual_seed(2))
    times = torch.arange(frames)
    slots = {
        "latents_history_2x": history,
        "indices_latents_history_2x": times,
        "latents_history_4x": history,
        "indices_latents_history_4x": times,
    }
    assert error({}, (2, 6, 10, 7, [7, 4]), **slots) < 1e-5


def test_equals_diffusers_in_inverted_order_far_from_the_start() -> None:
    # The layout of a first inverted section with paddings: the window stands before the clean frames.
    slots = {
        "indices_latents": torch.arange(28, 37),
        "indices_latents_clean": torch.tensor([0, 37]),
        "indices_latents_history_2x": torch.arange(38, 40),
        "indices_latents_history_4x": torch.arange(40, 56),
    }
    assert error({}, (1, 6, 10, 7, [5]), **slots) < 1e-5


@pytest.mark.parametrize("shape", SHAPES[:4])
def test_follows_diffusers_in_bfloat16(shape: tuple[int, int, int, int, list[int]]) -> None:
    # The same roundings in nearly the same places: far below bfloat16's own error (about 5 % of such a network).
    assert error({}, shape, dtype=torch.bfloat16) < 0.02


def test_sinusoids_are_bit_equal() -> None:
    embed = diffusers.models.embeddings.get_timestep_embedding
    values = torch.linspace(0, 10000, 1001)
    assert torch.equal(sinusoid(values), embed(values, 256, flip_sin_to_cos=True, downscale_freq_shift=0))


@pytest.mark.parametrize("changes", [{}, {"guidance_embeds": False}, {"has_image_proj": False}])
def test_published_names_and_shapes(changes: dict[str, Any]) -> None:
    fields = {**PUBLISHED["framepack"].to_dict(), **changes}
    with runtime.empty_weights():
        ours = Transformer(**fields)
        reference = diffusers.HunyuanVideoFramepackTransformer3DModel(**fields)
    shapes = {name: tuple(value.shape) for name, value in ours.state_dict().items()}
    assert shapes == {name: tuple(value.shape) for name, value in reference.state_dict().items()}
