"""Prompts and pictures -> what the transformer is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from longtake.backend import ops, runtime
from longtake.errors import JobError, ModelError
from longtake.job import Job
from longtake.pipeline.encode import PROMPT_TEMPLATE, encode_latents, encode_text, repeated
from longtake.pipeline.networks import Networks
from longtake.pipeline.noise import PICTURE, noise_source
from longtake.pipeline.prepare import Inputs, Request, ask, encode

PIXELS = np.random.default_rng(0).uniform(-1, 1, (1, 3, 32, 48)).astype(np.float32)


def same(one: Any, two: Any) -> bool:
    """Whether two tensors are equal bit for bit."""
    return np.array_equal(ops.to_numpy(one), ops.to_numpy(two))


class Foreign:
    """A text encoder that is not ours: it knows no early stop."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.device, self.dtype = encoder.device, encoder.dtype

    def __call__(self, input_ids: Any, attention_mask: Any, output_hidden_states: bool) -> Any:
        return self.encoder(input_ids, attention_mask, output_hidden_states=output_hidden_states)


def test_shapes_and_mask(networks: Networks) -> None:
    text = encode_text(networks, ["A penguin dances in the snow", "a ball"])
    assert tuple(text.states.shape) == (2, 256, 16)
    assert tuple(text.pooled.shape) == (2, 8)
    # The words and the end token; the template in front is gone.
    counts = ops.to_numpy(text.mask).sum(1).tolist()
    assert counts[0] > counts[1] >= 3


def test_a_foreign_encoder_gives_the_same_states(networks: Networks) -> None:
    mine = encode_text(networks, ["a ball"])
    theirs = encode_text(replace(networks, text_encoder=Foreign(networks.text_encoder)), ["a ball"])
    assert same(mine.states, theirs.states)


def test_a_template_without_crop_start_is_measured(networks: Networks) -> None:
    known = encode_text(networks, ["a ball"])
    measured = encode_text(networks, ["a ball"], template={"template": PROMPT_TEMPLATE["template"]})
    assert same(known.states, measured.states)
    assert same(known.mask, measured.mask)


def test_a_tokenizer_that_pads_on_the_left_is_turned_round(networks: Networks) -> None:
    def left(texts: Any, **options: Any) -> dict[str, np.ndarray]:
        found = networks.tokenizer(texts, **options)
        order = np.argsort(found["attention_mask"], axis=1, kind="stable")
        return {name: np.take_along_axis(rows, order, 1) for name, rows in found.items()}

    right, turned = (encode_text(each, ["a ball"]) for each in (networks, replace(networks, tokenizer=left)))
    assert same(right.mask, turned.mask)
    real = ops.to_numpy(right.mask) != 0
    np.testing.assert_array_equal(ops.to_numpy(right.states)[real], ops.to_numpy(turned.states)[real])


def test_the_second_prompt_reaches_clip_alone(networks: Networks) -> None:
    one, two = encode_text(networks, ["a ball"]), encode_text(networks, ["a ball"], ["a small blue bird"])
    assert same(one.states, two.states)
    assert not same(one.pooled, two.pooled)


def test_braces_in_a_prompt_are_just_braces(networks: Networks) -> None:
    encode_text(networks, ["a {red} ball {0}"])


def test_a_template_without_a_place_is_refused(networks: Networks) -> None:
    with pytest.raises(JobError, match="template"):
        encode_text(networks, ["a ball"], template={"template": "no place"})


def test_the_settings_of_a_model_win_over_the_published_template(networks: Networks) -> None:
    own = replace(
        networks, settings={"prompt_template": {"template": "{}", "crop_start": 0}, "max_sequence_length": 9}
    )
    assert tuple(encode_text(own, ["a ball"]).states.shape) == (1, 9, 16)


def test_latents_are_a_scaled_sample_of_the_posterior(networks: Networks) -> None:
    noise = noise_source(0, videos=2)
    latents = encode_latents(networks.vae, PIXELS, PICTURE, noise, videos=2)
    with runtime.no_grad():
        posterior = networks.vae.encode(ops.from_numpy(PIXELS[:, :, None])).latent_dist
    mean, std = ops.to_numpy(posterior.mean), ops.to_numpy(posterior.std)
    shape = mean.shape
    drawn = np.concatenate([noise_source(seed)(PICTURE, shape, "float32") for seed in (0, 1)])
    expected = (mean + std * drawn) * networks.vae.config.scaling_factor
    np.testing.assert_allclose(latents, expected, rtol=1e-6, atol=1e-7)
    assert not np.array_equal(latents[0], latents[1])


