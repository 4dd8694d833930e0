"""GGUF: headers without the package, tensors with it, and files that are not what they should be."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints import original, same, transformer, values_of
from longtake.backend import ops, runtime
from longtake.errors import ModelError
from longtake.models.quantised import EightBitConfig
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.weights import gguf as ours
from longtake.weights.files import read_tensors

HAVE = importlib.util.find_spec("gguf") is not None
needs_package = pytest.mark.skipif(not HAVE, reason="the package gguf is not installed (longtake[gguf])")
if HAVE:
    import gguf


def write(file: Path, tensors: dict[str, np.ndarray], kind: Callable[[str, np.ndarray], str]) -> Path:
    """A file by the package's own writer, each tensor in the form that `kind` names."""
    writer = gguf.GGUFWriter(file, "hyvid")
    writer.add_array("tokenizer.ggml.tokens", ["a", "few", "words"])
    writer.add_array("numbers", list(range(20)))
    for name, array in tensors.items():
        form = gguf.GGMLQuantizationType[kind(name, array)]
        if form is gguf.GGMLQuantizationType.BF16:
            data = gguf.quants.quantize(array.astype(np.float32), form).view(np.uint8)
        else:
            data = gguf.quants.quantize(array.astype(np.float32), form)
        plain = form in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
        writer.add_tensor(name, data, raw_dtype=None if plain else form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def matrices(kind: str) -> Callable[[str, np.ndarray], str]:
    """Large matrices in this form, all else as it was."""
    return lambda name, array: kind if array.ndim == 2 and array.shape[1] % 32 == 0 else "F32"


@pytest.fixture
def network(filled: Callable[[Any], Any]) -> Any:
    return filled(transformer())


@needs_package
@pytest.mark.parametrize("layout", [dict, original])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q4_0"])
def test_a_network_of_a_gguf_file(network: Any, tmp_path: Path, kind: str, layout: Any) -> None:
    weights = layout(values_of(network))
    file = write(tmp_path / "packed.gguf", weights, matrices(kind))
    read = HunyuanVideoFramepackTransformer3DModel.from_pretrained(file, dtype="float32")
    assert dict(read.config) == dict(network.config)
    if kind == "F32":
        assert same(read, network)
    found, count = layout(values_of(read)), 0
    reader = gguf.GGUFReader(file)
    for tensor in reader.tensors:
        expected = tensor.data
        if tensor.tensor_type.name not in ("F32", "F16"):
            expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            count += 1
        array = weights[tensor.name]
        np.testing.assert_array_equal(found[tensor.name], expected.reshape(array.shape).astype(np.float32))
        assert np.abs(found[tensor.name] - array).max() <= 0.13 * np.abs(array).max()  # Q4_0 has 15 steps
    assert count > 10 or kind in ("F32", "F16")


@needs_package
def test_blocks_of_8_bits_go_straight_into_a_form_of_ours(network: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "packed.gguf", original(values_of(network)), matrices("Q8_0"))
    read = HunyuanVideoFramepackTransformer3DModel.from_pretrained(
        file, dtype="float32", quantization_config=EightBitConfig("int8")
    )
    plain = values_of(HunyuanVideoFramepackTransformer3DModel.from_pretrained(file, dtype="float32"))
    name = "single_transformer_blocks.0.proj_mlp"
    made = read.single_transformer_blocks[0].proj_mlp
    assert runtime.dtype_name(made.weight.dtype) == "int8" and f"{name}." in read.replaced
    assert (
        np.abs(ops.to_numpy(made.full()) - plain[f"{name}.weight"]).max()
        < 0.01 * np.abs(plain[f"{name}.weight"]).max()
    )


@needs_package
@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"])
def test_blocks_that_the_package_can_only_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "PIECE", 3 * 256)  # several pieces
    values, size = ours.SIZES[kind]
    blocks = np.random.default_rng(0).integers(0, 255, (16 * 512 // values, size), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "k.gguf", "hyvid")
    form = gguf.GGMLQuantizationType[kind]
    writer.add_tensor("k", blocks.reshape(16, -1), raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weights = ours.read_header(tmp_path / "k.gguf")
    assert (weights["k"].dtype, weights["k"].shape, weights["k"].bytes) == (kind, (16, 512), blocks.size)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(blocks, form).reshape(16, 512)
    (_, tensor), *_ = read_tensors(weights, {"k": "k"})
    np.testing.assert_array_equal(ops.to_numpy(tensor), expected)
    (_, rows), *_ = ours.read_tensors(tmp_path / "k.gguf", [("k", (3, 5))], None, None)
    np.testing.assert_array_equal(ops.to_numpy(rows), expected[3:5])


def test_without_the_package_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = by_hand(tmp_path / "a.gguf", entries=[("a", [32, 2], 8, 0)], data=68)
    weights = ours.read_header(file)
    assert (weights["a"].dtype, weights["a"].shape) == ("Q8_0", (2, 32))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match=r'a.gguf has weights in Q8_0, which the package gguf reads.*"longtake\[gguf\]"'
    ):
        ours.check_package(file, weights.values())
    plain = by_hand(tmp_path / "b.gguf", entries=[("a", [2], 0, 0)], data=8)
    ours.check_package(plain, ours.read_header(plain).values())
    (_, tensor), *_ = read_tensors(ours.read_header(plain), {"a": "a"})
    assert ops.to_numpy(tensor).tolist() == [0, 0]


# ------------------------------------------------------------------------------------------ strangers' files


def text(words: str) -> bytes:
    data = words.encode()
    return struct.pack("<Q", len(data)) + data


def by_hand(
    file: Path,
    entries: list[tuple[str, list[int], int, int]] = (),  # type: ignore[assignment]
    settings: bytes = b"",
    data: int = 0,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> Path:
    """A file of (name, sides, form, offset) with so many bytes of zeros after the header."""
    head = (
        b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(entries), 1 if settings else 0))) + settings
    )
    for name, sides, form, offset in entries:
        head += text(name) + struct.pack(f"<I{len(sides)}QIQ", len(sides), *sides, form, offset)
    file.write_bytes(head + b"\0" * (-len(head) % 32) + b"\0" * data)
    return file


