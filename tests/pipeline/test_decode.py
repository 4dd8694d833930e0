"""Frames that go wrong in the decoder: told with their section and their number."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from longtake.backend import ops
from longtake.errors import LongtakeWarning, RunError
from longtake.pipeline.decode import Decoding, to_frames


class Autoencoder:
    """An autoencoder whose frames are given."""

    class config:
        scaling_factor = 1.0

    device, dtype = "cpu", "float32"


def decoded(monkeypatch: pytest.MonkeyPatch, frames: np.ndarray, **options: Any) -> int:
    """How many frames come out of a decoder that gives these, in three pieces."""
    pieces = [ops.from_numpy(np.ascontiguousarray(piece)) for piece in np.array_split(frames, 3, axis=2)]

    class Given:
        def __init__(self, vae: Any, mode: str, wanted: Any) -> None:
            self.rest = list(pieces)

        def push(self, latents: Any) -> list[Any]:
            return [self.rest.pop(0)] if len(self.rest) == len(pieces) else []

        def finish(self) -> list[Any]:
            return self.rest

        def remembered(self) -> Any:
            return lambda: None

    monkeypatch.setattr("longtake.pipeline.decode.StreamingDecoder", Given)
    monkeypatch.setattr("longtake.pipeline.decode.unscaled", lambda vae, latents: latents)
    decoding = Decoding(Autoencoder(), frames.shape[2], to_frames, **options)
    events = [*decoding.push(np.zeros((1, 1, 1, 1, 1)), 0)]
    for section in range(4):
        events += decoding.push(np.zeros((1, 1, 2, 1, 1)), section)
    events += decoding.finish()
    return sum(event.frames.shape[1] for event in events)


def test_plain_frames_are_told_and_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fade to black stopped the job."""
    frames = np.random.default_rng(0).uniform(-1, 1, (1, 3, 33, 8, 8)).astype(np.float32)
    frames[:, :, 10:13] = 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoded(monkeypatch, frames) == 33
    frames[:, :, 13] = 0.2
    with pytest.warns(LongtakeWarning, match="one colour from frame 10 on, in section 1"):
        assert decoded(monkeypatch, frames) == 33
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoded(monkeypatch, frames, plain=True) == 33


def test_frames_that_are_not_finite_stop_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).uniform(-1, 1, (1, 3, 33, 8, 8)).astype(np.float32)
    frames[:, :, 17, 3, 3] = np.nan
    with pytest.raises(RunError, match="went wrong in section 1") as caught:
        decoded(monkeypatch, frames)
    assert caught.value.section == 1
