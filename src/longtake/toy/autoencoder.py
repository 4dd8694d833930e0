"""The autoencoder's stages: toyworld clips in, clips out, a narrow Gaussian between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from longtake import toyworld
from longtake.backend import ops, runtime, training
from longtake.config import VAEConfig
from longtake.errors import ModelError
from longtake.models.vae import AutoencoderKLHunyuanVideo, Posterior
from longtake.models.vae.causal import Resnet
from longtake.picture import contact_sheet
from longtake.pipeline.decode import from_frames, to_frames
from longtake.toy.pool import encoder_digest
from longtake.toy.scenes import training_scene

SIZE = 64
CONFIG = VAEConfig(
    latent_channels=32,
    block_out_channels=(16, 32, 64, 128),
    layers_per_block=1,
    norm_num_groups=1,
    scaling_factor=1.0,
)
KL_WEIGHT = 3e-5
HELD_OUT = 1 << 32  # scenes drawn from seeds at or above this are never trained on


def clips(rng: np.random.Generator, count: int, frames: int, size: int = SIZE) -> np.ndarray:
    """Clips (count, 3, frames, size, size) float32 in [-1, 1] of random scenes from a random moment on."""
    rendered = []
    for _ in range(count):
        scene, begin = training_scene(int(rng.integers(2**31)), 0)
        start = begin + int(rng.integers(0, 300))
        rendered.append(toyworld.render(scene, range(start, start + frames), size, size))
    return from_frames(np.stack(rendered))


def psnr(truth: np.ndarray, found: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of arrays in [-1, 1]."""
    return float(-10 * np.log10(np.mean((truth - np.clip(found, -1, 1)) ** 2) / 4))


def initialise(vae: AutoencoderKLHunyuanVideo, rng: np.random.Generator) -> None:
    """Start as a nearly linear autoencoder: convolutions keep the variance, residual branches begin at zero."""
    for name, parameter in vae.named_parameters():
        shape = tuple(parameter.shape)
        if len(shape) == 5:
            training.fill(parameter, rng.normal(0, float(np.prod(shape[1:])) ** -0.5, shape))
        elif "conv" in name and "norm" not in name:
            training.fill(parameter, np.zeros(shape))
    for module in vae.modules():
        if isinstance(module, Resnet):
            training.fill(module.conv2.conv.weight, np.zeros(tuple(module.conv2.conv.weight.shape)))
    # The norms forget a picture's mean and contrast unless some channels stand still: constants of either sign.
    for conv in (vae.encoder.conv_in.conv, vae.decoder.conv_in.conv):
        training.fill(conv.bias, rng.normal(0, 1.0, conv.out_channels))
    width = vae.config.latent_channels
    bias = np.concatenate([np.zeros(width), np.full(width, -4.0)])
    training.fill(vae.quant_conv.bias, bias)


class AutoencoderStage:
    """Everything that the loop asks of a stage, for the autoencoder."""

    name = "autoencoder"
    rate = 2e-3
    average = 0.998
    plain: tuple[str, ...] = ()

    def __init__(self, seed: int = 0, batch: int = 8, device: str = "cpu") -> None:
        self.batch, self.device = batch, device
        self.vae = AutoencoderKLHunyuanVideo(CONFIG)
        initialise(self.vae, np.random.default_rng(seed))
        self.vae = training.channels_last(self.vae).to(device)
        self.networks: dict[str, Any] = {"vae": self.vae}

    def shape(self, progress: float) -> tuple[int, int]:
        """Frames and clips of a batch: pictures first, then ever longer clips."""
        if progress < 0.3:
            return 1, 2 * self.batch
        return (5, self.batch) if progress < 0.8 else (17, self.batch // 2)

    def posterior(self, truth: Any) -> Posterior:
        """The encoder's posterior of clips (B, 3, T, H, W)."""
        return Posterior(self.vae.encode_tile(training.channels_last(truth)).float())

    def compare(self, rng: np.random.Generator, progress: float) -> tuple[Any, Any, Any]:
        """Squared error, absolute error and divergence from a normal distribution, each the mean of one batch."""
        frames, count = self.shape(progress)
        truth = runtime.place(ops.from_numpy(clips(rng, count, frames)), self.device)
        shape = (count, CONFIG.latent_channels, 1 + frames // 4, SIZE // 8, SIZE // 8)
        noise = ops.from_numpy(rng.standard_normal(shape, np.float32), truth)
        with training.autocast("bfloat16", self.device):
            posterior = self.posterior(truth)
            found = self.vae.decode_tile(posterior.sample(noise=noise))
        mean, logvar = posterior.mean, posterior.logvar
        difference = found.float() - truth
        divergence = 0.5 * (mean**2 + ops.exp(logvar) - 1 - logvar).mean()
        return (difference**2).mean(), difference.abs().mean(), divergence

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Any, dict[str, float]]:
        """The loss of one batch at `progress` in [0, 1] of the training, and its parts."""
        squared, absolute, kl = self.compare(rng, progress)
        loss = squared + 0.1 * absolute + KL_WEIGHT * kl
        error = float(squared.detach())
        return loss, {"squared": error, "kl": float(kl.detach()), "psnr": float(-10 * np.log10(error / 4))}

    def report(self, sheets: Path) -> dict[str, float]:
        """PSNR on held-out clips of 17 frames; a sheet of truths above reconstructions is written to `sheets`."""
        truth = clips(np.random.default_rng(HELD_OUT), 12, 17)
        with runtime.no_grad():
            found = self.vae(runtime.place(ops.from_numpy(truth), self.device)).sample
        middles = [to_frames(video[:, :, 8:9])[:, 0] for video in (ops.from_numpy(truth), found)]
        contact_sheet(np.concatenate(middles), columns=len(truth), zoom=2).save(sheets)
        return {"held_out_psnr": psnr(truth, ops.to_numpy(found))}

    def state(self) -> dict[str, Any]:
        """Nothing: every batch is drawn anew from the step's own numbers."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """There is nothing to go on from."""


class DecoderStage(AutoencoderStage):
    """The decoder alone, on clips as long as its tiles: the encoder stays, and with it every latent made so far."""

    name = "decoder"
    rate = 1e-3

    def __init__(self, vae: AutoencoderKLHunyuanVideo, batch: int = 6, device: str = "cpu") -> None:
        self.batch, self.device = batch, device
        self.vae = training.channels_last(vae).to(device)
        self.networks = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}

    def shape(self, progress: float) -> tuple[int, int]:
        """Frames and clips of a batch: always a tile."""
        return 17, self.batch // 2

    def posterior(self, truth: Any) -> Posterior:
        """The posterior of clips (B, 3, T, H, W) by the encoder, which does not learn."""
        with runtime.no_grad():
            return super().posterior(truth)

    def state(self) -> dict[str, Any]:
        """The encoder that the decoder belongs to."""
        return {"encoder": encoder_digest(self.vae)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on, with the same encoder alone."""
        if state != self.state():
            raise ModelError(
                "The checkpoint of the decoder was trained with another encoder than the model has; begin anew with "
                "--no-resume."
            )
