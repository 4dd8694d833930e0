"""Shards and indices, read and written; saves that are interrupted."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from longtake.backend import ops, runtime
from longtake.errors import ModelError
from longtake.weights import files, saving

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


def test_one_file_is_what_safetensors_reads(tmp_path: Path, tensors: dict[str, Any]) -> None:
    (file,) = saving.write_weights(tmp_path, STEM, tensors)
    assert file.name == "model.safetensors"
    read = load_file(file)
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read[name], array)


def test_an_empty_tensor_is_kept(tmp_path: Path, torch_only: Any) -> None:
    """MindSpore has no tensors without values."""
    (file,) = saving.write_weights(
        tmp_path, STEM, {"e.empty": torch_only.zeros(0, 3), "a": filled_with(1, 3)}
    )
    assert load_file(file)["e.empty"].shape == (0, 3)


def test_bfloat16_is_written_bit_by_bit(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.140625], np.float32)
    tensor = runtime.place(ops.from_numpy(values), dtype="bfloat16")
    (file,) = saving.write_weights(tmp_path, STEM, {"c.brain": tensor})
    with safe_open(file, framework="numpy") as opened:
        assert opened.get_slice("c.brain").get_dtype() == "BF16"
    (read,) = read_back(tmp_path).values()
    assert runtime.dtype_name(read.dtype) == "bfloat16"
    np.testing.assert_array_equal(ops.to_numpy(read), values)
    (wide,) = read_back(tmp_path, dtype=runtime.dtype("float32")).values()
    np.testing.assert_array_equal(ops.to_numpy(wide), values)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_hold_everything_within_their_size(tmp_path: Path, variant: str | None) -> None:
    tensors = {f"layers.{number}": filled_with(number, 10) for number in range(10)}
    written = saving.write_weights(tmp_path, STEM, tensors, max_shard_size=100, variant=variant)
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
    saving.write_weights(tmp_path, STEM, tensors)
    read = read_back(tmp_path, dtype=runtime.dtype("float16"))
    found = {name: runtime.dtype_name(tensor.dtype) for name, tensor in read.items()}
    assert found == {**dict.fromkeys(ARRAYS, "float16"), "d.scalar": "int64", "e.flags": "bool"}


def test_a_new_set_of_files_replaces_the_old(tmp_path: Path) -> None:
    tensors = {"a": filled_with(0, 100), "b": filled_with(0, 100)}
    saving.write_weights(tmp_path, STEM, tensors, max_shard_size=400)
    saving.write_weights(tmp_path, STEM, tensors, variant="fp16")
    saving.write_weights(tmp_path, STEM, tensors)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.fp16.safetensors", "model.safetensors"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving.write_weights(tmp_path, STEM, {"a": filled_with(0, 10)})
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(tensor: Any) -> memoryview:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runtime, "to_bytes", full)
    with pytest.raises(ModelError, match="No space left on device"):
        saving.write_weights(tmp_path, STEM, {"a": filled_with(1, 10)})
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


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
    saving.write_weights(
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
    saving.write_weights(tmp_path, STEM, {"a": filled_with(0, 1)}, variant="fp16")
    with pytest.raises(ModelError, match="its variants are 'fp16'"):
        files.read_weights(tmp_path, STEM)
    with pytest.raises(ModelError, match=r"model\.bf16\.safetensors"):
        files.read_weights(tmp_path, STEM, "bf16")


@pytest.mark.parametrize("size", ["", "ten", "10XB", "0GB", -3])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    with pytest.raises(ModelError, match="no size"):
        saving.size_in_bytes(size)  # type: ignore[arg-type]


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        saving.write_weights(tmp_path / "file" / "folder", STEM, {"a": filled_with(0, 1)})


# Saves that are interrupted -------------------------------------------------------------------------------------------

# Of two sets of weights by how many shards they have: 1 is a single file.
SETS = [(2, 2), (2, 3), (3, 2), (1, 2), (2, 1), (1, 1)]


def weights_of(value: float, shards: int) -> tuple[dict[str, Any], int]:
    """Six weights of 40 bytes that are all `value`, and the size that makes so many shards of them."""
    return {f"layers.{number}": filled_with(value, 10) for number in range(6)}, 240 // shards


def save(folder: Path, value: float, shards: int) -> None:
    tensors, size = weights_of(value, shards)
    saving.write_weights(folder, STEM, tensors, max_shard_size=size)


def check_no_mixture(folder: Path) -> set[float]:
    """The value of all weights, by each way to read them; nothing if they cannot be read."""
    found = set()
    for first in ("single", "index"):  # we read a single file before an index, diffusers the other way
        read = folder.with_name(f"{folder.name}-{first}")
        shutil.copytree(folder, read, dirs_exist_ok=True)
        if first == "index" and (read / "model.safetensors.index.json").exists():
            (read / "model.safetensors").unlink(missing_ok=True)
        try:
            values = {float(value) for tensor in read_back(read).values() for value in ops.to_numpy(tensor)}
        except ModelError:
            continue
        finally:
            shutil.rmtree(read)
        assert len(values) == 1, "old and new weights"
        found |= values
    return found


@pytest.fixture
def before_each_change(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Call a function before each change of a folder: each name that is given or taken away."""

    def watch(function: Callable[[], None]) -> None:
        def watched(change: Any) -> Any:
            def call(*words: Any, **options: Any) -> Any:
                function()
                return change(*words, **options)

            return call

        monkeypatch.setattr(os, "replace", watched(os.replace))
        monkeypatch.setattr(os, "unlink", watched(os.unlink))
        monkeypatch.setattr(Path, "unlink", watched(Path.unlink))

    return watch


@pytest.mark.parametrize(("old", "new"), SETS)
def test_a_save_that_is_killed_leaves_no_mixture(
    old: int, new: int, tmp_path: Path, before_each_change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, killed = tmp_path / "model", list[Path]()
    save(folder, 1.0, old)

    def keep() -> None:
        """What lies there if the process ends now."""
        killed.append(shutil.copytree(folder, tmp_path / f"killed-{len(killed)}"))

    before_each_change(keep)
    save(folder, 2.0, new)
    monkeypatch.undo()
    assert len(killed) >= new
    # The old set at first; then either of them, or none.
    assert check_no_mixture(killed[0]) == {1.0}
    for state in killed:
        assert check_no_mixture(state) <= {1.0, 2.0}
    assert check_no_mixture(folder) == {2.0}
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(("old", "new"), SETS)
def test_a_save_that_fails_leaves_no_mixture(
    old: int, new: int, tmp_path: Path, before_each_change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for failing in range(30):
        folder, calls = tmp_path / f"model-{failing}", [0]
        save(folder, 1.0, old)

        def fail(failing: int = failing, calls: list[int] = calls) -> None:
            calls[0] += 1
            if calls[0] == failing + 1:
                raise OSError(errno.EIO, "Input/output error")

        before_each_change(fail)
        try:
            save(folder, 2.0, new)
            break
        except ModelError as error:
            assert "Input/output error" in str(error)
        finally:
            monkeypatch.undo()
        assert check_no_mixture(folder) <= {1.0, 2.0}
    assert failing >= new and check_no_mixture(folder) == {2.0}


def test_shards_that_an_interrupted_save_left_are_named(tmp_path: Path) -> None:
    save(tmp_path, 1.0, 2)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelError, match="as a save leaves them that was interrupted"):
        files.read_weights(tmp_path, STEM)
