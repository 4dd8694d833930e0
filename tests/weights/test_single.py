"""Networks in one file: every layout of names that the field writes, without a config."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints import WIDTH, original, same, to_fp8, transformer, values_of, write
from longtake.backend import ops, runtime
from longtake.errors import LongtakeWarning, ModelError
from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.siglip import SiglipVisionModel
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.weights import arrays
from longtake.weights.header import read_header

Filled = Callable[[Any], Any]
SINGLE = "single_transformer_blocks.0."


@pytest.fixture
def network(filled: Filled) -> Any:
    return filled(transformer())


@pytest.mark.parametrize("start", ["", "model.diffusion_model.", "diffusion_model.", "transformer."])
@pytest.mark.parametrize("layout", [dict, original])
def test_the_same_network_comes_of_every_layout(
    network: Any, tmp_path: Path, start: str, layout: Any
) -> None:
    weights = {f"{start}{name}": array for name, array in layout(values_of(network)).items()}
    assert bool("double_blocks" in str(list(weights))) is (layout is original)
    file = write(tmp_path / "packed.safetensors", weights)
    read = HunyuanVideoFramepackTransformer3DModel.from_pretrained(file)
    assert same(read, network) and dict(read.config) == dict(network.config)
    assert same(HunyuanVideoFramepackTransformer3DModel.from_single_file(str(file)), network)


def test_fused_rows_stay_memory_mapped(network: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "packed.safetensors", original(values_of(network)))
    read = HunyuanVideoFramepackTransformer3DModel.from_pretrained(file)
    weights = runtime.named_weights(read)
    first, second = (weights[f"transformer_blocks.0.attn.to_{name}.weight"] for name in "qk")
    if not type(first).__module__.startswith("torch"):
        pytest.skip("on MindSpore rows of a mapped tensor are a copy, one tensor at a time")
    assert second.data_ptr() - first.data_ptr() == WIDTH * WIDTH * 4  # neighbours in the one mapped tensor
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        spans = [line.split()[0] for line in mapped.read_text().splitlines() if line.endswith(file.name)]
        ends = [tuple(int(word, 16) for word in span.split("-")) for span in spans]
        assert any(begin <= first.data_ptr() < end for begin, end in ends)


def test_8_bit_floats_come_as_the_dtype_that_is_asked_for(network: Any, tmp_path: Path) -> None:
    """As Kijai's fp8 files are: block linears in 8 bits, the rest as it was."""
    weights = values_of(network)
    small = [name for name in weights if "_blocks.0.attn.to" in name and name.endswith(".weight")]
    stored = {name: to_fp8(array) if name in small else array for name, array in weights.items()}
    file = write(tmp_path / "fp8.safetensors", stored, dict.fromkeys(small, "float8_e4m3fn"))
    assert {read_header(file)[name].dtype for name in small} == {"float8_e4m3fn"} and len(small) > 4
    read = values_of(HunyuanVideoFramepackTransformer3DModel.from_pretrained(file, dtype="float32"))
    for name, array in weights.items():
        expected = arrays.E4M3[stored[name]] if name in small else array
        np.testing.assert_array_equal(read[name], expected, err_msg=name)
    assert any(not np.array_equal(read[name], weights[name]) for name in small)


