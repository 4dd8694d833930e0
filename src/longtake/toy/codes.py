"""The embedded model's codebook: fitted to the pool's latents before the transformer learns, kept with the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from longtake.errors import ModelError
from longtake.sampling.codebooks import Codebook, fit_groups, residual
from longtake.toy.pool import Origin, Pool
from longtake.weights.codebook import CODEBOOK, read_codebook, write_codebook

CODES = ((1, 1), (16, 1), (256, 1), (4096, 1), (256, 4), (256, 8), (256, 16))
"""The codes (K, GROUPS) that the model learns a discrete history of: the study's sweep over K.

32 channels are many: 4096 codes still leave a fifth of the variance, and only groups of channels leave 1 to 5 %.
"""
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
    wanted = [
        pair for pair in CODES if pair[0] <= max(1, len(learned) // 8) and not pixels.shape[1] % pair[1]
    ]
    codes = {pair: fit_groups(learned, *pair, rng) for pair in wanted}
    left = {pair: residual(held, codes[pair], groups=pair[1]) for pair in wanted}
    codebook = Codebook.of_pairs(codes, left, facts)
    write_codebook(place, codebook)
    return codebook
