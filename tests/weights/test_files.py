"""Headers, shards, indices and atomic writing, with damaged files of every kind."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from longtake.backend import ops, runtime
from longtake.errors import ModelError
from longtake.weights import files

STEM = "model"


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# bfloat16, which numpy has not, is tested apart.
ARRAYS = {
    "a": noise(3, 4),
    "b.half": noise(5).astype(np.float16),
    "d.scalar": np.array(7),
    "e.flags": np.array([True, False]),
    "f.slice": noise(4, 6).T,
}


@pytest.fixture
def tensors() -> dict[str, Any]:
    return {name: ops.from_numpy(array) for name, array in ARRAYS.items()}


def filled_with(value: float, count: int) -> Any:
    return ops.from_numpy(np.full(count, value, np.float32))


def read_back(folder: Path, variant: str | None = None, dtype: Any = None) -> dict[str, Any]:
    found = files.read_weights(folder, STEM, variant)
    return dict(files.read_tensors(found, {name: name for name in found}, dtype=dtype))


def raw(path: Path, header: object, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def test_one_file_is_what_safetensors_reads(tmp_path: Path, tensors: dict[str, Any]) -> None:
    (file,) = files.write_weights(tmp_path, STEM, tensors)
    assert file.name == "model.safetensors"
    read = load_file(file)
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read[name], array)


def test_an_empty_tensor_is_kept(tmp_path: Path, torch_only: Any) -> None:
    """MindSpore has no tensors without values."""
    (file,) = files.write_weights(tmp_path, STEM, {"e.empty": torch_only.zeros(0, 3), "a": filled_with(1, 3)})
    assert load_file(file)["e.empty"].shape == (0, 3)


def test_bfloat16_is_written_bit_by_bit(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.140625], np.float32)
    tensor = runtime.place(ops.from_numpy(values), dtype="bfloat16")
    (file,) = files.write_weights(tmp_path, STEM, {"c.brain": tensor})
    with safe_open(file, framework="numpy") as opened:
        assert opened.get_slice("c.brain").get_dtype() == "BF16"
    (read,) = read_back(tmp_path).values()
    assert runtime.dtype_name(read.dtype) == "bfloat16"
    np.testing.assert_array_equal(ops.to_numpy(read), values)
    (wide,) = read_back(tmp_path, dtype=runtime.dtype("float32")).values()
    np.testing.assert_array_equal(ops.to_numpy(wide), values)


def test_header_says_what_safetensors_wrote(tmp_path: Path) -> None:
    arrays = {name: array.copy(order="C") for name, array in ARRAYS.items()}
    save_file(arrays, tmp_path / "x.safetensors")
    header = files.read_header(tmp_path / "x.safetensors")
    assert {name: (weight.dtype, weight.shape) for name, weight in header.items()} == {
        name: (str(array.dtype), array.shape) for name, array in ARRAYS.items()
    }


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_hold_everything_within_their_size(tmp_path: Path, variant: str | None) -> None:
    tensors = {f"layers.{number}": filled_with(number, 10) for number in range(10)}
    written = files.write_weights(tmp_path, STEM, tensors, max_shard_size=100, variant=variant)
    shards = [file for file in written if file.suffix == ".safetensors"]
    assert len(shards) == 5
    assert shards[0].name == (
        "model-00001-of-00005.safetensors" if not variant else "model.fp16-00001-of-00005.safetensors"
    )
    read = read_back(tmp_path, variant)
    assert read.keys() == tensors.keys()
    for name in tensors:
        np.testing.assert_array_equal(ops.to_numpy(read[name]), ops.to_numpy(tensors[name]))


def test_tensors_change_dtype_on_load_and_integers_do_not(tmp_path: Path, tensors: dict[str, Any]) -> None:
    files.write_weights(tmp_path, STEM, tensors)
    read = read_back(tmp_path, dtype=runtime.dtype("float16"))
    found = {name: runtime.dtype_name(tensor.dtype) for name, tensor in read.items()}
    assert found == {**dict.fromkeys(ARRAYS, "float16"), "d.scalar": "int64", "e.flags": "bool"}


def test_a_new_set_of_files_replaces_the_old(tmp_path: Path) -> None:
    tensors = {"a": filled_with(0, 100), "b": filled_with(0, 100)}
    files.write_weights(tmp_path, STEM, tensors, max_shard_size=400)
    files.write_weights(tmp_path, STEM, tensors, variant="fp16")
    files.write_weights(tmp_path, STEM, tensors)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.fp16.safetensors", "model.safetensors"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_weights(tmp_path, STEM, {"a": filled_with(0, 10)})
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(tensor: Any) -> memoryview:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runtime, "to_bytes", full)
    with pytest.raises(ModelError, match="No space left on device"):
        files.write_weights(tmp_path, STEM, {"a": filled_with(1, 10)})
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


def entry(
    begin: int = 0, end: int = 8, shape: tuple[int, ...] = (2,), dtype: str = "F32"
) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        ({"a": entry()}, b"\0" * 7, "truncated"),
        ({"a": entry()}, b"\0" * 9, "corrupt"),
        (b"{not json", b"", "not JSON"),
        (b"\xff\xfe\x00", b"", "not JSON"),
        ([], b"", "not a JSON object"),
        ({"a": entry(shape=(3,))}, b"\0" * 8, "'a'"),
        ({"a": entry(dtype="F99")}, b"\0" * 8, "'a'"),
        ({"a": {"dtype": "F32"}}, b"\0" * 8, "'a'"),
        ({"a": 5}, b"", "'a'"),
        ({"a": entry(shape=(-2,))}, b"\0" * 8, "'a'"),
        ({"a": entry(), "b": entry(4, 12)}, b"\0" * 12, "'b'"),
        ({"a": entry(4, 12)}, b"\0" * 12, "'a'"),
    ],
)
def test_damaged_headers_name_file_and_key(tmp_path: Path, header: object, body: bytes, message: str) -> None:
    file = raw(tmp_path / "model.safetensors", header, body)
    with pytest.raises(ModelError, match=message) as caught:
        files.read_header(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 4, 8, 30, -1])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    (file,) = files.write_weights(tmp_path, STEM, {"a": filled_with(0, 10)})
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ModelError, match="truncated"):
        files.read_header(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index["weight_map"].update(z="model-00009-of-00002.safetensors"), "missing"),
        (
            lambda index: index["weight_map"].update(z="model-00001-of-00002.safetensors"),
            "lacks the weight 'z'",
        ),
        (lambda index: index["weight_map"].update(z="../other.safetensors"), "beside it"),
        (lambda index: index["weight_map"].update(z="model.bin"), "only a safetensors file"),
        (lambda index: index.pop("weight_map"), "weight_map"),
        (lambda index: index.update(weight_map={"a": 3}), "weight_map"),
    ],
)
def test_a_wrong_index_is_named(tmp_path: Path, change, message: str) -> None:
    files.write_weights(
        tmp_path, STEM, {"a": filled_with(0, 100), "b": filled_with(0, 100)}, max_shard_size=400
    )
    file = tmp_path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    change(index)
    file.write_text(json.dumps(index))
    with pytest.raises(ModelError, match=message):
        files.read_weights(tmp_path, STEM)


def test_what_is_missing_is_told_from_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.safetensors.*holds nothing"):
        files.read_weights(tmp_path, STEM)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="only safetensors is read"):
        files.read_weights(tmp_path, STEM)
    files.write_weights(tmp_path, STEM, {"a": filled_with(0, 1)}, variant="fp16")
    with pytest.raises(ModelError, match="its variants are 'fp16'"):
        files.read_weights(tmp_path, STEM)
    with pytest.raises(ModelError, match=r"model\.bf16\.safetensors"):
        files.read_weights(tmp_path, STEM, "bf16")


@pytest.mark.parametrize("size", ["", "ten", "10XB", "0GB", -3])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    with pytest.raises(ModelError, match="no size"):
        files.size_in_bytes(size)  # type: ignore[arg-type]


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        files.write_weights(tmp_path / "file" / "folder", STEM, {"a": filled_with(0, 1)})
