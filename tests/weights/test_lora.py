"""LoRA files: one random adapter in every spelling and dtype is the same adapter; everything else is refused aloud."""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtake.backend import ops, runtime
from longtake.errors import LongtakeWarning, ModelError
from longtake.models import adapters
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.weights.lora import LowRank, find_file, read_lora

RANK, ALPHA = 3, 2.0
# Modules of the original network and ours, by hand: what the table in the code must come to.
ORIGINAL = {
    "img_in.proj": ["x_embedder.proj"],
    "time_in.mlp.0": ["time_text_embed.timestep_embedder.linear_1"],
    "time_in.mlp.2": ["time_text_embed.timestep_embedder.linear_2"],
    "vector_in.in_layer": ["time_text_embed.text_embedder.linear_1"],
    "vector_in.out_layer": ["time_text_embed.text_embedder.linear_2"],
    "guidance_in.mlp.0": ["time_text_embed.guidance_embedder.linear_1"],
    "guidance_in.mlp.2": ["time_text_embed.guidance_embedder.linear_2"],
    "txt_in.input_embedder": ["context_embedder.proj_in"],
    "txt_in.t_embedder.mlp.0": ["context_embedder.time_text_embed.timestep_embedder.linear_1"],
    "txt_in.t_embedder.mlp.2": ["context_embedder.time_text_embed.timestep_embedder.linear_2"],
    "txt_in.c_embedder.linear_1": ["context_embedder.time_text_embed.text_embedder.linear_1"],
    "txt_in.c_embedder.linear_2": ["context_embedder.time_text_embed.text_embedder.linear_2"],
    "txt_in.individual_token_refiner.blocks.0.self_attn_qkv": [
        "context_embedder.token_refiner.refiner_blocks.0.attn.to_q",
        "context_embedder.token_refiner.refiner_blocks.0.attn.to_k",
        "context_embedder.token_refiner.refiner_blocks.0.attn.to_v",
    ],
    "txt_in.individual_token_refiner.blocks.0.self_attn_proj": [
        "context_embedder.token_refiner.refiner_blocks.0.attn.to_out.0"
    ],
    "txt_in.individual_token_refiner.blocks.0.mlp.fc1": [
        "context_embedder.token_refiner.refiner_blocks.0.ff.net.0.proj"
    ],
    "txt_in.individual_token_refiner.blocks.0.mlp.fc2": [
        "context_embedder.token_refiner.refiner_blocks.0.ff.net.2"
    ],
    "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1": [
        "context_embedder.token_refiner.refiner_blocks.0.norm_out.linear"
    ],
    "double_blocks.1.img_mod.linear": ["transformer_blocks.1.norm1.linear"],
    "double_blocks.1.img_attn_qkv": [
        "transformer_blocks.1.attn.to_q",
        "transformer_blocks.1.attn.to_k",
        "transformer_blocks.1.attn.to_v",
    ],
    "double_blocks.1.img_attn_proj": ["transformer_blocks.1.attn.to_out.0"],
    "double_blocks.1.img_mlp.fc1": ["transformer_blocks.1.ff.net.0.proj"],
    "double_blocks.1.img_mlp.fc2": ["transformer_blocks.1.ff.net.2"],
    "double_blocks.1.txt_mod.linear": ["transformer_blocks.1.norm1_context.linear"],
    "double_blocks.1.txt_attn_qkv": [
        "transformer_blocks.1.attn.add_q_proj",
        "transformer_blocks.1.attn.add_k_proj",
        "transformer_blocks.1.attn.add_v_proj",
    ],
    "double_blocks.1.txt_attn_proj": ["transformer_blocks.1.attn.to_add_out"],
    "double_blocks.1.txt_mlp.fc1": ["transformer_blocks.1.ff_context.net.0.proj"],
    "double_blocks.1.txt_mlp.fc2": ["transformer_blocks.1.ff_context.net.2"],
    "single_blocks.0.linear1": [
        "single_transformer_blocks.0.attn.to_q",
        "single_transformer_blocks.0.attn.to_k",
        "single_transformer_blocks.0.attn.to_v",
        "single_transformer_blocks.0.proj_mlp",
    ],
    "single_blocks.0.linear2": ["single_transformer_blocks.0.proj_out"],
    "single_blocks.0.modulation.linear": ["single_transformer_blocks.0.norm.linear"],
    "final_layer.linear": ["proj_out"],
    "final_layer.adaLN_modulation.1": ["norm_out.linear"],
}
STYLES = {
    "peft": ("lora_A.weight", "lora_B.weight"),
    "peft, named": ("lora_A.my.adapter.weight", "lora_B.my.adapter.weight"),
    "kohya": ("lora_down.weight", "lora_up.weight"),
    "old diffusers": ("lora.down.weight", "lora.up.weight"),
}


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    with runtime.empty_weights():
        network = Transformer(
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=2,
            num_single_layers=1,
            num_refiner_layers=1,
            in_channels=4,
            out_channels=4,
            text_embed_dim=24,
            pooled_projection_dim=12,
            rope_axes_dim=(4, 6, 6),
            image_proj_dim=20,
            mlp_ratio=2.5,
        )
    return adapters.shapes(network)


