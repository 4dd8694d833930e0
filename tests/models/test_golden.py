"""Our networks, on whichever framework is active, against golden files from diffusers and transformers in float64.

tests/golden/make.py made the files. Deviations are the largest one of a tensor over its largest value.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtake import backend
from longtake.backend import ops, runtime
from longtake.models import rope
from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.siglip import SiglipVisionModel
from longtake.models.transformer import SLOTS
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.models.vae import AutoencoderKLHunyuanVideo

# float32 against float64: 6e-8 per operation, some hundred of them one after the other.
CLOSE = 1e-5
# Two of the 128 frequencies of the sinusoids are another float32 in torch, whose exponential rounds otherwise. At a
# guidance of 6000 that is 2e-4 of a sinusoid, and 1.4e-5 of what goes into the blocks.
SINUSOIDS = CLOSE if backend.name == "torch" else 3e-5
# An angle of 37 radians in float32 is known to 2e-6; 4e-7 is what is measured.
ANGLES = 1e-6
PIXELS = (..., slice(None, None, 3), slice(None, None, 3))


def tensors(golden: Any) -> dict[str, Any]:
    return {name: ops.from_numpy(value) for name, value in golden.inputs.items()}


def velocity(network: Any, golden: Any, **changes: Any) -> Any:
    with runtime.no_grad():
        return network(**{**tensors(golden), **changes}).sample


# Compilation takes seconds for every shape, and each tile of an autoencoder has a shape of its own.
GRAPH = ["transformer", "transformer_rows", "vae_clip"] if backend.name == "mindspore" else []


def cases(*names: str) -> Any:
    """Each case in eager mode, and where the framework has it and it is worth its time in graph mode too."""
    found = [(name, "eager") for name in names] + [(name, "graph") for name in names if name in GRAPH]
    return pytest.mark.parametrize(("name", "mode"), found, indirect=["mode"])


@cases("transformer", "transformer_rows", "transformer_plain")
def test_transformer(name: str, mode: str, recipe: Any, filled: Callable, relative: Callable) -> None:
    golden = recipe.read(name)
    found = velocity(filled(Transformer(**golden.config)), golden)
    assert relative(found, golden.expected["sample"]) < SINUSOIDS


@pytest.mark.parametrize("name", ["transformer", "transformer_rows", "transformer_plain"])
def test_what_goes_into_the_blocks(name: str, recipe: Any, filled: Callable, relative: Callable) -> None:
    golden, given = recipe.read(name), recipe.read(name).given
    x = tensors(golden)
    slots = {scale: (x[slot], given[f"indices_{slot}"]) for scale, slot in SLOTS.items()}
    with runtime.no_grad():
        tokens = filled(Transformer(**golden.config)).embed(
            x["hidden_states"],
            x["timestep"],
            x["encoder_hidden_states"],
            x["encoder_attention_mask"],
            x["pooled_projections"],
            x["image_embeds"],
            given["indices_latents"],
            x["guidance"],
            slots,
        )
    length = golden.expected["latents"].shape[1]
    assert relative(tokens.latents, golden.expected["latents"]) < CLOSE
    assert relative(tokens.moment.conditioning, golden.expected["conditioning"]) < SINUSOIDS
    text, counts = ops.to_numpy(tokens.moment.text), given["encoder_attention_mask"].sum(1) + 5
    for row, count in enumerate(counts):
        assert relative(text[row, :count], golden.expected["text"][row, :count]) < SINUSOIDS
    for table, key in zip(tokens.context.rotary, ("cos", "sin"), strict=True):
        array = ops.to_numpy(table)[0, :length, 0, ::2]
        np.testing.assert_allclose(array, golden.expected[key], rtol=0, atol=ANGLES)


def test_rotary_tables(recipe: Any) -> None:
    """In numpy, part by part: what the whole sequence's tables are made of."""
    golden = recipe.read("transformer_rows")
    parts = [("latents_history_4x", 4), ("latents_history_2x", 2), ("latents_clean", 1), ("latents", 1)]
    found = rope.sequence(
        [
            rope.rotary(golden.given[f"indices_{name}"][None], 2, 3, golden.config["rope_axes_dim"], 256.0, k)
            for name, k in parts
        ]
    )
    for table, key in zip(found, ("cos", "sin"), strict=True):
        np.testing.assert_allclose(table[0, :, ::2], golden.expected[key], rtol=0, atol=ANGLES)


