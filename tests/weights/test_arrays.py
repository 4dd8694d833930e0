"""Tensors as numpy arrays: every dtype, every 8-bit float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longtake.errors import ModelError
from longtake.weights.arrays import decode, read_arrays

EVERY_BYTE = bytes(range(256))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_every_8_bit_float_is_torchs(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    expected = torch.frombuffer(bytearray(EVERY_BYTE), dtype=getattr(torch, dtype)).float().numpy()
    np.testing.assert_array_equal(decode(EVERY_BYTE, dtype, (16, 16)).reshape(-1), expected)


def test_bfloat16_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**16, 4096).astype(np.uint16)
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(decode(bits.tobytes(), "bfloat16", (4096,)), expected)


def test_what_safetensors_wrote_comes_back(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    kinds = (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)
    tensors = {kind.__name__: np.arange(6).reshape(2, 3).astype(kind) for kind in kinds}
    tensors |= {"scalar": np.asarray(3.0, np.float32), "empty": np.zeros((0, 3), np.float32)}
    save_file(tensors, tmp_path / "x.safetensors", {"who": "we"})
    arrays, metadata = read_arrays(tmp_path / "x.safetensors")
    assert metadata == {"who": "we"}
    assert arrays.keys() == tensors.keys()
    for name, expected in tensors.items():
        assert arrays[name].dtype == expected.dtype
        np.testing.assert_array_equal(arrays[name], expected)


def test_another_dtype_is_refused() -> None:
    with pytest.raises(ModelError, match="float6_e2m3"):
        decode(b"", "float6_e2m3", (0,))
