"""LoRA by PEFT under the class of diffusers with our loop: the frames of our own LoRA under our own pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")

from safetensors.torch import save_file  # noqa: E402

from longtake.compat.framepack import HunyuanVideoFramepackPipeline as Plain  # noqa: E402
from longtake.integrations.diffusers import HunyuanVideoFramepackPipeline  # noqa: E402
from longtake.models import adapters  # noqa: E402

RANK = 4
# PEFT's, of a second adapter.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")


@pytest.fixture(scope="module")
def files(networks: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRAs of all linear layers of the transformer, as diffusers writes them."""
    place, found = tmp_path_factory.mktemp("loras"), []
    for seed in (1, 2):
        source = torch.Generator().manual_seed(seed)
        tensors = {}
        for name, shape in adapters.shapes(networks.transformer).items():
            if len(shape) == 2:
                down = torch.randn(RANK, shape[1], generator=source) / shape[1] ** 0.5
                tensors[f"transformer.{name}.lora_A.weight"] = down
                tensors[f"transformer.{name}.lora_B.weight"] = 0.2 * torch.randn(
                    shape[0], RANK, generator=source
                )
        found.append(place / f"lora_{seed}.safetensors")
        save_file(tensors, found[-1])
    return found


@pytest.fixture
def plain(networks: Any) -> Any:
    pipe = Plain(**networks.components, settings=networks.settings)
    pipe.set_progress_bar_config(disable=True)
    yield pipe
    if pipe.fused_loras:
        pipe.unfuse_lora()
    pipe.unload_lora_weights()


@pytest.fixture
def pipe(read: Callable[..., Any]) -> Any:
    return read(HunyuanVideoFramepackPipeline)


def test_loading_weighing_fusing_and_removing(
    pipe: Any, plain: Any, files: list[Path], call: dict[str, Any], assert_same: Any
) -> None:
    bare = pipe(**call).frames
    for each in (pipe, plain):
        for file in files:
            each.load_lora_weights(file, adapter_name=file.stem)
        each.set_adapters([file.stem for file in files], [0.7, 0.4])
    expected = plain(**call).frames
    assert np.abs(expected - bare).max() > 1e-3
    assert_same(pipe(**call).frames, expected)
    assert set(pipe.get_active_adapters()) == {file.stem for file in files}
    pipe.fuse_lora()
    assert_same(pipe(**call).frames, expected)
    pipe.unfuse_lora()
    pipe.set_adapters("lora_1", 0.5)
    plain.set_adapters("lora_1", 0.5)
    assert_same(pipe(**call).frames, plain(**call).frames)
    pipe.disable_lora()
    assert_same(pipe(**call).frames, bare)
    pipe.unload_lora_weights()
    assert_same(pipe(**call).frames, bare)  # fused and unfused again, the weights have been rounded


def test_the_scale_of_a_call(
    pipe: Any, plain: Any, files: list[Path], call: dict[str, Any], assert_same: Any
) -> None:
    for each in (pipe, plain):
        each.load_lora_weights(files[0])
    scaled = {"attention_kwargs": {"scale": 0.3}}
    expected = plain(**call, **scaled).frames
    assert_same(pipe(**call, **scaled).frames, expected)
    assert np.abs(expected - plain(**call).frames).max() > 1e-4


def test_a_lora_under_offloading(
    pipe: Any, plain: Any, files: list[Path], call: dict[str, Any], assert_same: Any
) -> None:
    pipe.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    for each in (pipe, plain):
        each.load_lora_weights(files[0])
    assert_same(pipe(**call).frames, plain(**call).frames)


def test_an_adapter_of_a_trainer_is_saved_and_read(
    pipe: Any, files: list[Path], call: dict[str, Any], tmp_path: Path, assert_same: Any
) -> None:
    from peft import LoraConfig, get_peft_model_state_dict

    pipe.transformer.add_adapter(
        LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_v"]), "mine"
    )
    expected = pipe(**call).frames
    layers = get_peft_model_state_dict(pipe.transformer, adapter_name="mine")
    pipe.save_lora_weights(tmp_path, transformer_lora_layers=layers)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(tmp_path)
    assert_same(pipe(**call).frames, expected, 1e-6)
