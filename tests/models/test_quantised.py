"""Linear layers of 8 bits: made while reading, kept as they lie in files; on either framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import longtake
from longtake import backend, fp8
from longtake.backend import eight, modules, nn, ops, runtime
from longtake.errors import BackendError, JobError, ModelError
from longtake.models import adapters, quantised
from longtake.models.pretrained import is_untouched
from longtake.models.quantised import EightBitConfig, EightBitLinear
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.weights import files
from longtake.weights.header import CODES, compose
from longtake.weights.lora import LowRank

NAME = "diffusion_pytorch_model.safetensors"
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((6, 40)).astype(np.float32)
FORMS = ["int8", "fp8", *(["int8-dynamic", "fp8-dynamic"] if backend.name == "torch" else [])]
# A step is 1/127 of a row's largest value, and an error at most half of it; an 8-bit float has 4 bits of a number. Over
# a network that is a share of a percent, and a few; activations in 8 bits double it.
NETWORK_ERROR = {"int8": 0.02, "fp8": 0.08, "int8-dynamic": 0.04, "fp8-dynamic": 0.12}
EXPECTED = {"int8": [1.9542787, 1.0114477, -0.3192832], "fp8": [1.9752426, 0.9596012, -0.3168071]}
LINEARS = 17
"""In one double and one single block."""


@pytest.fixture(scope="module")
def plain(filled: Any) -> Any:
    return filled(
        Transformer(
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            in_channels=4,
            out_channels=4,
            text_embed_dim=24,
            pooled_projection_dim=12,
            rope_axes_dim=(4, 6, 6),
            image_proj_dim=20,
        )
    )


@pytest.fixture(scope="module")
def folder(plain: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("plain")
    plain.save_pretrained(place)
    return place


def velocity(network: Any) -> np.ndarray:
    source = np.random.default_rng(1)

    def noise(*shape: int) -> Any:
        return ops.from_numpy(source.standard_normal(shape).astype(np.float32))

    with runtime.no_grad():
        made = network(
            hidden_states=noise(1, 4, 3, 4, 6),
            timestep=ops.from_numpy(np.asarray([500.0], np.float32)),
            encoder_hidden_states=noise(1, 5, 24),
            pooled_projections=noise(1, 12),
            image_embeds=noise(1, 4, 20),
            guidance=ops.from_numpy(np.asarray([6000.0], np.float32)),
            latents_clean=noise(1, 4, 2, 4, 6),
            indices_latents_clean=[0, 4],
            return_dict=False,
        )
    return np.asarray(ops.to_numpy(made[0]))


def far(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def weights_of(network: Any) -> dict[str, np.ndarray]:
    return {name: np.array(_array(weight)) for name, weight in runtime.named_weights(network).items()}


def _array(weight: Any) -> np.ndarray:
    """A weight's values, or the bytes of an 8-bit float."""
    if backend.name == "torch" and weight.itemsize == 1:
        import torch

        weight = weight.detach().view(torch.uint8)
    return ops.to_numpy(weight)


def write(file: Path, arrays: Mapping[str, tuple[str, np.ndarray]]) -> None:
    """A safetensors file of (dtype, values or bytes) by name."""
    order = sorted(arrays, key=lambda name: -arrays[name][1].itemsize)
    entries = {name: (CODES[arrays[name][0]], arrays[name][1].shape) for name in order}
    data = b"".join(np.ascontiguousarray(arrays[name][1]).tobytes() for name in order)
    file.write_bytes(compose(entries, {"format": "pt"}) + data)


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.5), ("float8_e4m3fn", 16)])
def test_every_code_is_the_nearest(kind: str, most: float) -> None:
    weight = ops.from_numpy(WEIGHT)
    step = eight.steps(weight, kind)
    code = eight.codes(weight, step, kind)
    steps = ops.to_numpy(step)
    # Not larger than the largest code, and not much smaller: a bfloat16 number has 8 bits.
    highest = np.abs(WEIGHT).max(1, keepdims=True) / steps
    assert (highest <= eight.LARGEST[kind] * (1 + 1e-6)).all() and (
        highest > 0.99 * eight.LARGEST[kind]
    ).all()
    assert not (steps.view(np.uint32) & 0xFFFF).any()
    found = ops.to_numpy(eight.widened(code, step, kind))
    if kind == "int8":
        expected = np.rint(WEIGHT / steps) * steps
    else:
        expected = fp8.TABLES[kind][fp8.encode(WEIGHT / steps)] * steps
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # Half a step; of the 8-bit float half of its widest, 32, between 256 and 448.
    assert (np.abs(found - WEIGHT) <= most * steps * 1.001).all()


