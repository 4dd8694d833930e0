"""musubi-tuner's dataset configuration, a TOML or JSON file, as it stands: each key is done, or refused by name.

Keys and defaults are those of its `config_utils.py`. What longtake does not do is refused where it is asked for, and
taken where it is switched off.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longtake import strictjson, toml
from longtake.errors import JobError, LongtakeError
from longtake.option import check_choice, check_number, check_text, shown
from longtake.training.data.sizes import Sizes
from longtake.training.data.sources import CACHE, Dataset, Found, folder_sources, listed_sources, sorted_out
from longtake.training.data.stretches import FPS, WAYS, Cut, Pace

SUFFIXES = (".toml", ".json")

Check = Callable[[str, Any], None]


def _text(name: str, value: Any) -> None:
    check_text(name, value, 1, 4096)


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise JobError(f"{name} must be true or false; {shown(value)} was given.")


def _count(name: str, value: Any) -> None:
    check_number(name, value, int, 1)


def _rate(name: str, value: Any) -> None:
    check_number(name, value, float, 0.01)


def _way(name: str, value: Any) -> None:
    check_choice(name, value, WAYS)


def _counts(name: str, value: Any) -> None:
    if not isinstance(value, list) or not value:
        raise JobError(f"{name} must be a list of whole numbers; {shown(value)} was given.")
    for each in value:
        _count(f"An entry of {name}", each)


def _resolution(name: str, value: Any) -> None:
    sides = value if isinstance(value, list) else [value]
    if len(sides) not in (1, 2) or (isinstance(value, list) and len(sides) == 1):
        raise JobError(f"{name} must be one number or [width, height]; {shown(value)} was given.")
    for side in sides:
        _count(name, side)


CONTROL = "longtake trains with no control pictures or videos"
ONE_FRAME = "longtake trains no single frame far from its picture; a picture alone is learned as a video's first frame"

GENERAL: dict[str, Check] = {
    "caption_extension": _text,
    "batch_size": _count,
    "num_repeats": _count,
    "resolution": _resolution,
    "enable_bucket": _flag,
    "bucket_no_upscale": _flag,
    "skip_corrupted_cache": _flag,
}
"""Keys of [general] and of each dataset. A damaged file of the cache is always made again."""

BOTH: dict[str, Check] = {"cache_directory": _text, "fp_latent_window_size": _count}

VIDEO: dict[str, Check] = {
    "video_directory": _text,
    "video_jsonl_file": _text,
    "target_frames": _counts,
    "frame_extraction": _way,
    "frame_stride": _count,
    "frame_sample": _count,
    "max_frames": _count,
    "source_fps": _rate,
}

IMAGE: dict[str, Check] = {"image_directory": _text, "image_jsonl_file": _text}

DECLINED: dict[str, str] = {
    "control_directory": CONTROL,
    "control_resolution": CONTROL,
    "no_resize_control": CONTROL,
    "flux_kontext_no_resize_control": CONTROL,
    "qwen_image_edit_no_resize_control": CONTROL,
    "qwen_image_edit_control_resolution": CONTROL,
    "multiple_target": "it is of Qwen-Image-Layered, whose layers FramePack has not",
    "fp_1f_clean_indices": ONE_FRAME,
    "fp_1f_target_index": ONE_FRAME,
    "fp_1f_no_post": ONE_FRAME,
}
"""Keys that are refused, unless they are false."""

DEFAULTS: dict[str, Any] = {
    "resolution": [960, 544],
    "caption_extension": ".txt",
    "num_repeats": 1,
    "enable_bucket": False,
    "bucket_no_upscale": False,
    "target_frames": [1],
    "frame_extraction": "head",
    "frame_stride": 1,
    "frame_sample": 1,
    "max_frames": 129,
    "source_fps": None,
}
"""Its defaults; but caption_extension has none there, so that captions are not found, and batch_size, 1 there, is the
training's here."""

PLACES = ("video_directory", "video_jsonl_file", "image_directory", "image_jsonl_file")


@dataclass(frozen=True)
class _Block:
    """One of the file's datasets: `where` names it in messages, `values` are its own, the common and the default."""

    where: str
    place: str
    values: Mapping[str, Any]
    file: Path


def read(file: Path, cache: Path | None, window: int) -> Iterator[Dataset]:
    """The datasets of the file; `cache` takes the place of their cache_directory, a folder in it for each of several.

    Raises JobError for a key or a value that cannot be done.
    """
    blocks = [_block(file, number, own, general) for number, own, general in _tables(file)]
    for number, block in enumerate(blocks):
        folder = None if cache is None else cache if len(blocks) == 1 else cache / str(number)
        yield _dataset(block, folder, window)


