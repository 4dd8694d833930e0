"""The embedded model's codebook: fitted to the pool's latents before the transformer learns, kept with the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from longtake.errors import ModelError
from longtake.sampling.codebooks import Codebook, fit, residual
from longtake.toy.pool import Origin, Pool
from longtake.weights.codebook import CODEBOOK, read_codebook, write_codebook

CODES = (1, 16, 64, 256, 1024, 4096)
"""The numbers of codes that the model learns a discrete history of: the study's sweep over K."""
VECTORS = 200_000
"""Latent pixels that codes are fitted to; half as many others measure what they leave."""


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
    rng = np.random.default_rng((origin.seed, 2))
    pixels = np.moveaxis(pool.latents, 2, -1).reshape(-1, pool.latents.shape[2])
    most = min(len(pixels), VECTORS + VECTORS // 2)
    chosen = pixels[rng.choice(len(pixels), most, replace=False)].astype(np.float32) * np.float32(scale)
    learned, held = np.split(chosen, [2 * most // 3])
    codes = {count: fit(learned, count, rng) for count in CODES if count <= len(learned) // 8 or count == 1}
    codebook = Codebook(codes, {count: residual(held, codes[count]) for count in codes}, facts)
    write_codebook(place, codebook)
    return codebook
