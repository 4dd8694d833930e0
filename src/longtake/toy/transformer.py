"""The transformer's stage: text encoders, picture encoder and transformer learn together from a pool of latents.

Flow matching (velocity = noise - clean) on one section at a time with true history, all kinds of plans in one network:
the times of a section tell which it is.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longtake import toyworld
from longtake.backend import nn, ops, runtime, training
from longtake.compat.schedulers import FlowMatchEulerDiscreteScheduler
from longtake.config import CLIPTextConfig, LlamaConfig, SiglipVisionConfig, TransformerConfig
from longtake.errors import ModelError
from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.siglip import SiglipVisionModel
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.pipeline.decode import from_frames
from longtake.pipeline.encode import MAX_CLIP_TOKENS, PROMPT_TEMPLATE
from longtake.pipeline.networks import Networks
from longtake.processors.siglip import SiglipImageProcessor
from longtake.processors.tokenizers import CLIPTokenizer, LlamaTokenizer
from longtake.sampling.codebooks import Codebook
from longtake.toy.batches import SHIFT, Batch, draw_step, rows_at
from longtake.toy.initialise import initialise
from longtake.toy.pool import Origin, Pool, make_pool, number_at
from longtake.toy.scenes import training_scene
from longtake.toy.tokenizers import train_tokenizers
from longtake.training import objective

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
FRESH_EVERY = 4
"""Steps to a new scene in the pool: the pool is small, the world is not."""


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
        origin: Origin,
        codebook: Codebook,
        judge: Callable[[Networks, Path], dict[str, float]],
        batch: int = 24,
        device: str = "cpu",
        tokenizers: tuple[LlamaTokenizer, CLIPTokenizer] | None = None,
    ) -> None:
        self.vae, self.pool, self.origin, self.judge = vae.to(device), pool, origin, judge
        self.codebook = codebook
        self.batch, self.device = batch, device
        prompts = [
            text
            for number, scene in enumerate(pool.scenes)
            for _, text in toyworld.prompts(scene, np.random.default_rng(number))
        ]
        self.tokenizer, self.tokenizer_2 = tokenizers or train_tokenizers(
            prompts, PROMPT_TEMPLATE["template"], folder / "model"
        )
        training.seed_everything(origin.seed)
        self.transformer = HunyuanVideoFramepackTransformer3DModel(TRANSFORMER)
        initialise(self.transformer, origin.seed)
        self.text_encoder = LlamaModel(LLAMA, vocab_size=self.tokenizer.vocab_size)
        self.text_encoder_2 = CLIPTextModel(CLIP, vocab_size=self.tokenizer_2.vocab_size)
        self.image_encoder = SiglipVisionModel(SIGLIP)
        for network in (self.text_encoder, self.text_encoder_2, self.image_encoder):
            fill_embeddings(network, origin.seed)
        self.networks: dict[str, Any] = {
            "transformer": self.transformer,
            "text_encoder": self.text_encoder,
            "text_encoder_2": self.text_encoder_2,
            "image_encoder": self.image_encoder,
        }
        for network in self.networks.values():
            network.to(device)
        self.scale = float(vae.config.scaling_factor)
        self.steps = 0

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Any, dict[str, float]]:
        """The mean squared error of the velocity of one step's sections, and its parts by noise level."""
        batches = self.draw(rng)
        with training.autocast("bfloat16", self.device):  # around all of them: weights are cast once
            errors = ops.cat([self.errors(batch) for batch in batches], 0)
        found, level = ops.to_numpy(errors), np.concatenate([batch.level for batch in batches])
        halves = {"low": level < 0.5, "high": level >= 0.5}
        return errors.mean(), {name: float(found[half].mean()) for name, half in halves.items() if half.any()}

    def draw(self, rng: np.random.Generator) -> list[Batch]:
        """The next step's sections; every FRESH_EVERY steps the pool's oldest scene is replaced before."""
        rows = rows_at(self.steps, len(self.pool), self.batch, self.origin.seed)
        self.steps += 1
        if self.steps % FRESH_EVERY == 0:
            self._renew([(self.steps // FRESH_EVERY - 1) % len(self.pool)])
        return draw_step(self.pool, rows, self.scale, rng, self.codebook)

    def errors(self, batch: Batch) -> Any:
        """(B,): the squared error of the velocity of each section."""
        told = self.read(batch.prompts)
        velocity = objective.of_transformer(self.transformer, *told, self.see(batch), batch.guidance)
        with training.autocast("bfloat16", self.device):
            return objective.errors(velocity, batch.seen, batch.noise, batch.level)

    def read(self, prompts: Sequence[str]) -> tuple[Any, np.ndarray, Any]:
        """States, mask and pooled state of prompts, as the pipeline makes them, so that the encoders learn."""
        start = PROMPT_TEMPLATE["crop_start"]
        texts = [PROMPT_TEMPLATE["template"].replace("{}", prompt) for prompt in prompts]
        tokens = self.tokenizer(texts, padding="longest", return_tensors="np")
        mask = np.asarray(tokens["attention_mask"])
        clip = self.tokenizer_2(
            list(prompts), padding="max_length", max_length=MAX_CLIP_TOKENS, truncation=True
        )
        ids, clip_ids = np.asarray(tokens["input_ids"]), np.asarray(clip["input_ids"], np.int64)
        with training.autocast("bfloat16", self.device):
            states = self.text_encoder(self._put(ids), self._put(mask), layers=-2).last_hidden_state
            pooled = self.text_encoder_2(self._put(clip_ids)).pooler_output
        return states[:, start:].float(), mask[:, start:], pooled.float()

    def see(self, batch: Batch) -> Any:
        """States of the sections' pictures, the mean of first and end picture as in the pipeline; zero without one."""

        def encoded(places: list[int]) -> Any:
            pixels = from_frames(self.pool.pictures[rows, places][:, None])[:, :, 0]
            return self.image_encoder(pixel_values=self._put(pixels)).last_hidden_state

        rows = [lesson.row for lesson in batch.lessons]
        ends = [0 if lesson.end is None else 1 + lesson.end for lesson in batch.lessons]
        states = encoded([0] * len(rows))
        if any(ends):
            states = (states + encoded(ends)) / 2
        pictured = np.array([lesson.pictured for lesson in batch.lessons], np.float32)
        return states * self._put(pictured)[:, None, None]

    def model(self) -> Networks:
        """All the networks as a pipeline runs them."""
        return Networks(
            **self.networks,
            vae=self.vae,
            tokenizer=self.tokenizer,
            tokenizer_2=self.tokenizer_2,
            feature_extractor=SiglipImageProcessor(size={"height": SIZE, "width": SIZE}),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
            settings={
                "width": SIZE,
                "height": SIZE,
                "fps": toyworld.FPS,
                "from_text": True,
                "about": "longtake's toy model: cartoons of 64 pixels",
            },
            codebook=self.codebook,
        )

    def report(self, sheets: Path) -> dict[str, float]:
        """The judge's report on the model as it is now."""
        return self.judge(self.model(), sheets)

    def state(self) -> dict[str, Any]:
        """The steps so far, from which the pool's present scenes and the next batches follow, and what these need."""
        return {"steps": self.steps, "pool": vars(self.origin), "batch": self.batch, "words": self._words()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on after the same steps: the scenes that came fresh into the pool are made again."""
        difference = self.origin.difference(state["pool"])
        if difference:
            raise ModelError(
                f"The pool in use and the one that the checkpoint was trained on differ ({difference} there); give the "
                "training the seed, scenes and autoencoder that it had, or begin anew with --no-resume."
            )
        for name, mine in (("batch", self.batch), ("words", self._words())):
            if state.get(name, mine) != mine:
                raise ModelError(
                    f"The checkpoint was trained with another {name} than was asked for now; go on by the command that "
                    "began the training (--batch, --start), or begin anew with --no-resume."
                )
        self.steps = state["steps"]
        self._renew(range(min(self.steps // FRESH_EVERY, len(self.pool))))

    def _words(self) -> int:
        """A number that changes with the words of either tokenizer."""
        words = [sorted(each.tokenizer.get_vocab().items()) for each in (self.tokenizer, self.tokenizer_2)]
        return zlib.crc32(repr(words).encode())

    def _renew(self, rows: Iterable[int]) -> None:
        """Put those scenes in these rows of the pool that belong there after the steps so far."""
        for row in rows:
            number = number_at(row, self.steps // FRESH_EVERY, len(self.pool))
            scene, start = training_scene(self.origin.seed, number)
            self.pool.replace(row, make_pool(self.vae, [scene], SIZE, self.device, [start]))

    def _put(self, array: np.ndarray) -> Any:
        return runtime.place(ops.from_numpy(array), self.device)


def fill_embeddings(network: Any, seed: int) -> None:
    """Give the embeddings of an encoder their first values."""
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            drawn = np.random.default_rng(seed).standard_normal(module.weight.shape)
            training.fill(module.weight, 0.02 * drawn)
