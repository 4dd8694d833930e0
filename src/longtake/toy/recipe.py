"""The whole way from nothing to the embedded model: autoencoder, pool of latents, transformer, model folder."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from longtake.backend import ops, runtime, training
from longtake.errors import ModelError
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.pipeline.networks import Networks, save_networks
from longtake.toy.autoencoder import CONFIG, AutoencoderStage, DecoderStage, clips
from longtake.toy.codes import load_or_fit_codebook
from longtake.toy.pool import load_or_make_pool
from longtake.toy.transformer import SIZE, TransformerStage
from longtake.training.loop import Length, run
from longtake.weights.saving import write_json

MINUTES = {"autoencoder": 40.0, "decoder": 20.0, "transformer": 120.0}
"""The default length of each stage, for two processor cores."""
STAGES = tuple(MINUTES)
SCENES = 1500
STORED = "float16"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings that are the same in every stage of one training."""

    folder: Path
    judge: Callable[[Networks, Path], dict[str, float]]
    length: Length | None = None
    resume: bool = True
    seed: int = 0
    scenes: int = SCENES
    device: str = "cpu"

    def run(self, stage: Any) -> dict[str, float]:
        """Train one stage."""
        length = self.length or Length(minutes=MINUTES[stage.name])
        return run(stage, self.folder, length, self.seed, self.resume)


def train(
    stage: str,
    folder: Path,
    judge: Callable[[Networks, Path], dict[str, float]],
    length: Length | None = None,
    resume: bool = True,
    threads: int | None = None,
    seed: int = 0,
    scenes: int = SCENES,
    device: str = "auto",
) -> dict[str, float]:
    """Train one of STAGES, or "all", for `length` each (default: MINUTES), and return the last figures.

    `folder` gets checkpoints, logs and sheets, and `folder`/model the model as a pipeline loads it. A run that was
    stopped goes on where it was. `judge` measures a model and writes a sheet. The device "auto" is the accelerator, if
    there is one.
    """
    if threads is not None:
        training.set_threads(threads)
    device = training.best_device() if device == "auto" else device
    runtime.check_device(device)
    recipe = Recipe(folder, judge, length, resume, seed, scenes, device)
    figures: dict[str, float] = {}
    for name in STAGES if stage == "all" else (stage,):
        if name != "autoencoder" and not (folder / "model" / "vae").is_dir():
            raise ModelError(
                f"{folder / 'model'} has no autoencoder yet; train the stage 'autoencoder' first."
            )
        figures = TRAINED[name](recipe)
    return figures


def train_autoencoder(recipe: Recipe) -> dict[str, float]:
    """The first stage, with the folder of the autoencoder."""
    stage = AutoencoderStage(recipe.seed, device=recipe.device)
    figures = recipe.run(stage)
    export_autoencoder(stage.vae, recipe.folder / "model" / "vae")
    return figures


def train_decoder(recipe: Recipe) -> dict[str, float]:
    """The second stage, with the same folder."""
    stage = DecoderStage(load_autoencoder(recipe.folder), device=recipe.device)
    figures = recipe.run(stage)
    stored(stage.vae).save_pretrained(recipe.folder / "model" / "vae")
    return figures


def train_transformer(recipe: Recipe) -> dict[str, float]:
    """The last stage, with the folder of the whole model."""
    vae = load_autoencoder(recipe.folder).to(recipe.device)
    pool, origin = load_or_make_pool(recipe.folder, vae, recipe.seed, recipe.scenes, SIZE, recipe.device)
    codebook = load_or_fit_codebook(recipe.folder, pool, origin, float(vae.config.scaling_factor))
    stage = TransformerStage(recipe.folder, vae, pool, origin, codebook, recipe.judge, device=recipe.device)
    figures = recipe.run(stage)
    export_model(stage.model(), recipe.folder / "model")
    write_json(recipe.folder / "model" / "figures.json", figures)
    return figures


TRAINED = {"autoencoder": train_autoencoder, "decoder": train_decoder, "transformer": train_transformer}


def load_autoencoder(folder: Path) -> AutoencoderKLHunyuanVideo:
    """The autoencoder that was trained in `folder`."""
    vae = AutoencoderKLHunyuanVideo.from_pretrained(folder / "model", subfolder="vae", dtype="float32")
    return training.channels_last(vae)


def export_autoencoder(vae: AutoencoderKLHunyuanVideo, folder: Path) -> None:
    """Save the autoencoder, with the factor that gives its latents a deviation of one."""
    pixels = ops.from_numpy(clips(np.random.default_rng(0), 64, 17), vae.quant_conv.weight)
    with runtime.no_grad():
        latents = vae.encode(pixels).latent_dist.mean
    factor = 1 / float(latents.std())
    vae.config = dataclasses.replace(CONFIG, scaling_factor=round(factor, 4))
    stored(vae).save_pretrained(folder)


def export_model(networks: Networks, folder: Path) -> None:
    """Save everything that a pipeline needs, in half precision."""
    parts: dict[str, Any] = {
        name: stored(part) if hasattr(part, "parameters") else part
        for name, part in networks.components.items()
    }
    save_networks(dataclasses.replace(networks, **parts), folder, "HunyuanVideoFramepackPipeline")


def stored(network: Any) -> Any:
    """A copy of the network in the dtype that files have."""
    return copy.deepcopy(network).to(runtime.dtype(STORED))
