"""diffusers' own pipeline class with our loop: the frames of our plain pipeline, however its networks are run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
accelerate = pytest.importorskip("accelerate")

from longtake.compat.framepack import HunyuanVideoFramepackPipeline as Plain  # noqa: E402
from longtake.integrations.diffusers import HunyuanVideoFramepackPipeline  # noqa: E402

Stock = diffusers.HunyuanVideoFramepackPipeline
NETWORKS = ("text_encoder", "text_encoder_2", "image_encoder", "transformer", "vae")
SAMPLINGS = ("vanilla", "inverted_anti_drifting")
CPU = torch.device("cpu")


@pytest.fixture
def plain(networks: Any) -> Any:
    """Our own pipeline over our own networks."""
    pipe = Plain(**networks.components, settings=networks.settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(read: Callable[..., Any]) -> Any:
    """The class under test, with the networks of diffusers and transformers."""
    return read(HunyuanVideoFramepackPipeline)


def model_offload(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def sequential_offload(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # diffusers numbers the device; accelerate takes "cpu:0" for another one than "cpu", and loses the weights' class.
    offload = accelerate.cpu_offload
    monkeypatch.setattr(
        accelerate, "cpu_offload", lambda part, device, **options: offload(part, CPU, **options)
    )
    pipe.enable_sequential_cpu_offload(device="cpu")
    assert pipe.transformer.device.type == pipe.vae.device.type == pipe.text_encoder.device.type == "meta"


def group_offload_of_blocks(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe.enable_group_offload(onload_device=CPU, offload_type="block_level", num_blocks_per_group=1)


def group_offload_of_leaves(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe.enable_group_offload(onload_device=CPU, offload_type="leaf_level")


def a_device_map(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NETWORKS:
        accelerate.dispatch_model(getattr(pipe, name), {"": "cpu"}, main_device="cpu", force_hooks=True)


def caching_nothing(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step cache that never finds two steps near enough: it needs the pipeline to say which branch is computed."""
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=1e-9))


