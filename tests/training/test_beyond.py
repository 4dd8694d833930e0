"""Tails in training: gathered as the history gives them while sampling, and seen by the same network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from longtake.backend import ops, runtime
from longtake.errors import LongtakeError
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.pipeline.predict import Predictor
from longtake.pipeline.prepare import Text
from longtake.plan.history import History
from longtake.plan.plans import kind_named
from longtake.training import objective

VIDEO = np.random.default_rng(0).standard_normal((4, 19, 8, 8)).astype(np.float32)


def read(frames: Any) -> np.ndarray:
    return np.stack([0 * VIDEO[:, 0] if frame is None else VIDEO[:, frame] for frame in frames], 1)


@pytest.mark.parametrize("name", ["tc_f2k2f1k1_g2", "ta_f1k1_x_f1k1_g2", "f1k1_x_g2_f1k1_ta"])
def test_a_section_is_learnt_as_it_is_made(name: str, filled: Callable) -> None:
    model = filled(
        Transformer(
            num_attention_heads=1, attention_head_dim=16, num_layers=1, num_single_layers=1, num_refiner_layers=1,
            in_channels=4, out_channels=4, text_embed_dim=8, pooled_projection_dim=8, rope_axes_dim=(4, 6, 6),
            image_proj_dim=8,
        )
    )  # fmt: skip
    plan = kind_named(name).lay_out(9, 2, False)
    history = History(plan)
    history.write(0, VIDEO[None, :, :1])
    for section in [*plan][:5]:
        history.write(section.frames, read(section.frames)[None])
    section = plan[5]
    assert section.far is not None and len(section.far.frames) > 4
    rows = objective.gather([read], [section])
    rng = np.random.default_rng(1)
    noise, level = rng.standard_normal(rows.window.shape).astype(np.float32), np.array([0.5], np.float32)
    states, pooled, picture = (
        ops.from_numpy(rng.standard_normal(shape).astype(np.float32))
        for shape in ((1, 3, 8), (1, 8), (1, 2, 8))
    )
    mask = ops.from_numpy(np.ones((1, 3), np.float32))
    told = objective.of_transformer(model, states, mask, pooled, picture, np.array([6000.0]))
    predict = Predictor(model, guidance=6.0)
    predict.begin(section, history)
    with runtime.no_grad():
        learnt = ops.to_numpy(told(noise, level, rows))
        made = ops.to_numpy(predict(Text(states, mask, pooled), None, picture, ops.from_numpy(noise), 0.5))
    # The mean is summed in another order.
    np.testing.assert_allclose(learnt, made, atol=2e-5)


def test_a_batch_has_as_much_beyond_in_each_row() -> None:
    plan = kind_named("ta_f1k1_g2").lay_out(9, 2, False)
    assert objective.gather([read], [plan[0]]).beyond is None
    with pytest.raises(LongtakeError, match="make and see as many frames"):
        objective.gather([read, read], [plan[3], plan[4]])
