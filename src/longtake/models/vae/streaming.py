"""A long video through the autoencoder piece by piece, in the memory of one piece.

`exact` gives the frames that one call of `decode` on all latents gives (which equals the reference's): its grid of
tiles, each decoded once, as soon as its last latent frame is there. `causal` carries every layer's past frames on, so
that each latent frame is decoded once and there is no grid; its frames are near to the exact ones
(docs/decisions/0004-causal-decoding.md). Memory does not depend on the video's length.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

from longtake.backend import ops, runtime
from longtake.errors import ModelError
from longtake.models.pretrained import is_untouched
from longtake.models.vae import AutoencoderKLHunyuanVideo, Posterior
from longtake.models.vae.causal import Memory
from longtake.models.vae.tiles import UNCUT, Grid, TimeTiles, Wanted

Tensor = ops.Tensor
MODES = ("exact", "causal")
REACH = 5
"""Latent frames that norms and attention see in causal mode, the frame itself included: as many as a tile has."""


def is_own(vae: AutoencoderKLHunyuanVideo, method: str) -> bool:
    """Tell if the autoencoder does as its class says, so that its `method` may be taken apart."""
    return is_untouched(vae) and getattr(type(vae), method) is getattr(AutoencoderKLHunyuanVideo, method)


class StreamingDecoder:
    """Latents (B, C, t, h, w), unscaled, in pieces of any length -> frames (B, 3, T, H, W), final and in order.

    All pieces together give 1 + 4 (t - 1) frames. In exact mode, frames that are not `wanted` come as their number and
    cost nothing, as far as tiles allow it; in causal mode all are made, since each frame needs those before it.
    """

    def __init__(self, vae: Any, mode: str = "exact", wanted: Wanted | None = None) -> None:
        if mode not in MODES:
            raise ModelError(f"mode is {mode!r}; known modes of decoding: {', '.join(MODES)}.")
        opened = isinstance(vae, AutoencoderKLHunyuanVideo) and is_own(vae, "decode")
        if mode == "causal" and not opened:
            raise ModelError(
                "Causal decoding needs longtake's own autoencoder, without hooks, patches or compilation, and this is "
                f"a {type(vae).__name__} of another make; use decoding 'exact'."
            )
        self.vae, self.mode = vae, mode
        # Any other autoencoder is given the whole video at its end, by its own decode.
        self._tiles = (
            vae.decoded_tiles() if opened else TimeTiles(UNCUT, lambda z: vae.decode(z, return_dict=False)[0])
        )
        self._tiles.wanted = wanted
        self._memories: list[Memory] = []

    def push(self, latents: Tensor) -> list[Tensor | int]:
        """Take the next latent frames; the frames that are final now, maybe none."""
        with runtime.no_grad():
            if self.mode == "exact":
                return list(self._tiles.push(latents))
            return [self._continued(latents)] if latents.shape[2] else []

    def finish(self) -> list[Tensor | int]:
        """The rest of the frames; afterwards another video may begin."""
        self._memories = []
        with runtime.no_grad():
            return list(self._tiles.finish())

    def remembered(self) -> Callable[[], None]:
        """A function that takes the decoder back to where it is now, after a push or a finish that failed."""
        tiles = copy.copy(self._tiles)
        memories = [memory.copied() for memory in self._memories]

        def forget() -> None:
            self._tiles, self._memories = tiles, memories

        return forget

    def _continued(self, latents: Tensor) -> Tensor:
        turn = 0

        def decode(z: Tensor) -> Tensor:
            nonlocal turn
            if turn == len(self._memories):
                self._memories.append(Memory(REACH))
            turn += 1
            return self.vae.decode_next(z, self._memories[turn - 1])

        # Slices of the batch and tiles of space come in the same order every time; each has a memory of its own.
        return self.vae.sliced(lambda z: self.vae.decode_space(z, decode), latents)


def cuts(vae: Any, mode: str) -> tuple[Grid | None, list[Any]]:
    """The grid of tiles of latents on which each frame depends, None if on all before it or all; and what else decides.

    What else decides are plain values: the mode, and the tiles of space.
    """
    if not (isinstance(vae, AutoencoderKLHunyuanVideo) and is_own(vae, "decode")):
        return None, [type(vae).__name__]
    tiles = [astuple(vae.tiles), vae.use_tiling, vae.decoding_tile, vae.use_framewise_decoding]
    return (vae.decoded_tiles().grid if mode == "exact" else None), [mode, *tiles]


class StreamingEncoder:
    """Frames (B, 3, T, H, W) in [-1, 1], in pieces of any length -> posteriors of latents, final and in order.

    All pieces together give what one call of `encode` gives.
    """

    def __init__(self, vae: AutoencoderKLHunyuanVideo) -> None:
        if not is_own(vae, "encode"):
            raise ModelError(
                f"Encoding in a stream needs longtake's own autoencoder, without hooks or patches; this is a "
                f"{type(vae).__name__} of another make: call its encode with the whole video."
            )
        self._tiles = vae.encoded_tiles()

    def push(self, frames: Tensor) -> list[Posterior]:
        """Take the next frames; the posteriors that are final now, maybe none."""
        with runtime.no_grad():
            return [Posterior(x) for x in self._tiles.push(frames)]

    def finish(self) -> list[Posterior]:
        """The rest of the posteriors; afterwards another video may begin."""
        with runtime.no_grad():
            return [Posterior(x) for x in self._tiles.finish()]