def compilation(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe.transformer.compile(backend="eager")


WAYS = (
    model_offload,
    sequential_offload,
    group_offload_of_blocks,
    group_offload_of_leaves,
    a_device_map,
    caching_nothing,
    pytest.param(compilation, marks=pytest.mark.slow),  # loads PyTorch's compiler
)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_frames_are_the_plain_pipelines(
    sampling: str, pipe: Any, plain: Any, call: dict[str, Any], assert_same: Any
) -> None:
    assert isinstance(pipe, diffusers.DiffusionPipeline)
    assert_same(pipe(**call, sampling_type=sampling).frames, plain(**call, sampling_type=sampling).frames)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("guided", [False, True])
def test_with_reference_frames_are_stocks(
    sampling: str, guided: bool, read: Any, pipe: Any, call: dict[str, Any], assert_same: Any
) -> None:
    stock = read(Stock)
    call["sampling_type"] = sampling
    if guided:
        call |= {"true_cfg_scale": 3.0, "negative_prompt": "a red ball"}
    found = pipe(**call | {"generator": torch.Generator().manual_seed(3)}, reference=True).frames
    assert_same(found, stock(**call | {"generator": torch.Generator().manual_seed(3)}).frames)


@pytest.mark.parametrize("way", WAYS)
def test_frames_do_not_depend_on_how_networks_are_run(
    way: Any, pipe: Any, plain: Any, call: dict[str, Any], assert_same: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call |= {"true_cfg_scale": 2.0, "negative_prompt": "a red ball"}
    way(pipe, monkeypatch)
    expected = plain(**call).frames
    assert_same(pipe(**call).frames, expected)
    # Hooks are left as they were found, so a second call is no other.
    assert_same(pipe(**call).frames, expected)


def test_each_network_comes_when_it_is_needed(
    pipe: Any, call: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under model offloading: encoders before the transformer, and all of them away at the end."""
    pipe.enable_model_cpu_offload(device="cpu")
    seen: list[str] = []
    for hook, name in zip(pipe._all_hooks, pipe.model_cpu_offload_seq.split("->"), strict=True):
        monkeypatch.setattr(hook.hook, "pre_forward", _noted(hook.hook.pre_forward, seen, name), raising=True)
    freed: list[bool] = []
    monkeypatch.setattr(pipe, "maybe_free_model_hooks", lambda: freed.append(True))
    pipe(**call)
    order = list(dict.fromkeys(seen))
    assert set(order) == set(NETWORKS)
    assert order.index("text_encoder") < order.index("transformer") and seen[-1] == "vae"
    assert freed == [True]


def _noted(run: Any, seen: list[str], name: str) -> Any:
    def pre_forward(*args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        return run(*args, **kwargs)

    return pre_forward


@pytest.mark.parametrize("switch", ["enable_tiling", "enable_slicing"])
def test_tiles_and_slices_are_the_plain_pipelines(
    switch: str, pipe: Any, plain: Any, call: dict[str, Any], assert_same: Any
) -> None:
    tiles = {"tile_sample_min_height": 16, "tile_sample_min_width": 16} if switch == "enable_tiling" else {}
    strides = {"tile_sample_stride_height": 8, "tile_sample_stride_width": 8} if tiles else {}
    whole = plain(**call).frames
    try:
        for each in (pipe, plain):
            getattr(each.vae, switch)(**tiles, **strides)
        expected = plain(**call).frames
        assert_same(pipe(**call).frames, expected)
        assert bool(tiles) == bool(np.abs(expected - whole).max() > 0)
    finally:
        plain.vae.disable_tiling()
        plain.vae.disable_slicing()


def layerwise_casting(read: Any, kind: Any) -> Any:
    pipe = read(kind)
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    return pipe


def torchao(read: Any, kind: Any) -> Any:
    quantization = pytest.importorskip("torchao.quantization")
    config = diffusers.TorchAoConfig(quantization.Int8WeightOnlyConfig(version=2))
    # In bfloat16, its default, one rounding the other way would be larger than the tolerance.
    return read(kind, dtype=torch.float32, quantization_config=_only_transformer(config))


def quanto(read: Any, kind: Any) -> Any:
    pytest.importorskip("optimum.quanto")
    return read(kind, quantization_config=_only_transformer(diffusers.QuantoConfig(weights_dtype="int8")))


def _only_transformer(config: Any) -> Any:
    return diffusers.PipelineQuantizationConfig(quant_mapping={"transformer": config})


@pytest.mark.filterwarnings("default")  # those of the quantising libraries about their own future
@pytest.mark.parametrize("form", [layerwise_casting, torchao, quanto])
def test_frames_of_other_forms_of_weights_are_stocks(
    form: Any, read: Any, call: dict[str, Any], assert_same: Any
) -> None:
    frames, whole = [], read(Stock)
    for kind, options in ((HunyuanVideoFramepackPipeline, {"reference": True}), (Stock, {})):
        pipe = form(read, kind)
        assert pipe.transformer.dtype == torch.float32
        frames.append(pipe(**call | {"generator": torch.Generator().manual_seed(3)}, **options).frames)
    assert_same(*frames)
    plain = whole(**call | {"generator": torch.Generator().manual_seed(3)}).frames
    assert np.abs(frames[1] - plain).max() > 1e-4, "the weights are as they were"


def test_our_networks_serve(pipe: Any, plain: Any, call: dict[str, Any], networks: Any) -> None:
    mixed = HunyuanVideoFramepackPipeline(**networks.components)
    mixed.set_progress_bar_config(disable=True)
    mixed.to("cpu")
    np.testing.assert_array_equal(mixed(**call).frames, plain(**call).frames)


def test_our_transformer_serves_under_their_hooks(
    pipe: Any, plain: Any, call: dict[str, Any], networks: Any, assert_same: Any
) -> None:
    """It is called whole then, and nothing of it is passed by."""
    expected = plain(**call).frames
    mixed = HunyuanVideoFramepackPipeline(**{**pipe.components, "transformer": networks.transformer})
    mixed.set_progress_bar_config(disable=True)
    try:
        mixed.enable_model_cpu_offload(device="cpu")
        assert_same(mixed(**call).frames, expected)
    finally:
        mixed.remove_all_hooks()
    assert_same(mixed(**call).frames, expected)


def test_a_map_of_one_device_and_dtypes_by_part(read: Any, call: dict[str, Any], assert_same: Any) -> None:
    expected = read(HunyuanVideoFramepackPipeline)(**call).frames
    mapped = read(HunyuanVideoFramepackPipeline, device_map="cpu")
    assert_same(mapped(**call).frames, expected)
    dtypes = {"transformer": torch.bfloat16, "default": torch.float32}
    mixed = read(HunyuanVideoFramepackPipeline, dtype=dtypes)
    assert mixed.transformer.dtype == torch.bfloat16 and mixed.vae.dtype == torch.float32
    assert np.isfinite(mixed(**call).frames).all()
