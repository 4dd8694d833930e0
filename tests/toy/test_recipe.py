"""The recipe: each stage runs what it says and nothing else, and leaves a model that a pipeline loads."""

from dataclasses import replace

import pytest

from longtake.errors import ModelError
from longtake.pipeline.loading import load_networks
from longtake.toy import autoencoder, recipe, transformer
from longtake.training.loop import Length

SHORT = Length(steps=1)


@pytest.fixture
def tiny(monkeypatch):
    config = replace(autoencoder.CONFIG, block_out_channels=(4, 4, 8, 8), latent_channels=4)
    for module in (autoencoder, recipe):
        monkeypatch.setattr(module, "CONFIG", config)
    small = {"num_attention_heads": 2, "attention_head_dim": 8, "rope_axes_dim": (4, 2, 2), "num_layers": 1}
    shape = replace(transformer.TRANSFORMER, in_channels=4, out_channels=4, num_single_layers=1, **small)
    monkeypatch.setattr(transformer, "TRANSFORMER", shape)


def test_each_stage_runs_alone_and_all_leave_a_model(tiny, tmp_path):
    recipe.train("autoencoder", tmp_path, lambda *_: {}, length=SHORT)
    recipe.train("decoder", tmp_path, lambda *_: {}, length=SHORT)
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {
        "autoencoder.safetensors",
        "decoder.safetensors",
    }
    judged = []
    recipe.train("transformer", tmp_path, lambda *_: judged.append(1) or {}, length=SHORT, scenes=2)
    assert judged
    networks = load_networks(tmp_path / "model")
    assert networks.default_size == (64, 64)
    assert networks.vae.config.scaling_factor != 1

    started = tmp_path / "started"
    recipe.train(
        "transformer", started, lambda *_: {}, Length(steps=1), scenes=2, start=networks, batch=3, rate=1e-9
    )
    again = load_networks(started / "model")
    for mine, theirs in zip(again.transformer.parameters(), networks.transformer.parameters(), strict=True):
        assert abs(mine.float() - theirs.float()).max() < 1e-4  # half precision, and a step that is nothing
    with pytest.raises(ModelError, match=r"is another one: .* do not fit"):
        recipe.begin_from(networks.transformer.x_embedder, networks.transformer, "transformer")


def test_without_an_autoencoder_the_other_stages_are_refused(tmp_path):
    for stage in ("decoder", "transformer"):
        with pytest.raises(ModelError, match="train the stage 'autoencoder' first"):
            recipe.train(stage, tmp_path, lambda *_: {}, length=SHORT)
