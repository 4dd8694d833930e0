"""Latents -> frames: streamed, each decoded once; or section by section with a cross-fade as the reference does."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from longtake.backend import exchange, ops, runtime
from longtake.errors import LongtakeWarning, MemoryRunError, RunError
from longtake.events import FramesReady, FramesUnwanted, Moved, SectionDone
from longtake.models.vae.streaming import StreamingDecoder
from longtake.models.vae.tiles import Wanted
from longtake.pipeline.joint import Joint, Seams, also
from longtake.pipeline.placed import less
from longtake.pipeline.placement import Placement, Resident, room_for
from longtake.plan.layout import LATENT_FRAMES
from longtake.plan.lengths import video_frames
from longtake.plan.sections import Seam

Convert = Callable[[Any], Any]
"""Decoded frames (B, 3, T, H, W), about [-1, 1] -> what `FramesReady` holds, with T on its second axis."""

Shown = FramesReady | FramesUnwanted | Moved
Pieces = list[tuple[int, Any]]
"""Frames (B, 3, T, H, W), about [-1, 1], or how many that nobody wants; each with the number of its first."""


def decode(vae: Any, latents: np.ndarray) -> Any:
    """Frames (B, 3, T, H, W), about [-1, 1], of latents (B, C, t, h, w) that carry the scaling factor."""
    with runtime.no_grad():
        return vae.decode(unscaled(vae, latents), return_dict=False)[0]


class Decoding:
    """Scaled latents (B, C, T, h, w), pushed in the video's order -> its frames as soon as they are final.

    At most `frames` come, each piece as `convert` makes it, after the first `hidden` ones, which are decoded for those
    behind them and not shown. `mode` is the decoder's. Frames that are not finite raise a RunError that names the
    section. Frames of one plain colour cause a warning, unless `plain` says that the video begins so. Frames that are
    not `wanted`, as a function of the first and of the one behind the last tells, are left out where that saves work.
    `placement` brings the autoencoder to where it runs; if memory ends there, it goes on with less, and says so.
    `seams` and `joint`, that with a clip, are where frames meet given ones.
    """

    def __init__(
        self,
        vae: Any,
        frames: int,
        convert: Convert,
        mode: str = "exact",
        plain: bool = False,
        hidden: int = 0,
        placement: Placement | None = None,
        wanted: Wanted | None = None,
        joint: Joint | None = None,
        seams: Sequence[Seam] = (),
    ) -> None:
        self.start = -hidden
        self.wanted = wanted if wanted is None else also(wanted, seams)
        self._joints: list[Seams | Joint] = [Seams(seams)] if seams else []
        self._joints += [] if joint is None else [joint]
        self._placement = placement or Resident()
        self._vae, self._frames, self._convert, self._plain = vae, frames, convert, plain
        self._decoder = StreamingDecoder(vae, mode, self._is_wanted)
        self._run = 0
        self._begun, self._end = False, -hidden
        self._first = -hidden
        """The frame that the decoder began with."""
        # The frame behind the last one of each push, and whose frames these are.
        self._owners: deque[tuple[int, int]] = deque()

    def push(self, latents: np.ndarray, section: int) -> Iterator[Shown]:
        """Take the next latent frames, which are this section's or come before it; the frames that are final now."""
        if self.start >= self._frames or not latents.shape[2]:
            return
        self._first = self._first if self._begun else self._end
        self._end += LATENT_FRAMES * latents.shape[2] - (0 if self._begun else LATENT_FRAMES - 1)
        self._begun = True
        self._owners.append((self._end, section))
        yield from self._ready(lambda: self._decoder.push(unscaled(self._vae, latents)))

    def restart(self) -> Iterator[Shown]:
        """The frames that are left; the next latent frame that is pushed then stands for one, as the first one does."""
        if self.start < self._frames:
            yield from self._ready(self._decoder.finish)
        self._begun = False

    def finish(self) -> Iterator[Shown]:
        """The rest. What may still come is not counted from the video's beginning, and meets nothing given."""
        yield from self.restart()
        rest: Pieces = []
        for joint in self._joints:
            rest = [*self._met(joint, rest), *joint.rest()]
        yield from self._shown(rest)
        self._joints, self.wanted = [], None

    def _is_wanted(self, first: int, stop: int) -> bool:
        """Tell if a frame is wanted, by numbers that count from the one that the decoder began with."""
        return self.wanted is None or self.wanted(self._first + first, self._first + stop)

    def _decoded(self, decoded: Callable[[], list[Any]]) -> Generator[Moved, None, list[Any]]:
        while True:
            forget = self._decoder.remembered()
            try:
                with (
                    room_for("decoding the latents"),
                    self._placement.using("vae", self._vae),
                    runtime.no_grad(),
                ):
                    return decoded()
            except MemoryRunError as error:
                forget()
                moved = less(self._placement, error)
            yield moved

    def _ready(self, decoded: Callable[[], list[Any]]) -> Iterator[Shown]:
        pieces = yield from self._decoded(decoded)
        for piece in pieces:
            if self.start >= self._frames:
                return
            unwanted = isinstance(piece, int)
            if not unwanted:
                self._check_finite(piece)
            count = piece if unwanted else piece.shape[2]
            unseen = min(count, max(0, -self.start))
            self.start += unseen
            count = min(count - unseen, self._frames - self.start)
            if not count:
                continue  # all of it is hidden
            found: Pieces = [(self.start, count if unwanted else piece[:, :, unseen : unseen + count])]
            for joint in self._joints:
                found = self._met(joint, found)
            yield from self._shown(found)
            self.start += count

    def _met(self, joint: Seams | Joint, pieces: Pieces) -> Pieces:
        return [each for start, piece in pieces for each in joint.passed(piece, start)]

    def _shown(self, pieces: Pieces) -> Iterator[Shown]:
        for start, piece in pieces:
            if isinstance(piece, int):
                yield FramesUnwanted(start, piece)
                continue
            frames = self._convert(piece)
            if not self._plain and isinstance(frames, np.ndarray):
                self._tell_plain(frames, start)
            yield FramesReady(start, frames)

    def _check_finite(self, piece: Any) -> None:
        if not is_finite(piece):
            section = self._section(self.start)
            raise RunError(
                f"The decoder's numbers went wrong in section {section}: they are not finite. "
                "Every section is kept if the job has a folder; another --dtype may help.",
                section,
            )

    def _tell_plain(self, frames: np.ndarray, start: int) -> None:
        """Warn once of plain frames, as many in a row as one latent frame holds; fewer may be a cut or a fade."""
        row = frames[:, :, 0]
        for number, plain in enumerate((row == row[:, :, :1]).all(axis=(0, 2, 3))):
            # The first row alone decides nearly always, and costs nothing.
            plain = bool(plain) and bool((frames[:, number] == frames[:, number, :1, :1]).all())
            self._run = self._run + 1 if plain else 0
            if self._run == LATENT_FRAMES:
                begin = start + number + 1 - LATENT_FRAMES
                warnings.warn(
                    f"Every pixel has one colour from frame {begin} on, in section {self._section(begin)}; if that is "
                    "no fade that was asked for, make the section again with another seed.",
                    LongtakeWarning,
                    stacklevel=2,
                )

    def _section(self, frame: int) -> int:
        """The section that a frame belongs to; a picture's own frame counts to the one behind it."""
        while len(self._owners) > 1 and self._owners[0][0] <= frame:
            self._owners.popleft()
        return self._owners[0][1]


