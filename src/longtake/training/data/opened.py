"""`open_data`: DATA becomes examples, encoded where they are not yet, read when they are asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from longtake import disk
from longtake.errors import JobError, ModelError
from longtake.pipeline.networks import Networks
from longtake.pipeline.placement import room_for
from longtake.plan.layout import LATENT_FRAMES, LATENT_PIXELS
from longtake.training.data import cache
from longtake.training.data.encoding import Made, encode_item, encode_prompts, told_of
from longtake.training.data.makers import Encoders, encoders_of
from longtake.training.data.sizes import Sizes
from longtake.training.data.sources import Skipped
from longtake.training.data.surveying import Item, Settings, Survey, survey
from longtake.training.examples import Example, Span, Told

LOCK = "lock"
USUAL = Settings()

TOLD = 16
"""Encoded prompts that are kept in memory: of the published models, 4 MB each."""

SLACK = 64 * 2**20
"""Bytes of the disk that are left free."""


@dataclass(frozen=True)
class Encoded:
    """So many of all examples (`kind` "example") or prompts ("prompt") that were missing are encoded; `note` says what
    is unusual with the last one."""

    kind: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """The cache as a survey needs it: what is there, what is to be encoded, and the bytes that it takes."""

    survey: Survey
    there: Mapping[Path, int]
    """The frames that the examples have whose files are right, 0 for those that were skipped; by file."""
    items: tuple[Item, ...]
    prompts: tuple[tuple[str, Path], ...]
    skipped: tuple[Skipped, ...]
    orphans: tuple[Path, ...]
    bytes: int

    def lines(self) -> Iterator[str]:
        """The plan for people."""
        yield from self.survey.lines()
        yield from map(str, self.skipped)
        whole = len(self.survey.items)
        yield (
            f"encoded already: {whole - len(self.items)} of {whole} examples; to encode: {len(self.items)} examples "
            f"and {len(self.prompts)} prompts, at most {self.bytes / 1e6:,.1f} MB"
        )
        if self.orphans:
            size = sum(path.stat().st_size for path in self.orphans)
            yield (
                f"{len(self.orphans)} files of the cache are of other data or settings ({size / 1e6:,.1f} MB, such as "
                f"{self.orphans[0]}); they may be deleted"
            )


def sizes_of(encoders: Encoders, size: tuple[int, int] | None) -> Sizes:
    """The size that is asked for, else the model's own, else FramePack's buckets."""
    own = encoders.settings
    if size is None and "width" in own and "height" in own:
        size = (own["width"], own["height"])
    return Sizes(size)


def plan(place: str | os.PathLike[str], encoders: Encoders, settings: Settings = USUAL) -> Plan:
    """The survey of DATA and of its cache. Raises JobError if there is nothing to learn from; loads no network."""
    return needs(survey(place, settings, sizes_of(encoders, settings.size)), encoders)


def needs(found: Survey, encoders: Encoders) -> Plan:
    """The items that the cache of a survey lacks as it is now."""
    there: dict[Path, int] = {}
    missing: list[Item] = []
    skipped: list[Skipped] = []
    asked = set[Path]()
    for item in found.items:
        known = cache.made(item, encoders)
        if known is None:
            if cache.example_file(item) not in asked:  # one file may be named twice, with two texts
                missing.append(item)
            asked.add(cache.example_file(item))
            continue
        there[cache.example_file(item)] = known["frames"]
        if not known["frames"]:
            skipped.append(Skipped(item.name, known["skipped"]))
    texts = {file: prompt for item in found.items for prompt, file in _texts(item, encoders)}
    prompts = tuple((prompt, file) for file, prompt in texts.items() if not cache.is_whole(file))
    used = [*texts, *map(cache.example_file, found.items)]
    orphans = cache.orphans({dataset.cache for dataset in found.datasets}, used)
    size = sum(_bytes(item, encoders) for item in missing) + len(prompts) * _text_bytes(encoders)
    return Plan(found, there, tuple(missing), prompts, tuple(skipped), tuple(orphans), size)


def encode(planned: Plan, encoders: Encoders) -> Iterator[Encoded]:
    """Encode what is missing; what is done is told. Stopped at any moment, the same goes on where it was.

    Raises ModelError if the disk has no room for it, and JobError if another process is at work on the cache.
    """
    if not planned.items and not planned.prompts:
        return
    folders = sorted({dataset.cache for dataset in planned.survey.datasets})
    _check_room(planned, folders[0])
    locks = [_lock(folder) for folder in folders]
    try:
        for left in (path for folder in folders for path in folder.glob(disk.PARTS)):
            left.unlink(missing_ok=True)  # by a process that was killed
        networks = encoders.load()
        done = 0
        for count in encode_prompts(list(planned.prompts), networks):
            done += count
            yield Encoded("prompt", done, len(planned.prompts))
        for number, item in enumerate(planned.items, 1):
            with room_for("encoding the data"):
                made = encode_item(item, networks, encoders)
            note = made.note if isinstance(made, Made) else str(made)
            yield Encoded("example", number, len(planned.items), note)
    finally:
        for lock in locks:
            lock.release()


class Data:
    """Examples of a cache, each read from its file when it is asked for; `names` are of the same order."""

    def __init__(self, planned: Plan, encoders: Encoders) -> None:
        self.encoders, self.batch = encoders, planned.survey.batch
        found = [(item, planned.there.get(cache.example_file(item), 0)) for item in planned.survey.items]
        self._items = [item for item, frames in found if frames]
        self._frames = [frames for _, frames in found if frames]
        self._blank = cache.text_file(self._items[0].dataset.cache, "", encoders) if self._items else None
        self._told = lru_cache(maxsize=TOLD)(cache.read_told)

    def __len__(self) -> int:
        return len(self._items)

    def shape(self, number: int) -> tuple[int, int, int]:
        """Latent frames, rows and columns of an example, without reading it."""
        item = self._items[number]
        frames = 1 + (self._frames[number] - 1) // LATENT_FRAMES
        return frames, item.height // LATENT_PIXELS, item.width // LATENT_PIXELS

    def repeats(self, number: int) -> int:
        """The count of times that an epoch takes an example, without reading it."""
        return self._items[number].dataset.repeats

    @property
    def blank(self) -> Told:
        """The empty prompt, for prompts that are dropped."""
        assert self._blank is not None
        return self._told(self._blank, "")

    def __getitem__(self, number: int) -> Example:
        item = self._items[number]
        file = cache.example_file(item)
        told = [self._told(path, prompt) for prompt, path in _texts(item, self.encoders)]
        spans = tuple(
            Span(first, stop, text) for (first, stop), text in zip(_latent_spans(item), told[2:], strict=True)
        )
        return Example(
            item.name,
            cache.read_latents(file),
            told[1],
            cache.read_image_states(file),
            item.dataset.repeats,
            spans,
        )


def open_data(
    place: str | os.PathLike[str],
    encoders: Encoders | Networks,
    settings: Settings = USUAL,
    told: Callable[[Plan | Encoded], None] = lambda event: None,
) -> Data:
    """The examples of DATA: a folder, its metadata.jsonl, or musubi-tuner's dataset TOML (docs/data.md).

    What its cache lacks is encoded first, and nothing is loaded if it lacks nothing. `told` hears the plan, then what
    is done. Raises JobError if there is nothing to learn from, ModelError for a cache that cannot be written or read.
    """
    encoders = encoders_of(encoders) if isinstance(encoders, Networks) else encoders
    planned = plan(place, encoders, settings)
    told(planned)
    for event in encode(planned, encoders):
        told(event)
    return examples_of(planned, encoders)


def examples_of(planned: Plan, encoders: Encoders) -> Data:
    """The examples of a plan whose cache is encoded by now. Raises JobError if none is left."""
    if planned.items or planned.prompts:
        planned = needs(planned.survey, encoders)
    data = Data(planned, encoders)
    if not len(data):
        first = planned.skipped[0] if planned.skipped else "nothing of it is encoded"
        raise JobError(f"There is nothing to learn from: {first}, and no example is left.")
    return data


def _texts(item: Item, encoders: Encoders) -> list[tuple[str, Path]]:
    """The empty prompt, the common one and those of the spans, each with its file."""
    said = [", ".join(filter(None, (item.source.prompt, span.text))) for span in item.source.prompts]
    folder = item.dataset.cache
    return [(prompt, cache.text_file(folder, prompt, encoders)) for prompt in ("", item.source.prompt, *said)]


def _latent_spans(item: Item) -> Iterator[tuple[float, float | None]]:
    """From which to which latent frame of the example each of the source's spans lies."""
    if item.shown is None or item.numbers is None:
        for _ in item.source.prompts:
            yield 0.0, None
        return
    times = item.shown.times[item.numbers]
    rate = (len(times) - 1) / max(float(times[-1] - times[0]), 1e-9)

    def latent(second: float) -> float:
        # So a section's middle latent frame lies where timeline.direct sees the middle of its seconds.
        return ((second - float(times[0])) * rate + 1) / LATENT_FRAMES

    for span in item.source.prompts:
        yield latent(span.start), None if span.end is None else latent(span.end)


