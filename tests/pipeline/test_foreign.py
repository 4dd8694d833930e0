"""Encoders, tokenizers and processors of transformers in place of ours, on either framework."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake import backend
from longtake.backend import exchange, ops
from longtake.compat.framepack import HunyuanVideoFramepackPipeline
from longtake.errors import BackendError
from longtake.pipeline.encode import encode_picture, encode_text
from longtake.pipeline.networks import ENCODERS, Networks

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# The same float32 arithmetic on PyTorch; MindSpore's kernels for CPUs are coarser (tanh is off by 1e-4).
TOLERANCE = 1e-5 if backend.name == "torch" else 1e-3

CLASSES = {
    "text_encoder": "LlamaModel",
    "text_encoder_2": "CLIPTextModel",
    "image_encoder": "SiglipVisionModel",
}
PIXELS = np.random.default_rng(0).uniform(-1, 1, (2, 3, 28, 28)).astype(np.float32)


@pytest.fixture(scope="module")
def theirs(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """transformers' encoders with the weights of ours, read from the folders that we write."""
    folder = tmp_path_factory.mktemp("encoders")
    found = {}
    for name, kind in CLASSES.items():
        getattr(networks, name).save_pretrained(folder / name)
        found[name] = (
            getattr(transformers, kind).from_pretrained(folder / name, torch_dtype=torch.float32).eval()
        )
    return found


@pytest.fixture(scope="module")
def mixed(networks: Networks, theirs: dict[str, Any]) -> Networks:
    """Our transformer and autoencoder with their encoders."""
    return replace(networks, **theirs)


def assert_close(found: Any, expected: Any) -> None:
    assert isinstance(found, ops.Tensor)
    np.testing.assert_allclose(ops.to_numpy(found), ops.to_numpy(expected), atol=TOLERANCE)


def test_text_is_the_same(networks: Networks, mixed: Networks) -> None:
    prompts = ["A penguin dances in the snow", "a ball"]
    ours, found = (encode_text(each, prompts) for each in (networks, mixed))
    # Padding is nobody's business, and only ours makes nothing of it.
    real = ops.to_numpy(ours.mask).astype(bool)
    np.testing.assert_array_equal(ops.to_numpy(found.mask), ops.to_numpy(ours.mask))
    assert isinstance(found.states, ops.Tensor) and isinstance(found.mask, ops.Tensor)
    np.testing.assert_allclose(
        ops.to_numpy(found.states)[real], ops.to_numpy(ours.states)[real], atol=TOLERANCE
    )
    assert_close(found.pooled, ours.pooled)


def test_pictures_are_the_same(networks: Networks, mixed: Networks) -> None:
    ours, found = (
        encode_picture(each.image_encoder, each.feature_extractor, PIXELS) for each in (networks, mixed)
    )
    assert_close(found, ours)


def test_their_processor_serves_as_ours(networks: Networks, mixed: Networks) -> None:
    # No resize: without torchvision theirs goes through 8 bits there, and ours does not.
    theirs = transformers.SiglipImageProcessor(do_resize=False)
    ours = encode_picture(networks.image_encoder, networks.feature_extractor, PIXELS)
    # With their encoder and with ours, which on MindSpore is handed PyTorch's tensors by it.
    for encoder in (networks.image_encoder, mixed.image_encoder):
        assert_close(encode_picture(encoder, theirs, PIXELS), ours)


def test_their_tokenizers_serve_as_ours(networks: Networks, tmp_path: Path) -> None:
    theirs = {}
    for name in ("tokenizer", "tokenizer_2"):
        getattr(networks, name).save_pretrained(tmp_path / name)
        theirs[name] = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
    ours, found = (
        encode_text(each, ["a red ball bounces"]) for each in (networks, replace(networks, **theirs))
    )
    for one, other in zip(
        (ours.states, ours.mask, ours.pooled), (found.states, found.mask, found.pooled), strict=True
    ):
        np.testing.assert_array_equal(ops.to_numpy(one), ops.to_numpy(other))


def test_a_whole_video_of_their_encoders(networks: Networks, mixed: Networks, picture: Image.Image) -> None:
    call = {"prompt": "a red ball", "num_frames": 5, "latent_window_size": 2, "num_inference_steps": 2}
    videos = []
    for each in (networks, mixed):
        pipe = HunyuanVideoFramepackPipeline(**each.components, settings=each.settings)
        pipe.set_progress_bar_config(disable=True)
        videos.append(pipe(image=picture, generator=1, output_type="np", true_cfg_scale=2.0, **call)[0])
    # A random network carries the encoders' difference on without growing it much.
    np.testing.assert_allclose(videos[1], videos[0], atol=10 * TOLERANCE)


def test_half_precision_encoders_are_accepted(mixed: Networks) -> None:
    half = replace(mixed, **{name: getattr(mixed, name).to(torch.bfloat16) for name in ENCODERS})
    try:
        text = encode_text(half, ["a ball"])
        states = encode_picture(half.image_encoder, half.feature_extractor, PIXELS)
        for found in (text.states, text.pooled, states):
            assert isinstance(found, ops.Tensor) and np.isfinite(ops.to_numpy(found)).all()
    finally:
        for name in ENCODERS:
            getattr(mixed, name).to(torch.float32)


def test_they_move_with_the_pipeline(mixed: Networks) -> None:
    pipe = HunyuanVideoFramepackPipeline(**mixed.components)
    pipe.text_encoder.to(torch.float16)
    pipe.to("cpu", "float32")
    assert {getattr(pipe, name).dtype for name in ENCODERS} == {torch.float32}


def test_frameworks_are_told_by_the_weights(networks: Networks, theirs: dict[str, Any]) -> None:
    assert {exchange.framework_of(network) for network in theirs.values()} == {"torch"}
    assert exchange.framework_of(networks.transformer) == backend.name
    assert exchange.framework_of(object()) == backend.name

    class Quantised(torch.nn.Parameter):
        """As of a library that keeps weights in a class of its own."""

    module = torch.nn.Module()
    module.weight = Quantised(torch.zeros(2))
    assert exchange.framework_of(module) == "torch"


@pytest.mark.skipif(backend.name == "torch", reason="everything of PyTorch is at home there")
@pytest.mark.parametrize("name", ["transformer", "vae"])
def test_a_transformer_cannot_cross(name: str, networks: Networks, theirs: dict[str, Any]) -> None:
    with pytest.raises(
        BackendError, match=f"The {name} is a network of torch, and longtake runs on {backend.name}"
    ):
        replace(networks, **{name: theirs["text_encoder"]})


@pytest.mark.skipif(backend.name != "torch", reason="MindSpore is at home elsewhere")
def test_mindspores_networks_cannot_cross_to_pytorch(networks: Networks) -> None:
    class Tensor:
        __module__ = "mindspore.common.tensor"

    class Cell:
        def parameters(self) -> Any:
            return iter([Tensor()])

    with pytest.raises(BackendError, match="The text_encoder is a network of mindspore"):
        replace(networks, text_encoder=Cell())
