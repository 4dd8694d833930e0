"""DATA as it lies on the disk: which videos and pictures there are, what is said of each, and what is skipped and why.

A folder has captions as `.txt` beside its files, or a metadata.jsonl that names them. Nothing is decoded here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longtake import picture, strictjson, video
from longtake.errors import JobError, LongtakeError
from longtake.job import PromptSpan
from longtake.option import TEXT, check_text
from longtake.training.data.sizes import Sizes
from longtake.training.data.stretches import Cut, Pace

UNREAD = (".flv", ".wmv", ".mpg", ".mpeg", ".ts", ".avif", ".jxl", ".tif", ".tiff", ".heic")
"""Videos and pictures of kinds that are not opened here; they are named, and not passed over."""

METADATA = "metadata.jsonl"
CACHE = "longtake-cache"
"""The folder of the cache, beside the data, unless another one is named."""

TEXTS = ("text", "caption", "prompt")
"""Keys of a line of metadata.jsonl for what is said of the file."""


@dataclass(frozen=True)
class Source:
    """One video or picture: `name` tells it in messages; `kind` is "video", "picture", or "frames" (a folder of them).

    `prompts` are said in a part of its seconds, behind the common prompt, as in a job.
    """

    name: str
    file: Path
    kind: str
    prompt: str
    prompts: tuple[PromptSpan, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """Something that is not learned from, and why."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} is skipped: {self.why}"


@dataclass(frozen=True)
class Note:
    """Something worth a word about what is learned from."""

    name: str
    told: str

    def __str__(self) -> str:
        return f"{self.name}: {self.told}"


@dataclass(frozen=True)
class Dataset:
    """Sources that are cut, paced and sized alike, and the folder of their cache; `repeats` is how often an epoch
    takes each, `batch` the batch that was asked for."""

    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...]
    cache: Path
    cut: Cut = field(default_factory=Cut)
    pace: Pace = field(default_factory=Pace)
    sizes: Sizes = field(default_factory=Sizes)
    repeats: int = 1
    batch: int | None = None
    notes: tuple[Note, ...] = ()


Found = Iterator["Source | Skipped | Note"]


def sorted_out(found: Found) -> tuple[tuple[Source, ...], tuple[Skipped, ...], tuple[Note, ...]]:
    """The findings by kind."""
    every = list(found)
    return (
        tuple(each for each in every if isinstance(each, Source)),
        tuple(each for each in every if isinstance(each, Skipped)),
        tuple(each for each in every if isinstance(each, Note)),
    )


def folder_sources(
    place: Path, extension: str = ".txt", caption: str | None = None, kinds: str = "both"
) -> Found:
    """The videos and pictures of a folder, with captions beside them; `caption` is said of those that have none.

    `kinds` is "both", "video" or "picture". Hidden files are no data; folders and files of other kinds are named.
    """
    claimed = set()
    entries = sorted(_entries(place), key=lambda path: natural(path.name))
    for path in entries:
        kind = kind_of(path)
        if kind not in ("video", "picture") or kinds not in ("both", kind):
            continue
        beside = path.with_name(path.stem + extension)
        claimed.add(beside)
        yield _captioned(path, kind, beside, caption)
    for path in entries:
        if path.is_dir():
            if path.name != CACHE and any(kind_of(inner) for inner in _entries(path)):
                yield Skipped(
                    path.name, f"folders in a folder are not read; give it alone, or name it in {METADATA}"
                )
        elif path.suffix.lower() in UNREAD:
            yield Skipped(path.name, f"{path.suffix} is a kind of file that is not opened; convert it")
        elif path.name.endswith(extension) and path not in claimed and kinds == "both":
            yield Skipped(
                path.name, "it is the caption of nothing: no video or picture beside it has its name"
            )


def metadata_sources(file: Path, caption: str | None = None) -> Found:
    """The files that a metadata.jsonl names (`file_name`, and `text`, `caption` or `prompt`), and those it does not.

    `caption` is said of those that have no text.
    """
    named, others = set(), set[str]()
    for where, line in _lines(file):
        name = line.get("file_name")
        others |= line.keys() - {"file_name", "prompts", *TEXTS}
        if not isinstance(name, str) or not name:
            raise JobError(f"{where} has no file_name, the name of a video or a picture in {file.parent}.")
        path = file.parent / name
        named.add(os.path.normpath(path))
        texts = [key for key in TEXTS if line.get(key) is not None]
        if not texts and caption is not None:
            line, texts = {**line, TEXTS[0]: caption}, [TEXTS[0]]
        if len(texts) != 1 or not isinstance(line[texts[0]], str):
            told = "several" if len(texts) > 1 else "no text"
            yield Skipped(name, f"{where} has {told} of {', '.join(TEXTS)}; one says what is seen")
            continue
        yield from _named(name, path, line[texts[0]], line.get("prompts"), where)
    if others:
        yield Note(file.name, f"its keys {', '.join(sorted(others))} say nothing here")
    for path in sorted(_entries(file.parent), key=lambda path: natural(path.name)):
        if kind_of(path) in ("video", "picture") and os.path.normpath(path) not in named:
            yield Skipped(path.name, f"{file.name} does not name it")


