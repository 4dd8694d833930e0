"""Plain HunyuanVideo's transformer, in a folder and in single files, read as FramePack's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints import original, same, transformer, values_of, write
from longtake.errors import LongtakeWarning, ModelError
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.pipeline.sizes import read_sizes
from longtake.weights.folder import describe_part
from longtake.weights.unpacked import made_names, spread

SAYS = "is plain HunyuanVideo, read as a FramePack transformer that is not trained yet"


def blocks_of(latents: np.ndarray, kernel: tuple[int, ...]) -> np.ndarray:
    """(C, T, H, W) -> the blocks of a convolution whose stride is its kernel, (t, h, w, C, kt, kh, kw)."""
    channels, *sides = latents.shape
    parts = [size for side, k in zip(sides, kernel, strict=True) for size in (side // k, k)]
    return latents.reshape(channels, *parts).transpose(1, 3, 5, 0, 2, 4, 6)


def convolved(latents: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """(C, T, H, W) by a kernel (D, C, kt, kh, kw) with its own size as stride -> (D, t, h, w)."""
    return np.einsum("thwcxyz,dcxyz->dthw", blocks_of(latents, kernel.shape[2:]), kernel)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_larger_kernels_are_the_mean_and_then_the_patch_projection(scale: int) -> None:
    rng = np.random.default_rng(scale)
    kernel, latents = rng.standard_normal((8, 16, 1, 2, 2)), rng.standard_normal((16, 8, 16, 24))

    def both(latents: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pooled = np.einsum("thwcxyz->cthw", blocks_of(latents, (scale,) * 3)) / scale**3
        return convolved(latents, spread(kernel, scale)), convolved(pooled, kernel)

    # The same sums in another order: each rounds at 1e-16 of its terms, and up to 4096 terms are added.
    np.testing.assert_allclose(*both(latents, kernel), rtol=0, atol=1e-13)
    # Of numbers with few binary digits no sum is rounded, and the two are equal bit for bit.
    one, other = both(np.round(latents * 64) / 64, np.round(kernel * 64) / 64)
    assert np.array_equal(one, other)


@pytest.fixture
def packed(filled: Callable[[Any], Any]) -> Any:
    return filled(transformer(image_proj_dim=1152))


def plain_values(network: Any) -> dict[str, np.ndarray]:
    weights = values_of(network)
    left_out = made_names(weights)
    assert len(left_out) == 10
    return {name: array for name, array in weights.items() if name not in left_out}


def check(read: Any, packed: Any) -> None:
    """Its own weights are the file's, and the others as they begin."""
    found, own = values_of(read), plain_values(packed)
    assert all(np.array_equal(found[name], array) for name, array in own.items())
    patch = own["x_embedder.proj.weight"]
    for scale, name in {1: "proj", 2: "proj_2x", 4: "proj_4x"}.items():
        assert np.array_equal(found[f"clean_x_embedder.{name}.weight"], spread(patch, scale))
        assert np.array_equal(found[f"clean_x_embedder.{name}.bias"], own["x_embedder.proj.bias"])
    assert not any(found[f"image_projection.down.{kind}"].any() for kind in ("weight", "bias"))
    # One of the two layers must be another than zero, or neither would ever get a gradient.
    assert found["image_projection.up.weight"].std() > 0.01
    assert read.config.has_clean_x_embedder and read.config.has_image_proj


@pytest.mark.parametrize("layout", [dict, original])
def test_a_file_in_every_layout(packed: Any, tmp_path: Path, layout: Any) -> None:
    weights = {f"model.diffusion_model.{name}": array for name, array in layout(plain_values(packed)).items()}
    file = write(tmp_path / "plain.safetensors", weights)
    with pytest.warns(LongtakeWarning, match=SAYS):
        read = Transformer.from_pretrained(file)
    check(read, packed)
    assert read_sizes(parts={"transformer": str(file)})["transformer"].config == read.config


def test_a_folder(packed: Any, tmp_path: Path) -> None:
    config = {"_class_name": "HunyuanVideoTransformer3DModel", **packed.config.to_dict()}
    own = {name: value for name, value in config.items() if not name.startswith(("has_", "image_proj"))}
    (tmp_path / "config.json").write_text(json.dumps(own))
    write(tmp_path / "diffusion_pytorch_model.safetensors", plain_values(packed))
    with pytest.warns(LongtakeWarning, match=SAYS):
        read = Transformer.from_pretrained(tmp_path)
    check(read, packed)
    assert describe_part("transformer", str(tmp_path))["config"]["has_clean_x_embedder"]
    # What is saved is a FramePack transformer like any other.
    read.save_pretrained(tmp_path / "packed")
    assert same(Transformer.from_pretrained(tmp_path / "packed"), read)
    (tmp_path / "config.json").write_text(json.dumps({**own, "has_image_proj": False}))
    with pytest.warns(LongtakeWarning, match=SAYS):
        assert Transformer.from_pretrained(tmp_path).image_projection is None
    (tmp_path / "config.json").write_text(json.dumps(own))
    with pytest.warns(LongtakeWarning, match=SAYS):
        eight = Transformer.from_pretrained(tmp_path, quantization_config={"quant_method": "longtake"})
    assert np.array_equal(
        values_of(eight)["clean_x_embedder.proj_4x.weight"],
        values_of(read)["clean_x_embedder.proj_4x.weight"],
    )


def test_what_makes_videos_of_pictures_is_refused(packed: Any, tmp_path: Path) -> None:
    weights = plain_values(packed)
    weights["x_embedder.proj.weight"] = np.zeros((128, 9, 1, 2, 2), np.float32)
    file = write(tmp_path / "i2v.safetensors", weights)
    with pytest.raises(
        ModelError, match="takes 9 channels and gives 4, as plain HunyuanVideo does that makes vid"
    ):
        Transformer.from_pretrained(file)
    config = {"_class_name": "HunyuanVideoTransformer3DModel", "image_condition_type": "token_replace"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="'token_replace' for image_condition_type; known: None"):
        Transformer.from_pretrained(tmp_path)
