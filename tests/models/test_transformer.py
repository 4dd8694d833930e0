"""The packed transformer: joints, masks, sizes, what may be left out, and refusals."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtake import backend
from longtake.backend import nn, ops, runtime
from longtake.errors import JobError, ModelError
from longtake.models.layers import sinusoid
from longtake.models.transformer import Beyond, Tokens
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.models.transformer.packing import key_mask, valid_tokens
from longtake.plan.history import cells

TINY: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 1,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "in_channels": 4,
    "out_channels": 4,
    "text_embed_dim": 24,
    "pooled_projection_dim": 12,
    "rope_axes_dim": (4, 6, 6),
    "image_proj_dim": 20,
}

# Two orders of float32 sums (a batch against one row, a mask against a cut) over values of size 4.
CLOSE: dict[str, Any] = {"atol": 4e-6, "rtol": 1e-5}


@pytest.fixture(scope="module")
def build(filled: Callable) -> Callable[..., Transformer]:
    """The tiny transformer, with changes."""
    return lambda **changes: filled(Transformer(**{**TINY, **changes}))


def inputs(batch: int = 1, height: int = 6, width: int = 10, text: int = 7, seed: int = 1) -> dict[str, Any]:
    source = np.random.default_rng(seed)

    def noise(*shape: int) -> np.ndarray:
        return source.standard_normal(shape).astype(np.float32)

    return {
        "hidden_states": noise(batch, 4, 3, height, width),
        "timestep": np.full(batch, 900.0, np.float32),
        "encoder_hidden_states": noise(batch, text, 24),
        "encoder_attention_mask": np.ones((batch, text), np.float32),
        "pooled_projections": noise(batch, 12),
        "image_embeds": noise(batch, 5, 20),
        "indices_latents": np.arange(20, 23),
        "guidance": np.full(batch, 6000.0, np.float32),
        "latents_clean": noise(batch, 4, 2, height, width),
        "indices_latents_clean": np.array([0, 19]),
        "latents_history_2x": noise(batch, 4, 2, height, width),
        "indices_latents_history_2x": np.array([17, 18]),
        "latents_history_4x": noise(batch, 4, 16, height, width),
        "indices_latents_history_4x": np.arange(1, 17),
    }


def tensors(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arrays as the framework's tensors; what else there is stays."""
    return {
        name: ops.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
    }


def velocity(model: Transformer, **arguments: Any) -> np.ndarray:
    with runtime.no_grad():
        return ops.to_numpy(model(**tensors(arguments)).sample)


def row(arguments: dict[str, Any], index: int) -> dict[str, Any]:
    return {
        name: value if name.startswith("indices") else value[index : index + 1]
        for name, value in arguments.items()
    }


def test_returns_a_velocity_for_every_latent_both_ways(build: Callable) -> None:
    model, arguments = build(), inputs()
    with runtime.no_grad():
        out = model(**tensors(arguments))
        (plain,) = model(**tensors(arguments), return_dict=False)
        scaled = model(**tensors(arguments), attention_kwargs={"scale": 1.0})[0]
    assert tuple(out.sample.shape) == arguments["hidden_states"].shape
    for other in (plain, scaled):
        np.testing.assert_array_equal(ops.to_numpy(other), ops.to_numpy(out.sample))