HUGE = 2**62


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"version": 1}, "is GGUF in the version 1"),
        ({"version": 3 << 24}, "its bytes in the other order"),
        ({"counts": (HUGE, 0)}, "do not hold its header"),
        ({"counts": (0, HUGE)}, "do not hold its header"),
        ({"settings": struct.pack("<Q", HUGE)}, "do not hold its header"),
        ({"settings": text("k") + struct.pack("<IIQ", 9, 0, HUGE)}, "do not hold its header"),
        ({"settings": text("k") + struct.pack("<IIQ", 9, 8, HUGE)}, "do not hold its header"),
        (
            {"settings": text("k") + struct.pack("<IIQ", 9, 9, 1) + b"\0" * 40},
            "a list of values of the type 9",
        ),
        ({"settings": text("k") + struct.pack("<I", 77)}, "a value of the unknown type 77"),
        ({"settings": text("general.alignment") + struct.pack("<II", 4, 3)}, "is no power of two"),
        ({"entries": [("a", [2**40, 2**40], 0, 0)]}, "no valid entry for the weight 'a'"),
        ({"entries": [("a", [1] * 9, 0, 0)]}, "no valid entry for the weight 'a'"),
        ({"entries": [("a", [33], 8, 0)], "data": 99}, "no valid entry for the weight 'a'"),
        ({"entries": [("a", [2], 4, 0)], "data": 99}, "the weight 'a' in GGUF's form 4, which is not read"),
        ({"entries": [("a", [2**40], 0, 0)]}, "is truncated: the weight 'a' ends at byte"),
        ({"entries": [("a", [2], 0, 2**62)]}, "is truncated: the weight 'a' ends at byte"),
        ({"entries": [("a", [2], 0, 0), ("b", [2], 0, 4)], "data": 99}, "the weight 'b' lies over another"),
        ({"entries": [("a", [2], 0, 0), ("a", [2], 0, 32)], "data": 99}, "the weight 'a' comes twice"),
    ],
)
def test_files_that_are_wrong_are_one_sentence(tmp_path: Path, words: dict[str, Any], match: str) -> None:
    file = by_hand(tmp_path / "wrong.gguf", **words)
    with pytest.raises(ModelError, match=match) as told:
        ours.read_header(file)
    assert str(told.value).startswith(str(file)) and "\n" not in str(told.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    for data, match in ((b"", "do not hold its header"), (b"PK\3\4" + b"\0" * 40, "is no GGUF file")):
        (tmp_path / "none.gguf").write_bytes(data)
        with pytest.raises(ModelError, match=match):
            HunyuanVideoFramepackTransformer3DModel.from_pretrained(tmp_path / "none.gguf")
    with pytest.raises(ModelError, match="does not exist"):
        ours.read_header(tmp_path / "gone.gguf")


def test_every_cut_of_a_good_file_is_a_sentence(tmp_path: Path) -> None:
    good = by_hand(
        tmp_path / "good.gguf",
        settings=text("comfy.gguf.orig_shape.a") + struct.pack("<IIQii", 9, 5, 2, 3, 2),
        entries=[("a", [6], 0, 0)],
        data=24,
    )
    assert ours.read_header(good)["a"].shape == (3, 2)  # the shape that the converter kept beside it
    whole = good.read_bytes()
    for length in range(len(whole)):
        (tmp_path / f"cut{length}.gguf").write_bytes(whole[:length])
        with pytest.raises(ModelError):
            ours.read_header(tmp_path / f"cut{length}.gguf")