@pytest.mark.parametrize("end", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("rows", [False, True])
def test_scales_beside_8_bit_weights(network: Any, tmp_path: Path, end: str, rows: bool) -> None:
    weights = original(values_of(network))
    small = [name for name in weights if re.search(r"(qkv|linear1)\.weight$", name)]
    stored, scales = dict(weights), dict[str, np.ndarray]()
    for name in small:
        scale = np.abs(weights[name]).max(1 if rows else None, keepdims=rows) / 448
        stored[name] = to_fp8(weights[name] / scale)
        scales[name] = np.asarray(scale, np.float32)
        stored[f"{name.removesuffix('.weight')}.{end}"] = scales[name]
        stored[f"{name.removesuffix('.weight')}.scale_input"] = np.float32(1).reshape(1)
    stored["scaled_fp8"] = np.zeros(2, np.uint8)
    dtypes = {**dict.fromkeys(small, "float8_e4m3fn"), "scaled_fp8": "float8_e4m3fn"}
    file = write(tmp_path / "scaled.safetensors", stored, dtypes)
    read = values_of(HunyuanVideoFramepackTransformer3DModel.from_pretrained(file, dtype="float32"))
    fused = {
        name: arrays.E4M3[stored[name]] * scales[name] if name in small else weights[name] for name in weights
    }
    back = original(read)
    for name in fused:
        np.testing.assert_array_equal(back[name], fused[name], err_msg=name)
    assert np.abs(back[small[0]] - weights[small[0]]).max() < 0.04 * np.abs(weights[small[0]]).max()


def test_a_module_with_its_stored_weights_is_asked_for_them_scaled(network: Any, tmp_path: Path) -> None:
    """What `replace` is given reads views as everything else does."""
    file = write(tmp_path / "packed.safetensors", original(values_of(network)))
    seen: dict[str, np.ndarray] = {}

    def replace(name: str, module: Any, stored: Any) -> None:
        if name == f"{SINGLE}proj_mlp":
            seen.update({each: ops.to_numpy(value.read("float32")) for each, value in stored.items()})

    HunyuanVideoFramepackTransformer3DModel.from_pretrained(file, replace=replace)
    weights = values_of(network)
    assert set(seen) == {"weight", "bias"}
    assert all(np.array_equal(seen[each], weights[f"{SINGLE}proj_mlp.{each}"]) for each in seen)


ENCODERS: list[tuple[Any, dict[str, int], str]] = [
    (
        LlamaModel,
        {"vocab_size": 30, "hidden_size": 256, "intermediate_size": 32, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 1},
        "model.",
    ),
    (
        CLIPTextModel,
        {"vocab_size": 30, "hidden_size": 128, "intermediate_size": 16, "num_hidden_layers": 2,
         "num_attention_heads": 2, "max_position_embeddings": 7},
        "text_model.",
    ),
    (
        SiglipVisionModel,
        {"hidden_size": 144, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "image_size": 28, "patch_size": 14},
        "vision_model.",
    ),
    (
        AutoencoderKLHunyuanVideo,
        {"latent_channels": 4, "block_out_channels": (32, 32, 32, 64), "layers_per_block": 1},  # type: ignore[dict-item]
        "vae.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields", "start"), ENCODERS)
def test_the_other_networks_come_of_one_file(
    kind: Any, fields: dict[str, Any], start: str, filled: Filled, tmp_path: Path
) -> None:
    network = filled(kind(**fields))
    for before in (start, f"text_encoders.some.{start}"):
        weights = {f"{before}{name}": array for name, array in values_of(network).items()}
        read = kind.from_pretrained(write(tmp_path / "one.safetensors", weights))
        assert same(read, network) and dict(read.config) == dict(network.config)


def test_a_scaled_llama_with_its_head(filled: Filled, tmp_path: Path) -> None:
    """As ComfyUI's llava_llama3_fp8_scaled.safetensors is."""
    network = filled(LlamaModel(**ENCODERS[0][1]))
    weights = {f"model.{name}": array for name, array in values_of(network).items()}
    name = "model.layers.1.mlp.up_proj.weight"
    stored = {
        **weights,
        name: to_fp8(weights[name] * 8),
        "model.layers.1.mlp.up_proj.scale_weight": np.float32(0.125).reshape(()),
        "lm_head.weight": np.zeros((30, 256), np.float32),
    }
    file = write(tmp_path / "llama.safetensors", stored, {name: "float8_e4m3fn"})
    read = values_of(LlamaModel.from_pretrained(file, dtype="float32"))
    np.testing.assert_array_equal(read[name.removeprefix("model.")], arrays.E4M3[stored[name]] * 0.125)


def test_an_autoencoder_in_latent_diffusions_layout(filled: Filled, tmp_path: Path) -> None:
    network = filled(AutoencoderKLHunyuanVideo(**ENCODERS[3][1]))
    weights = {to_latent_diffusion(name): array for name, array in values_of(network).items()}
    weights = {
        name: array[:, :, None, None, None] if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name) else array
        for name, array in weights.items()
    }
    assert "decoder.up.3.block.0.conv1.conv.weight" in weights
    assert (
        "decoder.mid.attn_1.norm.weight" in weights
        and "encoder.down.0.downsample.conv.conv.weight" in weights
    )
    assert same(
        AutoencoderKLHunyuanVideo.from_pretrained(write(tmp_path / "vae.safetensors", weights)), network
    )


