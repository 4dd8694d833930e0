"""The tiny model as a folder, read by diffusers, and calls of it that all tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import miniature as shared

# The bound for the whole pipeline. Both sides do the same float32 sums in another order; measured is 2e-6.
TOLERANCE = 1e-4


@pytest.fixture(scope="session")
def folder(networks: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as longtake writes it."""
    from longtake.compat.framepack import HunyuanVideoFramepackPipeline

    place = tmp_path_factory.mktemp("model")
    HunyuanVideoFramepackPipeline(**networks.components, settings=networks.settings).save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def read(folder: Path, networks: Any) -> Callable[..., Any]:
    """Read the folder by a class of diffusers; the picture processor is ours (theirs rounds to 8 bits)."""

    def load(kind: Any, **options: Any) -> Any:
        pipe = kind.from_pretrained(folder, feature_extractor=None, **options)
        pipe.feature_extractor = networks.feature_extractor
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return load


@pytest.fixture
def call(picture: Image.Image) -> dict[str, Any]:
    """Two sections of three steps, as an array."""
    return {
        "image": picture,
        "prompt": "A penguin dances in the snow",
        "height": shared.HEIGHT,
        "width": shared.WIDTH,
        "num_frames": 13,
        "latent_window_size": shared.WINDOW,
        "num_inference_steps": 3,
        "generator": 1,
        "output_type": "np",
    }


@pytest.fixture
def assert_same() -> Callable[[Any, Any], None]:
    """Hold that two videos, or lists of latents, are equal within the tolerance."""

    def check(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert tuple(one.shape) == tuple(other.shape)
            worst = float(np.abs(np.asarray(one) - np.asarray(other)).max())
            print(f"deviation {worst:.1e}")  # shown by pytest -rP
            assert worst < tolerance

    return check
