"""Lengths: how many sections make so many frames, and the other way round."""

from __future__ import annotations

from longtake.errors import JobError
from longtake.plan.layout import LATENT_FRAMES

WINDOW = 9
"""Latent frames of one section in the released models."""


def video_frames(sections: int, window: int = WINDOW) -> int:
    """Frames of a video of so many sections.

    >>> video_frames(4)
    145
    """
    return LATENT_FRAMES * window * sections + 1


def section_count(frames: int, window: int = WINDOW) -> int:
    """Smallest number of sections that makes `frames` frames.

    >>> section_count(145), section_count(146)
    (4, 5)
    """
    _check(frames, window)
    return max(1, -(-(frames - 1) // (LATENT_FRAMES * window)))


def nearest_section_count(frames: int, window: int = WINDOW) -> int:
    """Number of sections whose length is nearest to `frames`, the longer of two: for a video whose end is given.

    >>> nearest_section_count(162), nearest_section_count(163)
    (4, 5)
    """
    _check(frames, window)
    length = LATENT_FRAMES * window
    return max(1, (2 * (frames - 1) + length) // (2 * length))


def reference_section_count(frames: int, window: int = WINDOW) -> int:
    """Number of sections that diffusers makes for `num_frames`; often one more than is needed.

    >>> reference_section_count(91), reference_section_count(129), reference_section_count(145)
    (3, 4, 5)
    """
    _check(frames, window)
    return max(1, -(-frames // (LATENT_FRAMES * (window - 1) + 1)))


def shown_frames(latent_frame: int) -> range:
    """Numbers of the video frames that one latent frame holds.

    >>> shown_frames(0), shown_frames(2)
    (range(0, 1), range(5, 9))
    """
    return range(max(0, LATENT_FRAMES * (latent_frame - 1) + 1), LATENT_FRAMES * latent_frame + 1)


def _check(frames: int, window: int) -> None:
    if frames < 1:
        raise JobError(f"A video needs at least one frame; {frames} were asked for.")
    if window < 1:
        raise JobError(f"A section needs at least one latent frame; a window of {window} was asked for.")
