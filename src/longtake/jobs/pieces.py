"""The video of a job in pieces that are encoded apart, one for each section, so that only what is new is made.

A piece is a small video file in `pieces/`, named by a hash of all that decides its frames and their encoding, and by a
hash of its bytes. What the frames of a section depend on is known from the decoder's tiles: its own latents, and those
of a few frames before and behind.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake import disk
from longtake.jobs.recipe import Recipes
from longtake.plan.layout import LATENT_FRAMES
from longtake.plan.sections import Plan
from longtake.video.fading import FADE

if TYPE_CHECKING:
    from longtake.models.vae.tiles import Grid

PIECES = "pieces"


@dataclass(frozen=True)
class Cut:
    """The tiles of latents that the decoder makes frames from (`grid`; None: all before a frame, or all if `whole`).

    `form` is what else decides its frames, in plain values.
    """

    grid: Grid | None
    whole: bool
    form: list[Any] = field(default_factory=list)


class Pieces:
    """The pieces of one job's video: which are there, and which frames are still wanted.

    `how` is what decides how frames are encoded, in plain values. `cut` is asked once, when the first piece is looked
    for: the decoder's tiles may depend on what else lies on the device.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        recipes: Callable[[], Recipes],
        how: Mapping[str, Any],
        suffix: str,
        cut: Callable[[], Cut],
    ) -> None:
        self.folder, self.plan = folder / PIECES, plan
        self._recipes, self._how, self._suffix, self._ask = recipes, dict(how), suffix, cut
        self._cut: Cut | None = None
        self._ends: list[int] = []
        self._found: dict[int, Path | None] = {}
        self._used: set[str] = set()
        self.also: Collection[int] = ()
        """Frames that are wanted although their piece is there."""

    def frames(self, number: int) -> range:
        """The video frames of a section, with the given ones before it; none if they are cut off."""
        while len(self._ends) <= number:
            self._ends.append(self._end(len(self._ends)))
        return range(self._ends[number - 1] if number else 0, self._ends[number])

    def at(self, frame: int) -> int:
        """The number of the section whose piece has a frame."""
        while not self._ends or self._ends[-1] <= frame:
            self.frames(len(self._ends))
        return bisect_right(self._ends, frame)

    def wanted(self, first: int, stop: int) -> bool:
        """Tell if a frame from the first up to the stop belongs to a piece that is not there."""
        first, stop = max(0, first), min(stop, self.plan.frames)
        if first >= stop:
            return False
        if any(first <= frame < stop for frame in self.also):
            return True
        numbers = range(self.at(first), self.at(stop - 1) + 1)
        return any(self.find(number) is None for number in numbers)

    def find(self, number: int) -> Path | None:
        """The file of a section's piece, or None if it is to be made; a damaged one is removed."""
        if number not in self._found:
            name = self._name(number)
            files = sorted(self.folder.glob(f"{name}-*{self._suffix}"))
            self._found[number] = next((file for file in files if _is_whole(file)), None)
        return self._found[number]

    def making(self, number: int) -> Path:
        """The place where a section's piece is written before it is kept."""
        disk.make_folder(self.folder)
        return self.folder / f"making-{number:05}{self._suffix}"

    def keep(self, number: int, made: Path) -> Path:
        """Keep a piece that was written to `making`; its place then.

        It is not kept if the decoder has changed its tiles on the way, since nobody knows then which it has.
        """
        if self._cut is None or self._ask().form != self._cut.form:
            return made
        file = self.folder / f"{self._name(number)}-{_hash_of(made)}{self._suffix}"
        disk.move(made, file)
        return file

    def tidy(self, most: int) -> None:
        """Remove what was being made, and what is not of this video beyond so many, the oldest first."""
        others = []
        for file in self.folder.glob("*"):
            if file.name.startswith("making-"):
                file.unlink(missing_ok=True)
            elif file.name.partition("-")[0] not in self._used:
                others.append(file)
        others.sort(key=lambda file: (file.stat().st_mtime, file.name))
        for file in others[: max(0, len(others) - most)]:
            file.unlink(missing_ok=True)

    def _end(self, number: int) -> int:
        """The frame behind a section's last one."""
        plan = self.plan
        if number >= plan.count - 1:
            return plan.frames
        return min(plan.frames, plan.shown(plan[plan.made_at(number)].frames[-1]).stop)

    def _name(self, number: int) -> str:
        self._cut = self._cut or self._ask()
        frames = self.frames(number)
        reached = [list(self._reached(part, self._cut)) for part in self._stretches(frames)]
        reached += self._met(frames, self._cut)
        values = [self._how, self._cut.form, len(frames), reached]
        name = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
        self._used.add(name)
        return name

    def _met(self, frames: range, cut: Cut) -> Iterator[Any]:
        """The frames at each seam that some frames lie before: by them is found what is given back."""
        for seam in self.plan.seams:
            faded = min(seam.span, FADE)
            if seam.at - faded < frames.stop and frames.start < seam.at:
                beside = (range(max(0, seam.at - 2), seam.at), range(seam.own[0], seam.own[-1] + 1))
                parts = [part for each in beside for part in self._stretches(each)]
                yield [seam.at - frames.start, faded, [list(self._reached(part, cut)) for part in parts]]

    def _stretches(self, frames: range) -> Iterator[tuple[int, int, range]]:
        """The parts of some video frames, by the stretch in which they are decoded.

        Each is the stretch's first latent frame and its last, and the frames, which count from the stretch's first.
        """
        plan = self.plan
        last = max(plan[plan.made_at(plan.count - 1)].frames[-1], plan.starts[-1])
        for start, following in zip(plan.starts, (*plan.starts[1:], last + 1), strict=True):
            begin, stop = plan.shown(start).start, plan.shown(following - 1).stop
            first, behind = max(frames.start, begin), min(frames.stop, stop)
            if first < behind:
                yield start, following - 1, range(first - begin, behind - begin)

    def _reached(self, part: tuple[int, int, range], cut: Cut) -> Iterator[Any]:
        """The latents that the decoder makes such frames from, tile by tile."""
        start, last, frames = part
        grid = cut.grid
        if grid is None:
            latents = last if cut.whole else start - (-frames[-1] // LATENT_FRAMES)
            yield [frames.start, self._tokens(range(start, latents + 1))]
            return
        first, final = (max(0, (frame - 1) // grid.out_stride) for frame in (frames[0], frames[-1]))
        begin = max(0, first - grid.behind)
        yield [frames.start - grid.out_stride * begin, begin == 0]
        for tile in range(begin, final + 1):
            latent = start + grid.stride * tile
            yield self._tokens(range(latent, min(latent + grid.size, last) + 1))

    def _tokens(self, latents: range) -> list[Any]:
        """All that decides each of these latent frames."""
        plan = self.plan
        found: list[Any] = []
        for frame in latents:
            number = plan.maker(frame)
            if number is None:
                found.append(self._recipes().given(frame))
            else:
                own = frame - plan[plan.made_at(number)].frames[0]
                found.append([self._recipes()[number], own])
        return found


def _is_whole(file: Path) -> bool:
    """Tell if a piece has the bytes that it was kept with; one that has not is removed."""
    whole = _hash_of(file) == file.stem.rpartition("-")[2]
    if not whole:
        file.unlink(missing_ok=True)
    return whole


def _hash_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while data := opened.read(2**20):
            digest.update(data)
    return digest.hexdigest()[:32]
