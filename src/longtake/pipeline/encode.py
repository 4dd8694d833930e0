"""Prompts and pictures through the encoders.

Text goes two ways: Llama's states (B, L, D) of the prompt in a template, two layers before the end, the template cut
off; and CLIP's pooled state (B, P) of the second prompt. Pictures too: SigLIP's states (B, N, E), and latents that
begin and end the video.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from longtake.backend import exchange, ops, runtime
from longtake.errors import JobError
from longtake.models.llama import LlamaModel
from longtake.models.pretrained import is_untouched
from longtake.pipeline.networks import Networks
from longtake.pipeline.noise import Noise, What
from longtake.processors.siglip import SiglipImageProcessor

# HunyuanVideo's; the model was trained behind these very words.
PROMPT_TEMPLATE: dict[str, Any] = {
    "template": (
        "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
        "1. The main content and theme of the video."
        "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
        "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
        "4. background environment, light, style and atmosphere."
        "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    ),
    "crop_start": 95,
}
SKIPPED_LAYERS = 2
MAX_TEXT_TOKENS = 256
MAX_CLIP_TOKENS = 77


@dataclass(frozen=True)
class Text:
    """Prompts, encoded: `states` (B, L, D) with their `mask` (B, L), and `pooled` (B, P); None is not known."""

    states: Any = None
    mask: Any = None
    pooled: Any = None


def encode_text(
    networks: Networks,
    prompts: Sequence[str],
    prompts_2: Sequence[str] | None = None,
    template: Mapping[str, Any] | None = None,
    max_tokens: int | None = None,
    known: Text = Text(),
) -> Text:
    """Both encodings of the prompts; what is `known` is not encoded again. CLIP reads `prompts_2`, else `prompts`."""
    states, mask, pooled = known.states, known.mask, known.pooled
    if states is None:
        template = template or networks.settings.get("prompt_template", PROMPT_TEMPLATE)
        max_tokens = max_tokens or networks.settings.get("max_sequence_length", MAX_TEXT_TOKENS)
        with networks.using("text_encoder") as encoder:
            tokenizer = networks.part("tokenizer")
            states, mask = encode_states(encoder, tokenizer, prompts, template, max_tokens)
    if pooled is None:
        with networks.using("text_encoder_2") as encoder:
            pooled = encode_pooled(encoder, networks.part("tokenizer_2"), prompts_2 or prompts)
    return Text(states, mask, pooled)


def encode_states(
    encoder: Any, tokenizer: Any, prompts: Sequence[str], template: Mapping[str, Any], max_tokens: int
) -> tuple[Any, Any]:
    """States (B, L, D) and mask (B, L) of the prompts in their template, the template's own tokens cut off."""
    if "{}" not in template.get("template", ""):
        raise JobError("A prompt template has a key 'template' with the place of the prompt, {}, in it.")
    texts = [template["template"].replace("{}", prompt) for prompt in prompts]
    start = template.get("crop_start")
    if start is None:
        # Unlike the reference: it counts the template with its padding, so that nothing of the prompt is left.
        start = len(tokenizer([template["template"].split("{}")[0]])["input_ids"][0])
    tokens = tokenizer(texts, padding="max_length", max_length=max_tokens + start, truncation=True)
    real = np.asarray(tokens["attention_mask"])
    # A tokenizer that pads on the left would have its padding cut off in place of the template.
    order = np.argsort(1 - real, axis=1, kind="stable")
    ids, mask = (
        exchange.given(np.take_along_axis(np.asarray(rows, np.int64), order, 1), encoder)
        for rows in (tokens["input_ids"], real)
    )
    with exchange.no_grad(encoder):
        if isinstance(encoder, LlamaModel) and is_untouched(encoder):
            # The layers behind the states that are read need not run.
            states = encoder(ids, mask, layers=-SKIPPED_LAYERS).last_hidden_state
        else:
            found = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            states = found.hidden_states[-SKIPPED_LAYERS - 1]
    return exchange.taken(states[:, start:]), exchange.taken(mask[:, start:])


def encode_pooled(encoder: Any, tokenizer: Any, prompts: Sequence[str]) -> Any:
    """CLIP's pooled states (B, P) of the bare prompts."""
    tokens = tokenizer(list(prompts), padding="max_length", max_length=MAX_CLIP_TOKENS, truncation=True)
    with exchange.no_grad(encoder):
        ids = exchange.given(np.asarray(tokens["input_ids"], dtype=np.int64), encoder)
        return exchange.taken(encoder(ids).pooler_output)


def encode_picture(encoder: Any, processor: Any, pixels: np.ndarray, rounded: bool = False) -> Any:
    """SigLIP's states (B, N, E) of pictures (B, 3, H, W) in [-1, 1].

    `rounded` rounds values to 256 steps, as transformers' processor does without torchvision; a processor of theirs
    decides that itself.
    """
    # "pt" is the one kind that all of transformers' processors return; ours gives the process's own tensors for it.
    own = {"rounded": rounded} if isinstance(processor, SiglipImageProcessor) else {}
    prepared = processor(images=list((pixels + 1.0) / 2.0), return_tensors="pt", do_rescale=False, **own)
    with exchange.no_grad(encoder):
        seen = exchange.given(exchange.array_of(prepared["pixel_values"]), encoder, as_weights=True)
        return exchange.taken(encoder(seen).last_hidden_state)


def encode_latents(vae: Any, pixels: np.ndarray, what: What, noise: Noise, videos: int) -> np.ndarray:
    """A sample of the autoencoder's posterior of pictures (B, 3, H, W): latents (videos, C, 1, h, w), scaled.

    Each video takes a sample of its own; `videos` is B or, for one picture, any number.
    """
    frame = runtime.place(ops.from_numpy(pixels[:, :, None]), exchange.device_of(vae), vae.dtype)
    with runtime.no_grad():
        posterior = vae.encode(frame).latent_dist
        mean, std = (repeated(part, videos) for part in (posterior.mean, posterior.std))
        drawn = noise(what, tuple(mean.shape), runtime.dtype_name(vae.dtype))
        latents = (mean + std * ops.from_numpy(drawn, like=mean)) * vae.config.scaling_factor
    return np.asarray(ops.to_numpy(latents), dtype=np.float32)


@contextmanager
def _whole_frames(vae: Any) -> Iterator[None]:
    """Inside, frames are not cut for want of memory: one needs little, and what is seen in it decides sections."""
    tile = getattr(vae, "decoding_tile", None)
    try:
        if tile is not None:
            vae.decoding_tile = None
        yield
    finally:
        if tile is not None:
            vae.decoding_tile = tile


def repeated(rows: Any, count: int) -> Any:
    """`count` rows: each of the given ones is repeated equally often; JobError if `count` is no multiple of them."""
    have = rows.shape[0]
    if have == count:
        return rows
    if count % have:
        raise JobError(f"{have} rows cannot be spread over {count} videos; give one, or one per prompt.")
    places = np.repeat(np.arange(have), count // have)
    return rows[places] if isinstance(rows, np.ndarray) else rows[places.tolist()]


def decode_picture(vae: Any, latents: Any) -> np.ndarray:
    """The pictures (B, 3, H, W) of latents (B, C, 1, h, w)."""
    unscaled = runtime.place(
        ops.from_numpy(latents / vae.config.scaling_factor), exchange.device_of(vae), vae.dtype
    )
    with runtime.no_grad(), _whole_frames(vae):
        frame = vae.decode(unscaled, return_dict=False)[0]
    return np.asarray(ops.to_numpy(frame)[:, :, 0].clip(-1.0, 1.0), dtype=np.float32)
