"""The video file of a job in a folder, put together of a piece for each section; what is there is not encoded again."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from longtake.cli.clip import is_joined, joined_writer
from longtake.errors import RunError
from longtake.events import FramesReady, FramesUnwanted
from longtake.video import writer_for
from longtake.video.containers import CONTAINERS
from longtake.video.pieces import PiecesWriter, encoder_version

if TYPE_CHECKING:
    from longtake.cli.outputs import Outputs
    from longtake.job import Job
    from longtake.jobs.folder import JobFolder
    from longtake.jobs.pieces import Cut, Pieces
    from longtake.pipeline.networks import Networks
    from longtake.video.footage import Footage


def pieces_for(folder: JobFolder | None, outputs: Outputs, networks: Networks) -> Pieces | None:
    """The pieces of a job's video; None for one that is encoded as a whole.

    These are videos without a folder, of a kind that is no container (GIF, pictures), of the reference's decoding,
    which fades sections into each other, and such as go on from a clip, whose packets are copied.
    """
    suffix = outputs.video.suffix.lower()
    if folder is None or suffix not in CONTAINERS or folder.job.reference or is_joined(folder.job, outputs):
        return None
    job = folder.job
    how = {
        "encoder": encoder_version(),
        "container": suffix,
        "fps": job.fps,
        "zoom": outputs.zoom,
        "quality": CONTAINERS[suffix].quality(outputs.crf),
        "size": [job.width, job.height],
    }

    def cut() -> Cut:
        from longtake.jobs.pieces import Cut
        from longtake.models.vae.streaming import cuts

        grid, form = cuts(networks.vae, job.decoding)
        return Cut(grid, grid is None and job.decoding == "exact", form)

    return folder.pieces(how, suffix, cut)


def film_of(job: Job, outputs: Outputs, clip: Footage | None, pieces: Pieces | None) -> Film | Whole:
    """The video to write: in pieces, or as a whole, which may be joined to a clip."""
    if pieces is not None:
        return Film(outputs, job, pieces)
    if clip is not None and is_joined(job, outputs):
        return Whole(joined_writer(job, outputs, clip))
    zoom = outputs.zoom or 1
    return Whole(writer_for(outputs.video, job.fps, crf=outputs.crf, zoom=zoom, job=job, growing=True))


class Whole:
    """A video that is encoded as a whole, as its frames come."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __enter__(self) -> Whole:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    @property
    def frames(self) -> int:
        """The number of frames so far."""
        return int(self._writer.frames)

    def tell(self, event: FramesReady | FramesUnwanted) -> None:
        """Take the frames of an event."""
        assert isinstance(event, FramesReady), "all frames are wanted"
        self._writer.write(event.frames[0])


class Film:
    """A video that grows by the frames of events, a piece for each section; used in a `with` block, as writers are."""

    def __init__(self, outputs: Outputs, job: Job, pieces: Pieces) -> None:
        self._pieces, self._job = pieces, job
        self._outputs = outputs
        self._joined = PiecesWriter(outputs.video, job.fps, job)
        self._piece: Any = None
        self._made: Path | None = None
        self._at = 0

    def __enter__(self) -> Film:
        self._joined.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._piece is not None:
                self._piece.__exit__(kind, error, trace)
                if kind is None and self._made is not None:
                    # A video that was stopped ends within a section: this piece is no whole one, and is not kept.
                    self._joined.append(self._made)
        except BaseException as failure:
            self._joined.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._joined.__exit__(kind, error, trace)

    @property
    def frames(self) -> int:
        """The number of frames so far."""
        return self._joined.frames

    def tell(self, event: FramesReady | FramesUnwanted) -> None:
        """Take the frames of an event, or go past those that nobody wanted."""
        frames = event.frames[0] if isinstance(event, FramesReady) else None
        count = len(frames) if frames is not None else event.count  # type: ignore[union-attr]
        done = 0
        while done < count:
            number = self._pieces.at(self._at)
            stop = self._pieces.frames(number).stop
            more = min(count - done, stop - self._at)
            kept = self._pieces.find(number)
            if kept is None:
                assert frames is not None, "what is not there is wanted"
                self._write(number, frames[done : done + more])
            done, self._at = done + more, self._at + more
            if self._at == stop:
                self._join(number, kept or self._finished(number))

    def _write(self, number: int, frames: Any) -> None:
        if self._piece is None:
            self._made = self._pieces.making(number)
            crf, zoom = self._outputs.crf, self._outputs.zoom or 1
            self._piece = writer_for(self._made, self._job.fps, crf=crf, zoom=zoom)
            self._piece.__enter__()
        self._piece.write(frames)

    def _join(self, number: int, piece: Path) -> None:
        """Append a section's piece; RunError if it has not the section's frames, as none that was made here has."""
        found, frames = self._joined.append(piece), len(self._pieces.frames(number))
        if found != frames:
            raise RunError(
                f"{piece} has {found} frames, and section {number} has {frames}; take it away, and resume the job.",
                number,
            )

    def _finished(self, number: int) -> Path:
        """The piece of the section, which is whole now."""
        piece, self._piece = self._piece, None
        piece.__exit__(None, None, None)
        assert self._made is not None
        return self._pieces.keep(number, self._made)
