"""Gradients of blocks that are run twice, and through weights in 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from longtake.backend import kernels, training
from longtake.errors import BackendError
from longtake.models import adapters, quantised
from longtake.models.forms import asked, check_learning
from longtake.models.pretrained import walking
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.training.recomputing import recomputing
from longtake.weights.lora import LowRank

TINY: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "num_single_layers": 3,
    "num_refiner_layers": 1, "in_channels": 4, "out_channels": 4, "text_embed_dim": 16,
    "pooled_projection_dim": 8, "rope_axes_dim": (4, 6, 6), "image_proj_dim": 16,
}  # fmt: skip
Filled = Callable[[Any], Any]


def given(seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    return {
        "hidden_states": torch.randn(2, 4, 2, 8, 8),
        "timestep": torch.tensor([300.0, 800.0]),
        "encoder_hidden_states": torch.randn(2, 6, 16),
        "encoder_attention_mask": torch.tensor([[1] * 6, [1, 1, 0, 0, 0, 0]]),
        "pooled_projections": torch.randn(2, 8),
        "image_embeds": torch.randn(2, 3, 16),
        "guidance": torch.full((2,), 6000.0),
        "latents_clean": torch.randn(2, 4, 1, 8, 8),
        "indices_latents_clean": [0],
    }


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Of everything that learns, for one loss."""
    model.zero_grad()
    model(**given()).sample.square().mean().backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_that_run_twice_give_equal_gradients_and_keep_less(filled: Filled, dtype: str) -> None:
    """Bit for bit: the second time is the same arithmetic, in the same mixed precision and on the same kernel."""
    model = filled(Transformer(**TINY))
    model.use_kernel("math")  # another one than the usual, so that a second time without it would differ

    def run() -> tuple[dict[str, torch.Tensor], int]:
        kept: set[int] = set()

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept.add(tensor.untyped_storage().data_ptr())
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with training.autocast(dtype, "cpu"), hooks:
            return gradients(model), len(kept)

    plain, many = run()
    with walking(model, recomputing):
        again, few = run()
    assert len(plain) > 50 and plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert few < many / 2
    with torch.no_grad(), walking(model, recomputing):
        assert model(**given()).sample.isfinite().all()


def test_the_second_run_has_the_kernel_that_was_asked_for(filled: Filled) -> None:
    """Whose thread the gradient comes in, and whatever was asked for meanwhile."""
    model, calls = filled(Transformer(**TINY)), []

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return kernels.native(*arguments)

    with walking(model, recomputing):
        with kernels.around(counted):
            loss = model(**given()).sample.square().mean()
        loss.backward()
    assert len(calls) == 2 * len(model.blocks) + 1  # the refiner's block runs once


def with_lora(model: Any) -> Any:
    """A LoRA in float32 on every linear layer of the blocks, whose own weights do not learn."""
    rng = np.random.default_rng(3)
    names = sorted(quantised.layers_of(model) | {name[:-1] for name in model.replaced})
    shapes = adapters.shapes(model)

    def low(name: str) -> LowRank:
        out, into = shapes[name]
        down, up = (rng.standard_normal(shape, dtype=np.float32) / 8 for shape in ((2, into), (out, 2)))
        return LowRank(down, up, 2.0)

    adapters.attach(model, "one", {name: low(name) for name in names})
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith((".down", ".up")):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    return model


def forms() -> list[tuple[Any, float]]:
    """Each form, and how far its gradients may be from those of the weights that it was made of.

    A code is off by half a step: of int8 1/254 of a row's largest value, of fp8 1/16 of the value itself, which adds up
    to about 0.5 and 3 percent of a product. Codes of activations double that; gradients pass five such blocks.
    """
    return [("int8", 0.04), ("fp8", 0.2), ("int8-dynamic", 0.08)]


@pytest.mark.parametrize(("form", "limit"), forms())
def test_a_lora_learns_through_a_base_of_8_bits(
    filled: Filled, tmp_path: Any, form: str, limit: float
) -> None:
    filled(Transformer(**TINY)).save_pretrained(tmp_path)
    config = {"quant_method": "longtake", "form": form}
    exact = gradients(with_lora(Transformer.from_pretrained(tmp_path)))
    model = with_lora(Transformer.from_pretrained(tmp_path, quantization_config=config))
    kept: list[torch.Tensor] = []
    codes = [parameter for parameter in model.parameters() if parameter.itemsize == 1]
    sizes = {(each.shape[0], each.shape[1]) for each in codes}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = gradients(model)
    assert found.keys() == exact.keys() and len(found) > 40
    one, other = (torch.cat([each[name].flatten() for name in exact]) for each in (found, exact))
    assert 0 < float((one - other).norm() / other.norm()) < limit
    # Nothing of the widened weights is kept.
    assert not [t for t in kept if t.is_floating_point() and tuple(t.shape) in sizes]
    with walking(model, recomputing):
        again = gradients(model)
    assert all(torch.equal(found[name], again[name]) for name in found)
    # In mixed precision with the base in bfloat16: nearer to the float32 gradients than the form is.
    half = with_lora(Transformer.from_pretrained(tmp_path, quantization_config=config, dtype="bfloat16"))
    with training.autocast("bfloat16", "cpu"), walking(half, recomputing):
        mixed = gradients(half)
    assert {each.dtype for each in mixed.values()} == {torch.float32}
    one = torch.cat([mixed[name].flatten() for name in exact])
    assert float((one - other).norm() / other.norm()) < limit + 0.05


def test_a_form_that_passes_no_gradient_on_is_refused() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    for config in (torchao.Int8WeightOnlyConfig(version=2), torchao.Float8WeightOnlyConfig()):
        check_learning(asked(config), "cpu")
    check_learning(asked({"quant_method": "longtake", "form": "int8-dynamic"}), "cpu")
    # It rounds activations, and rounding has no gradient.
    rounding = asked(torchao.Int8DynamicActivationInt8WeightConfig())
    with pytest.raises(BackendError, match=r"Nothing can be learnt through a base in torchao:.*is off by"):
        check_learning(rounding, "cpu")
