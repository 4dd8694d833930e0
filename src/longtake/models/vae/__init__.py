"""HunyuanVideo's autoencoder, whole or in a stream."""

from longtake.models.vae.vae import AutoencoderKLHunyuanVideo, Posterior

__all__ = ["AutoencoderKLHunyuanVideo", "Posterior"]
