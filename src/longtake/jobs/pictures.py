"""The pictures of a job's folder through changes of the job: what a change replaces is kept, so that it can be undone.

job.json names each picture's file and hash as soon as one has changed. Before it does, old and new ones lie in `takes/`
by their hash; so a change that was cut off between the two is finished by whoever opens the folder next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from longtake import disk
from longtake.errors import JobError
from longtake.jobs.takes import TAKES

FIRST, LAST = "first.png", "last.png"
OTHERS = "picture-*.png"
"""The pictures that are neither at the beginning nor at the end."""


def file_of(at: float | str) -> str:
    """The name of the file of the picture that stands at a time, in seconds or "end".

    >>> file_of(0), file_of(2.5), file_of("end")
    ('first.png', 'picture-00002500.png', 'last.png')
    """
    # Milliseconds: frames are no nearer to one another, and a name stays whatever comes before it.
    return LAST if at == "end" else f"picture-{round(1000 * float(at)):08}.png" if at else FIRST


def hashes(folder: Path) -> dict[str, str]:
    """The hash of each picture in a job's folder, by the name of its file."""
    files = [folder / FIRST, folder / LAST, *sorted(folder.glob(OTHERS))]
    return {file.name: hash_of(file.read_bytes()) for file in files if file.is_file()}


def keep(folder: Path, now: Mapping[str, str], new: Mapping[str, bytes | None]) -> dict[str, str]:
    """Keep what a change replaces and what it brings (None: no picture of this name any more); the hashes then."""
    changed = {name: data for name, data in new.items() if now.get(name) != (data and hash_of(data))}
    for name, data in changed.items():
        old = (folder / name).read_bytes() if name in now else None
        for each in (old, data):
            if each is not None:
                disk.make_folder(folder / TAKES)
                disk.write(_kept(folder, hash_of(each)), each)
    wanted = {**now, **{name: hash_of(data) for name, data in changed.items() if data is not None}}
    return {name: text for name, text in wanted.items() if name in now or new.get(name) is not None}


def settle(folder: Path, wanted: Mapping[str, str]) -> None:
    """Let the folder have these pictures and no other; nothing is done if none is named, since none has changed yet.

    Raises JobError if one is neither there nor kept.
    """
    now = hashes(folder) if wanted else {}
    for name, text in wanted.items():
        if now.get(name) == text:
            continue
        kept = _kept(folder, text)
        data = kept.read_bytes() if kept.is_file() else b""
        if hash_of(data) != text:
            raise JobError(f"{folder / name}, a picture of the job, is not what it was; put that one back.")
        disk.write(folder / name, data)
    for name in now.keys() - wanted.keys():
        (folder / name).unlink()


def hash_of(data: bytes) -> str:
    """The hash of a picture's file."""
    return hashlib.sha256(data).hexdigest()


def _kept(folder: Path, text: str) -> Path:
    return folder / TAKES / f"{text}.png"
