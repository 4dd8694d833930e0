"""Files that are whole or not there, new folders that stay, locks and free names: once, for everybody.

A file is written under a hidden name beside its own, brought to the disk, and only then given its name; then the
folder is brought to the disk too, since the name stands in it. So a process may be killed at any moment, and the power
may fail, and what has its name is whole. Everything here raises OSError; who calls it knows what to tell the user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, cast

PARTS = ".*.part"
"""The pattern of hidden names: what a killed process may leave, and who owns the folder may sweep."""

PATIENCE_SECONDS, POLL_SECONDS = 0.25, 0.05
"""`lock` waits so long: somebody else may only have looked whether it is locked."""


class Lock(Protocol):
    """A lock that is held; the system lets go of it when the process ends, however it ends."""

    def release(self) -> None:
        """Let another process have it."""


# Files ----------------------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], data: bytes | Iterable[bytes]) -> None:
    """Write a file, complete or not at all; when this returns, it survives a loss of power."""
    with replacing(path) as out:
        for piece in (data,) if isinstance(data, bytes) else data:
            out.write(piece)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """A file to write that takes its name when the block ends well; else nothing of it stays."""
    encoding = None if "b" in mode else "utf-8"
    with _discarded_after_errors(part_of(path)) as part:
        with part.open(mode.replace("w", "x"), encoding=encoding) as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        _take_name(part, path)


@contextlib.contextmanager
def making(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A hidden name to make a file under, by whatever means; it takes its own when the block ends well."""
    with _discarded_after_errors(part_of(path)) as part:
        yield part
        publish(part, path)


def part_of(path: str | os.PathLike[str]) -> Path:
    """A hidden name beside the file's own, that no other process chooses; not longer than names may be."""
    path = Path(path)
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")


def publish(part: Path, path: str | os.PathLike[str]) -> None:
    """Bring a finished file to the disk, then give it its name, then bring that to the disk."""
    # Opened for writing, since Windows syncs no other.
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    _take_name(part, path)


def move(path: Path, target: Path) -> None:
    """Give a whole file another name on the same disk, maybe in another folder; it is on the disk then."""
    os.replace(path, target)
    sync_folder(target.parent)
    if target.parent != path.parent:
        sync_folder(path.parent)


def publish_folder(part: Path, folder: Path) -> None:
    """Give a finished folder, whose files are on the disk, its name; one that has it goes."""
    sync_folder(part)
    old = part_of(folder)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    part.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, if the system can: Windows opens no folders."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except (
        PermissionError
    ):  # one may write into a folder that one may not read, and sync what one may read alone
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems sync no folders; they keep names in their own way.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """The folder, made with every parent that is missing; each new name is brought to the disk."""
    folder = Path(path).absolute()
    new = [folder]
    while not new[-1].parent.exists():
        new.append(new[-1].parent)
    for place in reversed(new):
        place.mkdir(exist_ok=True)
        sync_folder(place.parent)
    return folder


def _take_name(part: Path, path: str | os.PathLike[str]) -> None:
    os.replace(part, path)
    sync_folder(Path(path).parent)


@contextlib.contextmanager
def _discarded_after_errors(part: Path) -> Iterator[Path]:
    try:
        yield part
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


# Names and locks ------------------------------------------------------------------------------------------------------


def claim(candidates: Iterable[str | os.PathLike[str]]) -> Path:
    """The first name that is free, taken by an empty file, so that two processes never choose the same.

    The file is there to be replaced by the real one; `unclaim` takes it away if that never comes.
    """
    last = None
    for last in candidates:
        with contextlib.suppress(FileExistsError):
            Path(last).open("xb").close()
            return Path(last)
    raise FileExistsError(errno.EEXIST, "every name is taken", None if last is None else os.fspath(last))


def unclaim(path: Path) -> None:
    """Take away a file that `claim` made, if it is still empty."""
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def lock(path: str | os.PathLike[str]) -> Lock:
    """The lock that the file stands for, held; raises BlockingIOError if another process, or object, holds it."""
    import filelock

    # Not by thread: who opened a job may hand it to another thread, which closes it.
    held = filelock.FileLock(os.fspath(path), timeout=PATIENCE_SECONDS, thread_local=False)
    try:
        held.acquire(poll_interval=POLL_SECONDS)
    except filelock.Timeout:
        raise BlockingIOError(errno.EAGAIN, "it is locked", os.fspath(path)) from None
    return cast(Lock, held)


def is_locked(path: str | os.PathLike[str]) -> bool:
    """Tell if somebody holds the lock; False also if that cannot be found out."""
    import filelock

    if not Path(path).exists():
        return False
    tried = filelock.FileLock(os.fspath(path), timeout=0, thread_local=False)
    try:
        tried.acquire()
    except filelock.Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    tried.release()
    return False
