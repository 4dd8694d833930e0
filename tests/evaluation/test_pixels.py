"""The measures of any frames, by frames whose values are known."""

import numpy as np
import pytest

from longtake.evaluation import pixels


def plain(red, green, blue, count=1):
    return np.full((count, 8, 12, 3), (red, green, blue), np.uint8)


def test_brightness_and_saturation_of_plain_colours():
    frames = np.concatenate([plain(0, 0, 0), plain(255, 255, 255), plain(255, 0, 0)])
    assert pixels.luma(frames).mean((1, 2)) == pytest.approx([0, 1, 0.299], abs=1e-6)
    assert pixels.saturation(frames) == pytest.approx([0, 0, 1])


def test_the_sharpness_of_a_wave_falls_as_its_blur_says():
    # A cosine of period 8 along x: the Laplacian multiplies it by 2 cos(w) - 2, a blur by (1 + 2 cos(w)) / 3.
    w = 2 * np.pi / 8
    wave = np.broadcast_to(0.5 + 0.4 * np.cos(w * np.arange(64)), (1, 64, 64)).astype(np.float32)
    blurred = (wave + np.roll(wave, 1, 2) + np.roll(wave, -1, 2)) / 3
    inside = [pixels.sharpness(each[:, :, 7:57])[0] for each in (wave, blurred)]
    assert inside[0] == pytest.approx(0.08 * (2 - 2 * np.cos(w)) ** 2, rel=1e-3)
    assert inside[1] / inside[0] == pytest.approx(((1 + 2 * np.cos(w)) / 3) ** 2, rel=1e-3)


def test_change_counts_everything_and_motion_what_is_loud():
    before, after = plain(100, 100, 100), plain(100, 103, 150)
    assert pixels.change(after, before) == pytest.approx(53 / 3 / 255)
    assert pixels.motion(after, before) == pytest.approx(45 / 3 / 255)
    assert pixels.motion(before, before + np.uint8(pixels.QUIET)) == 0


def test_colours_are_as_far_apart_as_they_were_shifted():
    frames = np.random.default_rng(0).integers(0, 200, (2, 16, 16, 3)).astype(np.uint8)
    shares = pixels.histograms(frames)
    assert shares[..., -1] == pytest.approx(1)
    shifted = pixels.histograms(frames + np.array((0, 12, 30), np.uint8))
    for number in range(2):
        apart = pixels.colour_distance(shifted[number : number + 1], shares[number])
        assert apart == pytest.approx((12 + 30) / 3 / 255, rel=1e-5)


def test_thumbnails_are_means_of_areas():
    frame = np.kron(np.random.default_rng(1).integers(0, 256, (16, 16, 3)), np.ones((2, 3, 1))).astype(
        np.uint8
    )
    small = frame[::2, ::3].astype(np.float32).ravel()
    small -= small.mean()
    assert pixels.thumbnail(frame) == pytest.approx(small / np.linalg.norm(small), abs=1e-5)
    assert pixels.thumbnail(plain(9, 9, 9)[0]) == pytest.approx(0)