def test_an_8_bit_float_is_rounded_as_torch_rounds_it(torch_only: Any) -> None:
    torch = torch_only
    values = np.concatenate(
        [fp8.TABLES["float8_e4m3fn"], RNG.uniform(-448, 448, 999), RNG.normal(0, 0.02, 999)]
    )
    values = values[np.isfinite(values)].astype(np.float32)
    middles = (values[:-1] + values[1:]) / 2
    values = np.concatenate([values, middles[np.abs(middles) <= 448]])
    expected = torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    np.testing.assert_array_equal(fp8.encode(values), expected)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_every_byte_of_an_8_bit_float_is_widened_to_its_value(kind: str) -> None:
    table = fp8.TABLES[kind]
    known = np.isfinite(table)
    code = np.where(known, np.arange(256), 0).astype(np.uint8).reshape(16, 16)
    found = eight.widened(_codes(code, kind), ops.ones(16, 1), kind)
    np.testing.assert_array_equal(ops.to_numpy(found), np.where(known, table, 0).reshape(16, 16))
    assert eight.finite(_codes(code, kind), kind)
    for byte in np.flatnonzero(~known):
        code[3, 4] = byte
        assert not eight.finite(_codes(code, kind), kind)


def _codes(code: np.ndarray, kind: str) -> Any:
    if backend.name == "torch":
        import torch

        return torch.from_numpy(code.copy()).view(getattr(torch, kind))
    return ops.from_numpy(code)


@pytest.mark.parametrize("kind", ["int8", "float8_e4m3fn"])
def test_a_row_of_zeros_stays_zero_and_tiny_values_are_numbers(kind: str) -> None:
    weight = WEIGHT.copy()
    weight[2], weight[3], weight[4] = 0, weight[3] * 1e-38, weight[4] * 1e-44
    tensor = ops.from_numpy(weight)
    step = eight.steps(tensor, kind)
    found = ops.to_numpy(eight.widened(eight.codes(tensor, step, kind), step, kind))
    assert not found[2].any() and np.isfinite(found).all()
    assert np.abs(found[3:] - weight[3:]).max() < 1e-1  # others keep their own steps


# Layers of a network --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_layers_change_memory_falls_and_the_network_hardly(plain: Any, folder: Path, form: str) -> None:
    network = Transformer.from_pretrained(folder, replace=quantised.making(plain, EightBitConfig(form)))
    changed = [name for name, part in _modules(network) if isinstance(part, EightBitLinear)]
    assert len(changed) == LINEARS and quantised.forms(network) == [form]
    assert all("blocks" in name and "norm" not in name for name in changed)
    before, after = weights_of(plain), weights_of(network)
    codes = [f"{name}.weight" for name in changed]
    # One byte for each value of four, and a step for each row.
    fall = sum(before[name].nbytes - after[name].nbytes for name in codes)
    assert fall == 0.75 * sum(before[name].nbytes for name in codes)
    assert all(np.array_equal(before[name], after[name]) for name in before if name not in codes)
    error = far(velocity(network), velocity(plain))
    assert 1e-4 < error < NETWORK_ERROR[form]


def _modules(network: Any) -> Any:
    from longtake.backend import modules

    return modules.leaves(network).items()


@pytest.mark.skipif(backend.name == "torch", reason="about MindSpore")
def test_products_of_8_bits_are_refused_where_there_are_none() -> None:
    with pytest.raises(BackendError, match="take the form without -dynamic"):
        eight.check("int8", "CPU", dynamic=True)


