"""The pipeline on an accelerator that is not here: nothing is left on the CPU, or looked for where it was offloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
accelerate = pytest.importorskip("accelerate")

from torch.overrides import TorchFunctionMode  # noqa: E402

from fake_device import accelerator  # noqa: E402
from longtake.integrations.diffusers import HunyuanVideoFramepackPipeline  # noqa: E402


class Known(TorchFunctionMode):
    """What the libraries ask of a device that a device of Python's alone cannot do by itself."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.tensor and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return torch.tensor(*args, **kwargs).to(device)
        if function is torch.Tensor.tolist:
            return args[0].to("cpu").tolist()
        return function(*args, **kwargs)


def moved(pipe: Any) -> None:
    pipe.to("npu")


def offloaded(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="npu")


@pytest.mark.parametrize("way", [moved, offloaded])
def test_frames_are_those_of_the_cpu(
    way: Any, read: Callable[..., Any], call: dict[str, Any], assert_same: Any
) -> None:
    call |= {
        "num_frames": 9,
        "num_inference_steps": 2,
        "sampling_type": "vanilla",
        "true_cfg_scale": 2.0,
        "callback_on_step_end": lambda pipe, step, timestep, inputs: inputs,
        "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"],
    }
    pipe = read(HunyuanVideoFramepackPipeline)
    expected = pipe(**call).frames
    with accelerator(), Known():
        way(pipe)
        assert pipe._execution_device.type == "npu"
        assert_same(pipe(**call).frames, expected)
        # What was offloaded is away again at the end.
        assert pipe.transformer.device.type == ("cpu" if way is offloaded else "npu")
