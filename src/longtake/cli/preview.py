"""`--preview`: a file that shows each section as soon as it is made, in its place, long before the video is there."""

from __future__ import annotations

import argparse
import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.errors import LongtakeWarning, PictureError

if TYPE_CHECKING:
    import numpy as np

    from longtake.events import Event
    from longtake.job import Job

SUFFIXES = (".png", ".mp4")
SIDE = 128
"""The longer side of a picture, in pixels."""
PICTURES = {".png": 120, ".mp4": 300}
"""The most pictures of a file: what it costs and holds does not depend on the length of the video."""
COLUMNS = 12
SHARE = 0.1
"""The most of the time that writing the file over and over may take."""


@dataclass(frozen=True)
class PreviewFile:
    """Which file shows the sections, and how their frames are made: by projection ("rgb") or "decode"."""

    path: Path
    by: str


def add_options(group: Any) -> None:
    """`--preview` and `--preview-decode`."""
    group.add_argument(
        "--preview",
        type=_name,
        nargs="?",
        const=True,
        metavar="FILE",
        help="show each section as soon as it is made: FILE.png, a contact sheet that fills up, or FILE.mp4, "
        "a small video that is replaced (default: the video's name with -preview.png)",
    )
    group.add_argument(
        "--preview-decode",
        action="store_true",
        help="make the preview with the model's decoder: sharp, and it costs decoding twice",
    )


def preview_file(
    name: str | bool | None, decode: bool, video: Path, *others: str | Path | None
) -> PreviewFile | None:
    """What `--preview` and `--preview-decode` ask for; True is a name after the video's.

    Raises PictureError if it cannot be written, or if it is the video or one of the `others`.
    """
    from longtake.video import check_writable

    if name is None and not decode:
        return None
    place = name if isinstance(name, str) else video.with_name(f"{video.stem}-preview.png")
    file = check_writable(place, *SUFFIXES)
    if file in {Path(other).resolve() for other in (video, *others) if other}:
        raise PictureError(f"The preview would take the place of {file}; name another file.")
    return PreviewFile(file, "decode" if decode else "rgb")


@contextlib.contextmanager
def previewing(file: PreviewFile | None, job: Job) -> Iterator[Callable[[Event], None]]:
    """A function to tell every event to: it keeps the file up to date. Without a file it does nothing."""
    if file is None:
        yield lambda event: None
        return
    writer = PreviewWriter(file.path, job.fps, job.window)
    try:
        yield writer.tell
    finally:
        writer.write()


class PreviewWriter:
    """A contact sheet or a small video of what is made so far, by its suffix; told the events, it is written anew.

    The sheet keeps a grey place for what is not there yet; the video leaves it out. Of a long video every section shows
    fewer pictures, and from some length on not every section is shown.
    """

    def __init__(
        self, path: Path, fps: float, window: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._fps, self._window, self._clock = fps, window, clock
        self._most = PICTURES[path.suffix.lower()]
        self._shown: list[int] = []
        self._pictures: dict[int, list[np.ndarray]] = {}
        self._stale = False
        self._due = clock()

    def tell(self, event: Event) -> None:
        """Take what a `Preview` shows into the file, now or with one of the next: writing never takes long."""
        from longtake.events import Planned, Preview
        from longtake.picture import spread

        if isinstance(event, Planned):
            self._shown = spread(event.sections, self._most)
        elif isinstance(event, Preview) and event.number in self._shown:
            frames = event.frames[0]
            each = max(1, self._most // len(self._shown))
            each = min(each, self._window) if self._is_sheet else each
            self._pictures[event.number] = [_small(frames[n]) for n in spread(len(frames), each)]
            self._stale = True
            if self._clock() >= self._due or len(self._pictures) == len(self._shown):
                self.write()

    def write(self) -> None:
        """Write what is not written yet; the file is replaced at once, so that a viewer never meets half of it.

        Where that cannot be, it is said, and the video goes on.
        """
        if not self._stale:
            return
        begun = self._clock()
        try:
            if self._is_sheet:
                self._write_sheet()
            else:
                self._write_video()
        except PictureError as error:
            warnings.warn(f"No preview this time: {error}", LongtakeWarning, stacklevel=2)
        took = self._clock() - begun
        self._stale, self._due = False, self._clock() + took * (1 / SHARE - 1)

    @property
    def _is_sheet(self) -> bool:
        return self.path.suffix.lower() == ".png"

    def _write_sheet(self) -> None:
        import numpy as np

        from longtake.picture import contact_sheet, save_picture

        some = next(iter(self._pictures.values()))
        missing = [np.full_like(some[0], 200)] * len(some)
        pictures = [picture for number in self._shown for picture in self._pictures.get(number, missing)]
        columns = len(some) * max(1, COLUMNS // len(some))
        save_picture(contact_sheet(pictures, columns=columns), self.path, compress_level=1)

    def _write_video(self) -> None:
        from longtake.plan.layout import LATENT_FRAMES
        from longtake.video import export_to_video

        parts = [self._pictures[number] for number in sorted(self._pictures)]
        # As long as what it shows, where every section is shown.
        rate = self._fps * len(parts[0]) / (LATENT_FRAMES * self._window)
        export_to_video([picture for part in parts for picture in part], self.path, rate, zoom=2)


def _small(frame: np.ndarray) -> np.ndarray:
    """The frame with SIDE pixels on its longer side; enlarged smoothly where it is smaller."""
    import numpy as np
    from PIL import Image

    height, width = frame.shape[:2]
    scale = SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX
    return np.asarray(Image.fromarray(frame).resize(size, how))


def _name(name: str) -> str:
    if Path(name).suffix.lower() not in SUFFIXES:
        raise argparse.ArgumentTypeError(
            f"a preview's name ends in .png or .mp4; {name!r} was given (without a name, put --preview last)"
        )
    return name