def test_blocks_at_either_end_are_kept(plain: Any) -> None:
    layers = quantised.layers_of(plain)
    assert len(layers) == LINEARS
    without = quantised.layers_of(plain, keep_first=1)
    assert without == {name for name in layers if name.startswith("single_")}
    assert quantised.layers_of(plain, keep_last=1) == layers - without
    with pytest.raises(ModelError, match="2 blocks; with keep_first=1 and keep_last=1 none"):
        quantised.layers_of(plain, 1, 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"form": "int3"}, "'int3' is no form"),
        ({"bits": 4}, "not 'bits'"),
        ({"keep_last": -1}, "keep_last is a number"),
    ],
)
def test_a_config_that_cannot_be(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        EightBitConfig.of(values)


def test_a_weight_that_is_not_finite_is_named(plain: Any, folder: Path, tmp_path: Path) -> None:
    name = "transformer_blocks.0.ff.net.2.weight"
    arrays = {key: ("float32", array) for key, array in weights_of(plain).items()}
    wrong = arrays[name][1].copy()
    wrong[1, 2] = np.inf
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    write(tmp_path / NAME, arrays | {name: ("float32", wrong)})
    with pytest.raises(ModelError, match=r"'transformer_blocks\.0\.ff\.net\.2\.weight' that are not finite"):
        Transformer.from_pretrained(tmp_path, replace=quantised.making(plain, EightBitConfig()))


# Files that hold 8 bits -----------------------------------------------------------------------------------------------


def stored(
    plain: Any, folder: Path, place: Path, kind: str, scale: str | None, **others: Any
) -> dict[str, np.ndarray]:
    """Write the network with the linear layers of its blocks as bare codes, or with their steps; gives those used."""
    (place / "config.json").write_bytes((folder / "config.json").read_bytes())
    arrays = {name: ("float32", array) for name, array in weights_of(plain).items()}
    wide = {}
    for layer in quantised.layers_of(plain):
        name = f"{layer}.weight"
        weight = arrays[name][1]
        step = np.float32(1) if scale is None else np.float32(np.abs(weight).max() / 448)
        code = fp8.encode(weight / step)
        arrays[name] = (kind, code)
        if scale is not None:
            arrays[f"{layer}.{scale}"] = ("float32", np.full((1,), step, np.float32))
        wide[name] = fp8.TABLES["float8_e4m3fn"][code] * step
    write(place / NAME, arrays | others)
    return wide


@pytest.mark.parametrize("scale", [None, "weight_scale", "scale_weight"])
def test_codes_in_a_file_stay_codes(
    plain: Any, folder: Path, tmp_path: Path, scale: str | None, filled: Any
) -> None:
    beside = {} if scale is None else {
        "scaled_fp8": ("float8_e4m3fn", np.zeros(2, np.uint8)),
        "single_transformer_blocks.0.proj_mlp.scale_input": ("float32", np.ones(1, np.float32)),
    }  # fmt: skip
    wide = stored(plain, folder, tmp_path, "float8_e4m3fn", scale, **beside)
    network = Transformer.from_pretrained(tmp_path)
    assert quantised.forms(network) == ["fp8"]
    assert runtime.dtype_name(network.dtype) == "float32"
    full = Transformer.from_pretrained(folder)
    runtime.assign_weights(full, {name: ops.from_numpy(values) for name, values in wide.items()})
    # The same numbers, but for the order of sums and one more rounding of each product.
    assert far(velocity(network), velocity(full)) < 1e-5


def test_codes_are_mapped_and_not_copied(plain: Any, folder: Path, tmp_path: Path, torch_only: Any) -> None:
    stored(plain, folder, tmp_path, "float8_e4m3fn", None)
    name = "single_transformer_blocks.0.proj_mlp.weight"
    weight = runtime.named_weights(Transformer.from_pretrained(tmp_path))[name]
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if NAME in line]
    spans = [tuple(int(end, 16) for end in line[0].split("-")) for line in maps]
    assert any(first <= weight.data_ptr() < last for first, last in spans)


def test_int8_without_steps_is_refused(plain: Any, folder: Path, tmp_path: Path) -> None:
    stored(plain, folder, tmp_path, "int8", None)
    with pytest.raises(ModelError, match=r"as int8 without a scale beside it"):
        Transformer.from_pretrained(tmp_path)


