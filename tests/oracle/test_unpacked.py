"""diffusers' plain HunyuanVideo transformer, saved by it and read as FramePack's."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import avg_pool3d

from longtake.errors import LongtakeWarning
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.training import lora
from longtake.training.finetune import begun
from longtake.training.settings import Settings

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


def test_a_lora_on_its_new_projections_loads_in_stock_diffusers(tmp_path: Path) -> None:
    """Learnt on what was read of plain HunyuanVideo, used on that as it is saved."""
    pytest.importorskip("peft")
    torch.manual_seed(0)
    reference = diffusers.HunyuanVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1, num_refiner_layers=1,
        in_channels=4, out_channels=4, text_embed_dim=24, pooled_projection_dim=12, rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    reference.save_pretrained(tmp_path / "plain")
    with pytest.warns(LongtakeWarning, match="is plain HunyuanVideo"):
        ours = Transformer.from_pretrained(tmp_path / "plain")
    ours.save_pretrained(tmp_path / "packed")
    stock = diffusers.HunyuanVideoFramepackTransformer3DModel.from_pretrained(tmp_path / "packed")
    settings = Settings(rank=2, targets=r".*(clean_x_embedder|image_projection|to_q).*")
    with begun(ours, settings) as parameters:
        assert {"clean_x_embedder.proj_4x.up", "image_projection.down.down"} < set(parameters)
        for parameter in parameters.values():
            parameter.data = torch.randn_like(parameter) / 4
        lora.write(ours, settings, tmp_path / "lora" / "pytorch_lora_weights.safetensors", {})
        given = {
            "hidden_states": torch.randn(1, 4, 2, 8, 8), "timestep": torch.tensor([300.0]),
            "encoder_hidden_states": torch.randn(1, 3, 24), "encoder_attention_mask": torch.ones(1, 3).long(),
            "pooled_projections": torch.randn(1, 12), "guidance": torch.full((1,), 6000.0),
            "image_embeds": torch.randn(1, 3, 1152), "indices_latents": torch.arange(20, 22),
            "latents_clean": torch.randn(1, 4, 2, 8, 8), "indices_latents_clean": torch.tensor([0, 19]),
            "latents_history_2x": torch.randn(1, 4, 2, 8, 8), "indices_latents_history_2x": torch.tensor([17, 18]),
            "latents_history_4x": torch.randn(1, 4, 16, 8, 8), "indices_latents_history_4x": torch.arange(1, 17),
        }  # fmt: skip
        with torch.no_grad():
            before = stock(**given).sample
            stock.load_lora_adapter(
                str(tmp_path / "lora"), prefix="transformer", weight_name="pytorch_lora_weights.safetensors"
            )
            expected, found = stock(**given).sample, ours(**given).sample
    assert float((expected - before).abs().max()) > 0.01
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4
