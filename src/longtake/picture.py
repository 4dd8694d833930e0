"""Pictures as files and arrays: read, fit, lay out on a sheet.

Frames are (T, H, W, 3) uint8. Every error about a file is a PictureError that names the file.
"""

from __future__ import annotations

import io
import math
import os
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from longtake import disk
from longtake.errors import PictureError

MAX_PIXELS = 100_000_000
"""Largest picture that is opened; a small file can unpack to far more than fits into memory."""

MAX_DOWNLOAD = 64 * 2**20
"""Largest file that is fetched, in bytes."""

MAX_FILE = 512 * 2**20
"""Largest file that is read, in bytes: a BMP of MAX_PIXELS with alpha."""

MAX_REDIRECTS = 5

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""The formats that are opened; of a GIF, the first picture. Pillow's fifty others are hardly tested by anybody."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""Names of pictures, in a folder of data; a GIF there is a video."""

CAPTION = 13
"""Pixels of a line above the frames of a sheet."""

_WHITE = (255, 255, 255)
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)
"""EXIF's entry for how a camera was held, and its values for a quarter turn."""


def load_image(source: Any, timeout_seconds: float = 30.0) -> Image.Image:
    """Open a picture as RGB, upright, on white: a path, an http(s) address, a PIL image or an array (H, W[, C]).

    Integer arrays of 8 or 16 bits and floats in [0, 1] are taken. Raises PictureError if there is no picture.
    """
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the picture")
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        web = isinstance(name, str) and name.lower().startswith(("http://", "https://"))
        data = _download(name, timeout_seconds) if web else _read(Path(os.fsdecode(name)))
        return _decode(data, os.fsdecode(name))
    if hasattr(source, "__array__"):
        return Image.fromarray(_uint8_picture(_array(source)))
    raise PictureError(
        f"A picture is a path, an address, a PIL image or an array; {type(source).__name__} was given."
    )


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) of a picture file, upright, from its head alone. Raises PictureError if there is no picture."""
    name = os.fspath(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(name, formats=FORMATS) as picture:
                width, height = picture.size
                held = Image.Exif()
                # Not getexif, which reads all of a PNG for what might come behind.
                held.load(picture.info.get("exif", b""))
                turned = held.get(_ORIENTATION, 1) in _SIDEWAYS
        except FileNotFoundError:
            raise PictureError(f"There is no file {name}.") from None
        except Exception as error:  # a damaged header makes Pillow's readers raise nearly anything
            raise PictureError(f"{name} is no picture of a kind that is opened: {reason(error)}.") from None
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"{name} has {width} x {height} pixels; the most that is opened is {MAX_PIXELS // 10**6} million."
        )
    return (height, width) if turned else (width, height)


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise PictureError(f"{path} is a folder, not a picture.")
        data = bytearray()
        with path.open("rb") as file:
            while len(data) <= MAX_FILE and (chunk := file.read(2**20)):
                data += chunk
    except FileNotFoundError:
        raise PictureError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:
        raise PictureError(f"{path} cannot be read: {reason(error)}.") from None
    if not data:
        raise PictureError(f"{path} is an empty file.")
    if len(data) > MAX_FILE:
        raise PictureError(f"{path} is larger than {MAX_FILE >> 20} MiB, the most that is read of a picture.")
    return bytes(data)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow few redirects, and none to another kind of address."""

    max_redirections = MAX_REDIRECTS

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The next request; raises URLError for an address that is not to be followed."""
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urllib.parse.urlsplit(newurl).scheme.lower() not in allowed:
            raise urllib.error.URLError(f"it leads to {newurl[:200]!r}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(address: str, timeout_seconds: float) -> bytes:
    deadline = time.monotonic() + timeout_seconds
    data = bytearray()
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "longtake"})
        opener = urllib.request.build_opener(_Redirects)
        with opener.open(request, timeout=timeout_seconds) as answer:
            while chunk := answer.read1(2**16):
                data += chunk
                if len(data) > MAX_DOWNLOAD:
                    raise PictureError(
                        f"{address} is larger than {MAX_DOWNLOAD >> 20} MiB, the most that is fetched."
                    )
                # The timeout above is for one packet; a slow sender never meets it.
                if time.monotonic() > deadline:
                    raise TimeoutError("it took too long")
    except PictureError:
        raise
    except Exception as error:  # urllib lets errors of http, ssl, sockets and encodings through as they are
        raise PictureError(f"{address} cannot be fetched: {reason(error)}.") from None
    return bytes(data)


def _decode(data: bytes, name: str) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns of pictures of 89 million pixels; ours is the limit.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError:
            raise PictureError(
                f"{name} is larger than {MAX_PIXELS // 10**6} million pixels, the most that is opened."
            ) from None
        except Exception:  # a damaged header makes Pillow's readers raise nearly anything
            raise PictureError(
                f"{name} is not a picture in a format that is read here: {', '.join(FORMATS)}."
            ) from None
        if picture.width * picture.height > MAX_PIXELS:
            raise PictureError(
                f"{name} has {picture.width} x {picture.height} pixels; "
                f"the most that is opened is {MAX_PIXELS // 10**6} million."
            )
        return _to_rgb(picture, name)


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    try:
        picture.load()
        # Some cameras and most phones store the turn in EXIF instead of turning the pixels.
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith("I") or picture.mode == "F":
            # Pillow's own conversion to RGB clips 16-bit grey at 255, which makes it white.
            return Image.fromarray(_uint8_picture(_deep_grey(picture)))
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture).convert("RGB")
        return picture.convert("RGB")
    except PictureError:
        raise
    except Exception as error:  # damaged pixels make Pillow's readers raise nearly anything
        raise PictureError(f"{name} is damaged: {reason(error)}.") from None


def _deep_grey(picture: Image.Image) -> np.ndarray:
    values = np.asarray(picture)
    if picture.mode == "F":
        return values if values.max(initial=0) <= 1 else values.clip(0, 255).astype(np.uint8)
    return values.clip(0, 65535).astype(np.uint16)


def _array(values: Any) -> np.ndarray:
    """The values of an array, or of a framework's tensor wherever it lies, whose channels come before its rows."""
    is_tensor = hasattr(values, "detach") or hasattr(values, "asnumpy")
    for name in ("detach", "cpu"):  # PyTorch's words
        values = getattr(values, name, lambda values=values: values)()
    if is_tensor and "bfloat16" in str(values.dtype).lower():  # which numpy has not
        values = values.float()
    array = np.asarray(values.asnumpy() if hasattr(values, "asnumpy") else values)
    if is_tensor and array.ndim in (3, 4) and array.shape[-1] > 4 and array.shape[-3] in (1, 3, 4):
        return np.moveaxis(array, -3, -1)
    return array


