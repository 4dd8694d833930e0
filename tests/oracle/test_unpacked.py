"""diffusers' plain HunyuanVideo transformer, saved by it and read as FramePack's."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import avg_pool3d

from longtake.errors import LongtakeWarning
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer

diffusers = pytest.importorskip("diffusers")


def test_it_gives_the_same_velocity_and_packs_by_means(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = diffusers.HunyuanVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, num_single_layers=2, num_refiner_layers=2,
        in_channels=4, out_channels=4, text_embed_dim=24, pooled_projection_dim=12, rope_axes_dim=(4, 6, 6),
    ).eval()  # fmt: skip
    for parameter in reference.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    reference.save_pretrained(tmp_path)
    with pytest.warns(LongtakeWarning, match="is plain HunyuanVideo"):
        ours = Transformer.from_pretrained(tmp_path)
    given = {
        "hidden_states": torch.randn(2, 4, 5, 8, 12),
        "timestep": torch.tensor([300.0, 900.0]),
        "encoder_hidden_states": torch.randn(2, 7, 24),
        "encoder_attention_mask": (torch.arange(7) < torch.tensor([[7], [4]])).long(),
        "pooled_projections": torch.randn(2, 12),
        "guidance": torch.full((2,), 6000.0),
    }
    with torch.no_grad():
        expected, found = reference(**given).sample, ours(**given).sample
        # Sums in another order; the project's limit for networks.
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
        clean, latents = ours.clean_x_embedder.double(), torch.randn(1, 4, 8, 16, 24, dtype=torch.float64)
        for scale in (1, 2, 4):
            pooled = clean(avg_pool3d(latents, scale), 1)
            # Rounded by 1e-16 at each of up to 1024 terms.
            assert float((clean(latents, scale) - pooled).abs().max()) < 1e-14
        # A picture adds tokens of zeros, which attention spreads a part of itself over.
        more = {**given, "image_embeds": torch.randn(2, 5, 1152)}
        other = {**given, "image_embeds": torch.randn(2, 5, 1152)}
        assert torch.equal(ours(**more).sample, ours(**other).sample)
