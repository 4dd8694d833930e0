"""The joint of the blocks: streamed from disk one at a time, kept modulations, and what is refused."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import longtake
from longtake import backend
from longtake.backend import ops, runtime
from longtake.errors import ModelError
from longtake.models.pretrained import Walk, is_untouched, walking
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.models.transformer import Tokens
from longtake.models.transformer.blocks import DoubleBlock, SingleBlock
from longtake.weights import files

FOLDER = Path(longtake.__file__).parent / "embedded" / "transformer"
KINDS = {"transformer_blocks": DoubleBlock, "single_transformer_blocks": SingleBlock}


def noise(*shape: int) -> Any:
    return ops.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


def embedded(model: Transformer, keep: bool) -> Tokens:
    """What the blocks are given in some section of some job."""
    c = model.config
    prompted = model.prompted(
        noise(1, 6, c.text_embed_dim), None, noise(1, c.pooled_projection_dim), noise(1, 4, c.image_proj_dim)
    )
    latents = noise(1, c.in_channels, 2, 4, 4)
    clean = {scale: (noise(1, c.in_channels, scale, 4, 4), list(range(scale))) for scale in (1, 2, 4)}
    context = model.context(tuple(latents.shape), [8, 9], clean)
    level = (ops.from_numpy(np.full(1, value, np.float32)) for value in (700.0, 9000.0))
    moment = model.moment(prompted, *level, keep=keep)
    return model.tokens(latents, moment, context, model.sight(context, prompted))


class Streamed:
    """The blocks of a folder, one after the other, each read into the one skeleton of its kind."""

    def __init__(self, model: Transformer, folder: Path) -> None:
        self.weights = files.read_weights(folder, "diffusion_pytorch_model")
        c = model.config
        width = c.num_attention_heads * c.attention_head_dim
        shape = (width, c.num_attention_heads, int(width * c.mlp_ratio), c.qk_norm)
        with runtime.empty_weights():
            self.skeletons = {name: kind(*shape).eval() for name, kind in KINDS.items()}
        self.places = [
            (name, number)
            for name, count in zip(KINDS, (c.num_layers, c.num_single_layers), strict=True)
            for number in range(count)
        ]
        self.alive: list[weakref.ref] = []
        self.most = 0

    def __iter__(self) -> Iterator[Any]:
        for kind, number in self.places:
            start = f"{kind}.{number}."
            names = [name for name in self.weights if name.startswith(start)]
            read = dict(runtime.read_safetensors(self.weights[names[0]].file, names))
            runtime.assign_weights(self.skeletons[kind], {n.removeprefix(start): t for n, t in read.items()})
            del read
            # One weight of each block speaks for it.
            self.alive.append(weakref.ref(next(iter(self.skeletons[kind].parameters()))))
            gc.collect()
            self.most = max(self.most, sum(each() is not None for each in self.alive))
            yield self.skeletons[kind]


@pytest.mark.parametrize("keep", [False, True], ids=["each block makes its modulation", "kept"])
def test_blocks_stream_from_disk_one_at_a_time(keep: bool) -> None:
    model = Transformer.from_pretrained(FOLDER)
    with runtime.no_grad():
        tokens = embedded(model, keep=False)
        resident = ops.to_numpy(model.head(model.run_blocks(tokens), tokens))
    # Nothing but what stands around the blocks is in memory.
    with runtime.empty_weights():
        hollow = Transformer(model.config)
    around = {
        name: weight
        for name, weight in runtime.named_weights(model).items()
        if not name.startswith(tuple(f"{kind}." for kind in KINDS))
    }
    runtime.assign_weights(hollow, around)
    hollow.eval()
    streamed = Streamed(hollow, FOLDER)
    with runtime.no_grad():
        tokens = embedded(hollow, keep)
        for _ in range(2):
            found = hollow.head(hollow.run_blocks(tokens, streamed), tokens)
            np.testing.assert_array_equal(ops.to_numpy(found), resident)
    assert len(streamed.alive) == 2 * len(streamed.places) and streamed.most <= 2
    assert (tokens.moment.modulations is not None) == keep


def test_kept_modulations_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Transformer.from_pretrained(FOLDER)
    made, original = [], SingleBlock.modulations
    monkeypatch.setattr(SingleBlock, "modulations", lambda self, c: (made.append(1), original(self, c))[1])
    with runtime.no_grad():
        tokens = embedded(model, keep=True)
        first, second = (ops.to_numpy(model.run_blocks(tokens)) for _ in range(2))
    assert len(made) == model.config.num_single_layers
    np.testing.assert_array_equal(first, second)


def test_a_callable_in_the_place_of_a_block_sees_the_whole_sequence() -> None:
    model = Transformer.from_pretrained(FOLDER)
    seen: list[list[int]] = []

    def watched(block: Any) -> Any:
        def run(pieces: Any, *rest: Any) -> Any:
            seen.append([int(piece.shape[1]) for piece in pieces])
            return block(pieces, *rest)

        return run

    with runtime.no_grad():
        tokens = embedded(model, keep=True)
        plain = ops.to_numpy(model.run_blocks(tokens))
        found = ops.to_numpy(model.run_blocks(tokens, map(watched, model.blocks)))
    np.testing.assert_array_equal(found, plain)
    length, text = int(tokens.latents.shape[1]), int(tokens.moment.text.shape[1])
    doubles, singles = model.config.num_layers, model.config.num_single_layers
    assert seen == [[length, text]] * (doubles + 1) + [[length + text]] * (singles - 1)


def test_walks_see_every_block_of_a_whole_call_in_their_order() -> None:
    model = Transformer.from_pretrained(FOLDER, dtype="float32")
    tokens = embedded(model, keep=False)
    plain = ops.to_numpy(model.run_blocks(tokens))
    seen: list[tuple[str, str]] = []

    def telling(name: str) -> Walk:
        def walk(blocks: Iterable[Any]) -> Iterator[Any]:
            for block in blocks:
                seen.append((name, type(block).__name__))
                yield block

        return walk

    with walking(model, telling("inner")), walking(model, telling("outer")):
        assert is_untouched(model)
        assert np.array_equal(ops.to_numpy(model.run_blocks(tokens)), plain)
    kinds = [type(block).__name__ for block in model.blocks]
    assert seen == [(name, kind) for kind in kinds for name in ("inner", "outer")]
    assert model.walks == ()


def test_too_few_blocks_are_refused() -> None:
    model = Transformer.from_pretrained(FOLDER)
    with (
        runtime.no_grad(),
        pytest.raises(ModelError, match="has 8 blocks and was run with 7; give one for each"),
    ):
        model.run_blocks(embedded(model, keep=False), model.blocks[:-1])


@pytest.mark.skipif(backend.name != "torch", reason="torch.compile")
def test_equal_blocks_share_one_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph for the double blocks, three for the single ones: the first joins its input, the last is narrower."""
    torch = pytest.importorskip("torch")
    model = Transformer.from_pretrained(FOLDER)
    with runtime.no_grad():
        tokens = embedded(model, keep=True)
        plain = ops.to_numpy(model.run_blocks(tokens))
    graphs: list[int] = []

    def counting(graph: Any, _: Any) -> Any:
        graphs.append(sum(node.op == "call_function" for node in graph.graph.nodes))
        return graph.forward

    compile = torch.compile
    monkeypatch.setattr(runtime, "graph", True)
    monkeypatch.setattr(
        torch, "compile", lambda module, **options: compile(module, backend=counting, **options)
    )
    torch.compiler.reset()
    with runtime.no_grad():
        for _ in range(2):
            # Rotary tables are spelt out in compiled code: sums of two float32 products.
            np.testing.assert_allclose(ops.to_numpy(model.run_blocks(tokens)), plain, atol=1e-5, rtol=1e-5)
    assert len(graphs) == 1 + 3
    torch.compiler.reset()


@pytest.mark.skipif(backend.name != "torch", reason="torch.compile")
def test_a_copy_of_a_compiled_network_computes_with_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import copy

    torch = pytest.importorskip("torch")
    compile = torch.compile
    monkeypatch.setattr(runtime, "graph", True)
    monkeypatch.setattr(
        torch, "compile", lambda module, **options: compile(module, backend="eager", **options)
    )
    layer = torch.nn.Linear(2, 2)
    x = torch.ones(1, 2)
    before = runtime.compiled(layer)(x)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight.zero_()
        other.bias.zero_()
    assert not runtime.compiled(other)(x).any()
    assert torch.equal(runtime.compiled(layer)(x), before)
    torch.compiler.reset()