def test_feed_forwards_in_pieces_give_the_same(build: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    model, arguments = build(), inputs(batch=2)
    whole = velocity(model, **arguments)
    widths = []
    forward = nn.Linear.forward if backend.name == "torch" else nn.Linear.construct

    def seen(self: Any, x: Any) -> Any:
        widths.append(tuple(x.shape))
        return forward(self, x)

    # 7 tokens at once of 128 hidden values, in two rows of the batch.
    monkeypatch.setattr(ops, "piece_values", lambda x: 7 * 128)
    monkeypatch.setattr(nn.Linear, "forward" if backend.name == "torch" else "construct", seen)
    np.testing.assert_allclose(velocity(model, **arguments), whole, **CLOSE)
    assert widths.count((2, 7, 128 + 32)) >= 2 * 2 and (2, 7, 128) in widths


def test_the_joints_are_the_forward(build: Callable) -> None:
    model, given = build(), inputs(batch=2)
    a = tensors(given)
    with runtime.no_grad():
        tokens = model.embed(
            a["hidden_states"],
            a["timestep"],
            a["encoder_hidden_states"],
            a["encoder_attention_mask"],
            a["pooled_projections"],
            a["image_embeds"],
            a["indices_latents"],
            a["guidance"],
            {
                1: (a["latents_clean"], [0, 19]),
                2: (a["latents_history_2x"], [17, 18]),
                4: (a["latents_history_4x"], list(range(1, 17))),
            },
        )
        assert isinstance(tokens, Tokens)
        # 6 x 10 latents are 3 x 5 tokens; packed by 2 they are 2 x 3, by 4 they are 1 x 2.
        assert tokens.latents.shape[1] == 4 * 1 * 2 + 1 * 2 * 3 + 2 * 15 + 3 * 15
        assert tokens.context.grid == (3, 3, 5)
        assert tokens.moment.text.shape[1] == 5 + 7
        assert tuple(tokens.context.rotary[0].shape) == (1, tokens.latents.shape[1], 1, 16)
        assert tuple(tokens.sight.rotary[0].shape) == (1, tokens.latents.shape[1] + 12, 1, 16)
        assert tokens.sight.mask is None
        blocks = model.run_blocks(tokens)
        assert blocks.shape == (2, 3 * 15, tokens.latents.shape[2])
        found = ops.to_numpy(model.head(blocks, tokens))
    np.testing.assert_array_equal(found, velocity(model, **given))


def test_what_lies_beyond_is_seen_as_clean_frames_are_or_pooled(build: Callable) -> None:
    model, given = build(), inputs(batch=2, height=8, width=8)
    del given["latents_history_4x"], given["indices_latents_history_4x"]
    slot = velocity(model, **given)
    frames, times = given.pop("latents_history_2x"), given.pop("indices_latents_history_2x")
    far = {"latents_beyond": frames, "indices_latents_beyond": times, "scale_beyond": 2}
    np.testing.assert_array_equal(velocity(model, **given, **far), slot)
    none, shape = velocity(model, **given), (2, 4, 3, 8, 8)
    with runtime.no_grad():
        # Three frames of 2 x 2 cells are three tokens, each at the mean place of all.
        beyond = Beyond(ops.from_numpy(cells(frames[:, :, [0, 1, 1]])), [0, 0, 0])
        context = model.context(shape, [7, 8, 9], {}, beyond)
        plain = model.context(shape, [0, 8, 9], {})
    assert context.rows == (3, 3 + 3 * 16)
    tables = zip(context.rotary, plain.rotary, strict=True)
    for table, window in ([ops.to_numpy(each)[0] for each in both] for both in tables):
        np.testing.assert_allclose(table[0], window[:16].mean(0), atol=1e-6)
        np.testing.assert_array_equal(table[0], table[2])
    appended = {"latents_beyond": cells(frames), "indices_latents_beyond": [0, 0]}
    assert np.abs(velocity(model, **given, **appended) - none).max() > 1e-3
    # Nothing appended yet is nothing seen.
    np.testing.assert_array_equal(velocity(model, **given, latents_beyond=cells(frames)[:, :, :0]), none)


def test_a_batch_is_its_rows(build: Callable) -> None:
    model, arguments = build(), inputs(batch=3)
    arguments["encoder_attention_mask"] = (np.arange(7) < np.array([[7], [2], [5]])).astype(np.int64)
    arguments["timestep"] = np.array([1.0, 500.0, 999.0], np.float32)
    together = velocity(model, **arguments)
    for index in range(3):
        np.testing.assert_allclose(
            together[index : index + 1], velocity(model, **row(arguments, index)), **CLOSE
        )


def test_rows_may_have_times_of_their_own(build: Callable) -> None:
    model, arguments = build(), inputs(batch=2)
    arguments["indices_latents"] = [[20, 21, 22], [4, 5, 6]]
    arguments["indices_latents_history_2x"] = np.array([[17, 18], [8, 9]])
    together = velocity(model, **arguments)
    for index in range(2):
        alone = row(arguments, index)
        alone["indices_latents"] = arguments["indices_latents"][index]
        alone["indices_latents_history_2x"] = arguments["indices_latents_history_2x"][index]
        np.testing.assert_allclose(together[index : index + 1], velocity(model, **alone), **CLOSE)


@pytest.mark.parametrize("batch", [1, 2])
def test_masks_with_holes_and_left_padding_choose_their_tokens(build: Callable, batch: int) -> None:
    model, arguments = build(), inputs(batch)
    text = arguments["encoder_hidden_states"]
    mask = np.array([[0, 0, 1, 1, 0, 1, 0], [0, 1, 0, 1, 1, 1, 1]])[:batch]
    found = velocity(model, **{**arguments, "encoder_attention_mask": mask})
    front, front_mask = np.zeros_like(text), np.zeros_like(mask)
    for index in range(batch):
        kept = text[index, mask[index] != 0]
        front[index, : len(kept)], front_mask[index, : len(kept)] = kept, 1
    arguments |= {"encoder_hidden_states": front, "encoder_attention_mask": front_mask}
    np.testing.assert_allclose(found, velocity(model, **arguments), **CLOSE)


def test_what_is_masked_does_not_matter(build: Callable) -> None:
    model, arguments = build(), inputs(batch=2)
    arguments["encoder_attention_mask"] = np.array([[1] * 4 + [0] * 3, [1] * 6 + [0]])
    before = velocity(model, **arguments)
    changed = arguments["encoder_hidden_states"].copy()
    changed[0, 4:], changed[1, 6:] = 100.0, -100.0
    np.testing.assert_allclose(
        velocity(model, **{**arguments, "encoder_hidden_states": changed}), before, **CLOSE
    )


@pytest.mark.parametrize("picture", [True, False])
def test_a_row_without_text_is_finite(build: Callable, picture: bool) -> None:
    model, arguments = build(has_image_proj=picture), inputs(batch=2)
    arguments["encoder_attention_mask"] = np.array([[0] * 7, [1] * 7])
    assert np.isfinite(velocity(model, **arguments)).all()
    assert np.isfinite(velocity(model, **row(arguments, 0))).all()


def test_what_may_be_left_out(build: Callable) -> None:
    model, arguments = build(), inputs()
    full = velocity(model, **arguments)
    for names in (
        ["image_embeds"],
        ["latents_clean", "indices_latents_clean"],
        ["latents_history_2x"],
        ["latents_history_4x"],
        ["latents_clean", "latents_history_2x", "latents_history_4x"],
    ):
        changed = velocity(model, **{**arguments, **dict.fromkeys(names)})
        assert changed.shape == full.shape and not np.array_equal(changed, full)
    np.testing.assert_array_equal(velocity(model, **{**arguments, "encoder_attention_mask": None}), full)
    counted = velocity(model, **{**arguments, "indices_latents": np.arange(3)})
    np.testing.assert_array_equal(velocity(model, **{**arguments, "indices_latents": None}), counted)


def test_no_guidance_is_a_scale_of_one(build: Callable) -> None:
    model, arguments = build(), inputs()
    one = velocity(model, **{**arguments, "guidance": np.array([1000.0], np.float32)})
    np.testing.assert_array_equal(velocity(model, **{**arguments, "guidance": None}), one)
    plain = build(guidance_embeds=False)
    np.testing.assert_array_equal(
        velocity(plain, **arguments), velocity(plain, **{**arguments, "guidance": None})
    )


def test_without_projection_or_clean_embedder(build: Callable) -> None:
    model = build(has_image_proj=False, has_clean_x_embedder=False)
    arguments = inputs()
    slots = dict.fromkeys(("latents_clean", "latents_history_2x", "latents_history_4x"))
    found = velocity(model, **{**arguments, **slots})
    np.testing.assert_array_equal(found, velocity(model, **{**arguments, **slots, "image_embeds": None}))
    with pytest.raises(JobError, match="has_clean_x_embedder"):
        model(**tensors(arguments))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_states": np.zeros((1, 4, 3, 5, 10), np.float32)}, "5 x 10 cannot be cut"),
        ({"latents_clean": np.zeros((1, 4, 2, 8, 10), np.float32)}, "latents_clean is"),
        ({"indices_latents_clean": None}, "indices_latents_clean is missing"),
        ({"indices_latents_history_4x": np.arange(3)}, "indices_latents_history_4x has the shape"),
        ({"encoder_attention_mask": np.ones((1, 6))}, "encoder_attention_mask is"),
        ({"encoder_hidden_states": np.zeros((2, 7, 24), np.float32)}, "encoder_hidden_states has 2 rows"),
        ({"pooled_projections": None}, "needs pooled_projections"),
    ],
)
def test_refuses_in_one_sentence(build: Callable, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        build()(**tensors({**inputs(), **changes}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch_size_t": 2}, "patch_size_t must be 1"),
        ({"patch_size": 4}, "patch_size 2"),
        ({"rope_axes_dim": (4, 6, 8)}, "add up to attention_head_dim"),
        ({"qk_norm": "layer_norm"}, "qk_norm"),
    ],
)
def test_refuses_configs_that_no_network_has(build: Callable, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        build(**changes)


def test_half_precision_from_float32_inputs(build: Callable) -> None:
    """bfloat16 on PyTorch; float16 where a CPU has no bfloat16."""
    half = "bfloat16" if backend.name == "torch" else "float16"
    model, arguments = build(), inputs(batch=2)
    arguments["encoder_attention_mask"] = np.array([[1] * 4 + [0] * 3, [1] * 7])
    wide = velocity(model, **arguments)
    model.to(dtype=runtime.dtype(half))
    with runtime.no_grad():
        narrow = model(**tensors(arguments)).sample
    assert runtime.dtype_name(narrow.dtype) == half
    # bfloat16 has 8 bits; three blocks of it lose a few per cent.
    assert np.linalg.norm(ops.to_numpy(narrow) - wide) < 0.05 * np.linalg.norm(wide)


def test_trains_in_every_weight_also_under_autocast(build: Callable, torch_only: Any) -> None:
    torch = torch_only
    model, arguments = build().train(), inputs(batch=2)
    for autocast in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model(**tensors(arguments)).sample.float().square().mean().backward()
        unused = [
            name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
        ]
        assert not unused


def test_a_whole_call_is_one_graph(build: Callable, torch_only: Any) -> None:
    """Masks with holes and an adapter's scale among its inputs; times are tensors, as in scripts of the field."""
    torch = torch_only
    model, arguments = build(), inputs(batch=2)
    arguments["encoder_attention_mask"] = np.array([[1] * 4 + [0] * 3, [0] + [1] * 6])
    given = tensors(arguments)
    whole = torch.compile(model, fullgraph=True, backend="eager")
    for changes in ({}, {"attention_kwargs": {"scale": 0.5}}, {"encoder_attention_mask": None}):
        with runtime.no_grad():
            expected, found = (each(**{**given, **changes}).sample for each in (model, whole))
        np.testing.assert_allclose(ops.to_numpy(found), ops.to_numpy(expected), **CLOSE)
    torch.compiler.reset()


@pytest.mark.slow
def test_the_compiler_itself_takes_the_whole_call(build: Callable, torch_only: Any) -> None:
    model, given = build(), tensors(inputs(batch=2))
    with runtime.no_grad():
        expected, found = (
            each(**given).sample for each in (model, torch_only.compile(model, fullgraph=True))
        )
    # Its own sinusoids are up to 4e-4 apart at a guidance of 6000, 1.4e-5 of what goes into the blocks.
    np.testing.assert_allclose(ops.to_numpy(found), ops.to_numpy(expected), atol=1e-4, rtol=1e-4)


def test_a_config_may_name_no_norm_of_queries_and_keys(build: Callable, tmp_path: Path) -> None:
    build(qk_norm=None).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["qk_norm"] is None
    assert Transformer.from_pretrained(tmp_path).config.qk_norm is None


def test_is_built_without_memory() -> None:
    """The published network, 50 GB in float32."""
    with runtime.empty_weights():
        model = Transformer()
    weights = runtime.named_weights(model)
    assert sum(math.prod(weight.shape) for weight in weights.values()) > 12e9
    if backend.name == "torch":
        assert {weight.device.type for weight in weights.values()} == {"meta"}


def test_valid_tokens_cuts_at_the_longest_row() -> None:
    text = ops.from_numpy(np.arange(12, dtype=np.float32).reshape(2, 6, 1))
    kept, valid = valid_tokens(text, np.array([[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]))
    assert tuple(kept.shape) == (2, 3, 1)
    assert ops.to_numpy(valid).tolist() == [[True, True, False], [True, True, True]]
    kept, valid = valid_tokens(text, np.array([[0, 0, 0, 1, 1, 0], [1, 0, 1, 0, 1, 0]]))
    assert ops.to_numpy(valid).tolist() == [[True, True, False], [True, True, True]]
    kept = ops.to_numpy(kept)
    assert kept[:, :2, 0].tolist() == [[3.0, 4.0], [6.0, 8.0]] and kept[1, 2, 0] == 10


def test_key_mask_is_none_where_nothing_is_hidden() -> None:
    text = ops.zeros(2, 6, 1)
    assert valid_tokens(text, None)[1] is None and valid_tokens(text, np.ones((2, 6)))[1] is None
    assert key_mask(None, 4) is None
    mask = key_mask(valid_tokens(text, np.array([[1] * 6, [1] * 4 + [0] * 2]))[1], 3)
    assert mask is not None and tuple(mask.shape) == (2, 1, 1, 9) and ops.to_numpy(mask).sum() == 16


def test_sinusoid_is_cosines_then_sines() -> None:
    given = runtime.place(ops.from_numpy(np.array([0.0, 1000.0], np.float32)), dtype="float16")
    found = sinusoid(given)
    assert runtime.dtype_name(found.dtype) == "float32"
    found = ops.to_numpy(found)
    assert found.shape == (2, 256)
    np.testing.assert_array_equal(found[0], np.repeat([1.0, 0.0], 128))
    np.testing.assert_allclose(found[1, 0], np.cos(1000.0), rtol=1e-6)
