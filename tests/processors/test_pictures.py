"""Pictures of every kind to (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longtake.backend import ops
from longtake.errors import PictureError
from longtake.processors.pictures import bucket, pixels, size_of

RANDOM = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


def test_every_kind_gives_the_same_pixels(tmp_path: Path) -> None:
    Image.fromarray(RANDOM).save(tmp_path / "picture.png")
    floats = RANDOM.astype(np.float32) / 255
    tensor = ops.from_numpy(floats.transpose(2, 0, 1))
    expected = (2 * floats - 1).transpose(2, 0, 1)[None]
    kinds = [
        Image.fromarray(RANDOM),
        tmp_path / "picture.png",
        RANDOM,
        floats,
        floats[None],
        tensor,
        tensor[None],
    ]
    for kind in [*kinds, 2 * tensor - 1, [RANDOM], [tensor]]:
        # float32 rounding of (x / 255) * 2 - 1.
        np.testing.assert_allclose(pixels(kind, 48, 32), expected, atol=2e-7)


def test_several_pictures_are_rows() -> None:
    assert pixels([RANDOM, Image.fromarray(RANDOM)], 48, 32).shape == (2, 3, 32, 48)
    assert pixels(np.stack([RANDOM, RANDOM]), 48, 32).shape == (2, 3, 32, 48)


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_a_picture_of_another_shape_is_cut_and_not_stretched(kind: str) -> None:
    picture = np.zeros((32, 96, 3), np.uint8)
    picture[:, :24], picture[:, 72:] = 255, 255  # what a centre crop to 48 loses
    given = picture if kind == "uint8" else picture.astype(np.float32) / 255
    assert pixels(given, 48, 32).max() == -1.0
    assert pixels(given, 48, 32, reference=True).max() > 0.9


def test_grey_and_transparent_pictures_become_colour() -> None:
    assert pixels(Image.new("L", (48, 32), 255), 48, 32).min() == 1.0
    assert pixels(Image.new("RGBA", (48, 32), (0, 0, 0, 0)), 48, 32).min() == 1.0


@pytest.mark.parametrize("bad", [3, [], np.zeros(5), np.full((4, 4, 3), 77.0, np.float32)])
def test_what_is_no_picture_is_refused(bad: object) -> None:
    with pytest.raises(PictureError):
        pixels(bad, 48, 32)


def test_a_square_picture_takes_framepacks_own_bucket() -> None:
    assert bucket(512, 512) == (608, 640)
    assert bucket(832, 480) == (832, 480)
    assert bucket(480, 832) == (480, 832)
    assert size_of(RANDOM) == (48, 32) == size_of([Image.fromarray(RANDOM)])
