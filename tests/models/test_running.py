"""How blocks run: kernels by the field's names, and compilation, which is shared and does not repeat."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from longtake import backend
from longtake.backend import kernels, ops, runtime, transfer
from longtake.errors import BackendError, JobError
from longtake.machine import Machine
from longtake.models import adapters
from longtake.models.adapters import LowRank
from longtake.models.pretrained import walking
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.pipeline.networks import load_networks


@pytest.fixture(scope="module")
def network(filled) -> Transformer:
    """Blocks of both kinds: two, and three, of which the first, the others and the last are called in three ways."""
    return filled(
        Transformer(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=2,
            num_single_layers=3, num_refiner_layers=1, text_embed_dim=16, pooled_projection_dim=8,
            rope_axes_dim=(2, 4, 4), image_proj_dim=16, has_image_proj=True, has_clean_x_embedder=True,
        )
    )  # fmt: skip


def noise(*shape: int) -> Any:
    return ops.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


def velocity(model: Transformer, words: int = 6, size: int = 4) -> Any:
    """A step of some section, as the loop asks for it."""
    with runtime.no_grad():
        prompted = model.prompted(noise(1, words, 16), None, noise(1, 8), noise(1, 4, 16))
        clean = {scale: (noise(1, 4, scale, size, size), list(range(scale))) for scale in (1, 2, 4)}
        context = model.context((1, 4, 2, size, size), [8, 9], clean)
        level = (ops.from_numpy(np.full(1, value, np.float32)) for value in (700.0, 9000.0))
        moment = model.moment(prompted, *level, keep=True)
        tokens = model.tokens(noise(1, 4, 2, size, size), moment, context, model.sight(context, prompted))
        return ops.to_numpy(model.head(model.run_blocks(tokens), tokens))


@pytest.fixture
def compiled(torch_only, network):
    """A network whose blocks are compiled, as far as the compiler's front; and how many graphs it has made so far."""
    torch_only._dynamo.reset()
    model = copy.deepcopy(network)
    model.compile_repeated_blocks(backend="eager", fullgraph=True)
    counters = torch_only._dynamo.utils.counters
    counters.clear()
    yield model, lambda: counters["stats"]["unique_graphs"]
    torch_only._dynamo.reset()


def test_the_fields_names_of_kernels(network):
    model = copy.deepcopy(network)
    # On MindSpore on a CPU there is no choice but its one.
    model.set_attention_backend("_native_math")
    assert model.kernel == model.chosen_kernel == "math"
    np.testing.assert_allclose(velocity(model), velocity(network), rtol=1e-4, atol=1e-5)
    for name, error in (("_native_cudnn", BackendError), ("sage", BackendError), ("flash_hub", JobError)):
        with pytest.raises(error, match="there are: auto"):
            model.set_attention_backend(name)
    model.reset_attention_backend()
    assert model.kernel == "auto" and network.kernel == "auto"


def test_the_kernel_is_asked_in_the_blocks_alone(monkeypatch, network):
    seen = []
    plain = kernels.attending
    monkeypatch.setattr(kernels, "attending", lambda *asked: (seen.append(asked), plain(*asked))[1])
    velocity(network)
    assert [name for name, _ in seen] == ["auto"]


def test_a_machine_is_obeyed_or_refused_before_anything_is_read(monkeypatch):
    def read(*_: Any) -> None:
        raise AssertionError("a model was read")

    monkeypatch.setattr("longtake.pipeline.networks.Source.read", read)
    with pytest.raises(BackendError, match="'cudnn' is not there"):
        load_networks(machine=Machine(attention="cudnn"))
    monkeypatch.undo()
    networks = load_networks(machine=Machine(attention="math"))
    assert networks.transformer.kernel == "math"


def test_blocks_of_one_kind_share_what_is_compiled(compiled, network):
    model, graphs = compiled
    for _ in range(2):
        # The compiler's own front keeps every sum as it is, but spells rotary turns out.
        np.testing.assert_allclose(velocity(model), velocity(network), rtol=1e-4, atol=1e-5)
        # Double; single with two pieces, with one, and with the window's rows alone.
        assert graphs() == 4

    other = copy.deepcopy(model)
    velocity(other)
    assert runtime.compiles(other.blocks[0]) and graphs() == 4


def test_prompts_of_other_lengths_do_not_compile_anew(compiled, network):
    model, graphs = compiled
    velocity(model, words=6)
    velocity(model, words=9)
    assert graphs() == 8  # now for any length of text
    for words in (12, 7, 6):
        np.testing.assert_allclose(velocity(model, words), velocity(network, words), rtol=1e-4, atol=1e-5)
    assert graphs() == 8


def test_adapters_are_compiled_with_their_layers(compiled, network):
    model, graphs = compiled
    before = velocity(model)
    low = LowRank(np.ones((1, 20), np.float32), np.full((20, 1), 0.1, np.float32), 1.0)
    names = [f"single_transformer_blocks.{number}.attn.to_q" for number in range(3)]
    adapters.attach(model, "walk", dict.fromkeys(names, low))
    with_adapter, made = velocity(model), graphs()
    assert not np.allclose(with_adapter, before)
    velocity(model)
    assert graphs() == made
    adapters.detach(model)
    np.testing.assert_array_equal(velocity(model), before)


def test_blocks_that_a_policy_gives_are_compiled(compiled, network):
    model, graphs = compiled
    with walking(model, lambda blocks: (block for block in blocks)):
        np.testing.assert_allclose(velocity(model), velocity(network), rtol=1e-4, atol=1e-5)
        assert graphs() == 4
        # CUDA graphs write down where weights lie, and a policy may move them.
        with pytest.raises(JobError, match="mode='reduce-overhead' records addresses"):
            model.compile_repeated_blocks(mode="reduce-overhead")


@pytest.mark.skipif(backend.name != "mindspore", reason="about MindSpore's graphs")
def test_mindspore_compiles_by_itself(network, monkeypatch):
    with pytest.raises(BackendError, match="LONGTAKE_GRAPH=0 forbids it"):
        network.compile_repeated_blocks()
    monkeypatch.setattr(runtime, "graph", True)
    network.compile_repeated_blocks()
    with pytest.raises(BackendError, match="without options; mode is torch"):
        network.compile_repeated_blocks(mode="default")


def test_weights_that_come_and_go_are_no_reason_to_compile_anew(compiled, network):
    """As a placement streams blocks: other tensors in the place of a block's own, each time from another buffer."""
    model, graphs = compiled

    def streamed(blocks):
        for block in blocks:
            own = [
                (part, key, weight) for part in block.modules() for key, weight in part._parameters.items()
            ]
            held = [each for each in own if each[2] is not None]
            for part, key, weight in held:
                transfer.put(part, key, weight.detach().clone())
            yield block
            for part, key, weight in held:
                transfer.put(part, key, weight)

    velocity(network)
    with walking(model, streamed):
        for _ in range(2):
            np.testing.assert_allclose(velocity(model), velocity(network), rtol=1e-4, atol=1e-5)
    assert graphs() == 4