@pytest.fixture(scope="module")
def changes(shapes: dict[str, tuple[int, ...]]) -> dict[str, LowRank]:
    """An adapter that the original's spelling can say: what was one module there has one `down`."""
    source = np.random.default_rng(0)

    def values(*sides: int) -> np.ndarray:
        # Quarters up to 1: exact in all dtypes.
        return (source.integers(-4, 5, sides) / 4).astype(np.float32)

    made = {}
    for modules in ORIGINAL.values():
        down = values(RANK, int(np.prod(shapes[modules[0]][1:])))
        made |= {module: LowRank(down, values(shapes[module][0], RANK), ALPHA) for module in modules}
    return made


def own(changes: dict[str, LowRank], style: str, prefix: str = "transformer.") -> dict[str, np.ndarray]:
    down, up = STYLES[style]
    keys = {}
    for module, change in changes.items():
        name = prefix + (module.replace(".", "_") if prefix.endswith("_") else module)
        keys |= {f"{name}.{down}": change.down, f"{name}.{up}": change.up, f"{name}.alpha": np.float32(ALPHA)}
    return keys


def original(changes: dict[str, LowRank], style: str, prefix: str = "") -> dict[str, np.ndarray]:
    down, up = STYLES[style]
    keys = {}
    for module, ours in ORIGINAL.items():
        name = prefix + (module.replace(".", "_") if prefix.endswith("_") else module)
        rows = np.concatenate([changes[part].up for part in ours])
        if module == "final_layer.adaLN_modulation.1":
            scale, shift = np.split(rows, 2)
            rows = np.concatenate([shift, scale])
        keys |= {
            f"{name}.{down}": changes[ours[0]].down,
            f"{name}.{up}": rows,
            f"{name}.alpha": np.float32(ALPHA),
        }
    return keys


def same(found: dict[str, LowRank], expected: dict[str, LowRank]) -> bool:
    return found.keys() == expected.keys() and all(
        np.array_equal(found[name].down, expected[name].down)
        and np.array_equal(found[name].up, expected[name].up)
        and found[name].alpha == expected[name].alpha
        and found[name].up.dtype == np.float32
        for name in expected
    )


