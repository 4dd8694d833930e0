"""The facts of a download beside its bytes: whether the disk has room for it, and how far it is."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longtake.errors import ModelError

SPARE = 2**28
"""Bytes of a disk that a download leaves free."""
EVERY = 0.2
"""Seconds between two tellings of a download, at least."""


@dataclass(frozen=True)
class Downloading:
    """So many bytes of a repository's missing files are here, after so many seconds; `begun` were here before."""

    name: str
    files: int
    done: int
    total: int
    begun: int
    seconds: float

    @property
    def rate(self) -> float | None:
        """Bytes a second; None before the first have come."""
        return (
            (self.done - self.begun) / self.seconds if self.seconds > 0 and self.done > self.begun else None
        )

    @property
    def seconds_left(self) -> float | None:
        """Seconds to go on at this rate."""
        return None if self.rate is None else (self.total - self.done) / self.rate


Told = Callable[[Downloading], None]


def check_room(name: str, place: Path, sizes: Mapping[str, int], here: int) -> None:
    """Raise ModelError if the disk of `place` has no room for files of these sizes, of which `here` bytes are there."""
    above = next(each for each in (place, *place.parents) if each.exists())
    try:
        free = shutil.disk_usage(above).free
    except OSError:
        return  # the disk does not tell; a full one is an error of its own
    missing = sum(sizes.values()) - here
    if missing > 0 and missing + SPARE > free:
        raise ModelError(
            f"{name!r} needs {gigabytes(missing + SPARE)} on the disk of {place}, where {gigabytes(free)} are free "
            f"(its {len(sizes)} missing files are {gigabytes(missing)} and nothing of them was fetched); make room, or "
            "choose another place: cache_dir=, or the environment variable HF_HUB_CACHE."
        )


def gigabytes(count: float) -> str:
    """A number of bytes in words.

    >>> gigabytes(25_700_000_000), gigabytes(4_200_000), gigabytes(300)
    ('25.7 GB', '4.2 MB', '1 kB')
    """
    for size, unit in ((10**9, "GB"), (10**6, "MB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{max(1, round(count / 1000))} kB"


class Stopped(Exception):
    """A download ends since another one failed, or its user has enough."""


class Meter:
    """Adds up what several files' bars count, and tells it from time to time."""

    def __init__(
        self,
        name: str,
        sizes: Mapping[str, int],
        told: Told | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name, self.files, self.total = name, len(sizes), sum(sizes.values())
        self.begun = self.done = 0
        self._told, self._clock = told, clock
        self._start, self._last = clock(), -EVERY
        self._lock = threading.Lock()
        self._stopped = False

    @property
    def is_told(self) -> bool:
        """Tell if somebody listens."""
        return self._told is not None

    def stop(self) -> None:
        """Let whoever still counts bytes end."""
        self._stopped = True

    def check(self) -> None:
        """Raise Stopped if nobody waits for more bytes."""
        if self._stopped:
            raise Stopped

    def skip(self, count: int) -> None:
        """So many bytes were here before."""
        with self._lock:
            self.begun += count
            self.done += count

    def add(self, count: float) -> None:
        """So many bytes came."""
        with self._lock:
            self.done = min(self.total, self.done + int(count))
            now = self._clock() - self._start
            if self._told is None or now - self._last < EVERY:
                return
            self._last = now
            self._tell(now)

    def end(self) -> None:
        """All are here."""
        with self._lock:
            self.done = self.total
            if self._told is not None:
                self._tell(self._clock() - self._start)

    def _tell(self, seconds: float) -> None:
        assert self._told is not None
        self._told(Downloading(self.name, self.files, self.done, self.total, self.begun, seconds))

    def bars(self) -> type[Bar]:
        """The class to give to the hub's client in the place of tqdm."""
        return type("MeteredBar", (Bar,), {"meter": self})


class Bar:
    """A progress bar for the hub's client: shows nothing, and counts bytes for its meter.

    The client makes several: one counts files, and of those that count bytes one counts what comes over the network and
    one what is written. The latter is counted: it is what remains.
    """

    meter: Meter

    def __init__(self, *words: Any, **options: Any) -> None:
        self.total = options.get("total") or 0
        self.n: float = options.get("initial") or 0
        self.format_dict: dict[str, Any] = {}
        said = str(options.get("desc") or "")
        self.counts = options.get("unit") == "B" and not said.startswith("Downloading")

    def update(self, count: float | None = 1) -> None:
        """So many more."""
        self.meter.check()
        self.n += count or 0
        if self.counts:
            self.meter.add(count or 0)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def refresh(self, *words: Any, **options: Any) -> None:
        """Nothing is shown."""

    set_description = set_description_str = set_postfix = set_postfix_str = close = clear = reset = refresh


def sha256_of(file: Path) -> str:
    """The hash of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        for piece in iter(lambda: opened.read(2**22), b""):
            digest.update(piece)
    return digest.hexdigest()
