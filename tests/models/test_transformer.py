"""The packed transformer: joints, masks, sizes, what may be left out, and refusals."""

from typing import Any

import pytest
import torch

from longtake.backend import runtime
from longtake.errors import JobError, ModelError
from longtake.models.layers import sinusoid
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.models.transformer import Tokens, key_mask, valid_tokens

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

# Two orders of float32 sums (a batch against one row, a mask against a cut) over values of size 1.
CLOSE: dict[str, Any] = {"atol": 2e-6, "rtol": 1e-5}


def build(**changes: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(**{**TINY, **changes}).eval()


def inputs(batch: int = 1, height: int = 6, width: int = 10, text: int = 7, seed: int = 1) -> dict[str, Any]:
    source = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=source)

    return {
        "hidden_states": noise(batch, 4, 3, height, width),
        "timestep": torch.full((batch,), 900.0),
        "encoder_hidden_states": noise(batch, text, 24),
        "encoder_attention_mask": torch.ones(batch, text),
        "pooled_projections": noise(batch, 12),
        "image_embeds": noise(batch, 5, 20),
        "indices_latents": torch.arange(20, 23),
        "guidance": torch.full((batch,), 6000.0),
        "latents_clean": noise(batch, 4, 2, height, width),
        "indices_latents_clean": torch.tensor([0, 19]),
        "latents_history_2x": noise(batch, 4, 2, height, width),
        "indices_latents_history_2x": torch.tensor([17, 18]),
        "latents_history_4x": noise(batch, 4, 16, height, width),
        "indices_latents_history_4x": torch.arange(1, 17),
    }


def velocity(model: Transformer, **arguments: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**arguments).sample


def row(arguments: dict[str, Any], index: int) -> dict[str, Any]:
    return {
        name: value if name.startswith("indices") else value[index : index + 1]
        for name, value in arguments.items()
    }


def test_returns_a_velocity_for_every_latent_both_ways() -> None:
    model, arguments = build(), inputs()
    out = model(**arguments)
    assert out.sample.shape == arguments["hidden_states"].shape
    (plain,) = model(**arguments, return_dict=False)
    assert torch.equal(plain, out.sample)
    assert torch.equal(model(**arguments, attention_kwargs={"scale": 1.0})[0], plain)


def test_the_joints_are_the_forward() -> None:
    model, a = build(), inputs(batch=2)
    with torch.no_grad():
        tokens = model.embed(
            a["hidden_states"],
            a["timestep"],
            a["encoder_hidden_states"],
            a["encoder_attention_mask"],
            a["pooled_projections"],
            a["image_embeds"],
            a["indices_latents"],
            a["guidance"],
            [
                (a["latents_clean"], [0, 19]),
                (a["latents_history_2x"], [17, 18]),
                (a["latents_history_4x"], list(range(1, 17))),
            ],
        )
        assert isinstance(tokens, Tokens)
        # 6 x 10 latents are 3 x 5 tokens; packed by 2 they are 2 x 3, by 4 they are 1 x 2.
        assert tokens.latents.shape[1] == 4 * 1 * 2 + 1 * 2 * 3 + 2 * 15 + 3 * 15
        assert tokens.grid == (3, 3, 5)
        assert tokens.text.shape[1] == 5 + 7
        assert tokens.rotary[0].shape == (1, tokens.latents.shape[1] + 12, 1, 16)
        assert tokens.mask is None
        blocks = model.run_blocks(tokens)
        assert blocks.shape == tokens.latents.shape
        assert torch.equal(model.head(blocks, tokens), velocity(model, **a))


def test_a_batch_is_its_rows() -> None:
    model, arguments = build(), inputs(batch=3)
    arguments["encoder_attention_mask"] = (torch.arange(7) < torch.tensor([[7], [2], [5]])).long()
    arguments["timestep"] = torch.tensor([1.0, 500.0, 999.0])
    together = velocity(model, **arguments)
    for index in range(3):
        torch.testing.assert_close(
            together[index : index + 1], velocity(model, **row(arguments, index)), **CLOSE
        )