def _tables(file: Path) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    values = _parsed(file)
    for name in values:
        if name not in ("general", "datasets"):
            raise JobError(f"{file.name} has the table {name!r}; it can have [general] and [[datasets]].")
    general, datasets = values.get("general", {}), values.get("datasets")
    if not isinstance(datasets, list) or not datasets or not all(isinstance(own, dict) for own in datasets):
        raise JobError(f"{file.name} has no [[datasets]], each with a video_directory or the like.")
    if not isinstance(general, dict):
        raise JobError(f"{file.name} has a general that is no table; it begins with [general].")
    _check_keys(f"[general] of {file.name}", general, GENERAL)
    for number, own in enumerate(datasets):
        yield number, own, general


def _parsed(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if file.suffix.lower() == ".json":
        values = strictjson.parse(text, f"a dataset configuration ({file.name})")
        if not isinstance(values, dict):
            raise JobError(f"{file.name} is no dataset configuration: it is no JSON object.")
        return values
    return toml.parse(text, str(file))


def _block(file: Path, number: int, own: dict[str, Any], general: dict[str, Any]) -> _Block:
    where = f"Dataset {number + 1} of {file.name}"
    places = [name for name in PLACES if name in own]
    if len(places) != 1:
        told = f"has {' and '.join(places)}" if places else "names no data"
        raise JobError(f"{where} {told}; it has one of {', '.join(PLACES)}.")
    kind = VIDEO if places[0].startswith("video") else IMAGE
    _check_keys(where, own, {**GENERAL, **BOTH, **kind})
    return _Block(where, places[0], {**DEFAULTS, **general, **own}, file)


def _check_keys(where: str, values: Mapping[str, Any], known: Mapping[str, Check]) -> None:
    """Raise JobError for a key that is not known here, or is declined, and for a value that none takes."""
    for name, value in values.items():
        if name in DECLINED and not (where.startswith("[general]")):
            if value is not False:
                raise JobError(f"{where} has {name}: {DECLINED[name]}; leave it out.")
            continue
        if name not in known:
            raise JobError(f"{where} has the key {name!r}, which {_about(name, known)}.")
        try:
            known[name](name, value)
        except LongtakeError as error:
            raise JobError(f"{where}: {error}") from None


def _about(name: str, known: Mapping[str, Check]) -> str:
    """The sentence about a key that is not known in its place."""
    for keys, kind in ((VIDEO, "videos"), (IMAGE, "pictures"), (BOTH, "a dataset"), (DECLINED, "a dataset")):
        if name in keys:
            return f"is one of {kind}, and not of this table"
    near = difflib.get_close_matches(name, known, 1)
    return (
        f"is not known; did you mean {near[0]!r}" if near else f"is not known; known are: {', '.join(known)}"
    )


def _dataset(block: _Block, cache: Path | None, window: int) -> Dataset:
    values, where = block.values, block.where
    own = values.get("fp_latent_window_size", window)
    if own != window:
        raise JobError(
            f"{where}: fp_latent_window_size is {own}, and sections of {window} latent frames are learned; "
            "make them agree."
        )
    is_video = block.place.startswith("video")
    cut = Cut(window=window)
    if is_video:
        cut = Cut(
            values["frame_extraction"], tuple(values["target_frames"]), values["frame_stride"],
            values["frame_sample"], values["max_frames"], window,
        )  # fmt: skip
    cut.check(where)
    size = values["resolution"]
    area = (size[0], size[1]) if isinstance(size, list) else (size, size)
    sizes = Sizes(
        area, values["enable_bucket"], not (values["enable_bucket"] and values["bucket_no_upscale"])
    )
    sizes.check(where)
    place = _found(block, values[block.place])
    sources, skipped, notes = sorted_out(_sources(block, place, "video" if is_video else "picture"))
    source = values["source_fps"]
    return Dataset(
        sources,
        skipped,
        cache or _cache(values, place),
        cut,
        Pace(None) if source is None else Pace(FPS, float(source)),
        sizes,
        values["num_repeats"],
        values.get("batch_size"),
        notes,
    )


def _found(block: _Block, name: str) -> Path:
    """The place that a key names: from the working directory, as there, else from the file's own folder."""
    path = Path(name).expanduser()
    if not path.is_absolute() and not path.exists():
        path = block.file.parent / path
    is_list = block.place.endswith("_file")
    if not (path.is_file() if is_list else path.is_dir()):
        raise JobError(
            f"{block.where}: {block.place} is {name!r}, where no {'file' if is_list else 'folder'} is."
        )
    return path


def _sources(block: _Block, place: Path, kind: str) -> Found:
    if block.place.endswith("_file"):
        return listed_sources(place, kind)
    return folder_sources(place, block.values["caption_extension"], None, kind)


def _cache(values: Mapping[str, Any], place: Path) -> Path:
    if "cache_directory" in values:
        return Path(values["cache_directory"]).expanduser()
    return (place if place.is_dir() else place.parent) / CACHE