def test_steps_of_another_shape_are_refused(plain: Any, folder: Path, tmp_path: Path) -> None:
    wrong = {"transformer_blocks.0.attn.to_q.weight_scale": ("float32", np.ones((3, 1), np.float32))}
    stored(plain, folder, tmp_path, "float8_e4m3fn", "weight_scale", **wrong)
    with pytest.raises(
        ModelError, match=r"a scale of 3 numbers .* one finite number, or one for each of the 32 rows"
    ):
        Transformer.from_pretrained(tmp_path)


def test_another_form_than_the_files_is_refused(plain: Any, folder: Path, tmp_path: Path) -> None:
    stored(plain, folder, tmp_path, "float8_e4m3fn", None)
    with pytest.raises(ModelError, match="in fp8 already, and int8 is asked for"):
        Transformer.from_pretrained(tmp_path, replace=quantised.making(plain, EightBitConfig("int8")))


def test_an_8_bit_float_that_is_no_matrix_is_widened(plain: Any, folder: Path, tmp_path: Path) -> None:
    name = "transformer_blocks.0.attn.to_q.bias"
    code = fp8.encode(weights_of(plain)[name])
    stored(plain, folder, tmp_path, "float8_e4m3fn", None, **{name: ("float8_e4m3fn", code)})
    network = Transformer.from_pretrained(tmp_path)
    np.testing.assert_array_equal(
        ops.to_numpy(runtime.named_weights(network)[name]), fp8.TABLES["float8_e4m3fn"][code]
    )


# Written and moved ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", ["10GB", "40KB"])
def test_what_is_saved_comes_back(plain: Any, folder: Path, tmp_path: Path, form: str, size: str) -> None:
    config = EightBitConfig(form, keep_last=1)
    network = Transformer.from_pretrained(folder, quantization_config=config)
    network.save_pretrained(tmp_path, max_shard_size=size)
    again = Transformer.from_pretrained(tmp_path)
    assert again.quantization == config and quantised.forms(again) == [form]
    before, after = weights_of(network), weights_of(again)
    assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
    assert np.array_equal(velocity(again), velocity(network))
    kinds = {weight.dtype for weight in files.read_weights(tmp_path, "diffusion_pytorch_model").values()}
    assert kinds == {"float32", config.kind}


def test_a_network_is_saved_with_its_adapters_left_out(plain: Any, folder: Path, tmp_path: Path) -> None:
    network = Transformer.from_pretrained(
        folder, quantization_config={"quant_method": "longtake", "form": "int8"}
    )
    before = velocity(network)
    adapters.attach(network, "a", adapter(network))
    network.save_pretrained(tmp_path)
    assert np.array_equal(velocity(Transformer.from_pretrained(tmp_path)), before)


def adapter(network: Any) -> dict[str, LowRank]:
    """A random adapter of every layer that can have one."""
    source = np.random.default_rng(3)

    def change(shape: tuple[int, ...]) -> LowRank:
        down = source.standard_normal((2, int(np.prod(shape[1:])))).astype(np.float32)
        return LowRank(
            down / np.float32(np.sqrt(down.shape[1])), 0.2 * source.standard_normal((shape[0], 2)), 2.0
        )

    return {name: change(shape) for name, shape in adapters.shapes(network).items()}


@pytest.mark.parametrize("form", FORMS)
def test_an_adapter_beside_8_bits_does_what_it_does_beside_floats(
    plain: Any, folder: Path, form: str
) -> None:
    full = Transformer.from_pretrained(folder)
    network = Transformer.from_pretrained(folder, quantization_config=EightBitConfig(form))
    changes, bare = adapter(full), velocity(network)
    assert adapters.shapes(network) == adapters.shapes(full)
    for each in (full, network):
        adapters.attach(each, "a", changes, 0.7)
    assert far(velocity(network), bare) > 0.1
    assert far(velocity(network), velocity(full)) < NETWORK_ERROR[form]
    for each in (full, network):
        adapters.set_strengths(each, {"a": 0.2})
    assert far(velocity(network), velocity(full)) < NETWORK_ERROR[form]
    with pytest.raises(JobError, match="without merging"):
        adapters.merge(network)
    adapters.detach(network)
    assert np.array_equal(velocity(network), bare)


