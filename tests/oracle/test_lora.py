"""The same LoRA file here, in stock diffusers and in peft."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from longtake.backend import runtime
from longtake.compat.lora import LoraMixin
from longtake.models import adapters
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.pipeline.networks import Networks
from longtake.training.examples import Example, Told
from longtake.training.finetune import finetune
from longtake.training.settings import Settings
from longtake.weights.lora import read_lora

diffusers = pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")
from diffusers.loaders import HunyuanVideoLoraLoaderMixin  # noqa: E402
from diffusers.loaders.lora_conversion_utils import _convert_hunyuan_video_lora_to_diffusers as convert  # noqa: E402

# What peft says of injecting by names alone, which is diffusers' way, and of a second adapter in one network.
pytestmark = [
    pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning"),
]

RANK = 4
LIMIT = 1e-5  # sums in another order; the limit is 1e-4
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


class Ours(LoraMixin):
    """As much of a pipeline as LoRAs need."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer


class Theirs(HunyuanVideoLoraLoaderMixin):  # type: ignore[misc, unused-ignore]
    """The same of diffusers: its pipeline takes its methods from this class."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer
        self.hf_device_map = None
        self.components = {"transformer": transformer}


@pytest.fixture
def twins() -> tuple[Ours, Theirs]:
    torch.manual_seed(0)
    reference = diffusers.HunyuanVideoFramepackTransformer3DModel(**TINY).eval()
    for parameter in reference.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    ours = Transformer(reference.config).eval()
    ours.load_state_dict(reference.state_dict())
    return Ours(ours), Theirs(reference)


class Held(list):  # type: ignore[type-arg]
    """Examples in memory."""

    def shape(self, number: int) -> tuple[int, int, int]:
        return self[number].latents.shape[1:]


def inputs() -> dict[str, Any]:
    source = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=source)

    return {
        "hidden_states": noise(1, 4, 3, 6, 8),
        "timestep": torch.tensor([400.0]),
        "encoder_hidden_states": noise(1, 7, 24),
        "encoder_attention_mask": (torch.arange(7) < 5).long()[None],
        "pooled_projections": noise(1, 12),
        "image_embeds": noise(1, 5, 20),
        "indices_latents": torch.arange(20, 23),
        "guidance": torch.tensor([6000.0]),
        "latents_clean": noise(1, 4, 2, 6, 8),
        "indices_latents_clean": torch.tensor([0, 19]),
        "latents_history_2x": noise(1, 4, 2, 6, 8),
        "indices_latents_history_2x": torch.tensor([17, 18]),
        "latents_history_4x": noise(1, 4, 4, 6, 8),
        "indices_latents_history_4x": torch.arange(13, 17),
    }


def velocity(transformer: Any, **changes: Any) -> torch.Tensor:
    with torch.no_grad():
        return transformer(**inputs(), **changes).sample


def far(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def peft_keys(seed: int, prefix: str = "transformer.", only: str = "") -> dict[str, torch.Tensor]:
    """An adapter of all linear layers and patch embeddings, as diffusers writes it."""
    source = torch.Generator().manual_seed(seed)
    with runtime.empty_weights():
        shapes = adapters.shapes(Transformer(**TINY))
    keys = {}
    for name, shape in shapes.items():
        if not name.startswith(only):
            continue
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        keys[f"{prefix}{name}.lora_A.weight"] = scale * torch.randn(RANK, *shape[1:], generator=source)
        ones = [1] * (len(shape) - 2)
        keys[f"{prefix}{name}.lora_B.weight"] = 0.2 * torch.randn(shape[0], RANK, *ones, generator=source)
    return keys


def original_keys(seed: int, style: tuple[str, str] = ("lora_A", "lora_B")) -> dict[str, torch.Tensor]:
    """An adapter in the original's names, of what diffusers converts rightly.

    It cuts linear1 at the published width only (tested below), the refiner's fused projections along the rank, and
    swaps the halves of both factors of the last modulation.
    """
    source = torch.Generator().manual_seed(seed)
    sides = {
        "time_in.mlp.0": (256, 32),
        "time_in.mlp.2": (32, 32),
        "vector_in.in_layer": (12, 32),
        "guidance_in.mlp.0": (256, 32),
        "txt_in.input_embedder": (24, 32),
        "txt_in.t_embedder.mlp.0": (256, 32),
        "txt_in.c_embedder.linear_2": (32, 32),
        "txt_in.individual_token_refiner.blocks.1.mlp.fc1": (32, 128),
        "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1": (32, 64),
        "final_layer.linear": (32, 16),
    }
    for n in range(2):
        for stream in ("img", "txt"):
            sides |= {
                f"double_blocks.{n}.{stream}_mod.linear": (32, 192),
                f"double_blocks.{n}.{stream}_attn_qkv": (32, 96),
                f"double_blocks.{n}.{stream}_attn_proj": (32, 32),
                f"double_blocks.{n}.{stream}_mlp.fc1": (32, 128),
                f"double_blocks.{n}.{stream}_mlp.fc2": (128, 32),
            }
        sides |= {f"single_blocks.{n}.linear2": (160, 32), f"single_blocks.{n}.modulation.linear": (32, 96)}
    keys = {}
    for name, (before, after) in sides.items():
        keys[f"{name}.{style[0]}.weight"] = torch.randn(RANK, before, generator=source) / before**0.5
        keys[f"{name}.{style[1]}.weight"] = 0.2 * torch.randn(after, RANK, generator=source)
    return keys


def written(place: Path, keys: dict[str, torch.Tensor]) -> Path:
    file = place / "lora.safetensors"
    save_file({name: value.contiguous() for name, value in keys.items()}, file)
    return file


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_file_of_diffusers(twins: tuple[Ours, Theirs], tmp_path: Path, dtype: torch.dtype) -> None:
    ours, theirs = twins
    nothing = velocity(ours.transformer)
    file = written(tmp_path, {name: value.to(dtype) for name, value in peft_keys(0).items()})
    ours.load_lora_weights(file)
    theirs.load_lora_weights(tmp_path, weight_name=file.name)
    expected = velocity(theirs.transformer)
    assert far(nothing, expected) > 0.05
    assert far(velocity(ours.transformer), expected) < LIMIT
    ours.fuse_lora()
    assert far(velocity(ours.transformer), expected) < LIMIT


def test_a_file_in_the_originals_names(twins: tuple[Ours, Theirs], tmp_path: Path) -> None:
    ours, theirs = twins
    file = written(tmp_path, original_keys(0))
    ours.load_lora_weights(file)
    theirs.load_lora_weights(tmp_path, weight_name=file.name)
    assert far(velocity(ours.transformer), velocity(theirs.transformer)) < LIMIT


@pytest.mark.parametrize("style", ["kohya", "original"])
def test_kohyas_files_which_diffusers_does_not_read(twins: tuple[Ours, Theirs], style: str) -> None:
    """The factors with another alpha are here what diffusers makes of the factors with alpha multiplied in."""
    ours, theirs = twins
    if style == "kohya":
        keys = peft_keys(0, prefix="")
        theirs.load_lora_weights({f"transformer.{name}": value for name, value in keys.items()})
    else:
        keys = original_keys(0)
        theirs.load_lora_weights(dict(keys))
    kohya: dict[str, torch.Tensor] = {}
    for name, value in keys.items():
        module, _, part = name.removesuffix(".weight").rpartition(".")
        flat = "lora_unet_" + module.replace(".", "_")
        kohya[f"{flat}.{ {'lora_A': 'lora_down', 'lora_B': 'lora_up'}[part] }.weight"] = (
            value * 2 if part == "lora_B" else value
        )
        kohya[f"{flat}.alpha"] = torch.tensor(RANK / 2)
    expected = velocity(theirs.transformer)
    ours.load_lora_weights(kohya)
    assert far(velocity(ours.transformer), expected) < LIMIT
    # What diffusers does with them: nothing, and a line in the log; or an error.
    theirs.transformer.unload_lora()
    nothing = velocity(theirs.transformer)
    with contextlib.suppress(ValueError):
        theirs.load_lora_weights(dict(kohya))
        assert style == "kohya"
    assert torch.equal(velocity(theirs.transformer), nothing)


def test_the_fused_layer_of_single_blocks_at_the_published_width() -> None:
    width, hidden = 3072, 12288
    source = torch.Generator().manual_seed(0)
    keys = {
        "single_blocks.3.linear1.lora_A.weight": torch.randn(1, width, generator=source),
        "single_blocks.3.linear1.lora_B.weight": torch.randn(3 * width + hidden, 1, generator=source),
        # diffusers takes a file for the original's by this key.
        "double_blocks.0.img_attn_qkv.lora_A.weight": torch.randn(1, width, generator=source),
        "double_blocks.0.img_attn_qkv.lora_B.weight": torch.randn(3 * width, 1, generator=source),
    }
    block = {f"single_transformer_blocks.3.attn.{name}": (width, width) for name in ("to_q", "to_k", "to_v")}
    block |= {"single_transformer_blocks.3.proj_mlp": (hidden, width)}
    block |= {f"transformer_blocks.0.attn.{name}": (width, width) for name in ("to_q", "to_k", "to_v")}
    found = read_lora(keys, block)
    expected = convert(dict(keys))
    assert len(expected) == 2 * len(found) == 14
    for name, change in found.items():
        assert np.array_equal(change.down, expected[f"transformer.{name}.lora_A.weight"].numpy())
        assert np.array_equal(change.up, expected[f"transformer.{name}.lora_B.weight"].numpy())


def test_two_adapters_with_weights_and_a_scale(twins: tuple[Ours, Theirs]) -> None:
    ours, theirs = twins
    for pipe in twins:
        pipe.load_lora_weights(peft_keys(0), adapter_name="a")
        pipe.load_lora_weights(peft_keys(1, only="transformer_blocks"), adapter_name="b")
        pipe.set_adapters(["a", "b"], [0.7, -0.4])
    assert far(velocity(ours.transformer), velocity(theirs.transformer)) < LIMIT
    scale = {"attention_kwargs": {"scale": 0.3}}
    assert far(velocity(ours.transformer, **scale), velocity(theirs.transformer, **scale)) < LIMIT
    assert far(velocity(ours.transformer), velocity(theirs.transformer)) < LIMIT
    for pipe in twins:
        pipe.delete_adapters("a")
        pipe.set_adapters("b", 0.5)
    assert far(velocity(ours.transformer), velocity(theirs.transformer)) < LIMIT
    for pipe in twins:
        pipe.fuse_lora(lora_scale=0.5)
    assert far(velocity(ours.transformer), velocity(theirs.transformer)) < LIMIT


def test_what_we_save_diffusers_loads(twins: tuple[Ours, Theirs], tmp_path: Path) -> None:
    ours, theirs = twins
    keys: dict[str, Any] = peft_keys(0)
    for name in list(keys):
        if name.endswith("norm1.linear.lora_A.weight"):  # another alpha
            keys[name.replace("lora_A.weight", "alpha")] = torch.tensor(1.5)
    for name in ("transformer.proj_out.lora_A.weight", "transformer.proj_out.lora_B.weight"):  # another rank
        keys[name] = keys[name][:3] if "lora_A" in name else keys[name][:, :3]
    ours.load_lora_weights(keys, adapter_name="a")
    ours.save_lora_weights(tmp_path)
    theirs.load_lora_weights(tmp_path)
    assert far(velocity(ours.transformer), velocity(theirs.transformer)) < LIMIT


def test_what_diffusers_saves_we_load(twins: tuple[Ours, Theirs], tmp_path: Path) -> None:
    """Alpha stands in the header of the file."""
    ours, theirs = twins
    config = peft.LoraConfig(
        r=RANK, lora_alpha=3, target_modules=["to_q", "proj_mlp", "net.2"], init_lora_weights=False
    )
    theirs.transformer.add_adapter(config)
    layers = peft.get_peft_model_state_dict(theirs.transformer)
    metadata = diffusers.training_utils._collate_lora_metadata({"transformer": theirs.transformer})
    Theirs.save_lora_weights(tmp_path, transformer_lora_layers=layers, **metadata)
    ours.load_lora_weights(tmp_path)
    assert far(velocity(ours.transformer), velocity(theirs.transformer)) < LIMIT


def test_a_folder_of_peft(twins: tuple[Ours, Theirs], tmp_path: Path) -> None:
    """adapter_model.safetensors with base_model.model before each key, alpha in adapter_config.json."""
    ours, theirs = twins
    config = peft.LoraConfig(
        r=RANK,
        lora_alpha=3,
        target_modules=["to_q", "proj_mlp"],
        alpha_pattern={"proj_mlp": 7},
        init_lora_weights=False,
    )
    wrapped = peft.get_peft_model(theirs.transformer, config)
    wrapped.save_pretrained(tmp_path)
    ours.load_lora_weights(tmp_path)
    assert len(adapters.adapted(ours.transformer)) == 8
    assert far(velocity(ours.transformer), velocity(theirs.transformer)) < LIMIT


def test_peft_wraps_our_transformer(twins: tuple[Ours, Theirs]) -> None:
    ours, _ = twins
    keys = peft_keys(0, prefix="")
    names = sorted({name.removesuffix(".lora_A.weight") for name in keys if name.endswith("lora_A.weight")})
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=names)
    ours.load_lora_weights(keys)
    expected = velocity(ours.transformer)
    ours.unload_lora_weights()
    peft.inject_adapter_in_model(config, ours.transformer)
    outcome = peft.set_peft_model_state_dict(ours.transformer, keys)
    assert not outcome.unexpected_keys
    assert far(velocity(ours.transformer), expected) < LIMIT


@pytest.mark.parametrize("targets", ["", r".*attn\.to_[qkv]|proj_out"])
def test_what_is_trained_here_is_the_same_in_stock_diffusers(
    twins: tuple[Ours, Theirs], tmp_path: Path, targets: str
) -> None:
    """Through the pipeline's method and through the network's own; alpha and rank go along in the header."""
    ours, theirs = twins
    settings = Settings(
        rank=3, alpha=5, targets=targets, window=2, steps=3, lr=0.05, batch=2, sampling="vanilla"
    )
    rng = np.random.default_rng(0)
    told = Told("x", *(rng.standard_normal(shape).astype(np.float32) for shape in ((7, 24), (7,), (12,))))
    told = replace(told, mask=np.ones(7, np.int64))
    latents = rng.standard_normal((4, 5, 6, 8)).astype(np.float32)
    examples = [Example("clip", latents, told, rng.standard_normal((5, 20)).astype(np.float32))]
    plain = velocity(ours.transformer)
    list(finetune(Networks(transformer=ours.transformer), Held(examples), tmp_path, settings))
    torch.testing.assert_close(velocity(ours.transformer), plain, rtol=0, atol=0)  # it is in its file alone
    ours.load_lora_weights(tmp_path)
    found = velocity(ours.transformer)
    assert far(found, plain) > 0.01
    theirs.load_lora_weights(tmp_path)
    expected = velocity(theirs.transformer)
    assert far(found, expected) < LIMIT
    theirs.unload_lora_weights()
    theirs.transformer.load_lora_adapter(str(tmp_path), weight_name="pytorch_lora_weights.safetensors")
    assert far(found, velocity(theirs.transformer)) < LIMIT
