"""Linear layers in the forms of other libraries, torchao and bitsandbytes, which are loaded when one is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch

from longtake.errors import BackendError

__all__ = ["of_bitsandbytes", "of_torchao"]


def of_torchao(layer: Any, config: Any) -> Any:
    """The layer as `torchao.quantize_` makes it by one of its configs."""
    holder = torch.nn.Sequential(layer)
    _library("torchao.quantization", "torchao").quantize_(holder, config)
    return holder[0]


def of_bitsandbytes(layer: Any, settings: Mapping[str, Any]) -> Any:
    """The layer in bitsandbytes' int8, or its 4 bits, by the fields of the field's BitsAndBytesConfig."""
    layers = _library("bitsandbytes.nn", "bitsandbytes")
    weight, bias = layer.weight.detach(), layer.bias
    shape = {"input_features": weight.shape[1], "output_features": weight.shape[0], "bias": bias is not None}
    if settings.get("load_in_4bit"):
        form = {
            "quant_type": settings.get("bnb_4bit_quant_type") or "fp4",
            "compress_statistics": bool(settings.get("bnb_4bit_use_double_quant")),
        }
        made = layers.Linear4bit(**shape, compute_dtype=weight.dtype, device="meta", **form)
        made.weight = layers.Params4bit(weight, requires_grad=False, **form)
        # On CPUs it packs weights anew at their first use, which state_dict() takes back into other numbers (0.50.2).
        made.support_avx512bf16_for_cpu = False
    else:
        threshold = settings.get("llm_int8_threshold")
        threshold = 6.0 if threshold is None else threshold
        made = layers.Linear8bitLt(**shape, has_fp16_weights=False, threshold=threshold, device="meta")
        made.weight = layers.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    made.bias = bias
    return made.to(weight.device)  # this is when it quantises


def _library(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendError(
            f"This quantization_config needs {name}, which is not installed; install it (pip install {name}), or take "
            "longtake's own form: {'quant_method': 'longtake', 'form': 'int8'}."
        ) from error
