"""HunyuanVideo's own layout through diffusers' converter and through ours: the same weights under the same names."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers.loaders.single_file_utils as theirs
import numpy as np
import torch
from safetensors.torch import save_file

from checkpoints import WIDTH, original, transformer
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel


def converter(width: int) -> Any:
    """diffusers' function, which has the published width as a constant."""
    source = inspect.getsource(theirs.convert_hunyuan_video_transformer_to_diffusers)
    assert source.count("3072") == 1
    names = {"torch": torch}
    exec(source.replace("3072", str(width)), names)
    return names["convert_hunyuan_video_transformer_to_diffusers"]


def test_ours_equals_diffusers_converter(tmp_path: Path) -> None:
    network = transformer(num_layers=2, num_single_layers=2)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    rng = np.random.default_rng(0)
    # Numbers that have nothing to do with our own way there: only names and shapes are from it.
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    stored = {name: torch.from_numpy(array) for name, array in original(weights, blocks=2).items()}
    assert len(stored) < len(weights) and "single_blocks.1.linear1.bias" in stored
    save_file(stored, tmp_path / "original.safetensors")
    expected = converter(WIDTH)(dict(stored))
    found = HunyuanVideoFramepackTransformer3DModel.from_pretrained(
        tmp_path / "original.safetensors"
    ).state_dict()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)
