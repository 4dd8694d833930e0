"""The transformer's stage: text encoders, picture encoder and transformer learn together from a pool of latents.

Flow matching (velocity = noise - clean) on one section at a time with true history, both sampling types in one
network: the times of a section tell which it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from longtake import toyworld
from longtake.backend import nn, ops, training
from longtake.compat.schedulers import FlowMatchEulerDiscreteScheduler
from longtake.config import CLIPTextConfig, LlamaConfig, SiglipVisionConfig, TransformerConfig
from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.siglip import SiglipVisionModel
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.pipeline.decode import from_frames
from longtake.pipeline.encode import MAX_CLIP_TOKENS, PROMPT_TEMPLATE
from longtake.pipeline.networks import Networks
from longtake.plan.plans import PLANS, Section, inverted
from longtake.processors.siglip import SiglipImageProcessor
from longtake.toy.initialise import initialise
from longtake.toy.pool import SECTIONS, Pool, batches, gather, make_pool
from longtake.toy.tokenizers import train_tokenizers

SIZE = 64
TRANSFORMER = TransformerConfig(
    in_channels=32,
    out_channels=32,
    num_attention_heads=8,
    attention_head_dim=32,
    num_layers=2,
    num_single_layers=6,
    num_refiner_layers=1,
    text_embed_dim=128,
    pooled_projection_dim=64,
    rope_theta=64.0,
    rope_axes_dim=(8, 12, 12),
    image_proj_dim=64,
)
LLAMA = LlamaConfig(
    hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
    rope_theta=10000.0, max_position_embeddings=512,
)  # fmt: skip
CLIP = CLIPTextConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4)
SIGLIP = SiglipVisionConfig(
    hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, image_size=SIZE, patch_size=32,
    vision_use_head=False,
)  # fmt: skip
SHIFT = 2.0
DROPPED_PROMPTS = 0.1
HISTORY_NOISE = 0.15
FRESH_EVERY = 4
"""Steps to a new scene in the pool."""


class TransformerStage:
    """Everything that the loop asks of a stage, for text encoders, picture encoder and transformer."""

    name = "transformer"
    rate = 2e-3
    average = 0.999
    plain: tuple[str, ...] = ("x_embedder", "transformer/proj_out", "embed_tokens", "_embedding")

    def __init__(
        self,
        folder: Path,
        vae: AutoencoderKLHunyuanVideo,
        pool: Pool,
        judge: Callable[[Networks, Path], dict[str, float]],
        seed: int = 0,
        batch: int = 24,
    ) -> None:
        self.vae, self.pool, self.judge, self.batch = vae, pool, judge, batch
        prompts = [toyworld.prompt(scene, np.random.default_rng(n)) for n, scene in enumerate(pool.scenes)]
        self.tokenizer, self.tokenizer_2 = train_tokenizers(
            prompts, PROMPT_TEMPLATE["template"], folder / "model"
        )
        training.seed_everything(seed)
        self.transformer = HunyuanVideoFramepackTransformer3DModel(TRANSFORMER)
        initialise(self.transformer, seed)
        self.text_encoder = LlamaModel(LLAMA, vocab_size=self.tokenizer.vocab_size)
        self.text_encoder_2 = CLIPTextModel(CLIP, vocab_size=self.tokenizer_2.vocab_size)
        self.image_encoder = SiglipVisionModel(SIGLIP)
        for network in (self.text_encoder, self.text_encoder_2, self.image_encoder):
            for module in network.modules():
                if isinstance(module, nn.Embedding):
                    training.fill(
                        module.weight, 0.02 * np.random.default_rng(seed).standard_normal(module.weight.shape)
                    )
        self.networks: dict[str, Any] = {
            "transformer": self.transformer,
            "text_encoder": self.text_encoder,
            "text_encoder_2": self.text_encoder_2,
            "image_encoder": self.image_encoder,
        }
        self.scale = float(vae.config.scaling_factor)
        self.rows = batches(np.random.default_rng(seed), len(pool), batch)
        self.steps = 0

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Any, dict[str, float]]:
        """The mean squared error of the velocity of one batch, and its parts by noise level."""
        self.steps += 1
        if self.steps % FRESH_EVERY == 0:
            # A new scene in the place of an old one: the pool is small, the world is not.
            fresh = make_pool(self.vae, [toyworld.random_scene(rng)], SIZE)
            self.pool.replace(self.steps // FRESH_EVERY % len(self.pool), fresh)
        chosen = next(self.rows)
        drawn = [draw_section(rng) for _ in chosen]
        sections, last = [section for section, _ in drawn], [end for _, end in drawn]
        data = gather(self.pool, chosen.tolist(), sections, last, self.scale)
        noise = rng.standard_normal(data.window.shape, np.float32)
        level = shifted((rng.permutation(self.batch) + rng.random(self.batch)) / self.batch).astype(
            np.float32
        )
        spread = level[:, None, None, None, None]
        states, mask, pooled = self._text(rng, chosen)
        blur = rng.random(self.batch).astype(np.float32)[:, None, None, None, None] * HISTORY_NOISE
        context = dict(
            zip(
                ("latents_clean", "latents_history_2x", "latents_history_4x"),
                (ops.from_numpy(blurred(slot, blur, rng)) for slot, _ in data.clean),
                strict=True,
            )
        )
        times = {
            f"indices_{name}": slot_times for name, (_, slot_times) in zip(context, data.clean, strict=True)
        }
        with training.autocast("bfloat16"):
            velocity = self.transformer(
                hidden_states=ops.from_numpy((1 - spread) * data.window + spread * noise),
                timestep=ops.from_numpy(level * 1000),
                encoder_hidden_states=states,
                encoder_attention_mask=mask,
                pooled_projections=pooled,
                image_embeds=self._picture(chosen, last),
                indices_latents=data.window_times,
                guidance=ops.from_numpy(rng.uniform(1000, 12000, self.batch).astype(np.float32)),
                **context,
                **times,
            ).sample
        target = ops.from_numpy(noise - data.window)
        errors = ((velocity.float() - target) ** 2).flatten(1).mean(1)
        found = ops.to_numpy(errors)
        halves = {"low": level < 0.5, "high": level >= 0.5}
        parts = {name: float(found[half].mean()) for name, half in halves.items() if half.any()}
        return errors.mean(), parts

    def _text(self, rng: np.random.Generator, chosen: np.ndarray) -> tuple[Any, np.ndarray, Any]:
        prompts = [
            "" if rng.random() < DROPPED_PROMPTS else toyworld.prompt(self.pool.scenes[row], rng)
            for row in chosen
        ]
        start = PROMPT_TEMPLATE["crop_start"]
        texts = [PROMPT_TEMPLATE["template"].replace("{}", prompt) for prompt in prompts]
        tokens = self.tokenizer(texts, padding="longest", return_tensors="np")
        ids, mask = np.asarray(tokens["input_ids"]), np.asarray(tokens["attention_mask"])
        clip = self.tokenizer_2(prompts, padding="max_length", max_length=MAX_CLIP_TOKENS, truncation=True)
        with training.autocast("bfloat16"):
            states = self.text_encoder(ops.from_numpy(ids), ops.from_numpy(mask), layers=-2).last_hidden_state
            pooled = self.text_encoder_2(
                ops.from_numpy(np.asarray(clip["input_ids"], np.int64))
            ).pooler_output
        return states[:, start:].float(), mask[:, start:], pooled.float()

    def _picture(self, chosen: np.ndarray, last: list[int | None]) -> Any:
        def encoded(pictures: np.ndarray) -> Any:
            pixels = from_frames(pictures[:, None])[:, :, 0]
            return self.image_encoder(pixel_values=ops.from_numpy(pixels)).last_hidden_state

        first = encoded(self.pool.pictures[chosen, 0])
        ends = encoded(self.pool.pictures[chosen, [0 if end is None else 1 + end for end in last]])
        return (first + ends) / 2  # as the pipeline averages; without an end picture both are the first

    def model(self) -> Networks:
        """All the networks as a pipeline runs them."""
        return Networks(
            **self.networks,
            vae=self.vae,
            tokenizer=self.tokenizer,
            tokenizer_2=self.tokenizer_2,
            feature_extractor=SiglipImageProcessor(size={"height": SIZE, "width": SIZE}),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
            settings={"width": SIZE, "height": SIZE, "about": "longtake's toy model: cartoons of 64 pixels"},
        )

    def report(self, sheets: Path) -> dict[str, float]:
        """What the judge makes of the model as it is now."""
        return self.judge(self.model(), sheets)


def draw_section(rng: np.random.Generator) -> tuple[Section, int | None]:
    """One section of a random plan, and the number of its end picture where it sees one."""
    sections = int(rng.choice([1, 2, 3, 4, 5], p=[0.05, 0.1, 0.15, 0.4, 0.3]))
    if rng.random() < 0.5:
        return PLANS["vanilla"](sections)[int(rng.integers(sections))], None
    if rng.random() < 0.15:
        return inverted(sections, last_picture=True)[0], sections - 1
    return PLANS["inverted"](sections)[int(rng.integers(sections))], None


def shifted(levels: np.ndarray, shift: float = SHIFT) -> np.ndarray:
    """Noise levels moved towards noise, as the schedule is."""
    return shift * levels / (1 + (shift - 1) * levels)


def blurred(latents: np.ndarray, blur: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A little noise on the history, where there is one: what was generated is never quite clean."""
    there = np.abs(latents).max(axis=(1, 3, 4), keepdims=True) > 0
    return latents + there * blur * rng.standard_normal(latents.shape, np.float32)


def scenes_of(seed: int, count: int) -> list[toyworld.Scene]:
    """Training scenes (never those that are held out)."""
    return [toyworld.random_scene(np.random.default_rng((seed, number))) for number in range(count)]


def load_or_make_pool(folder: Path, vae: Any, seed: int, count: int) -> Pool:
    """The pool in `folder`, made where it is not there."""
    file = folder / "pool.npz"
    scenes = scenes_of(seed, count)
    if file.exists():
        with np.load(file) as arrays:
            if len(arrays["latents"]) == count:
                return Pool(scenes, arrays["latents"], arrays["ends"], arrays["pictures"])
    pool = make_pool(vae, scenes, SIZE)
    np.savez(file, latents=pool.latents, ends=pool.ends, pictures=pool.pictures)
    (folder / "pool.json").write_text(json.dumps({"scenes": count, "sections": SECTIONS, "seed": seed}))
    return pool
