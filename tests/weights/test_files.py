"""Headers, shards, indices and atomic writing, with damaged files of every kind."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from longtake.errors import ModelError
from longtake.weights import files

STEM = "model"


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "a": torch.randn(3, 4),
        "b.half": torch.randn(5).half(),
        "c.brain": torch.randn(2, 2).bfloat16(),
        "d.scalar": torch.tensor(7),
        "e.empty": torch.zeros(0, 3),
        "f.slice": torch.randn(4, 6).T,
    }


def raw(path: Path, header: object, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def test_one_file_is_what_safetensors_reads(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    (file,) = files.write_weights(tmp_path, STEM, tensors)
    assert file.name == "model.safetensors"
    read = load_file(file)
    assert read.keys() == tensors.keys()
    assert all(
        torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in read
    )


def test_header_says_what_safetensors_wrote(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "x.safetensors")
    header = files.read_header(tmp_path / "x.safetensors")
    assert {name: (weight.dtype, weight.shape) for name, weight in header.items()} == {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_hold_everything_within_their_size(tmp_path: Path, variant: str | None) -> None:
    tensors = {f"layers.{number}": torch.full((10,), float(number)) for number in range(10)}
    written = files.write_weights(tmp_path, STEM, tensors, max_shard_size=100, variant=variant)
    shards = [file for file in written if file.suffix == ".safetensors"]
    assert len(shards) == 5
    assert shards[0].name == (
        "model-00001-of-00005.safetensors" if not variant else "model.fp16-00001-of-00005.safetensors"
    )
    found = files.read_weights(tmp_path, STEM, variant)
    read = dict(files.read_tensors(found, {name: name for name in found}))
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_tensors_change_dtype_on_load_and_integers_do_not(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    files.write_weights(tmp_path, STEM, tensors)
    found = files.read_weights(tmp_path, STEM)
    read = dict(files.read_tensors(found, {name: name for name in found}, dtype=torch.bfloat16))
    assert read["d.scalar"].dtype == torch.int64
    assert {tensor.dtype for name, tensor in read.items() if name != "d.scalar"} == {torch.bfloat16}


def test_a_new_set_of_files_replaces_the_old(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(100), "b": torch.zeros(100)}
    files.write_weights(tmp_path, STEM, tensors, max_shard_size=400)
    files.write_weights(tmp_path, STEM, tensors, variant="fp16")
    files.write_weights(tmp_path, STEM, tensors)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.fp16.safetensors", "model.safetensors"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longtake.backend import runtime

    files.write_weights(tmp_path, STEM, {"a": torch.zeros(10)})
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(tensor: torch.Tensor) -> memoryview:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runtime, "to_bytes", full)
    with pytest.raises(ModelError, match="No space left on device"):
        files.write_weights(tmp_path, STEM, {"a": torch.ones(10)})
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
    (file,) = files.write_weights(tmp_path, STEM, {"a": torch.zeros(10)})
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
    files.write_weights(tmp_path, STEM, {"a": torch.zeros(100), "b": torch.zeros(100)}, max_shard_size=400)
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
    files.write_weights(tmp_path, STEM, {"a": torch.zeros(1)}, variant="fp16")
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
        files.write_weights(tmp_path / "file" / "folder", STEM, {"a": torch.zeros(1)})