def encoded(networks: Networks, reference: bool = False, **inputs: Any) -> Request:
    """The request of a short job with these inputs."""
    job = Job("a ball", frames=9, window=2, width=48, height=32, reference=reference)
    return encode(ask(job, networks, Inputs(**inputs)))


def picture_of(pixels: np.ndarray) -> np.ndarray:
    """Pixels (B, 3, H, W) as arrays (B, H, W, 3) of pictures."""
    return np.moveaxis(pixels, 1, -1)


def test_both_pictures_reach_siglip_unless_the_reference_is_asked_for(networks: Networks) -> None:
    first, other = picture_of(PIXELS), picture_of(-PIXELS)
    one, two = (encoded(networks, picture=each).states.of((0,)) for each in (first, other))
    both = encoded(networks, picture=first, last_picture=other)
    alone = encoded(networks, reference=True, picture=first, last_picture=other)
    assert same(both.states.of(both.plan[0].pictures), (one + two) / 2)
    assert both.states.of((0,), frozenset({0})).shape == one.shape
    assert not ops.to_numpy(both.states.of((0,), frozenset({0}))).any()
    assert same(alone.states.of((0,)), encoded(networks, reference=True, picture=first).states.of((0,)))
    assert list(both.anchors) == list(both.plan.anchors) and len(both.anchors) == 2
    assert all(latents.shape == (1, 4, 1, 4, 6) for latents in both.anchors.values())


def test_given_latents_are_used_and_decoded_for_siglip(networks: Networks) -> None:
    given = np.random.default_rng(3).standard_normal((1, 4, 1, 4, 6)).astype(np.float32)
    request = encoded(networks, latents=given, last_latents=given, videos=2)
    for latents in request.anchors.values():
        np.testing.assert_array_equal(latents, np.repeat(given, 2, axis=0))
    assert tuple(request.states.of((0,)).shape) == (2, 4, 16)
    seen = encoded(networks, picture=picture_of(PIXELS), latents=given)
    np.testing.assert_array_equal(seen.anchors[0], given)
    assert same(seen.states.of((0,)), encoded(networks, picture=picture_of(PIXELS)).states.of((0,)))


def test_what_is_given_is_not_encoded_again(networks: Networks) -> None:
    whole = encoded(networks, picture=picture_of(PIXELS))
    parts = (
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "image_encoder",
        "feature_extractor",
    )
    bare = replace(networks, **dict.fromkeys(parts))
    text, states = whole.texts["a ball"], whole.states.of((0,))
    again = encoded(bare, picture=picture_of(PIXELS), text=text, image_states=states)
    assert same(again.texts["a ball"].states, text.states)
    with pytest.raises(ModelError, match="no text_encoder, which the job needs"):
        encoded(bare, picture=picture_of(PIXELS), image_states=states)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"picture": np.zeros((8, 8, 3), np.uint8), "videos": 0}, "at least 1 video"),
        ({"latents": np.zeros((1, 4, 1, 9, 9))}, "image_latents has the shape"),
        (
            {"picture": [np.zeros((8, 8, 3), np.uint8)] * 2, "prompts": ["a", "b", "c"]},
            "image has 2 entries for 3",
        ),
    ],
)
def test_what_cannot_be_met_is_refused_before_anything_runs(
    inputs: dict[str, Any], words: str, networks: Networks
) -> None:
    job = Job("a ball", frames=9, window=2, width=48, height=32)
    with pytest.raises(JobError, match=words):
        ask(job, replace(networks, text_encoder=None, vae=None), Inputs(**inputs))


def test_a_job_for_another_dtype_is_refused(networks: Networks) -> None:
    job = Job("a ball", frames=9, window=2, width=48, height=32, dtype="bfloat16")
    with pytest.raises(JobError, match="asks for bfloat16 and the networks are float32"):
        ask(job, networks, Inputs(picture=picture_of(PIXELS)))


def test_rows_are_repeated_prompt_by_prompt() -> None:
    assert repeated(np.array([1, 2]), 4).tolist() == [1, 1, 2, 2]
    assert ops.to_numpy(repeated(ops.from_numpy(np.array([1, 2])), 4)).tolist() == [1, 1, 2, 2]
    with pytest.raises(JobError):
        repeated(np.array([1, 2]), 3)