def to_latent_diffusion(name: str) -> str:
    """The way back, as the field's converters have it."""
    for ours, theirs in (
        (r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block"),
        (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
        (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
        (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
        (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
        (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
        (r"mid_block\.attentions\.0\.to_(.)", r"mid.attn_1.\1"),
        (r"conv_norm_out", "norm_out"),
        (r"conv_shortcut", "nin_shortcut"),
    ):
        name = re.sub(ours, theirs, name)  # type: ignore[call-overload]
    return name


# ---------------------------------------------------------------------------------------- what is refused


def test_a_whole_checkpoint_is_read_with_a_note(network: Any, tmp_path: Path) -> None:
    weights = {f"model.diffusion_model.{name}": array for name, array in values_of(network).items()}
    weights["first_stage_model.decoder.conv_in.weight"] = np.zeros(3, np.float32)
    file = write(tmp_path / "whole.safetensors", weights)
    with pytest.warns(LongtakeWarning, match=r"1 of its \d+ weights, such as 'first_stage_model.decoder"):
        read = HunyuanVideoFramepackTransformer3DModel.from_pretrained(file)
    assert same(read, network)


def some(*names: str) -> dict[str, np.ndarray]:
    return {name: np.zeros((2, 2), np.float32) for name in names}


@pytest.mark.parametrize(
    ("weights", "looks"),
    [
        (some("model.diffusion_model.double_blocks.0.img_attn.qkv.weight"), "looks like FLUX"),
        (some("blocks.0.self_attn.q.weight", "patch_embedding.weight"), "looks like Wan's transformer"),
        (some("transformer.x.lora_A.weight"), "looks like a LoRA, which goes to --lora"),
        (some("model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.gate_proj.weight",
              "model.embed_tokens.weight"), "looks like a Llama"),
        (some("a.weight", "b.weight"), "looks like nothing that is known here .*'a.weight', 'b.weight'"),
        ({}, "is empty"),
    ],
)  # fmt: skip
def test_another_file_says_what_it_looks_like(weights: Any, looks: str, tmp_path: Path) -> None:
    file = write(tmp_path / "other.safetensors", weights)
    with pytest.raises(
        ModelError, match=f"other.safetensors {looks}.*; FramePack's transformer .* was expected"
    ) as told:
        HunyuanVideoFramepackTransformer3DModel.from_pretrained(file)
    assert "\n" not in str(told.value)


def test_files_that_lack_or_have_what_they_should_not(network: Any, tmp_path: Path, filled: Filled) -> None:
    weights = values_of(network)

    def refused(match: str, dtypes: dict[str, str] | None = None, **changes: Any) -> None:
        file = write(tmp_path / "broken.safetensors", {**weights, **changes}, dtypes)
        with pytest.raises(ModelError, match=match):
            HunyuanVideoFramepackTransformer3DModel.from_pretrained(file)

    refused("has the weight 'unknown.weight', which", **some("unknown.weight"))
    refused("has the scale 'gone.scale_weight' and no weight", **some("gone.scale_weight"))
    packed = {f"{SINGLE}proj_mlp.weight": np.zeros((WIDTH * 2, WIDTH // 2), np.uint8)}
    refused(r"proj_mlp.weight' in the shape \[256, 64\], where .* has \[256, 128\]", **packed)
    del weights["proj_out.weight"]
    refused("lacks the weight 'proj_out.weight'")
    narrow = filled(transformer(attention_head_dim=16, num_attention_heads=2, rope_axes_dim=(4, 6, 6)))
    file = write(tmp_path / "narrow.safetensors", values_of(narrow))
    with pytest.raises(
        ModelError, match=r"its heads are 16 wide in a width of 32, FramePack's 128; .*needs a config"
    ):
        HunyuanVideoFramepackTransformer3DModel.from_pretrained(file)
    read = HunyuanVideoFramepackTransformer3DModel.from_single_file(file, config=narrow.config)
    assert same(read, narrow)
    narrow.save_pretrained(tmp_path / "folder" / "transformer")
    read = HunyuanVideoFramepackTransformer3DModel.from_single_file(
        file, config=str(tmp_path / "folder"), subfolder="transformer"
    )
    assert same(read, narrow)


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"1")
    with pytest.raises(ModelError, match="a pickle can run code"):
        HunyuanVideoFramepackTransformer3DModel.from_pretrained(tmp_path / "a.ckpt")
    with pytest.raises(ModelError, match=r"There is no file 'gone.safetensors'"):
        HunyuanVideoFramepackTransformer3DModel.from_single_file("gone.safetensors")
    file = write(tmp_path / "a.safetensors", {})
    with pytest.raises(
        ModelError, match=r"has no config.json; a network in one file is named by the file, such as a.safet"
    ):
        HunyuanVideoFramepackTransformer3DModel.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is one file, which has neither subfolder nor variant"):
        HunyuanVideoFramepackTransformer3DModel.from_pretrained(file, subfolder="transformer")
