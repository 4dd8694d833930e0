"""Frames and latents of a run, in the forms that the field asks for by `output_type`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from longtake.backend import ops
from longtake.errors import RunError
from longtake.events import Encoded, Event, FramesReady, Planned, SectionDone
from longtake.models.outputs import Output
from longtake.pipeline.decode import to_frames, unit_range


@dataclass
class HunyuanVideoFramepackPipelineOutput(Output):
    """The videos: lists of PIL images, an array (B, T, H, W, 3) or a tensor (B, T, 3, H, W) in [0, 1].

    For `output_type="latent"`: a list with the latents (B, C, T, h, w), scaled, as they stood after each section.
    """

    frames: Any


class Collected(Protocol):
    """Takes the events of a run one after the other; `frames` holds what they gave so far."""

    convert: Callable[[Any], Any] | None
    """The form that `generate` gives a decoded piece (B, 3, T, H, W); None: nothing is decoded."""

    def add(self, event: Event) -> None:
        """Take the next event."""

    @property
    def frames(self) -> Any:
        """Everything that came, in its form."""


class Pictures:
    """Lists of PIL images, one for each video."""

    convert = staticmethod(to_frames)

    def __init__(self) -> None:
        self.frames: list[list[Image.Image]] = []

    def add(self, event: Event) -> None:
        """Take the frames that are ready."""
        if isinstance(event, FramesReady):
            self.frames = self.frames or [[] for _ in event.frames]
            for video, arrays in zip(self.frames, event.frames, strict=True):
                video += map(Image.fromarray, arrays)


class Arrays:
    """One array (B, T, H, W, 3) in [0, 1]."""

    def __init__(self) -> None:
        self._array: np.ndarray | None = None
        self._count = self._filled = 0

    @staticmethod
    def convert(piece: Any) -> np.ndarray:
        """(B, T, H, W, 3) in [0, 1]."""
        array: np.ndarray = ops.to_numpy(unit_range(piece)).transpose(0, 2, 3, 4, 1)
        return array

    def add(self, event: Event) -> None:
        """Write the frames that are ready behind the others."""
        if isinstance(event, Planned):
            self._count = event.frames
        if isinstance(event, FramesReady):
            batch, frames, *size = event.frames.shape
            if self._array is None:
                # Memory that is never written to is never taken.
                self._array = np.empty((batch, self._count, *size), np.float32)
            self._array[:, self._filled : self._filled + frames] = event.frames
            self._filled += frames

    @property
    def frames(self) -> np.ndarray:
        """The frames that came."""
        if self._array is None:
            raise RunError("The run was stopped before its first frame was there.")
        return self._array[:, : self._filled]


class Tensors:
    """One tensor (B, T, 3, H, W) in [0, 1], in the autoencoder's dtype and place."""

    def __init__(self) -> None:
        self._pieces: list[Any] = []

    @staticmethod
    def convert(piece: Any) -> Any:
        """(B, T, 3, H, W) in [0, 1]."""
        return unit_range(piece).permute(0, 2, 1, 3, 4)

    def add(self, event: Event) -> None:
        """Keep the frames that are ready."""
        if isinstance(event, FramesReady):
            self._pieces.append(event.frames)

    @property
    def frames(self) -> Any:
        """The frames that came."""
        return ops.cat(self._pieces, 1)


class Latents:
    """The latents (B, C, T, h, w), scaled, as they stood after each section."""

    convert = None

    def __init__(self) -> None:
        self._given: dict[int, np.ndarray] = {}
        self._done: list[SectionDone] = []

    def add(self, event: Event) -> None:
        """Keep the latents of pictures and of the sections."""
        if isinstance(event, Encoded):
            self._given = dict(event.anchors)
        if isinstance(event, SectionDone):
            self._done.append(event)

    @property
    def frames(self) -> list[Any]:
        """One tensor for each section that was made: all that are there by then, each behind its picture."""
        stages = range(1, len(self._done) + 1)
        return [ops.from_numpy(self._stage(self._done[:count])) for count in stages]

    def _stage(self, done: Sequence[SectionDone]) -> np.ndarray:
        pieces = []
        for section in sorted(done, key=lambda each: each.number):
            if section.frame - 1 in self._given:
                pieces.append(self._given[section.frame - 1])
            pieces.append(section.latents)
        return np.concatenate(pieces, axis=2)


OUTPUTS: dict[str, type[Any]] = {"pil": Pictures, "np": Arrays, "pt": Tensors, "latent": Latents}
"""The collectors by the field's name of their form."""
