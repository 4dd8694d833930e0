"""The memory that a training is counted to need, against networks that are there."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from longtake.backend import runtime
from longtake.config import PUBLISHED
from longtake.errors import JobError, LongtakeWarning
from longtake.models import adapters, quantised
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.pipeline.budget import GB
from longtake.pipeline.working import Work
from longtake.training.cures import lacking, sentences
from longtake.training.memory import Run, activations, most_rows, needs, weights_of
from longtake.training.room import reckoned, run_of
from longtake.training.settings import Settings
from longtake.training.shapes import is_linear, shapes_of
from longtake.weights.lora import LowRank

PUBLISHED_13B = PUBLISHED["framepack"]
LEARNS = 32 * sum(
    sum(shape)
    for name, shape in shapes_of(PUBLISHED_13B).items()
    if is_linear(name, shape) and name.startswith(("transformer_blocks.", "single_")) and ".norm" not in name
)
"""A LoRA of rank 32 on attention and feed-forward of the blocks."""
LORA = Run(Work(640, 608), learns=LEARNS, rank=32)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {
            "qk_norm": None,
            "guidance_embeds": False,
            "num_layers": 2,
            "has_image_proj": False,
            "mlp_ratio": 2.5,
        },
        {"has_clean_x_embedder": False, "num_single_layers": 0, "num_refiner_layers": 1, "out_channels": 6},
    ],
)
def test_the_shapes_of_a_config_are_those_of_its_network(fields: dict[str, Any]) -> None:
    """Of the published 13B too: it is built without memory."""
    with runtime.empty_weights():
        model = Transformer(**fields)
    found = {name: tuple(weight.shape) for name, weight in runtime.named_weights(model).items()}
    assert shapes_of(model.config) == found


def test_kept_activations_are_those_that_are_counted() -> None:
    """Bytes that PyTorch keeps for the gradient of a LoRA; what a matrix product works in for a moment is left out."""
    fields = {
        "num_attention_heads": 4, "attention_head_dim": 32, "num_layers": 2, "num_single_layers": 4,
        "num_refiner_layers": 1, "text_embed_dim": 32, "pooled_projection_dim": 32, "rope_axes_dim": (8, 12, 12),
        "image_proj_dim": 32,
    }  # fmt: skip
    model = Transformer(**fields).to(torch.bfloat16)
    model.requires_grad_(False)
    shapes, rng = adapters.shapes(model), np.random.default_rng(0)
    changes = {
        name: LowRank(*(rng.standard_normal(side, np.float32) for side in ((4, into), (out, 4))), 4.0)
        for name in quantised.layers_of(model)
        for out, into in [shapes[name]]
    }
    adapters.attach(model, "one", changes)
    parts = [part for name, part in model.named_parameters() if name.endswith((".up", ".down"))]
    model.requires_grad_(False)
    for part in parts:
        part.data = part.data.float()
        part.requires_grad_(True)
    work, kept = Work(192, 160, 3, rows=2, text=60), {}
    own = {each.untyped_storage().data_ptr() for each in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    clean = {}
    for scale, name in {1: "latents_clean", 2: "latents_history_2x", 4: "latents_history_4x"}.items():
        frames = work.clean[scale]
        clean |= {name: torch.randn(2, 16, frames, 20, 24), f"indices_{name}": list(range(frames))}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = model(
            torch.randn(2, 16, 3, 20, 24), torch.full((2,), 500.0), torch.randn(2, 60, 32), None, torch.randn(2, 32),
            torch.randn(2, 729, 32), None, torch.full((2,), 6000.0), **clean,
        )  # fmt: skip
    assert found.sample.requires_grad
    run = Run(work, learns=sum(part.numel() for part in parts), rank=4, recomputes=False, on_cpu=True)
    # What attention keeps of its softmax and the copies of low-rank weights are not counted, the moment of the widest
    # gradient is: 15 percent of such a small network either way.
    assert sum(kept.values()) == pytest.approx(activations(model.config, run), rel=0.15)


def test_the_published_network_in_words() -> None:
    found = needs(PUBLISHED_13B, LORA)
    assert weights_of(PUBLISHED_13B, LORA).whole == 2 * 12_874_314_816
    assert found.optimiser == 2 * found.gradients == 8 * LEARNS
    assert found.unchecked > 10 * found.checked
    said = sentences(PUBLISHED_13B, LORA)
    assert said[0].startswith(
        "the transformer has 12.87 G numbers (bfloat16), of which a LoRA of 137.6 M learns"
    )
    assert "18485 tokens each" in said[2] and "if nothing were computed twice" in said[2]
    eight = needs(PUBLISHED_13B, replace(LORA, quantize="int8"))
    assert eight.weights < 0.7 * found.weights and eight.gradients == found.gradients
    # All of it learns: 16 bytes a number, and no form of 8 bits.
    whole = needs(PUBLISHED_13B, Run(averages=True))
    assert whole.kept == 20 * 12_874_314_816
    shared = needs(PUBLISHED_13B, Run(averages=True, shared=8))
    assert whole.kept / 8 < shared.kept < whole.kept / 7


@pytest.mark.parametrize(
    ("run", "room", "cure"),
    [
        (LORA, 80, None),
        (replace(LORA, recomputes=False), 80, "compute activations twice"),
        (
            replace(LORA, work=replace(LORA.work, rows=16)),
            80,
            "take --batch 4 and --accumulate 4 times as many",
        ),
        (LORA, 32, "hold the blocks in 8 bits"),
        (LORA, 24, "take --gradient-checkpointing, --batch 1, --quantize int8 and videos of 384 x 256"),
        (LORA, 8, "at least .* GB are needed"),
        (Run(), 80, "share it between 4 such devices"),
        (Run(), 4, "train a LoRA instead"),
    ],
)
def test_what_would_have_to_change(run: Run, room: int, cure: str | None) -> None:
    said = lacking(PUBLISHED_13B, run, room * GB)
    if cure is None:
        assert said is None
    else:
        assert said is not None
        assert said.startswith("This training needs about") and f", and {room}.0 GB are there: " in said
        assert re.search(cure, said), said


def test_packing_is_what_makes_a_batch() -> None:
    """One device of 80 GB, 480p: the paper's windows of 2 and 3, sixteen packed frames against the same unpacked."""
    packed, plain = {1: 1, 2: 2, 4: 16}, {1: 19}
    rows = {}
    for window in (2, 3, 9):
        for name, clean in (("packed", packed), ("plain", plain)):
            work = Work(832, 480, window, clean)
            rows[window, name] = most_rows(PUBLISHED_13B, replace(LORA, work=work), 80 * GB)
    # The paper trains 64 sections on eight such devices.
    assert rows[2, "packed"] >= 8 and rows[3, "packed"] >= 8
    assert all(rows[window, "packed"] > 1.8 * rows[window, "plain"] for window in (2, 3, 9))
    full = replace(
        LORA,
        work=replace(LORA.work, rows=rows[3, "packed"] + 1, width=832, height=480, window=3, clean=packed),
    )
    assert needs(PUBLISHED_13B, full).total > 80 * GB


def test_what_cannot_be_had_is_refused_and_what_may_not_be_is_said() -> None:
    settings = Settings(rank=32, gradient_checkpointing=True, precision="bfloat16")
    run = run_of(settings, ["inverted", "repeat"], (640, 608), LEARNS, "bfloat16", device="cuda")
    assert run.work.clean == {1: 2, 2: 2, 4: 16} and run.rank == 32 and not run.on_cpu
    assert reckoned(PUBLISHED_13B, run, 80 * GB)[-1] == "80.0 GB are there"
    with pytest.warns(LongtakeWarning, match="hold the blocks in 8 bits"):
        reckoned(PUBLISHED_13B, run, 36 * GB)
    # Weights, gradients and moments alone are more.
    with pytest.raises(JobError, match=r"This training needs about .*, and 24\.0 GB are there: "):
        reckoned(PUBLISHED_13B, run, 24 * GB)
    assert run_of(settings, ["inverted"], (64, 64), LEARNS, "float32").computes == "bfloat16"
    whole = run_of(Settings(whole=True), ["inverted"], (64, 64), LEARNS, "float32", shared=8)
    assert whole.whole and whole.computes == "float32" and whole.shared == 8