def test_rows_may_have_times_of_their_own() -> None:
    model, arguments = build(), inputs(batch=2)
    arguments["indices_latents"] = [[20, 21, 22], [4, 5, 6]]
    arguments["indices_latents_history_2x"] = torch.tensor([[17, 18], [8, 9]])
    together = velocity(model, **arguments)
    for index in range(2):
        alone = row(arguments, index)
        alone["indices_latents"] = arguments["indices_latents"][index]
        alone["indices_latents_history_2x"] = arguments["indices_latents_history_2x"][index]
        torch.testing.assert_close(together[index : index + 1], velocity(model, **alone), **CLOSE)


@pytest.mark.parametrize("batch", [1, 2])
def test_masks_with_holes_and_left_padding_choose_their_tokens(batch: int) -> None:
    model, arguments = build(), inputs(batch)
    text = arguments["encoder_hidden_states"]
    mask = torch.tensor([[0, 0, 1, 1, 0, 1, 0], [0, 1, 0, 1, 1, 1, 1]])[:batch]
    found = velocity(model, **{**arguments, "encoder_attention_mask": mask})
    front, front_mask = torch.zeros_like(text), torch.zeros_like(mask)
    for index in range(batch):
        kept = text[index, mask[index].bool()]
        front[index, : len(kept)], front_mask[index, : len(kept)] = kept, 1
    arguments |= {"encoder_hidden_states": front, "encoder_attention_mask": front_mask}
    torch.testing.assert_close(found, velocity(model, **arguments), **CLOSE)


def test_what_is_masked_does_not_matter() -> None:
    model, arguments = build(), inputs(batch=2)
    arguments["encoder_attention_mask"] = torch.tensor([[1] * 4 + [0] * 3, [1] * 6 + [0]])
    before = velocity(model, **arguments)
    changed = arguments["encoder_hidden_states"].clone()
    changed[0, 4:], changed[1, 6:] = 100.0, -100.0
    torch.testing.assert_close(
        velocity(model, **{**arguments, "encoder_hidden_states": changed}), before, **CLOSE
    )


@pytest.mark.parametrize("picture", [True, False])
def test_a_row_without_text_is_finite(picture: bool) -> None:
    model, arguments = build(has_image_proj=picture), inputs(batch=2)
    arguments["encoder_attention_mask"] = torch.tensor([[0] * 7, [1] * 7])
    assert velocity(model, **arguments).isfinite().all()
    assert velocity(model, **row(arguments, 0)).isfinite().all()


def test_what_may_be_left_out() -> None:
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
        assert changed.shape == full.shape and not torch.equal(changed, full)
    assert torch.equal(velocity(model, **{**arguments, "encoder_attention_mask": None}), full)
    counted = velocity(model, **{**arguments, "indices_latents": torch.arange(3)})
    assert torch.equal(velocity(model, **{**arguments, "indices_latents": None}), counted)


def test_no_guidance_is_a_scale_of_one() -> None:
    model, arguments = build(), inputs()
    one = velocity(model, **{**arguments, "guidance": torch.tensor([1000.0])})
    assert torch.equal(velocity(model, **{**arguments, "guidance": None}), one)
    plain = build(guidance_embeds=False)
    assert torch.equal(velocity(plain, **arguments), velocity(plain, **{**arguments, "guidance": None}))


