"""The survey of DATA, before any network is loaded: examples to be made, what is skipped, what it takes."""

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
from longtake.training import settings as training
from longtake.training.data import musubi
from longtake.training.data.sizes import STEP, Sizes
from longtake.training.data.sources import (
    CACHE,
    METADATA,
    Dataset,
    Note,
    Skipped,
    Source,
    folder_sources,
    metadata_sources,
    pictures_in,
    sorted_out,
)
from longtake.training.data.stretches import FPS, SAME, Cut, Pace
from longtake.video.timed import Outline, outline

NAMED = 5
"""Files that are named of those about which the same is told."""


@dataclass(frozen=True)
class Settings:
    """The reading of a folder: stretches of whole sections of `window` latent frames, at `fps` (None: every frame of
    the file), at most `max_frames` long. musubi-tuner's TOML says these itself, but for the window and the cache.

    `size` (width, height) is by default the model's own, else FramePack's buckets. `caption` is said of what has none.
    `cache` is the folder of the cache. All of it must be the same for the same cache.
    """

    window: int = 9
    fps: float | None = FPS
    max_frames: int | None = None
    size: tuple[int, int] | None = None
    caption: str | None = None
    cache: Path | None = None


def reading(asked: training.Settings) -> Settings:
    """The reading of a place of data for a fine-tuning of these settings."""
    size = None if asked.width is None or asked.height is None else (asked.width, asked.height)
    return Settings(
        asked.window, None if asked.every_frame else asked.fps, asked.max_frames, size, asked.caption,
        None if asked.cache is None else Path(asked.cache),
    )  # fmt: skip


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
    """The survey of DATA: examples to be made, what is skipped and why, and what is worth a word."""

    datasets: tuple[Dataset, ...]
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[Note, ...]

    @property
    def batch(self) -> int | None:
        """The batch that the TOML asks for; None if nothing does."""
        return next((dataset.batch for dataset in self.datasets if dataset.batch is not None), None)

    def lines(self) -> Iterator[str]:
        """The survey for people."""
        videos = [item for item in self.items if item.frames > 1]
        sections = sum((item.latent_frames - 1) // item.dataset.cut.window for item in videos)
        hours, rest = divmod(round(sum(item.frames for item in videos) / FPS), 3600)
        yield (
            f"examples: {len(self.items)}, of videos {len(videos)} ({sections} sections, "
            f"{hours}:{rest // 60:02}:{rest % 60:02}), of pictures {len(self.items) - len(videos)}"
        )
        sizes = Counter((item.width, item.height) for item in self.items)
        for (width, height), count in sorted(sizes.items()):
            yield f"{width} x {height}: {count}"
        yield from _together("{} skipped: {}", [(each.name, each.why) for each in self.skipped])
        yield from _together("{}: {}", [(each.name, each.told) for each in self.notes])


def survey(place: str | os.PathLike[str], settings: Settings, sizes: Sizes) -> Survey:
    """The datasets of DATA: a folder, its metadata.jsonl, or musubi-tuner's TOML. `sizes` serve where it names none.

    Raises JobError if there is nothing to learn from, with the reasons.
    """
    datasets = list(_datasets(Path(place).expanduser(), settings, sizes))
    _check_apart(datasets)
    items: list[Item] = []
    skipped: list[Skipped] = []
    notes: list[Note] = []
    for dataset in datasets:
        skipped += dataset.skipped
        notes += dataset.notes
        silent = [source.name for source in dataset.sources if not source.prompt]
        notes += [
            Note(name, "its caption is empty, and it is learned under the empty prompt") for name in silent
        ]
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
    if place.is_file() and place.suffix.lower() in musubi.SUFFIXES:
        usual, own = Settings(), ("fps", "max_frames", "size", "caption")
        asked = [name for name in own if getattr(settings, name) != getattr(usual, name)]
        if asked:
            raise JobError(
                f"{place.name} says itself how its data are read; write {asked[0]} there, by its keys."
            )
        yield from musubi.read(place, settings.cache, settings.window)
        return
    if place.is_file() and place.name == METADATA:
        place = place.parent
    if not place.is_dir():
        what = "is a file" if place.is_file() else "is not there"
        raise JobError(
            f"{place} {what}; data are a folder of videos or pictures, its {METADATA}, or musubi-tuner's TOML."
        )
    cut = Cut(most=settings.max_frames, window=settings.window)
    cut.check(str(place))
    sizes.check(str(place))
    listed = place / METADATA
    if listed.is_file():
        found = metadata_sources(listed, settings.caption)
    else:
        found = folder_sources(place, caption=settings.caption)
    sources, skipped, notes = sorted_out(found)
    cache = settings.cache or place / CACHE
    yield Dataset(sources, skipped, cache, cut, Pace(settings.fps), sizes, notes=notes)


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


def _together(words: str, pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """One line for all names of which the same is told."""
    names: dict[str, list[str]] = {}
    for name, told in pairs:
        names.setdefault(told, []).append(name)
    for told, some in names.items():
        more = f" and {len(some) - NAMED} more" if len(some) > NAMED else ""
        yield words.format(", ".join(some[:NAMED]) + more, told)


def _examined(dataset: Dataset, source: Source) -> tuple[list[Item], list[Note]] | Skipped:
    """The examples of one source and what is worth a word, or why there are none."""
    if source.file.exists() and not source.file.is_file() and source.kind != "frames":
        return Skipped(source.name, "it is no ordinary file")  # a pipe would be waited for
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


def _frames(dataset: Dataset, source: Source) -> tuple[list[Item], list[Note]] | Skipped:
    """A folder of pictures as a video: it has no times of its own, so that each is a frame."""
    files = pictures_in(source.file)
    width, height = read_size(files[0])
    rate = dataset.pace.source or FPS
    shown = Outline(width, height, np.arange(len(files)) / rate, 1 / rate, None)
    return _cut(
        replace(dataset, pace=replace(dataset.pace, fps=dataset.pace.source and FPS)), source, shown, []
    )


def _video(dataset: Dataset, source: Source) -> tuple[list[Item], list[Note]] | Skipped:
    shown = outline(source.file)
    return _cut(dataset, source, shown, [*filter(None, (shown.note, _paced(dataset.pace, shown.rate)))])


def _paced(pace: Pace, rate: float) -> str:
    """The change of the motion of a video of so many frames a second, if it is worth a word."""
    if pace.fps is not None and pace.source is None:
        slower = rate < pace.fps * (1 - 4 * SAME)
        return (
            f"it has {rate:.4g} frames a second; some are shown twice to make {pace.fps:g}" if slower else ""
        )
    kept = rate * min(1.0, FPS / (pace.source or FPS))
    if abs(kept / FPS - 1) < 4 * SAME:
        return ""
    told = (
        "every frame is taken"
        if pace.source is None
        else f"frames are dropped as of {pace.source:g} a second"
    )
    return f"it has {rate:.4g} frames a second and {told}, so that its motion is learned {FPS / kept:.3g} times as fast"


def _cut(
    dataset: Dataset, source: Source, shown: Outline, told: list[str]
) -> tuple[list[Item], list[Note]] | Skipped:
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
    most = dataset.cut.most
    if dataset.cut.how == "full" and most is not None and len(numbers) > most:
        told = [*told, f"its frames behind {items[0].frames} are not learned from (max_frames is {most})"]
    return items, [Note(source.name, each) for each in told]


def _size(dataset: Dataset, source: Source, width: int, height: int) -> tuple[int, int]:
    size = dataset.sizes.of(width, height)
    if min(size) < STEP:
        raise PictureError(f"it has {width} x {height} pixels, and a side needs {STEP} at least")
    return size
