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
from longtake.plan.plans import plan_of

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
    """The file that `--preview` and `--preview-decode` ask for; True is a name after the video's.

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
    writer = PreviewWriter(file.path, job)
    try:
        yield writer.tell
    finally:
        writer.write()


class PreviewWriter:
    """A contact sheet or a small video of what is made so far, by its suffix; told the events, it is written anew.

    The sheet keeps a grey place for what is not there yet; the video leaves it out. Of a long video every section shows
    fewer pictures, and from some length on not every section is shown. If anything changes with time, the sheet says
    above the pictures what, and where.
    """

    def __init__(self, path: Path, job: Job, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._job, self._clock = job, clock
        self._plan = plan_of(job)
        self._most = PICTURES[path.suffix.lower()]
        self._shown: list[int] = []
        self._pictures: dict[int, list[np.ndarray]] = {}
        self._stale = False
        self._due = clock()

    def tell(self, event: Event) -> None:
        """Add a `Preview` to the file, now or together with a later one, so that writing takes little of the time."""
        from longtake.events import Planned, Preview
        from longtake.picture import spread

        if isinstance(event, Planned):
            self._shown = spread(event.sections, self._most)
        elif isinstance(event, Preview) and event.number in self._shown:
            frames = event.frames[0]
            self._pictures[event.number] = [_small(frames[n]) for n in spread(len(frames), self._each)]
            self._stale = True
            if self._clock() >= self._due or len(self._pictures) == len(self._shown):
                self.write()

    def write(self) -> None:
        """Write what is not written yet; the file is replaced at once, so that a viewer never meets half of it.

        If it cannot be written, a message says so, and the video goes on.
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
    def _each(self) -> int:
        """The most pictures of a section."""
        each = max(1, self._most // len(self._shown))
        return min(each, self._plan.window) if self._is_sheet else each

    @property
    def _is_sheet(self) -> bool:
        return self.path.suffix.lower() == ".png"

    def _write_sheet(self) -> None:
        import numpy as np

        from longtake.cli.captions import has_timeline, of_sections
        from longtake.picture import contact_sheet, save_picture

        some, each = next(iter(self._pictures.values()))[0], self._each
        missing, none = np.full_like(some, 200), np.full_like(some, 255)
        pictures = []
        for number in self._shown:
            found = self._pictures.get(number, [missing] * min(each, self._length(number)))
            pictures += [*found, *[none] * (each - len(found))]  # a shorter section leaves room
        told = of_sections(self._job, self._plan, self._shown) if has_timeline(self._job) else {}
        captions = {place * each: told[number] for place, number in enumerate(self._shown) if number in told}
        columns = each * max(1, COLUMNS // each)
        sheet = contact_sheet(pictures, columns=columns, captions=captions)
        save_picture(sheet, self.path, compress_level=1)

    def _write_video(self) -> None:
        from longtake.plan.layout import LATENT_FRAMES
        from longtake.video import export_to_video

        numbers = sorted(self._pictures)
        pictures = [picture for number in numbers for picture in self._pictures[number]]
        # As long as what it shows, if every section is shown.
        shown = LATENT_FRAMES * sum(map(self._length, numbers))
        export_to_video(pictures, self.path, self._job.fps * len(pictures) / shown, zoom=2)

    def _length(self, number: int) -> int:
        """Latent frames of a section."""
        return len(self._plan[self._plan.made_at(number)].frames)


def _small(frame: np.ndarray) -> np.ndarray:
    """The frame with SIDE pixels on its longer side; enlarged smoothly if it is smaller."""
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