@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_codes_stay_codes_when_the_network_changes_its_dtype(folder: Path, form: str) -> None:
    network = Transformer.from_pretrained(folder, quantization_config=EightBitConfig(form))
    before, exact = weights_of(network), velocity(network)
    codes = [name for name, part in _modules(network) if isinstance(part, EightBitLinear)]
    network.to(dtype=runtime.dtype("float16"))
    kinds = {runtime.dtype_name(weight.dtype) for weight in runtime.named_weights(network).values()}
    assert len(kinds) == 2 and "float16" in kinds
    after = weights_of(network)
    assert all(np.array_equal(before[f"{name}.weight"], after[f"{name}.weight"]) for name in codes)
    assert runtime.dtype_name(network.dtype) == "float16" and is_untouched(network)
    assert far(velocity(network), exact) < 0.02  # 11 bits, and a few layers


def test_weights_are_moved_one_by_one_as_plain_ones(folder: Path) -> None:
    network = Transformer.from_pretrained(folder, quantization_config=EightBitConfig())
    before = velocity(network)
    weights = {
        name: runtime.place(weight, network.device) for name, weight in runtime.named_weights(network).items()
    }
    assert {
        f"transformer_blocks.0.attn.to_q.{end}" for end in ("weight", "weight_scale", "bias")
    } <= weights.keys()
    runtime.assign_weights(network, weights)
    assert quantised.forms(network) == ["int8"] and np.array_equal(velocity(network), before)


def test_graphs_compute_the_same(mode: str, folder: Path) -> None:
    for form in ("int8", "fp8"):
        network = Transformer.from_pretrained(folder, quantization_config=EightBitConfig(form))
        found = velocity(network)
        # From PyTorch in float32; the limit between frameworks.
        assert far(found[0, 0, 0, 0, :3], np.asarray(EXPECTED[form])) < 1e-4


def test_a_network_in_8_bits_can_be_hooked_and_compiled(folder: Path, torch_only: Any) -> None:
    network = Transformer.from_pretrained(folder, quantization_config=EightBitConfig("int8"))
    before, layer = velocity(network), network.transformer_blocks[0].ff.net[2]
    seen: list[Any] = []
    hook = layer.register_forward_hook(lambda *_: seen.append(1))
    assert not is_untouched(network)
    velocity(network)
    hook.remove()
    assert seen and is_untouched(network)
    for form in ("int8", "int8-dynamic", "fp8"):
        layer = (
            Transformer.from_pretrained(folder, quantization_config=EightBitConfig(form))
            .transformer_blocks[0]
            .ff
        )
        x = torch_only.randn(1, 8, 32)
        with torch_only.no_grad():
            compiled = torch_only.compile(layer, backend="aot_eager", fullgraph=True)
            torch_only.testing.assert_close(compiled(x), layer(x), rtol=1e-4, atol=1e-5)
    assert np.array_equal(velocity(network), before)


def test_rows_of_a_large_weight_are_widened_in_pieces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Transformer.from_pretrained(folder, quantization_config=EightBitConfig())
    whole = velocity(network)
    seen: list[int] = []
    widened = eight.widened
    monkeypatch.setattr(
        eight, "widened", lambda code, *rest: seen.append(code.shape[0]) or widened(code, *rest)
    )
    monkeypatch.setattr(ops, "piece_values", lambda x: 7 * 32)
    pieces = velocity(network)
    assert max(seen) == 7 and far(pieces, whole) < 1e-6


def test_gradients_of_8_bit_products_are_those_of_the_weights(torch_only: Any, folder: Path) -> None:
    layer = Transformer.from_pretrained(folder, quantization_config=EightBitConfig("int8-dynamic"))
    layer = layer.transformer_blocks[0].ff.net[2]
    x = torch_only.randn(5, 128, requires_grad=True)
    layer(x).sum().backward()
    torch_only.testing.assert_close(x.grad, layer.full().sum(0).expand(5, -1))


