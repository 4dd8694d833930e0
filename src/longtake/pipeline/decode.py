"""Latents -> frames: streamed, each decoded once; or section by section with a cross-fade as the reference does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from longtake.backend import exchange, ops, runtime
from longtake.errors import JobError
from longtake.events import FramesReady, SectionDone
from longtake.models.vae.streaming import StreamingDecoder
from longtake.plan.layout import LATENT_FRAMES
from longtake.plan.plans import video_frames


def decode(vae: Any, latents: np.ndarray) -> Any:
    """Frames (B, 3, T, H, W), about [-1, 1], of latents (B, C, t, h, w) that carry the scaling factor."""
    with runtime.no_grad():
        return vae.decode(unscaled(vae, latents), return_dict=False)[0]


class Decoding:
    """Scaled latents (B, C, T, h, w), pushed in the video's order -> its frames as soon as they are final.

    No more than `frames` come. `mode` is the decoder's. With `window`, the latent frames of a section, frames that
    are no numbers or one plain colour raise a JobError that names the section; `plain` says that the picture is so.
    """

    def __init__(
        self, vae: Any, frames: int, window: int = 0, mode: str = "exact", plain: bool = False
    ) -> None:
        self.frames, self.start = frames, 0
        self._vae, self._window, self._plain = vae, window, plain
        self._decoder = StreamingDecoder(vae, mode)
        self._run = 0

    def push(self, latents: np.ndarray) -> Iterator[FramesReady]:
        """Take the next latent frames; the frames that are final now."""
        if self.start < self.frames:
            with runtime.no_grad():
                pieces = self._decoder.push(unscaled(self._vae, latents))
            yield from self._ready(pieces)

    def finish(self) -> Iterator[FramesReady]:
        """The rest."""
        if self.start < self.frames:
            with runtime.no_grad():
                pieces = self._decoder.finish()
            yield from self._ready(pieces)

    def _ready(self, pieces: list[Any]) -> Iterator[FramesReady]:
        for piece in pieces:
            if self._window:
                self._check_finite(piece)
            frames = to_frames(piece)[:, : self.frames - self.start]
            if self._window and not self._plain:
                self._check_varied(frames)
            if frames.shape[1]:
                yield FramesReady(self.start, frames)
                self.start += frames.shape[1]

    def _check_finite(self, piece: Any) -> None:
        if not is_finite(piece):
            raise JobError(
                f"The decoder's numbers went wrong in section {self._section(self.start)}: they are not finite. "
                "Every section is kept where the job has a folder; another --dtype may help."
            )

    def _check_varied(self, frames: np.ndarray) -> None:
        """A frame of one colour may be a cut or a fade; as many as one latent frame holds are a fault."""
        low, high = frames.min(axis=(0, 2, 3)), frames.max(axis=(0, 2, 3))
        for number, plain in enumerate((low == high).all(axis=-1)):
            self._run = self._run + 1 if plain else 0
            if self._run == LATENT_FRAMES:
                begin = self.start + number + 1 - LATENT_FRAMES
                raise JobError(
                    f"Section {self._section(begin)} came out plain: every pixel of frames {begin} to "
                    f"{begin + LATENT_FRAMES - 1} has one colour after its last step. Make it again with another seed."
                )

    def _section(self, frame: int) -> int:
        """The section that a frame belongs to; the picture's own frame counts to the first."""
        return max(0, -(-frame // LATENT_FRAMES) - 1) // self._window


def unscaled(vae: Any, latents: np.ndarray) -> Any:
    """Latents as the autoencoder takes them, where it is and in its dtype."""
    return (
        runtime.place(ops.from_numpy(latents), exchange.device_of(vae), vae.dtype) / vae.config.scaling_factor
    )


def is_finite(values: Any) -> bool:
    """Whether no value is NaN or infinite, by their sum: one number that leaves the device."""
    return math.isfinite(float(ops.to_numpy(runtime.place(values, dtype="float32").sum())))


def parts(start: np.ndarray, done: Sequence[SectionDone], sampling: str) -> list[np.ndarray]:
    """The latents of the video so far, in its order, from the sections that are done.

    Vanilla videos begin with the picture's latents `start`; inverted ones get them with their last section.
    """
    sections = [section.latents for section in done]
    if sampling == "vanilla":
        return [start, *sections]
    sections.reverse()
    return sections if done and done[-1].number != 0 else [start, *sections]


def joined(start: np.ndarray, done: Sequence[SectionDone], sampling: str) -> np.ndarray:
    """The video's latents (B, C, T, h, w) so far, from the sections that are done."""
    return np.concatenate(parts(start, done, sampling), axis=2)


def stages(start: np.ndarray, done: Sequence[SectionDone], sampling: str) -> Iterator[np.ndarray]:
    """The video's latents as they stood after each section."""
    return (joined(start, done[: count + 1], sampling) for count in range(len(done)))


def decode_video(
    vae: Any, start: np.ndarray, done: Sequence[SectionDone], sampling: str, mode: str = "exact"
) -> Iterator[Any]:
    """The video's frames in pieces (B, 3, T, H, W), in one pass: each latent frame is decoded once.

    Unlike the reference: which decodes two windows for every section and cross-fades them. With no section done, the
    picture's own frame.
    """
    decoder = StreamingDecoder(vae, mode)
    for part in parts(start, done, sampling):
        yield from decoder.push(unscaled(vae, part))
    yield from decoder.finish()


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
