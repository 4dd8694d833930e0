"""Adapters on the transformer: attached, weighed, switched, merged, removed; on either framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from longtake.backend import ops, runtime
from longtake.errors import JobError, ModelError
from longtake.models import adapters
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.weights.lora import LowRank

RANK = 3
EXPECTED = [
    [-0.2523061, -0.4961006, -0.1156319],
    [0.6293812, -0.3735770, -0.3501621],
    [0.9819386, 1.7501305, 0.9738677],
    [-2.2376390, 0.0356561, -0.1660236],
]


@pytest.fixture(scope="module")
def bare(filled: Any) -> Any:
    return filled(
        Transformer(
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            in_channels=4,
            out_channels=4,
            text_embed_dim=24,
            pooled_projection_dim=12,
            rope_axes_dim=(4, 6, 6),
            image_proj_dim=20,
        )
    )


@pytest.fixture
def network(bare: Any) -> Iterator[Any]:
    yield bare
    adapters.unmerge(bare)
    adapters.detach(bare)


@pytest.fixture
def nothing(bare: Any) -> np.ndarray:
    """What the network gives without adapters."""
    return velocity(bare)


def made(network: Any, seed: int, only: str = "") -> dict[str, LowRank]:
    """A random adapter of all modules whose name begins with `only`."""
    source = np.random.default_rng(seed)

    def change(shape: tuple[int, ...]) -> LowRank:
        down = source.standard_normal((RANK, int(np.prod(shape[1:])))).astype(np.float32)
        up = source.standard_normal((shape[0], RANK)).astype(np.float32)
        return LowRank(down / np.float32(np.sqrt(down.shape[1])), up * np.float32(0.2), 2.0)

    shapes = adapters.shapes(network)
    return {name: change(shape) for name, shape in shapes.items() if name.startswith(only)}


def velocity(network: Any, **changes: Any) -> np.ndarray:
    source = np.random.default_rng(1)

    def noise(*shape: int) -> Any:
        return ops.from_numpy(source.standard_normal(shape).astype(np.float32))

    arguments: dict[str, Any] = {
        "hidden_states": noise(1, 4, 3, 4, 6),
        "timestep": ops.from_numpy(np.asarray([500.0], np.float32)),
        "encoder_hidden_states": noise(1, 5, 24),
        "pooled_projections": noise(1, 12),
        "image_embeds": noise(1, 4, 20),
        "guidance": ops.from_numpy(np.asarray([6000.0], np.float32)),
        "latents_clean": noise(1, 4, 2, 4, 6),
        "indices_latents_clean": [0, 4],
        "latents_history_2x": noise(1, 4, 2, 4, 6),
        "indices_latents_history_2x": [5, 6],
        "latents_history_4x": noise(1, 4, 3, 4, 6),
        "indices_latents_history_4x": [7, 8, 9],
    }
    with runtime.no_grad():
        return np.asarray(ops.to_numpy(network(**(arguments | changes), return_dict=False)[0]))


def far(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def copies(network: Any) -> dict[str, np.ndarray]:
    return {name: np.array(ops.to_numpy(weight)) for name, weight in runtime.named_weights(network).items()}


def equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return list(found) == list(expected) and all(
        np.array_equal(found[name], expected[name]) for name in expected
    )


def test_an_adapter_is_the_weights_with_its_product_added(network: Any, nothing: np.ndarray) -> None:
    changes = made(network, 0)
    adapters.attach(network, "a", changes, 0.7)
    attached = velocity(network)
    assert far(attached, nothing) > 0.05
    adapters.detach(network)
    before = copies(network)
    added = {
        f"{name}.weight": before[f"{name}.weight"]
        + (np.float32(0.7) * change.delta).reshape(before[f"{name}.weight"].shape)
        for name, change in changes.items()
    }
    runtime.assign_weights(network, {name: ops.from_numpy(value) for name, value in added.items()})
    runtime.structure_changed(network)
    by_hand = velocity(network)
    runtime.assign_weights(network, {name: ops.from_numpy(before[name]) for name in added})
    runtime.structure_changed(network)
    # Sums in another order, in float32: the limit.
    assert far(attached, by_hand) < 1e-5


@pytest.mark.parametrize(
    "name", ["x_embedder", "clean_x_embedder", "transformer_blocks.0.attn.to_out", "norm_out"]
)
def test_every_kind_of_layer_counts(network: Any, nothing: np.ndarray, name: str) -> None:
    adapters.attach(network, "a", made(network, 0, name))
    attached = velocity(network)
    assert far(attached, nothing) > 1e-3
    adapters.merge(network)
    assert far(velocity(network), attached) < 1e-5


def test_merging_changes_nothing_and_unmerging_nothing_at_all(network: Any, nothing: np.ndarray) -> None:
    before = copies(network)
    adapters.attach(network, "a", made(network, 0))
    adapters.attach(network, "b", made(network, 1), 0.3)
    attached = velocity(network)
    adapters.merge(network)
    assert adapters.merged(network) == ["a", "b"]
    assert far(velocity(network), attached) < 1e-5
    adapters.unmerge(network)
    assert adapters.merged(network) == []
    assert np.array_equal(velocity(network), attached)
    adapters.detach(network)
    assert equal(copies(network), before)
    assert np.array_equal(velocity(network), nothing)


def test_merging_in_two_steps_and_unmerging_at_once(network: Any) -> None:
    adapters.attach(network, "a", made(network, 0))
    adapters.attach(network, "b", made(network, 1))
    attached = velocity(network)
    adapters.merge(network, ["b"])
    assert far(velocity(network), attached) < 1e-5
    adapters.merge(network, ["a"])
    assert far(velocity(network), attached) < 1e-5
    adapters.unmerge(network)
    assert np.array_equal(velocity(network), attached)


def test_half_merged_is_half_as_strong(network: Any, nothing: np.ndarray) -> None:
    adapters.attach(network, "a", made(network, 0, "proj_out"))
    full = velocity(network) - nothing
    adapters.merge(network, factor=0.5)
    assert far(velocity(network) - nothing, 0.5 * full) < 1e-4  # differences of like numbers


def test_several_at_once_each_at_its_strength(network: Any, nothing: np.ndarray) -> None:
    # The last layer is linear in its weight, so that what adapters add adds up.
    adapters.attach(network, "a", made(network, 0, "proj_out"))
    first = velocity(network) - nothing
    adapters.detach(network)
    adapters.attach(network, "b", made(network, 1, "proj_out"))
    second = velocity(network) - nothing
    adapters.attach(network, "a", made(network, 0, "proj_out"))
    assert adapters.names(network) == ["b", "a"]
    assert far(velocity(network) - nothing, first + second) < 1e-4
    adapters.set_strengths(network, {"a": -0.5, "b": 2.0})
    assert far(velocity(network) - nothing, -0.5 * first + 2 * second) < 1e-4


def test_a_strength_neither_replaces_nor_recompiles(mode: str, network: Any, monkeypatch: Any) -> None:
    nothing = velocity(network)
    adapters.attach(network, "a", made(network, 0))
    attached = velocity(network)
    changes: list[Any] = []
    weights = runtime.named_weights(network)
    # Not longer than this: the fixture takes the adapter off again, which is a change.
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "structure_changed", changes.append)
        adapters.set_strengths(network, {"a": 0.0})
        assert np.array_equal(velocity(network), nothing)
        adapters.set_strengths(network, {"a": 0.5})
        assert 0 < far(velocity(network), nothing) < far(attached, nothing)
        adapters.set_strengths(network, {"a": 1.0})
        assert np.array_equal(velocity(network), attached)
    assert not changes
    after = runtime.named_weights(network)
    assert all(after[name].shape == weights[name].shape for name in weights)


def test_graphs_see_every_change(mode: str, network: Any) -> None:
    nothing = velocity(network)
    adapters.attach(network, "a", made(network, 0))
    attached = velocity(network)
    assert far(attached, nothing) > 0.05
    adapters.merge(network)
    assert far(velocity(network), attached) < 1e-5
    adapters.unmerge(network)
    assert np.array_equal(velocity(network), attached)
    adapters.enable(network, False)
    assert np.array_equal(velocity(network), nothing)
    adapters.enable(network, True)
    adapters.detach(network)
    assert np.array_equal(velocity(network), nothing)


def test_every_change_but_a_scale_counts_as_a_revision(network: Any) -> None:
    seen = [adapters.revision(network)]
    for change in (
        lambda: adapters.attach(network, "a", made(network, 0, "proj_out")),
        lambda: adapters.set_strengths(network, {"a": 0.5}),
        lambda: adapters.activate(network, []),
        lambda: adapters.enable(network, False),
        lambda: adapters.merge(network, ["a"]),
        lambda: adapters.unmerge(network),
        lambda: adapters.detach(network),
    ):
        change()
        seen.append(adapters.revision(network))
    assert seen == sorted(set(seen))
    adapters.set_strengths(network, {"a": 0.5})
    with adapters.scaled(network, {"scale": 2.0}):
        assert adapters.revision(network) == seen[-1]


def test_the_same_numbers_on_both_frameworks(network: Any) -> None:
    adapters.attach(network, "a", made(network, 0), 0.7)
    adapters.attach(network, "b", made(network, 1), -0.4)
    # From PyTorch in float64; the limit between frameworks.
    assert far(velocity(network)[0, :, 1, 2, :3], np.asarray(EXPECTED)) < 1e-4


def test_switching(network: Any, nothing: np.ndarray) -> None:
    adapters.attach(network, "a", made(network, 0))
    first = velocity(network)
    adapters.attach(network, "b", made(network, 1))
    both = velocity(network)
    adapters.activate(network, ["a"])
    assert adapters.active(network) == ["a"]
    assert np.array_equal(velocity(network), first)
    adapters.enable(network, False)
    assert not adapters.enabled(network)
    assert np.array_equal(velocity(network), nothing)
    adapters.enable(network, True)
    adapters.activate(network, ["a", "b"])
    assert np.array_equal(velocity(network), both)


def test_deleting_one_leaves_the_other(network: Any, nothing: np.ndarray) -> None:
    adapters.attach(network, "a", made(network, 0))
    first = velocity(network)
    adapters.attach(network, "b", made(network, 1, "transformer_blocks"))
    adapters.detach(network, ["b"])
    assert adapters.names(network) == ["a"]
    assert np.array_equal(velocity(network), first)
    adapters.detach(network, ["a"])
    assert adapters.names(network) == []
    assert np.array_equal(velocity(network), nothing)


def test_removing_puts_the_very_same_modules_back(network: Any) -> None:
    linear, patches = network.transformer_blocks[0].attn.to_out[0], network.x_embedder.proj
    weights = list(runtime.named_weights(network))
    adapters.attach(network, "a", made(network, 0))
    assert network.x_embedder.proj is not patches
    assert network.x_embedder.proj.weight is patches.weight
    adapters.detach(network)
    assert network.transformer_blocks[0].attn.to_out[0] is linear
    assert network.x_embedder.proj is patches
    assert list(runtime.named_weights(network)) == weights


def test_saved_names_are_the_published_ones(network: Any, tmp_path: Any) -> None:
    before, weights = copies(network), list(runtime.named_weights(network))
    adapters.attach(network, "to_q.base", made(network, 0))
    assert list(adapters.published_weights(network)) == weights
    network.save_pretrained(tmp_path)
    loaded = Transformer.from_pretrained(tmp_path)
    assert equal(copies(loaded), before)
    adapters.merge(network)
    network.save_pretrained(tmp_path / "merged")
    merged = copies(Transformer.from_pretrained(tmp_path / "merged"))
    assert list(merged) == list(before)
    assert not np.array_equal(merged["proj_out.weight"], before["proj_out.weight"])


def test_the_scale_of_attention_kwargs(network: Any, nothing: np.ndarray) -> None:
    adapters.attach(network, "a", made(network, 0), 0.5)
    attached = velocity(network)
    assert np.array_equal(velocity(network, attention_kwargs={"scale": 0.0}), nothing)
    doubled = velocity(network, attention_kwargs={"scale": 2.0})
    assert np.array_equal(velocity(network), attached)
    adapters.set_strengths(network, {"a": 1.0})
    assert np.array_equal(velocity(network), doubled)
    with pytest.raises(JobError, match="scale"):
        velocity(network, attention_kwargs={"scale": "much"})


def test_an_adapter_comes_back_as_it_was_read(network: Any) -> None:
    changes = made(network, 0)
    adapters.attach(network, "a", changes, 0.3)
    found = adapters.changes_of(network, "a")
    assert found.keys() == changes.keys()
    for name, change in changes.items():
        assert np.array_equal(found[name].down, change.down)
        assert np.array_equal(found[name].up, change.up)
        assert found[name].alpha == change.alpha


def test_adapters_follow_the_network_to_another_dtype(bare: Any, tmp_path: Any) -> None:
    bare.save_pretrained(tmp_path)
    half = Transformer.from_pretrained(tmp_path)
    adapters.attach(half, "a", made(half, 0))
    full = velocity(half)
    half.to(dtype=runtime.dtype("float16"))
    names = {runtime.dtype_name(weight.dtype) for weight in runtime.named_weights(half).values()}
    assert names == {"float16"}
    found = velocity(half)
    # Half precision: 11 bits, and a few layers.
    assert far(found, full) < 0.02
    adapters.merge(half)
    assert far(velocity(half), found) < 0.02
    adapters.unmerge(half)
    assert np.array_equal(velocity(half), found)


def test_what_cannot_be_attached(network: Any) -> None:
    changes = made(network, 0, "proj_out")
    adapters.attach(network, "a", changes)
    with pytest.raises(JobError, match="'a' already"):
        adapters.attach(network, "a", changes)
    with pytest.raises(ModelError, match="no such module"):
        adapters.attach(network, "b", {"proj_in": changes["proj_out"]})
    with pytest.raises(ModelError, match=r"norm_out.linear"):
        adapters.attach(network, "b", {"norm_out.linear": changes["proj_out"]})
    assert adapters.names(network) == ["a"]


def test_a_merge_that_overflows_is_refused_and_changes_nothing(network: Any, nothing: np.ndarray) -> None:
    adapters.attach(network, "a", made(network, 0, "transformer_blocks"))
    before = copies(network)
    with pytest.raises(JobError, match="not finite in float32; nothing was merged"):
        adapters.merge(network, factor=1e39, only_finite=True)
    assert equal(before, copies(network)) and not adapters.merged(network)
    adapters.merge(network, only_finite=True)
    assert adapters.merged(network) == ["a"]