def listed_sources(file: Path, kind: str) -> Found:
    """The files of musubi-tuner's JSONL: `video_path` or `image_path`, and `caption`; a video may be a folder."""
    key = "video_path" if kind == "video" else "image_path"
    others = set[str]()
    for where, line in _lines(file):
        others |= line.keys() - {key, "caption", "prompts"}
        controls = sorted(name for name in line if name.startswith("control_path"))
        if controls:
            raise JobError(f"{where} has {controls[0]}, and longtake trains with no control; leave it out.")
        name, caption = line.get(key), line.get("caption")
        if not isinstance(name, str) or not name:
            raise JobError(f"{where} has no {key}.")
        if not isinstance(caption, str):
            yield Skipped(name, f"{where} has no caption")
            continue
        # As there: the working directory first, then the folder of the list.
        path = Path(name).expanduser()
        path = path if path.is_absolute() or path.exists() else file.parent / path
        yield from _named(name, path, caption, line.get("prompts"), where)
    if others:
        yield Note(file.name, f"its keys {', '.join(sorted(others))} say nothing here")


def kind_of(path: Path) -> str:
    """The kind of a file by its name: "video", "picture", "frames" (a folder of pictures), or "" for anything else."""
    if path.is_dir():
        return "frames" if any(inner.suffix.lower() in picture.SUFFIXES for inner in _entries(path)) else ""
    suffix = path.suffix.lower()
    return "video" if suffix in video.SUFFIXES else "picture" if suffix in picture.SUFFIXES else ""


def pictures_in(folder: Path) -> list[Path]:
    """The pictures that a folder shows as a video, in the order of their names, numbers by their value."""
    found = [
        path for path in _entries(folder) if path.suffix.lower() in picture.SUFFIXES and not path.is_dir()
    ]
    return sorted(found, key=lambda path: natural(path.name))


def natural(name: str) -> tuple[Any, ...]:
    """A key by which "frame10" comes behind "frame9".

    >>> sorted(["f10.png", "f9.png", "F1.png"], key=natural)
    ['F1.png', 'f9.png', 'f10.png']
    """
    parts = re.split(r"(\d+)", name.casefold())
    return (*((int(part), "") if number % 2 else (-1, part) for number, part in enumerate(parts)), name)


def _entries(place: Path) -> Iterator[Path]:
    """The entries of a folder, without those that are hidden."""
    try:
        yield from (path for path in place.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise JobError(f"{place} cannot be read: {error.strerror}.") from None


def _captioned(path: Path, kind: str, beside: Path, caption: str | None) -> Source | Skipped:
    try:
        # Windows' editors begin a text with a mark.
        text = beside.read_text(encoding="utf-8-sig").strip()
        check_text("Its caption", text, 0, TEXT)
    except FileNotFoundError:
        if caption is None:
            return Skipped(path.name, f"it has no caption: there is no {beside.name} beside it")
        text = caption
    except UnicodeDecodeError:
        return Skipped(path.name, f"its caption {beside.name} is not UTF-8")
    except OSError as error:
        return Skipped(path.name, f"its caption {beside.name} cannot be read: {error.strerror}")
    except JobError as error:
        return Skipped(path.name, f"{str(error).rstrip('.')}")
    return Source(path.name, path, kind, text)


def _named(name: str, path: Path, text: str, prompts: Any, where: str) -> Found:
    """The source that a line of a list names."""
    try:
        check_text("Its caption", text, 0, TEXT)
        spans = _spans(prompts)
    except LongtakeError as error:
        yield Skipped(name, f"{where}: {str(error).rstrip('.')}")
        return
    kind = kind_of(path)
    if not path.exists():
        yield Skipped(name, "there is no such file")
    elif not kind:
        yield Skipped(name, "it is no video or picture of a kind that is opened")
    else:
        yield Source(name, path, kind, text.strip(), spans)


def _spans(values: Any) -> tuple[PromptSpan, ...]:
    """Prompts in time, as a job's JSON has them: [{"text": …, "from": seconds, "to": seconds}]."""
    if values is None:
        return ()
    known = {"text", "from", "to"}
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise JobError('prompts is a list of {"text": …, "from": seconds, "to": seconds}')
    spans = []
    for value in values:
        if not isinstance(value, Mapping) or "text" not in value or not value.keys() <= known:
            raise JobError('an entry of prompts is {"text": …, "from": seconds, "to": seconds}')
        span = PromptSpan(value["text"], value.get("from", 0.0), value.get("to"))
        span.check()
        spans.append(span)
    return tuple(spans)


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with its place for messages."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"Line {number} of {file.name}"
        found = strictjson.parse(line, f"a line of {file.name} ({number})")
        if not isinstance(found, dict):
            raise JobError(f"{where} is no JSON object.")
        yield where, found