def unscaled(vae: Any, latents: np.ndarray) -> Any:
    """Latents as the autoencoder takes them: on its device and in its dtype."""
    placed = runtime.place(ops.from_numpy(latents), exchange.device_of(vae), vae.dtype)
    return placed / vae.config.scaling_factor


def is_finite(values: Any) -> bool:
    """Tell if no value is NaN or infinite, by their sum: only one number leaves the device."""
    return math.isfinite(float(ops.to_numpy(total(values))))


def total(values: Any) -> Any:
    """The sum of all values in float32, on their device: finite only if all of them are."""
    return runtime.place(values, dtype="float32").sum()


def reference_frames(
    vae: Any, start: np.ndarray, done: Sequence[SectionDone], forward: bool, window: int
) -> Any:
    """Frames (B, 3, T, H, W) as diffusers makes them: sections joined by its cross-fade."""
    video = None
    for section, latents in zip(done, stages(start, done, forward), strict=True):
        if video is None:
            video = decode(vae, latents)
        elif forward:
            video = crossfade(video, decode(vae, latents[:, :, -2 * window :]), _overlap(window))
        else:
            count = 2 * window + (section.number == 0)
            video = crossfade(decode(vae, latents[:, :, :count]), video, _overlap(window))
    return decode(vae, start) if video is None else video


def stages(start: np.ndarray, done: Sequence[SectionDone], forward: bool) -> Iterator[np.ndarray]:
    """The video's latents (B, C, T, h, w) as they stood after each section.

    Those of a plan that goes forward begin with the picture's latents `start`; others get them with section 0.
    """
    for count in range(1, len(done) + 1):
        sections = [section.latents for section in sorted(done[:count], key=lambda section: section.number)]
        opened = forward or any(section.number == 0 for section in done[:count])
        yield np.concatenate([start, *sections] if opened else sections, axis=2)


def crossfade(earlier: Any, later: Any, overlap: int) -> Any:
    """Join two stretches of frames (B, 3, T, H, W) that share `overlap` frames; the weights go from 1 to 0."""
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
    """The frames that two neighbours share in the reference: as many as a window of latents decodes to alone."""
    return video_frames(1, window) - 4
