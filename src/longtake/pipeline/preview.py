"""Early looks at a section, before its frames are final: by a linear map from latents to colours, or decoded.

Letters: B videos, C channels of the latents, t latent frames of h x w, T frames of H x W.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from longtake.errors import JobError, ModelError
from longtake.pipeline.decode import decode, to_frames
from longtake.pipeline.networks import Networks
from longtake.plan.layout import LATENT_FRAMES

KINDS = ("rgb", "decode")
LATENT_RGB = "latent_rgb"
"""The key under which a model's settings hold its projection: {"factors": C rows of 3 n² numbers, "bias": 3 n²}."""


@dataclass(frozen=True)
class Projection:
    """The colours of one latent pixel are `latents @ factors + bias`: n x n pixels, row by row, RGB in [-1, 1].

    `factors` (C, 3 n²) and `bias` (3 n²) are for latents that carry the scaling factor.
    """

    factors: np.ndarray
    bias: np.ndarray

    @property
    def detail(self) -> int:
        """n: how many pixels a latent pixel becomes, across and down."""
        return round((self.bias.size / 3) ** 0.5)

    @classmethod
    def of(cls, values: Any) -> Projection:
        """The projection that a model's settings hold; ModelError if it is none."""
        try:
            factors = np.asarray(values["factors"], dtype=np.float32)
            bias = np.asarray(values["bias"], dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{LATENT_RGB} of the model's settings is no projection: {error!r}.") from None
        found = cls(factors, bias)
        if factors.ndim != 2 or bias.shape != factors.shape[1:] or bias.size != 3 * max(1, found.detail) ** 2:
            raise ModelError(
                f"{LATENT_RGB} of the model's settings has factors {factors.shape} and a bias {bias.shape}; "
                "it needs (channels, 3 n²) and (3 n²)."
            )
        return found

    def to_settings(self, digits: int = 4) -> dict[str, Any]:
        """The projection as a model's settings hold it, rounded."""

        def rounded(values: np.ndarray) -> Any:
            return np.round(values.astype(np.float64), digits).tolist()

        return {"factors": rounded(self.factors), "bias": rounded(self.bias)}


HUNYUAN_VIDEO = Projection(
    np.array(
        (
            (-0.0395, -0.0331, 0.0445), (0.0696, 0.0795, 0.0518), (0.0135, -0.0945, -0.0282),
            (0.0108, -0.0250, -0.0765), (-0.0209, 0.0032, 0.0224), (-0.0804, -0.0254, -0.0639),
            (-0.0991, 0.0271, -0.0669), (-0.0646, -0.0422, -0.0400), (-0.0696, -0.0595, -0.0894),
            (-0.0799, -0.0208, -0.0375), (0.1166, 0.1627, 0.0962), (0.1165, 0.0432, 0.0407),
            (-0.2315, -0.1920, -0.1355), (-0.0270, 0.0401, -0.0821), (-0.0616, -0.0997, -0.0727),
            (0.0249, -0.0469, -0.1703),
        ),
        dtype=np.float32,
    ),
    np.array((0.0259, -0.0192, -0.0761), dtype=np.float32),
)  # fmt: skip
"""The one of HunyuanVideo's autoencoder, as ComfyUI published it (comfy/latent_formats.py, class HunyuanVideo).

Unlike the reference: its colours lie in [-1, 1], as in its source (latent_preview.py); FramePack's demo cuts
them to [0, 1], which makes all that is darker than grey black.
"""


def colours(latents: np.ndarray, projection: Projection, zoom: int = 1) -> np.ndarray:
    """Colours (B, t, n h zoom, n w zoom, 3) uint8 of scaled latents (B, C, t, h, w): a frame for each latent frame.

    `zoom` repeats every pixel so many times. Raises ModelError if the projection is for other latents.
    """
    channels, detail = projection.factors.shape[0], projection.detail
    if latents.shape[1] != channels:
        raise ModelError(
            f"The latent-to-RGB projection is for {channels} channels; the latents have {latents.shape[1]}."
        )
    values = np.moveaxis(latents, 1, -1).astype(np.float32) @ projection.factors + projection.bias
    frames = _from_patches(np.rint((values.clip(-1, 1) + 1) * 127.5).astype(np.uint8), detail)
    return frames if zoom == 1 else frames.repeat(zoom, axis=2).repeat(zoom, axis=3)


def decoded_alone(vae: Any, latents: np.ndarray) -> np.ndarray:
    """Frames (B, 4 t, H, W, 3) uint8 of one section alone, from its scaled latents (B, C, t, h, w).

    The frames before the section are not known yet: its first latent frame stands in for them, held still.
    """
    held = np.concatenate([latents[:, :, :1], latents], axis=2)
    return to_frames(decode(vae, held))[:, 1:]


def projection_of(networks: Networks) -> Projection | None:
    """The projection in the model's settings, else the published one if latents have 16 channels, else None."""
    channels = networks.vae.config.latent_channels
    if LATENT_RGB in networks.settings:
        found = Projection.of(networks.settings[LATENT_RGB])
        if found.factors.shape[0] != channels:
            raise ModelError(
                f"{LATENT_RGB} of the model's settings is for {found.factors.shape[0]} channels; "
                f"its autoencoder has {channels}."
            )
        return found
    return HUNYUAN_VIDEO if channels == HUNYUAN_VIDEO.factors.shape[0] else None


def projected(latents: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Colours of scaled latents by the projection in a model's settings, before its networks are there.

    Raises JobError if these have none and the published one is for other latents.
    """
    own = Projection.of(settings[LATENT_RGB]) if LATENT_RGB in settings else HUNYUAN_VIDEO
    if own.factors.shape[0] != latents.shape[1]:
        raise JobError(
            f"There is no latent-to-RGB projection for this model's {latents.shape[1]} channels; fit one and put it "
            f"into the model's settings as {LATENT_RGB!r}."
        )
    return colours(latents, own)


def previewer(networks: Networks, kind: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a section's scaled latents to frames (B, T, H, W, 3) uint8: by projection ("rgb") or "decode".

    Raises JobError for another kind, and for "rgb" if there is no projection for the model.
    """
    if kind == "decode":
        return partial(decoded_alone, networks.vae)
    if kind != "rgb":
        raise JobError(f"No preview {kind!r}; there are: {', '.join(KINDS)}.")
    projection = projection_of(networks)
    if projection is None:
        raise JobError(
            f"There is no latent-to-RGB projection for this model's {networks.vae.config.latent_channels} channels; "
            f'ask for the preview "decode", or fit one and put it into the model\'s settings as {LATENT_RGB!r}.'
        )
    return partial(colours, projection=projection)


# --------------------------------------------------------------------------------------------------- fitting


def fit(latents: np.ndarray, frames: np.ndarray, detail: int = 1) -> Projection:
    """The projection whose colours are nearest to the true ones (least squares).

    `latents` (N, C, t, h, w) are scaled, `frames` (N, T, H, W, 3) uint8 the videos that they were encoded from.
    """
    pixels = np.moveaxis(latents, 1, -1).reshape(-1, latents.shape[1]).astype(np.float64)
    wanted = _to_patches(shown_by(frames, detail * latents.shape[3]), detail).reshape(len(pixels), -1)
    known = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
    solution = np.linalg.lstsq(known, wanted, rcond=None)[0].astype(np.float32)
    return Projection(solution[:-1], solution[-1])


def shown_by(frames: np.ndarray, height: int) -> np.ndarray:
    """The picture of a perfect preview of that height: (N, t, height, width, 3) in [-1, 1].

    It is the mean of a block of pixels over the frames (N, T, H, W, 3) uint8 that a latent frame holds; the first
    latent frame holds one.
    """
    block = frames.shape[2] // height
    values = frames.astype(np.float64) / 127.5 - 1
    values = _to_patches(values, block).reshape(*values.shape[:2], height, -1, block * block, 3).mean(axis=4)
    later = values[:, 1:].reshape(len(values), -1, LATENT_FRAMES, *values.shape[2:]).mean(axis=2)
    return np.asarray(np.concatenate([values[:, :1], later], axis=1))


def _to_patches(frames: np.ndarray, size: int) -> np.ndarray:
    """(…, h size, w size, 3) -> (…, h, w, size² 3)."""
    *front, height, width, colours = frames.shape
    split = frames.reshape(*front, height // size, size, width // size, size, colours)
    return split.swapaxes(-4, -3).reshape(*front, height // size, width // size, size * size * colours)


def _from_patches(patches: np.ndarray, size: int) -> np.ndarray:
    """(…, h, w, size² 3) -> (…, h size, w size, 3)."""
    *front, height, width, _ = patches.shape
    split = patches.reshape(*front, height, width, size, size, 3)
    return split.swapaxes(-4, -3).reshape(*front, height * size, width * size, 3)