def _uint8_picture(array: np.ndarray) -> np.ndarray:
    """One picture (H, W) or (H, W, 1 | 2 | 3 | 4) of any of the kinds that load_image takes, as (H, W, 3) uint8."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 2, 3, 4) or 0 in array.shape:
        raise PictureError(
            f"A picture has the shape (H, W) or (H, W, 1 to 4 channels); {array.shape} was given."
        )
    values = _uint8(array)
    if array.shape[-1] in (2, 4):
        alpha = values[..., -1:].astype(np.float32) / 255
        values = np.rint(values[..., :-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def _uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return np.rint(array / 257.0).astype(np.uint8)
    if array.dtype.kind != "f":
        raise PictureError(f"Pixels are uint8, uint16 or floats in [0, 1]; {array.dtype} was given.")
    # A little overshoot is what resizing makes; [-1, 1] and [0, 255] are different ranges.
    low, high = array.min(initial=0), array.max(initial=0)
    if not (low >= -0.25 and high <= 1.25):
        raise PictureError(f"Pixels of type float lie in [0, 1]; these lie in [{low:g}, {high:g}].")
    return np.rint(array.clip(0, 1) * 255).astype(np.uint8)


def cover(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Resize (Lanczos) until the picture covers `width` x `height`, then cut out the centre.

    A picture that fits is returned as it is. This is what the FramePack demos do.
    """
    if picture.size == (width, height):
        return picture
    scale = max(width / picture.width, height / picture.height)
    across, down = round(picture.width * scale), round(picture.height * scale)
    if across * down > MAX_PIXELS:
        raise PictureError(
            f"A picture of {picture.width} x {picture.height} is too long to cover {width} x {height}."
        )
    left, top = round((across - width) / 2), round((down - height) / 2)
    resized = picture.resize((across, down), Image.Resampling.LANCZOS)
    return resized.crop((left, top, left + width, top + height))


