"""SigLIP's preparation by itself; tests/oracle holds it against transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longtake.errors import PictureError
from longtake.processors.siglip import SiglipImageProcessor


def test_fields_that_are_given_win_over_the_file(tmp_path: Path) -> None:
    SiglipImageProcessor(size={"height": 20, "width": 20}, do_normalize=False).save_pretrained(tmp_path)
    found = SiglipImageProcessor.from_pretrained(
        tmp_path, size={"height": 8, "width": 12}, image_mean=[0.0] * 3, use_fast=True
    )
    assert (found.size, found.do_normalize) == ({"height": 8, "width": 12}, False)
    assert list(found.image_mean) == [0.0] * 3
    assert found(np.zeros((4, 4, 3), np.uint8)).pixel_values.shape == (1, 3, 8, 12)


def test_rounding_is_asked_for(tmp_path: Path) -> None:
    processor = SiglipImageProcessor(size={"height": 4, "width": 4}, do_rescale=False, do_normalize=False)
    picture = np.full((4, 4, 3), 0.5, np.float32)
    assert float(processor(picture).pixel_values.max()) == 0.5
    # 127.5 steps of 255 are cut to 127.
    assert float(processor(picture, rounded=True).pixel_values.max()) == np.float32(127 / 255)


def test_values_that_have_no_steps_are_refused() -> None:
    with pytest.raises(PictureError, match=r"\[-1, 0.25\]"):
        SiglipImageProcessor()(np.array([[[-1.0] * 3, [0.25] * 3]]), rounded=True)
