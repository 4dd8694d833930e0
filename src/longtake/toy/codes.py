"""The embedded model's codebook: fitted to the pool's latents before the transformer learns, kept with the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from longtake.errors import ModelError
from longtake.pipeline.fitting import fitted
from longtake.sampling.codebooks import Codebook
from longtake.toy.pool import Origin, Pool
from longtake.weights.codebook import CODEBOOK, read_codebook, write_codebook

CODES = ((1, 1), (16, 1), (256, 1), (4096, 1), (256, 4), (256, 8), (256, 16))
"""The codes (K, GROUPS) that the model learns a discrete history of: the study's sweep over K.

32 channels are many: 4096 codes still leave a fifth of the variance, and only groups of channels leave 1 to 5 %.
"""
VECTORS = 200_000
"""Most latent pixels that codes are fitted to."""


def load_or_fit_codebook(folder: Path, pool: Pool, origin: Origin, scale: float) -> Codebook:
    """The codebook in `folder`/model; fitted, and kept there, if there is none or one of another autoencoder.

    `scale` is the autoencoder's factor. A pool of few pixels gives as many of `CODES` as it has pixels for.
    """
    place = folder / "model" / CODEBOOK
    facts = {"encoder": origin.encoder, "data": "toyworld"}
    if place.is_dir():
        try:
            found = read_codebook(place)
        except ModelError:
            found = Codebook({})
        if {name: found.facts.get(name) for name in facts} == facts:
            return found
    scenes, frames, channels, height, width = pool.latents.shape
    pixels = min(VECTORS, scenes * frames * height * width)
    wanted = [pair for pair in CODES if pair[0] <= max(1, pixels // 12) and not channels % pair[1]]
    latents = (np.moveaxis(video.astype(np.float32), 0, 1) * np.float32(scale) for video in pool.latents)
    (*_, codebook) = fitted(latents, wanted, origin.seed, VECTORS)
    codebook = replace(codebook, facts={**codebook.facts, **facts})
    write_codebook(place, codebook)
    return codebook