def contact_sheet(
    frames: Any,
    columns: int = 6,
    count: int | None = None,
    gap: int = 2,
    zoom: int = 1,
    captions: Mapping[int, str] | None = None,
) -> Image.Image:
    """The frames on one white sheet, row by row; with `count`, only so many of them, evenly spread.

    `captions`, by places on the sheet, stand above their frames, and run on until the next one.
    """
    pictures = list(frames_of(frames))
    if count is not None:
        pictures = [pictures[number] for number in spread(len(pictures), count)]
    if not pictures:
        raise PictureError("A contact sheet needs at least one frame.")
    height, width = (edge * zoom for edge in pictures[0].shape[:2])
    columns = max(1, min(columns, len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    band = CAPTION + gap if captions else 0
    down, across = band + height + gap, width + gap
    sheet = Image.new("RGB", (columns * across + gap, rows * down + gap), _WHITE)
    for number, pixels in enumerate(pictures):
        row, column = divmod(number, columns)
        sheet.paste(enlarged(pixels, zoom), (gap + column * across, gap + row * down + band))
    for number, text in (captions or {}).items():
        row, column = divmod(number, columns)
        end = min((each for each in captions or {} if each > number), default=len(pictures))
        room = (min(end, (row + 1) * columns) - number) * across - gap
        _write(sheet, (gap + column * across, gap + row * down), text, room)
    return sheet


def _write(sheet: Image.Image, place: tuple[int, int], text: str, room: int) -> None:
    """Write a text in so many pixels of one line; what does not fit is cut off."""
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(CAPTION - 2)
    text = " ".join(text.split())
    kept = text
    while kept and draw.textlength(kept if kept == text else f"{kept}…", font) > room:
        kept = kept[:-1]
    draw.text(place, kept if kept == text else f"{kept.rstrip()}…", fill=(0, 0, 0), font=font)


def save_picture(picture: Image.Image, path: str | os.PathLike[str], compress_level: int = 6) -> None:
    """Write a PNG, whole or not at all. Raises PictureError if it cannot be written."""
    try:
        with disk.replacing(path) as file:
            picture.save(file, "png", compress_level=compress_level)
    except OSError as error:
        raise PictureError(f"{path} cannot be written: {reason(error)}.") from None


def spread(total: int, count: int) -> list[int]:
    """At most `count` numbers below `total`, evenly spread, the first and the last among them.

    >>> spread(145, 4), spread(3, 5)
    ([0, 48, 96, 144], [0, 1, 2])
    """
    if count >= total:
        return list(range(total))
    return [round(number * (total - 1) / max(1, count - 1)) for number in range(count)]


def frames_of(frames: Any) -> Iterator[np.ndarray]:
    """Frames of any of the kinds that are taken, one by one as (H, W, 3) uint8."""
    if hasattr(frames, "__array__") and not isinstance(frames, Image.Image):
        frames = _array(frames)
        if frames.ndim != 4:
            raise PictureError(f"A video's frames have the shape (T, H, W, 3); {frames.shape} was given.")
    if isinstance(frames, Image.Image | str) or not isinstance(frames, Iterable):
        raise PictureError(
            f"A video is made of a list or an array of frames; {type(frames).__name__} was given."
        )
    for frame in frames:
        if isinstance(frame, Image.Image):
            frame = _to_rgb(frame, "the frame")
        elif not hasattr(frame, "__array__"):
            kind = type(frame).__name__
            raise PictureError(f"A frame is a picture or an array, not a {kind}; give one video at a time.")
        yield _uint8_picture(_array(frame))


def enlarged(pixels: np.ndarray, zoom: int) -> Image.Image:
    picture = Image.fromarray(pixels)
    if zoom == 1:
        return picture
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.LANCZOS)


def reason(error: BaseException) -> str:
    """The error's own words, without number, path and full stop."""
    said = (
        getattr(error, "strerror", None)
        or getattr(error, "reason", None)
        or str(error)
        or type(error).__name__
    )
    return str(said).strip().rstrip(".")
