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
    start: Networks | None = None
    batch: int | None = None
    rate: float | None = None

    def made(self, kind: Any, *given: Any) -> Any:
        """A stage of this kind, with the batch and the rate that were asked for, and words and weights of `start`."""
        own: dict[str, Any] = {} if self.batch is None else {"batch": self.batch}
        if self.start is not None and kind is TransformerStage:
            own["tokenizers"] = (self.start.tokenizer, self.start.tokenizer_2)
        stage = kind(*given, device=self.device, **own)
        if self.rate is not None:
            stage.rate = self.rate
        if self.start is not None:
            for name, network in stage.networks.items():
                begin_from(network, part_of(self.start, name), name)
        return stage

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
    start: Networks | None = None,
    batch: int | None = None,
    rate: float | None = None,
) -> dict[str, float]:
    """Train one of STAGES, or "all", for `length` each (default: MINUTES), and return the last figures.

    `folder` gets checkpoints, logs and sheets, and `folder`/model the model as a pipeline loads it. A run that was
    stopped goes on where it was, by the same command; a new one begins from the words and weights of `start` if that is
    given, whose autoencoder serves the later stages where `folder` has none of its own. `batch` and `rate` are the
    stage's where they are None. `judge` measures a model and writes a sheet. The device "auto" is the accelerator, if
    there is one.
    """
    if threads is not None:
        training.set_threads(threads)
    device = training.best_device() if device == "auto" else device
    runtime.check_device(device)
    recipe = Recipe(folder, judge, length, resume, seed, scenes, device, start, batch, rate)
    if start is not None and stage not in ("autoencoder", "all") and not (folder / "model" / "vae").is_dir():
        stored(start.vae).save_pretrained(folder / "model" / "vae")
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
    stage = recipe.made(AutoencoderStage, recipe.seed)
    figures = recipe.run(stage)
    export_autoencoder(stage.vae, recipe.folder / "model" / "vae")
    return figures


def train_decoder(recipe: Recipe) -> dict[str, float]:
    """The second stage, with the same folder."""
    stage = recipe.made(DecoderStage, load_autoencoder(recipe.folder))
    figures = recipe.run(stage)
    stored(stage.vae).save_pretrained(recipe.folder / "model" / "vae")
    return figures


def train_transformer(recipe: Recipe) -> dict[str, float]:
    """The last stage, with the folder of the whole model."""
    vae = load_autoencoder(recipe.folder).to(recipe.device)
    pool, origin = load_or_make_pool(recipe.folder, vae, recipe.seed, recipe.scenes, SIZE, recipe.device)
    codebook = load_or_fit_codebook(recipe.folder, pool, origin, float(vae.config.scaling_factor))
    stage = recipe.made(TransformerStage, recipe.folder, vae, pool, origin, codebook, recipe.judge)
    figures = recipe.run(stage)
    export_model(stage.model(), recipe.folder / "model")
    write_json(recipe.folder / "model" / "figures.json", figures)
    return figures


TRAINED = {"autoencoder": train_autoencoder, "decoder": train_decoder, "transformer": train_transformer}


def part_of(networks: Networks, name: str) -> Any:
    """The part of a model that a stage's network of this name is."""
    if name in ("decoder", "post_quant_conv"):
        return getattr(networks.vae, name)
    return getattr(networks, name)


def begin_from(network: Any, other: Any, name: str) -> None:
    """Give a network the weights of another one; ModelError if that has others, by name or by shape."""
    mine, theirs = runtime.named_weights(network), runtime.named_weights(other)
    differ = sorted(
        key
        for key in {*mine, *theirs}
        if key not in mine or key not in theirs or tuple(mine[key].shape) != tuple(theirs[key].shape)
    )
    if differ:
        raise ModelError(
            f"The {name} of the model to start from is another one: {len(differ)} of its weights do not fit, "
            f"{differ[0]!r} first; start from a model of the same shape and vocabulary."
        )
    for key, weight in mine.items():
        training.fill(weight, theirs[key])


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