def _bytes(item: Item, encoders: Encoders) -> int:
    """The most that an example's file takes."""
    image = encoders.config("image_encoder")
    states = (image.image_size // image.patch_size) ** 2 * image.hidden_size * 4
    area = (item.height // LATENT_PIXELS) * (item.width // LATENT_PIXELS)
    return states + item.latent_frames * int(encoders.config("vae").latent_channels) * area * 2 + 4096


def _text_bytes(encoders: Encoders) -> int:
    states = encoders.max_tokens * encoders.config("text_encoder").hidden_size * 4
    return int(states + encoders.max_tokens * 8 + encoders.config("text_encoder_2").hidden_size * 4 + 4096)


def _check_room(planned: Plan, folder: Path) -> None:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if planned.bytes + SLACK > free:
        raise ModelError(
            f"The cache {folder} needs up to {planned.bytes / 1e9:,.2f} GB more, and its disk has "
            f"{free / 1e9:,.2f} GB free; name a place for it with more room."
        )


def _lock(folder: Path) -> disk.Lock:
    with told_of(folder):
        disk.make_folder(folder)
        try:
            return disk.lock(folder / LOCK)
        except BlockingIOError:
            raise JobError(
                f"Another process encodes into the cache {folder} now; wait for it, or name another place."
            ) from None
