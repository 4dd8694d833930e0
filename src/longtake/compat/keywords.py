"""Keywords and methods of the field that mean nothing here, or that only diffusers' own machinery can serve.

Keywords that cost nothing are taken; what is not done is refused, with the reason and the class that does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from longtake.backend import runtime
from longtake.errors import JobError, ModelError

C = TypeVar("C", bound=type)

INTEGRATION = "longtake.integrations.diffusers.HunyuanVideoFramepackPipeline"
"""The class that has diffusers', accelerate's and peft's own code around our loop."""

KERNELS = "The attention kernel is chosen by the framework"
DECLINED: Mapping[str, str] = {
    "enable_attention_slicing": KERNELS,
    "set_attention_slice": KERNELS,
    "enable_xformers_memory_efficient_attention": KERNELS,
    "set_use_memory_efficient_attention_xformers": KERNELS,
    "enable_lora_hotswap": "An adapter is not replaced in place",
    "set_lora_device": "An adapter lies where the layer lies that it changes",
    "load_lora_into_transformer": "A LoRA is read and attached in one step, by load_lora_weights",
    "push_to_hub": "Nothing is written to the hub; save_pretrained writes a folder that huggingface_hub uploads",
    "download": "from_pretrained fetches what it reads",
}
"""Methods of diffusers' pipeline that are not done here, and why."""


def declines(methods: Mapping[str, str]) -> Callable[[C], C]:
    """Give a class methods that refuse, each with its reason."""

    def decorate(kind: C) -> C:
        for name, reason in methods.items():
            setattr(kind, name, _refusal(name, reason))
        return kind

    return decorate


def _refusal(name: str, reason: str) -> Callable[..., NoReturn]:
    def refuse(self: Any, *_: Any, **__: Any) -> NoReturn:
        raise JobError(f"{reason}, so {name} is not done here; {INTEGRATION} does it.")

    refuse.__name__ = name
    refuse.__doc__ = f"Refused: {reason[0].lower()}{reason[1:]}."
    return refuse


def only_safetensors(use_safetensors: bool | None) -> None:
    """Raise ModelError if weights in pickles are asked for."""
    if use_safetensors is False:
        raise ModelError(
            "Weights are read and written as safetensors alone; pickles may run code when they are read."
        )


def one_device(device: Any, device_map: Any) -> Any:
    """The device that is asked for by one of the field's two names.

    Raises ModelError for a map of several devices.
    """
    if device_map is None:
        return device
    if not isinstance(device_map, Mapping) and str(device_map) in (
        "balanced",
        "balanced_low_0",
        "sequential",
    ):
        raise ModelError(
            f"device_map={device_map!r} spreads parts over devices, and here all are on one; name that device, or use "
            f"{INTEGRATION}."
        )
    if isinstance(device_map, Mapping):
        if set(device_map) != {""}:
            raise ModelError(
                f"device_map gives parts devices of their own, and here all are on one; name that device, or use "
                f"{INTEGRATION}."
            )
        device_map = device_map[""]
    if device is not None and str(device) != str(device_map):
        raise ModelError("device and device_map are one setting; they were given different values.")
    runtime.check_device(device_map)
    return device_map
