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
from longtake.toy.transformer import TransformerStage, load_or_make_pool
from longtake.training.loop import run
from longtake.weights.saving import write_json

STAGES = ("autoencoder", "decoder", "transformer")
MINUTES = {"autoencoder": 40.0, "decoder": 20.0, "transformer": 120.0}
"""How long a stage takes where nobody says, on two processor cores."""
SCENES = 1500
STORED = "float16"


def train(
    stage: str,
    folder: Path,
    judge: Callable[[Networks, Path], dict[str, float]],
    minutes: float | None = None,
    resume: bool = True,
    threads: int | None = None,
    seed: int = 0,
    scenes: int = SCENES,
) -> dict[str, float]:
    """Train one of STAGES, or "all", for `minutes` each, and return the last figures.

    `folder` gets checkpoints, logs and sheets, and `folder`/model the model as a pipeline loads it. A run that was
    stopped goes on where it was. `judge` measures a model and writes a sheet.
    """
    if threads is not None:
        training.set_threads(threads)
    figures: dict[str, float] = {}
    for name in STAGES if stage == "all" else (stage,):
        if name != "autoencoder" and not (folder / "model" / "vae").is_dir():
            raise ModelError(
                f"{folder / 'model'} has no autoencoder yet; train the stage 'autoencoder' first."
            )
        length = minutes or MINUTES[name]
        if name == "autoencoder":
            figures = _train_autoencoder(folder, length, resume, seed)
        elif name == "decoder":
            figures = _train_decoder(folder, length, resume, seed)
        else:
            figures = _train_transformer(folder, judge, length, resume, seed, scenes)
    return figures


def _train_autoencoder(folder: Path, minutes: float, resume: bool, seed: int) -> dict[str, float]:
    stage = AutoencoderStage(seed)
    figures = run(stage, folder, minutes, seed, resume)
    export_autoencoder(stage.vae, folder / "model" / "vae")
    return figures


def _train_decoder(folder: Path, minutes: float, resume: bool, seed: int) -> dict[str, float]:
    vae = load_autoencoder(folder)
    figures = run(DecoderStage(vae), folder, minutes, seed, resume)
    stored(vae).save_pretrained(folder / "model" / "vae")
    return figures


def load_autoencoder(folder: Path) -> AutoencoderKLHunyuanVideo:
    """The autoencoder that was trained in `folder`."""
    vae = AutoencoderKLHunyuanVideo.from_pretrained(folder / "model", subfolder="vae", dtype="float32")
    return training.channels_last(vae)


def export_autoencoder(vae: AutoencoderKLHunyuanVideo, folder: Path) -> None:
    """Save the autoencoder, with the factor that gives its latents a deviation of one."""
    pixels = clips(np.random.default_rng(0), 64, 17)
    with runtime.no_grad():
        latents = vae.encode(ops.from_numpy(pixels)).latent_dist.mean
    factor = 1 / float(latents.std())
    vae.config = dataclasses.replace(CONFIG, scaling_factor=round(factor, 4))
    stored(vae).save_pretrained(folder)


def _train_transformer(
    folder: Path,
    judge: Callable[[Networks, Path], dict[str, float]],
    minutes: float,
    resume: bool,
    seed: int,
    scenes: int,
) -> dict[str, float]:
    vae = load_autoencoder(folder)
    pool = load_or_make_pool(folder, vae, seed, scenes)
    stage = TransformerStage(folder, vae, pool, judge, seed)
    figures = run(stage, folder, minutes, seed, resume)
    export_model(stage.model(), folder / "model")
    write_json(folder / "model" / "figures.json", figures)
    return figures


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
