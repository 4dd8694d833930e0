"""Frames that lead to given ones: what is held, what is given back, and what nobody wants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from longtake.backend import ops
from longtake.pipeline.joint import Seams, also
from longtake.plan.sections import Seam
from longtake.video.fading import FADE

# A key frame behind 20 frames, and a loop of 60; what is made before each stands still, 0.13 away from it.
AT, END = 20, 60
SEAMS = (Seam(AT, (AT, AT + 1), AT - 1), Seam(END, (0, 1), END - AT - 1))


def video() -> np.ndarray:
    frames = np.zeros((1, 3, END, 2, 2), np.float32)
    frames[:, :, [0, 1, AT, AT + 1]] = 0.13
    return frames


def passed(pieces: list[Any], seams: Seams) -> list[tuple[int, Any]]:
    found, start = [], 0
    for piece in pieces:
        found += seams.passed(piece if isinstance(piece, int) else ops.from_numpy(piece), start)
        start += piece if isinstance(piece, int) else piece.shape[2]
    return [*found, *seams.rest()]


def cut(frames: np.ndarray, edges: list[int]) -> list[np.ndarray]:
    return np.split(frames, edges, axis=2)


def starts_of(found: list[tuple[int, Any]]) -> list[int]:
    counts = [piece if isinstance(piece, int) else piece.shape[2] for _, piece in found]
    assert [start for start, _ in found] == np.cumsum([0, *counts])[:-1].tolist()
    return counts


@pytest.mark.parametrize("edges", [[], [1, 5, 19, 20, 21, 40], list(range(1, END))])
def test_the_step_is_faded_out_before_a_seam_however_the_frames_come(edges: list[int]) -> None:
    frames = video()
    found = passed(cut(frames, edges), Seams(SEAMS))
    assert sum(starts_of(found)) == END
    out = np.concatenate([ops.to_numpy(piece) for _, piece in found], axis=2)
    values = out[0, 0, :, 0, 0]
    for at in (AT, END):
        expected = 0.13 * (1 - np.arange(FADE, 0, -1) / (FADE + 1))
        np.testing.assert_allclose(values[at - FADE : at], expected, atol=1e-6)
    np.testing.assert_array_equal(out[:, :, : AT - FADE], frames[:, :, : AT - FADE])
    np.testing.assert_array_equal(out[:, :, AT : END - FADE], frames[:, :, AT : END - FADE])


def test_no_more_is_held_than_a_seam_needs() -> None:
    seams, held = Seams(SEAMS), []
    for frame, piece in enumerate(cut(video(), list(range(1, END)))):
        out = sum(part.shape[2] for _, part in seams.passed(ops.from_numpy(piece), frame))
        held.append((held[-1] if held else 0) + 1 - out)
    assert max(held) == FADE + 1 and held[AT + 1] == 0 and held[-1] == 0


def test_a_motion_is_no_step() -> None:
    frames = np.arange(END, dtype=np.float32).reshape(1, 1, END, 1, 1).repeat(3, 1) / 100
    found = passed([frames], Seams(SEAMS[:1]))
    out = np.concatenate([ops.to_numpy(piece) for _, piece in found], axis=2)
    np.testing.assert_allclose(out, frames, atol=1e-6)


def test_a_short_stretch_fades_behind_its_own_picture() -> None:
    frames = np.zeros((1, 3, 10, 1, 1), np.float32)
    frames[:, :, 5:] = 1
    found = passed([frames], Seams([Seam(5, (5, 6), 4)]))
    out = np.concatenate([ops.to_numpy(piece) for _, piece in found], axis=2)
    np.testing.assert_allclose(out[0, 0, :, 0, 0], [0, 0.2, 0.4, 0.6, 0.8, *[1] * 5], atol=1e-6)


def test_what_nobody_wants_comes_as_its_number_and_what_decides_a_seam_is_wanted() -> None:
    frames = video()
    pieces = cut(frames, [4, AT, END - 8])
    found = passed([4, pieces[1], END - 8 - AT, pieces[3]], Seams(SEAMS))
    assert sum(starts_of(found)) == END
    # Neither seam's own frames are there: what comes is as it was made.
    for start, piece in found:
        if not isinstance(piece, int):
            np.testing.assert_array_equal(ops.to_numpy(piece), frames[:, :, start : start + piece.shape[2]])
    wanted = also(lambda first, stop: first < 52 <= stop or first < 10 <= stop, SEAMS)
    assert wanted(0, 2) and wanted(AT, AT + 4) and wanted(50, 54) and not wanted(30, 40)
    assert not also(lambda first, stop: first < 30 <= stop, SEAMS)(AT, AT + 2)