@cases("vae_frame", "vae_clip", "vae_time_tiles", "vae_space_tiles")
def test_autoencoder(name: str, mode: str, recipe: Any, filled: Callable, relative: Callable) -> None:
    golden = recipe.read(name)
    network, x = filled(AutoencoderKLHunyuanVideo(**golden.config)), tensors(golden)
    tile = int(golden.given["tile"])
    if tile:
        network.enable_tiling(tile, tile, 16, tile * 3 // 4, tile * 3 // 4, 12)
    with runtime.no_grad():
        posterior = network.encode(x["frames"]).latent_dist
        decoded = network.decode(x["latents"]).sample
    assert relative(posterior.mean, golden.expected["mean"]) < CLOSE
    assert relative(posterior.std, golden.expected["std"]) < CLOSE
    assert relative(decoded[PIXELS], golden.expected["decoded"]) < CLOSE


def test_llama(recipe: Any, filled: Callable, relative: Callable) -> None:
    golden = recipe.read("llama")
    network, x = filled(LlamaModel(**golden.config)), tensors(golden)
    with runtime.no_grad():
        states = network(**x, output_hidden_states=True).hidden_states
        early = network(**x, layers=-2).last_hidden_state
    for row, count in enumerate(golden.given["attention_mask"].sum(1)):
        for layer in (0, 2, 4):
            expected = golden.expected[f"state_{layer}"][row, :count]
            assert relative(ops.to_numpy(states[layer])[row, :count], expected) < CLOSE
        assert relative(ops.to_numpy(early)[row, :count], golden.expected["state_2"][row, :count]) < CLOSE


@pytest.mark.parametrize("name", ["clip", "clip_end"])
def test_clip(name: str, recipe: Any, filled: Callable, relative: Callable) -> None:
    golden = recipe.read(name)
    with runtime.no_grad():
        out = filled(CLIPTextModel(**golden.config))(**tensors(golden))
    assert relative(out.last_hidden_state, golden.expected["last"]) < CLOSE
    assert relative(out.pooler_output, golden.expected["pooled"]) < CLOSE


def test_siglip(recipe: Any, filled: Callable, relative: Callable) -> None:
    golden = recipe.read("siglip")
    with runtime.no_grad():
        out = filled(SiglipVisionModel(**golden.config))(**tensors(golden))
    assert relative(out.last_hidden_state, golden.expected["last"]) < CLOSE
    assert relative(out.pooler_output, golden.expected["pooled"]) < CLOSE


@pytest.mark.parametrize("part", ["a weight", "a time", "a slot", "guidance", "the mask"])
def test_a_mistake_would_be_noticed(part: str, recipe: Any, filled: Callable, relative: Callable) -> None:
    """The smallest mistakes that are worth the name move the output far beyond the tolerance."""
    golden = recipe.read("transformer")
    network, given = filled(Transformer(**golden.config)), golden.given
    changes: dict[str, Any] = {}
    if part == "a weight":
        name = "single_transformer_blocks.1.attn.norm_k.weight"
        wrong = ops.to_numpy(runtime.named_weights(network)[name]).copy()
        wrong[0] *= 1.05
        runtime.assign_weights(network, {name: ops.from_numpy(wrong)})
    elif part == "a time":
        changes["indices_latents_history_2x"] = given["indices_latents_history_2x"] + 1
    elif part == "a slot":
        swapped = golden.inputs["latents_clean"][:, :, ::-1]
        changes["latents_clean"] = ops.from_numpy(np.ascontiguousarray(swapped))
    elif part == "guidance":
        changes["guidance"] = ops.from_numpy(given["guidance"] + 100)
    else:
        changes["encoder_attention_mask"] = np.ones_like(given["encoder_attention_mask"])
    assert relative(velocity(network, golden, **changes), golden.expected["sample"]) > 5 * SINUSOIDS


def test_files_stay_small(recipe: Any) -> None:
    files = list(Path(recipe.HERE).glob("*.npz"))
    assert sum(file.stat().st_size for file in files) < 150_000


def test_the_recipe_stays_what_it_is(recipe: Any) -> None:
    """Bits of a counter and exact arithmetic: the same on every machine."""
    assert recipe.draw("a name", (2,)).tolist() == [-0.3059264123439789, -1.6427292823791504]