def test_without_projection_or_clean_embedder() -> None:
    model = build(has_image_proj=False, has_clean_x_embedder=False)
    arguments = inputs()
    slots = dict.fromkeys(("latents_clean", "latents_history_2x", "latents_history_4x"))
    found = velocity(model, **{**arguments, **slots})
    assert torch.equal(found, velocity(model, **{**arguments, **slots, "image_embeds": None}))
    with pytest.raises(JobError, match="has_clean_x_embedder"):
        model(**arguments)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_states": torch.zeros(1, 4, 3, 5, 10)}, "5 x 10 cannot be cut"),
        ({"latents_clean": torch.zeros(1, 4, 2, 8, 10)}, "latents_clean is"),
        ({"indices_latents_clean": None}, "indices_latents_clean is missing"),
        ({"indices_latents_history_4x": torch.arange(3)}, "indices_latents_history_4x has the shape"),
        ({"encoder_attention_mask": torch.ones(1, 6)}, "encoder_attention_mask is"),
        ({"encoder_hidden_states": torch.zeros(2, 7, 24)}, "encoder_hidden_states has 2 rows"),
        ({"pooled_projections": None}, "needs pooled_projections"),
    ],
)
def test_refuses_in_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        build()(**{**inputs(), **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch_size_t": 2}, "patch_size_t must be 1"),
        ({"patch_size": 4}, "patch_size 2"),
        ({"rope_axes_dim": (4, 6, 8)}, "add up to attention_head_dim"),
        ({"qk_norm": "layer_norm"}, "qk_norm"),
    ],
)
def test_refuses_configs_that_no_network_has(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        build(**changes)


def test_runs_in_bfloat16_from_float32_inputs() -> None:
    model, arguments = build(), inputs(batch=2)
    arguments["encoder_attention_mask"] = torch.tensor([[1] * 4 + [0] * 3, [1] * 7])
    wide = velocity(model, **arguments)
    narrow = velocity(model.to(torch.bfloat16), **arguments)
    assert narrow.dtype == torch.bfloat16
    # bfloat16 has 8 bits; three blocks of it lose a few per cent.
    assert (narrow.float() - wide).norm() < 0.05 * wide.norm()


def test_trains_in_every_weight_also_under_autocast() -> None:
    model, arguments = build().train(), inputs(batch=2)
    for autocast in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model(**arguments).sample.float().square().mean().backward()
        unused = [
            name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
        ]
        assert not unused


def test_blocks_are_one_graph() -> None:
    model, arguments = build(), inputs(batch=2)
    arguments["encoder_attention_mask"] = torch.tensor([[1] * 4 + [0] * 3, [1] * 7])
    plain = velocity(model, **arguments)
    model.run_blocks = torch.compile(model.run_blocks, fullgraph=True, backend="eager")  # type: ignore[method-assign]
    torch.testing.assert_close(velocity(model, **arguments), plain, **CLOSE)


def test_is_built_without_memory() -> None:
    with runtime.empty_weights():
        model = Transformer()
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert sum(p.numel() for p in model.parameters()) > 12e9


def test_valid_tokens_cuts_at_the_longest_row() -> None:
    text = torch.arange(12.0).reshape(2, 6, 1)
    kept, counts = valid_tokens(text, torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]))
    assert kept.shape == (2, 3, 1) and counts.tolist() == [2, 3]
    kept, counts = valid_tokens(text, torch.tensor([[0, 0, 0, 1, 1, 0], [1, 0, 1, 0, 1, 0]]))
    assert kept[:, :2, 0].tolist() == [[3.0, 4.0], [6.0, 8.0]] and kept[1, 2, 0] == 10


def test_key_mask_is_none_where_nothing_is_hidden() -> None:
    _, counts = valid_tokens(torch.zeros(2, 6, 1), None)
    assert key_mask(counts, 6, torch.zeros(1)) is None
    mask = key_mask(counts - [0, 2], 6, torch.zeros(1))
    assert mask is not None and mask.shape == (2, 1, 1, 6) and mask.sum() == 10


def test_sinusoid_is_cosines_then_sines() -> None:
    found = sinusoid(torch.tensor([0.0, 1000.0], dtype=torch.bfloat16))
    assert found.dtype == torch.float32 and found.shape == (2, 256)
    assert torch.equal(found[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    torch.testing.assert_close(found[1, 0], torch.cos(torch.tensor(1000.0)))
