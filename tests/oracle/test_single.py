"""HunyuanVideo's own layout through diffusers' converter and through ours: the same weights under the same names."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import diffusers.loaders.single_file_utils as theirs
import numpy as np
import torch
from safetensors.torch import save_file

from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel

HERE = Path(__file__).parent


def helper() -> Any:
    """The layout as tests/weights writes it down."""
    spec = importlib.util.spec_from_file_location(
        "layouts_of_tests", HERE.parent / "weights" / "test_single.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def converter(width: int) -> Any:
    """diffusers' function, which has the published width as a constant."""
    source = inspect.getsource(theirs.convert_hunyuan_video_transformer_to_diffusers)
    assert source.count("3072") == 1
    names = {"torch": torch}
    exec(source.replace("3072", str(width)), names)
    return names["convert_hunyuan_video_transformer_to_diffusers"]


def test_ours_equals_diffusers_converter(tmp_path: Path) -> None:
    made = helper()
    network = made.transformer(num_layers=2, num_single_layers=2)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    rng = np.random.default_rng(0)
    # Numbers that have nothing to do with our own way there: only names and shapes are from it.
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    blocks = [name for name in made.ORIGINAL_MODULES if name.startswith(("double", "single"))]
    made.ORIGINAL_MODULES += tuple(name.replace("_blocks.0.", "_blocks.1.") for name in blocks)
    original = {name: torch.from_numpy(array) for name, array in made.original(weights).items()}
    assert len(original) < len(weights) and "single_blocks.1.linear1.bias" in original
    save_file(original, tmp_path / "original.safetensors")
    expected = converter(made.WIDTH)(dict(original))
    found = HunyuanVideoFramepackTransformer3DModel.from_pretrained(
        tmp_path / "original.safetensors"
    ).state_dict()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)