def test_8_bit_products_on_an_accelerator_stay_there(torch_only: Any, folder: Path) -> None:
    fake_device = pytest.importorskip("fake_device")
    for form in ("int8", "fp8", "int8-dynamic"):
        network = Transformer.from_pretrained(folder, quantization_config=EightBitConfig(form))
        layer = network.transformer_blocks[0].ff
        x = torch_only.randn(1, 8, 32)
        with torch_only.no_grad(), fake_device.accelerator() as traffic:
            here = layer(x)
            layer.to("npu")
            traffic.clear()
            far_x = x.to("npu")
            there = layer(far_x)
            assert traffic.counts == (1, 0, 0)
            torch_only.testing.assert_close(there.to("cpu"), here, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["int8", "float8_e4m3fn"])
def test_what_a_kernel_wants_in_multiples_is_filled_with_zeros(torch_only: Any, kind: str) -> None:
    from longtake.backend.torch.eight import _even

    torch = torch_only
    weight = torch.randn(20, 40)
    code = eight.codes(weight, eight.steps(weight, kind), kind)
    wide = _even(code, 32)
    assert wide.shape == (32, 48) and wide.dtype == code.dtype and _even(wide, 16) is wide
    assert torch.equal(wide[:20, :40].float(), code.float())
    assert not wide[20:].float().any() and not wide[:, 40:].float().any()


# Layerwise casting ----------------------------------------------------------------------------------------------------


def test_layerwise_casting_keeps_linear_layers_in_float8(folder: Path) -> None:
    model = Transformer.from_pretrained(folder)
    wanted, before = velocity(model), bytes_of(model)
    model.enable_layerwise_casting()
    chosen = {name for name, each in modules.leaves(model).items() if isinstance(each, EightBitLinear)}
    assert (
        quantised.forms(model) == ["fp8"] and {"proj_out", "single_transformer_blocks.0.proj_mlp"} <= chosen
    )
    assert not any(word in name for name in chosen for word in ("norm", "x_embedder", "context_embedder"))
    assert bytes_of(model) < 0.8 * before
    found = velocity(model)
    assert 0 < np.abs(found - wanted).max() / np.abs(wanted).max() < NETWORK_ERROR["fp8"]
    # The same codes as of those that are made while reading.
    asked = Transformer.from_pretrained(folder, quantization_config=EightBitConfig("fp8"))
    name = "transformer_blocks.0.attn.to_q.weight_scale"
    ours, theirs = (ops.to_numpy(runtime.named_weights(each)[name]) for each in (model, asked))
    np.testing.assert_array_equal(ours, theirs)


def test_layerwise_casting_beside_a_lora(folder: Path) -> None:
    model = Transformer.from_pretrained(folder)
    width = model.config.num_attention_heads * model.config.attention_head_dim
    change = LowRank(np.ones((2, width), np.float32), np.ones((width, 2), np.float32), 2.0)
    adapters.attach(model, "a", {"transformer_blocks.0.attn.to_q": change})
    with_both = velocity(model)
    model.enable_layerwise_casting(skip_modules_pattern=r"norm|embed|proj_out|single")
    assert 0 < np.abs(velocity(model) - with_both).max() / np.abs(with_both).max() < NETWORK_ERROR["fp8"]
    adapters.detach(model)
    assert isinstance(model.transformer_blocks[0].attn.to_q, EightBitLinear)


def test_layerwise_casting_leaves_what_it_is_told_to(folder: Path) -> None:
    model = Transformer.from_pretrained(folder)
    model.enable_layerwise_casting(skip_modules_classes=(nn.Linear,))
    assert quantised.forms(model) == []
    with pytest.raises(
        JobError, match="storage_dtype is float8_e5m2; weights are kept in float8_e4m3fn here"
    ):
        model.enable_layerwise_casting("float8_e5m2")
    with pytest.raises(JobError, match="no transformer whose layers could be cast"):
        longtake.HunyuanVideoFramepackPipeline().enable_layerwise_casting()


def bytes_of(model: Any) -> int:
    """Bytes of a network's weights."""
    weights = runtime.named_weights(model).values()
    return sum(len(runtime.to_bytes(weight)) for weight in weights)