def write(file: Path, keys: dict[str, np.ndarray], code: str = "F32", metadata: Any = None) -> Path:
    """A safetensors file whose matrices have one dtype, from numpy alone (values must be exact in it)."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    body = b""
    for key, value in keys.items():
        kind = code if value.ndim else "F32"
        data = encode(value, kind)
        header[key] = {
            "dtype": kind,
            "shape": list(value.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return file


def encode(value: np.ndarray, code: str) -> bytes:
    from longtake.weights.arrays import E4M3

    value = np.asarray(value, np.float32)
    if code == "BF16":
        return (value.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    if code == "F8_E5M2":
        return (value.astype(np.float16).view(np.uint16) >> 8).astype(np.uint8).tobytes()
    if code == "F8_E4M3":
        byte = {float(number): index for index, number in reversed(list(enumerate(E4M3)))}
        return bytes(byte[float(number)] for number in value.reshape(-1))
    return value.astype({"F32": np.float32, "F16": np.float16}[code]).tobytes()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "prefix", ["", "transformer.", "diffusion_model.", "base_model.model.", "lora_unet_"]
)
def test_our_names_in_every_spelling(
    shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank], style: str, prefix: str
) -> None:
    assert same(read_lora(own(changes, style, prefix), shapes), changes)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("prefix", ["", "transformer.", "diffusion_model.", "lora_unet_"])
def test_the_originals_names_in_every_spelling(
    shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank], style: str, prefix: str
) -> None:
    assert same(read_lora(original(changes, style, prefix), shapes), changes)


@pytest.mark.parametrize("code", ["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_every_dtype(
    shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank], code: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "x.safetensors", original(changes, "kohya", "lora_unet_"), code)
    assert same(read_lora(file, shapes), changes)


@pytest.mark.parametrize("word", ["scale_weight", "weight_scale"])
def test_scales_of_8_bit_files(
    shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank], word: str, tmp_path: Path
) -> None:
    keys = own(changes, "peft") | {"scaled_fp8": np.zeros(0, np.float32)}
    half = {key: value / 2 if key.endswith("lora_B.weight") else value for key, value in keys.items()}
    scales = {
        key.replace(".weight", f".{word}"): np.float32(2) for key in keys if key.endswith("lora_B.weight")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_lora(write(tmp_path / "x.safetensors", half | scales, "F8_E4M3"), shapes)
    assert same(found, changes)


def test_tensors_of_the_framework(shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank]) -> None:
    keys = {key: ops.from_numpy(np.atleast_1d(value)) for key, value in own(changes, "peft").items()}
    assert same(read_lora(keys, shapes), changes)


def test_convolutions_come_as_matrices(
    shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank]
) -> None:
    (out, *sides), change = shapes["x_embedder.proj"], changes["x_embedder.proj"]
    keys = {
        "transformer.x_embedder.proj.lora_A.weight": change.down.reshape(RANK, *sides),
        "transformer.x_embedder.proj.lora_B.weight": change.up.reshape(out, RANK, 1, 1, 1),
        "transformer.x_embedder.proj.alpha": np.float32(ALPHA),
    }
    assert same(read_lora(keys, shapes), {"x_embedder.proj": change})


def test_alpha_is_the_rank_where_nothing_says_otherwise(
    shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank]
) -> None:
    keys = {key: value for key, value in own(changes, "peft").items() if not key.endswith("alpha")}
    assert {change.alpha for change in read_lora(keys, shapes).values()} == {RANK}
    assert {change.ratio for change in read_lora(keys, shapes).values()} == {1.0}


@pytest.mark.parametrize("home", ["header", "adapter_config.json"])
def test_alpha_of_the_settings(
    shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank], home: str, tmp_path: Path
) -> None:
    keys = {key: value for key, value in own(changes, "peft").items() if not key.endswith("alpha")}
    settings = {
        "r": RANK,
        "lora_alpha": 5.0,
        "alpha_pattern": {"^proj_out": 7.0, "attn.to_q": 9.0},
        "use_rslora": False,
    }
    if home == "header":
        packed = json.dumps({f"transformer.{key}": value for key, value in settings.items()})
        place = write(tmp_path / "x.safetensors", keys, metadata={"lora_adapter_metadata": packed})
    else:
        place = write(tmp_path / "adapter_model.safetensors", keys).parent
        (place / "adapter_config.json").write_text(json.dumps(settings))
    alphas = {name: change.alpha for name, change in read_lora(place, shapes).items()}
    assert alphas["proj_out"] == 7
    assert alphas["single_transformer_blocks.0.proj_out"] == 5
    assert alphas["transformer_blocks.1.attn.to_q"] == 9
    assert alphas["transformer_blocks.1.attn.to_k"] == 5


def test_rank_stabilised_alpha(
    shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank], tmp_path: Path
) -> None:
    keys = {key: value for key, value in own(changes, "peft").items() if not key.endswith("alpha")}
    settings = {"transformer.lora_alpha": 4, "transformer.use_rslora": True}
    file = write(tmp_path / "x.safetensors", keys, metadata={"lora_adapter_metadata": json.dumps(settings)})
    for change in read_lora(file, shapes).values():
        assert change.ratio == pytest.approx(4 / RANK**0.5)


# What is not read ---------------------------------------------------------------------------------------------------


def test_a_file_of_another_model_is_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    keys = {f"blocks.{n}.self_attn.q.lora_A.weight": np.ones((2, 4), np.float32) for n in range(9)}
    with pytest.raises(
        ModelError, match=r"None of the 9 keys .*'blocks.0.self_attn.q.lora_A.weight'.*transformer_blocks"
    ):
        read_lora(keys, shapes)


def test_an_empty_file_is_refused(shapes: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="empty"):
        read_lora(write(tmp_path / "x.safetensors", {}), shapes)


@pytest.mark.parametrize(
    "key", ["text_encoder.layers.0.q_proj.lora_A.weight", "lora_te1_layers_0_q.lora_down.weight"]
)
def test_text_encoders_are_named(
    shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank], key: str
) -> None:
    foreign = {key: np.ones((2, 4), np.float32)}
    with pytest.raises(ModelError, match="1 of them are for a text encoder"):
        read_lora(foreign, shapes)
    with pytest.warns(LongtakeWarning, match=f"1 of .* keys .*{key}.*text encoder"):
        assert same(read_lora(own(changes, "peft") | foreign, shapes), changes)


def test_keys_that_do_not_fit_are_counted_and_named(
    shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank]
) -> None:
    far = {
        f"transformer.transformer_blocks.{n}.attn.to_q.lora_A.weight": np.ones((2, 32)) for n in range(2, 7)
    }
    with pytest.warns(
        LongtakeWarning, match=r"5 of \d+ keys .*transformer_blocks.2.attn.to_q.lora_A.weight.* …"
    ):
        assert same(read_lora(own(changes, "peft") | far, shapes), changes)


@pytest.mark.parametrize(
    ("key", "method"),
    [
        ("transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector", "DoRA"),
        ("lora_unet_transformer_blocks_0_attn_to_q.dora_scale", "DoRA"),
        ("lora_unet_transformer_blocks_0_attn_to_q.hada_w1_a", "LoHa"),
        ("lora_unet_transformer_blocks_0_attn_to_q.lokr_w1", "LoKr"),
        ("lora_unet_transformer_blocks_0_attn_to_q.oft_blocks", "OFT"),
    ],
)
def test_other_methods_are_recognised(
    shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank], key: str, method: str
) -> None:
    with pytest.raises(ModelError, match=f"is a {method} .*{key}.*only LoRA"):
        read_lora(own(changes, "peft") | {key: np.ones((2, 2), np.float32)}, shapes)


def test_other_shapes_are_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    keys = {
        "transformer.proj_out.lora_A.weight": np.ones((3, 33), np.float32),
        "transformer.proj_out.lora_B.weight": np.ones((16, 3), np.float32),
    }
    with pytest.raises(ModelError, match=r"transformer.proj_out.lora_A.weight.*\[3, 33\].*\[rank, 32\]"):
        read_lora(keys, shapes)


def test_ranks_that_differ_are_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    keys = {
        "transformer.proj_out.lora_A.weight": np.ones((3, 32), np.float32),
        "transformer.proj_out.lora_B.weight": np.ones((16, 4), np.float32),
    }
    with pytest.raises(ModelError, match=r"\[3, 32\] and \[16, 4\]"):
        read_lora(keys, shapes)


def test_damage_is_named(shapes: dict[str, tuple[int, ...]]) -> None:
    down = {"proj_out.lora_A.weight": np.ones((3, 32), np.float32)}
    up = {"proj_out.lora_B.weight": np.ones((16, 3), np.float32)}
    with pytest.raises(ModelError, match=r"'proj_out.lora_A.weight', and no up"):
        read_lora(down, shapes)
    with pytest.raises(ModelError, match="not finite"):
        read_lora(down | {"proj_out.lora_B.weight": np.full((16, 3), np.nan)}, shapes)
    with pytest.raises(ModelError, match="one number"):
        read_lora(down | up | {"proj_out.alpha": np.ones(2)}, shapes)
    with pytest.raises(ModelError, match="the same thing"):
        read_lora(down | up | {"transformer.proj_out.lora_A.weight": np.ones((3, 32))}, shapes)
    with pytest.raises(ModelError, match="twice"):
        read_lora(
            down
            | up
            | {name.replace("proj_out", "final_layer.linear"): v for name, v in (down | up).items()},
            shapes,
        )


def test_where_the_file_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a safetensors file, nor a folder"):
        find_file(tmp_path / "none")
    for missing in ("walk.safetensors", "films/walk.safetensors", "./films", "/films/walk"):
        with pytest.raises(ModelError, match="There is no LoRA"):
            find_file(missing)
    with pytest.raises(ModelError, match=r"no pytorch_lora_weights.safetensors; .*none"):
        find_file(tmp_path)
    pickle = tmp_path / "x.pt"
    pickle.write_bytes(b"")
    with pytest.raises(ModelError, match="pickle"):
        find_file(pickle)
    one = write(tmp_path / "one.safetensors", {})
    assert find_file(tmp_path) == one
    write(tmp_path / "two.safetensors", {})
    with pytest.raises(ModelError, match=r"one.safetensors, two.safetensors: choose one with weight_name="):
        find_file(tmp_path)
    assert find_file(tmp_path, "one.safetensors") == one
    usual = write(tmp_path / "pytorch_lora_weights.safetensors", {})
    assert find_file(tmp_path) == usual


def test_a_truncated_file_is_refused(
    shapes: dict[str, tuple[int, ...]], changes: dict[str, LowRank], tmp_path: Path
) -> None:
    file = write(tmp_path / "x.safetensors", own(changes, "peft"))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ModelError, match="truncated"):
        read_lora(file, shapes)
