"""What there is to learn in DATA, before any network is loaded: examples to be made, what is skipped, what it takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from longtake.errors import JobError, PictureError
from longtake.picture import read_size
from longtake.plan.layout import LATENT_FRAMES
from longtake.training.data.sizes import STEP, Sizes
from longtake.training.data.sources import (
    CACHE,
    METADATA,
    Dataset,
    Skipped,
    Source,
    folder_sources,
    pictures_in,
)
from longtake.training.data.stretches import FPS, Cut, Pace
from longtake.video.timed import Outline, outline


@dataclass(frozen=True)
class Settings:
    """How a folder is read (what musubi-tuner's TOML says goes before): stretches of whole sections of `window` latent
    frames, at `fps` (None: every frame of the file), at most `max_frames` long.

    `size` (width, height) is by default the model's own, else FramePack's buckets. `caption` is said of what has none.
    `cache` is the folder of the cache. All of it must be the same for the same cache.
    """

    window: int = 9
    fps: float | None = FPS
    max_frames: int | None = None
    size: tuple[int, int] | None = None
    caption: str | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Item:
    """One example that is to be made: `frames` of a source from `start` on, which are the file's `numbers`."""

    dataset: Dataset
    source: Source
    start: int
    frames: int
    width: int
    height: int
    shown: Outline | None = field(default=None, repr=False)
    numbers: np.ndarray | None = field(default=None, repr=False)

    @property
    def latent_frames(self) -> int:
        """The latent frames that it is encoded to."""
        return 1 + (self.frames - 1) // LATENT_FRAMES

    @property
    def name(self) -> str:
        """The source's name, and which of its frames, if they are not all from the first on."""
        return self.source.name if not self.start else f"{self.source.name} from frame {self.start}"


@dataclass(frozen=True)
class Survey:
    """What DATA holds: examples to be made, what is skipped and why, and what is worth a word."""

    datasets: tuple[Dataset, ...]
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]

    @property
    def batch(self) -> int | None:
        """The batch that the TOML asks for; None if nothing does."""
        return next((dataset.batch for dataset in self.datasets if dataset.batch is not None), None)

    def lines(self) -> Iterator[str]:
        """The survey for people."""
        videos = [item for item in self.items if item.frames > 1]
        sections = sum((item.latent_frames - 1) // item.dataset.cut.window for item in videos)
        minutes = sum(item.frames for item in videos) / FPS / 60
        pictures = len(self.items) - len(videos)
        yield (
            f"{len(self.items)} examples: {len(videos)} of videos ({sections} sections, {minutes:.1f} minutes), "
            f"{pictures} pictures"
        )
        sizes = Counter((item.width, item.height) for item in self.items)
        for (width, height), count in sorted(sizes.items()):
            yield f"{width} x {height}: {count}"
        yield from (str(skipped) for skipped in self.skipped)
        yield from self.notes


def survey(place: str | os.PathLike[str], settings: Settings, sizes: Sizes) -> Survey:
    """What DATA holds: a folder, or its metadata.jsonl. `sizes` are used where it names none.

    Raises JobError if there is nothing to learn from, with the reasons.
    """
    datasets = list(_datasets(Path(place).expanduser(), settings, sizes))
    _check_apart(datasets)
    items: list[Item] = []
    skipped: list[Skipped] = []
    notes: list[str] = []
    for dataset in datasets:
        skipped += dataset.skipped
        notes += dataset.notes
        for source in dataset.sources:
            found = _examined(dataset, source)
            if isinstance(found, Skipped):
                skipped.append(found)
                continue
            items += found[0]
            notes += found[1]
    if not items:
        told = "; ".join(map(str, skipped[:3])) or "it holds no videos and no pictures"
        more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        raise JobError(f"There is nothing to learn from in {place}: {told}{more}.")
    return Survey(tuple(datasets), tuple(items), tuple(skipped), tuple(notes))


def _datasets(place: Path, settings: Settings, sizes: Sizes) -> Iterator[Dataset]:
    if place.is_file() and place.name == METADATA:
        place = place.parent
    if not place.is_dir():
        what = "is a file" if place.is_file() else "is not there"
        raise JobError(f"{place} {what}; data are a folder of videos or pictures, its {METADATA}.")
    cut = Cut(most=settings.max_frames, window=settings.window)
    cut.check(str(place))
    sizes.check(str(place))
    found = list(folder_sources(place, caption=settings.caption))
    yield Dataset(
        tuple(each for each in found if isinstance(each, Source)),
        tuple(each for each in found if isinstance(each, Skipped)),
        settings.cache or place / CACHE,
        cut,
        Pace(settings.fps),
        sizes,
    )


def _check_apart(datasets: Sequence[Dataset]) -> None:
    """Raise JobError for two datasets that would share a cache, or ask for batches of their own."""
    places = Counter(dataset.cache.absolute() for dataset in datasets)
    shared = [str(place) for place, count in places.items() if count > 1]
    if shared:
        raise JobError(
            f"Two datasets have their cache in {shared[0]}; give each a cache_directory of its own."
        )
    batches = sorted({dataset.batch for dataset in datasets if dataset.batch is not None})
    if len(batches) > 1:
        raise JobError(
            f"batch_size is {batches[0]} in one dataset and {batches[1]} in another; all batches have one size here, "
            "and num_repeats balances datasets."
        )


def _examined(dataset: Dataset, source: Source) -> tuple[list[Item], list[str]] | Skipped:
    """The examples of one source and what is worth a word, or why there are none."""
    try:
        if source.kind == "picture":
            return _picture(dataset, source), []
        if source.kind == "frames":
            return _frames(dataset, source)
        return _video(dataset, source)
    except PictureError as error:
        return Skipped(source.name, str(error).rstrip("."))


def _picture(dataset: Dataset, source: Source) -> list[Item]:
    return [Item(dataset, source, 0, 1, *_size(dataset, source, *read_size(source.file)))]


def _frames(dataset: Dataset, source: Source) -> tuple[list[Item], list[str]] | Skipped:
    """A folder of pictures as a video: it has no times of its own, so that each is a frame."""
    files = pictures_in(source.file)
    width, height = read_size(files[0])
    rate = dataset.pace.source or FPS
    shown = Outline(width, height, np.arange(len(files)) / rate, 1 / rate, None)
    return _cut(
        replace(dataset, pace=replace(dataset.pace, fps=dataset.pace.source and FPS)), source, shown, []
    )


def _video(dataset: Dataset, source: Source) -> tuple[list[Item], list[str]] | Skipped:
    shown = outline(source.file)
    notes = [f"{source.name}: {shown.note}"] if shown.note else []
    rate, fps = shown.rate, dataset.pace.fps
    if fps is None or dataset.pace.source is not None:
        believed = dataset.pace.source or FPS
        if abs(rate / believed - 1) > 0.02:
            notes.append(
                f"{source.name}: it has {rate:.4g} frames a second, and is taken as if they were {believed:.4g}: its "
                f"motion is learned {believed / rate:.3g} times as fast"
            )
    elif rate < fps * 0.98:
        notes.append(
            f"{source.name}: it has {rate:.4g} frames a second; some are shown twice to make {fps:g}"
        )
    return _cut(dataset, source, shown, notes)


def _cut(
    dataset: Dataset, source: Source, shown: Outline, notes: list[str]
) -> tuple[list[Item], list[str]] | Skipped:
    numbers = dataset.pace.picked(shown.times, shown.lasting)
    stretches = dataset.cut.stretches(len(numbers))
    if not stretches:
        least = dataset.cut.least
        wanted = min((target for target in dataset.cut.rounded() if target), default=least)
        return Skipped(source.name, f"it has {len(numbers)} frames, and a stretch needs {max(least, wanted)}")
    size = _size(dataset, source, shown.width, shown.height)
    items = [
        Item(dataset, source, start, count, *size, shown, numbers[start : start + count])
        for start, count in stretches
    ]
    return items, notes


def _size(dataset: Dataset, source: Source, width: int, height: int) -> tuple[int, int]:
    size = dataset.sizes.of(width, height)
    if min(size) < STEP:
        raise PictureError(f"it has {width} x {height} pixels, and a side needs {STEP} at least")
    return size
