"""Latents -> frames: exactly, or section by section with a cross-fade as the reference does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from longtake.backend import ops, runtime
from longtake.job import SectionDone
from longtake.plan.sections import video_frames


def decode(vae: Any, latents: np.ndarray) -> Any:
    """Frames (B, 3, T, H, W), about [-1, 1], of latents (B, C, t, h, w) that carry the scaling factor."""
    placed = runtime.place(ops.from_numpy(latents), vae.device, vae.dtype)
    with runtime.no_grad():
        return vae.decode(placed / vae.config.scaling_factor, return_dict=False)[0]


def joined(start: np.ndarray, done: Sequence[SectionDone], sampling: str) -> np.ndarray:
    """The video's latents (B, C, T, h, w) so far, from the sections that are done.

    Vanilla videos begin with the picture's latents `start`; inverted ones get them with their last section.
    """
    parts = [section.latents for section in done]
    if sampling == "vanilla":
        parts = [start, *parts]
    else:
        parts.reverse()
        if not done or done[-1].number == 0:
            parts = [start, *parts]
    return np.concatenate(parts, axis=2)


def stages(start: np.ndarray, done: Sequence[SectionDone], sampling: str) -> Iterator[np.ndarray]:
    """The video's latents as they stood after each section."""
    return (joined(start, done[: count + 1], sampling) for count in range(len(done)))


def decode_video(vae: Any, start: np.ndarray, done: Sequence[SectionDone], sampling: str) -> Any:
    """Frames (B, 3, T, H, W) of the whole video, in one pass: each latent frame is decoded once.

    Unlike the reference: which decodes two windows for every section and cross-fades them. With no section done, the
    picture's own frame.
    """
    return decode(vae, joined(start, done, sampling))


def reference_decode_video(
    vae: Any, start: np.ndarray, done: Sequence[SectionDone], sampling: str, window: int
) -> Any:
    """Frames (B, 3, T, H, W) as diffusers makes them, joined in its cross-fade."""
    video = None
    for section, latents in zip(done, stages(start, done, sampling), strict=True):
        if video is None:
            video = decode(vae, latents)
        elif sampling == "vanilla":
            video = crossfade(video, decode(vae, latents[:, :, -2 * window :]), _overlap(window))
        else:
            count = 2 * window + (section.number == 0)
            video = crossfade(decode(vae, latents[:, :, :count]), video, _overlap(window))
    return decode(vae, start) if video is None else video


def crossfade(earlier: Any, later: Any, overlap: int) -> Any:
    """Join two stretches of frames (B, 3, T, H, W) that have `overlap` frames in common; the ends weigh 1 and 0."""
    shape = (1, 1, overlap, 1, 1)
    weights = ops.from_numpy(np.linspace(1, 0, overlap, dtype=np.float32).reshape(shape), like=earlier)
    kept = earlier.shape[2] - overlap
    both = weights * earlier[:, :, kept:] + (1 - weights) * later[:, :, :overlap]
    return ops.cat([earlier[:, :, :kept], both, later[:, :, overlap:]], 2)


def unit_range(video: Any) -> Any:
    """Frames in [0, 1] from about [-1, 1], in their own dtype."""
    return ops.clamp(video / 2 + 0.5, 0.0, 1.0)


def to_frames(video: Any) -> np.ndarray:
    """(B, T, H, W, 3) uint8 from (B, 3, T, H, W), about [-1, 1]."""
    values = ops.to_numpy(unit_range(video)).astype(np.float32).transpose(0, 2, 3, 4, 1)
    return np.rint(values * 255).astype(np.uint8)


def from_frames(frames: np.ndarray) -> np.ndarray:
    """(B, 3, T, H, W) float32 in [-1, 1] from (B, T, H, W, 3) uint8: the way back from `to_frames`."""
    return np.asarray(frames.transpose(0, 4, 1, 2, 3).astype(np.float32) / 127.5 - 1)


def _overlap(window: int) -> int:
    """As many frames as a window alone would have."""
    return video_frames(1, window) - 4
