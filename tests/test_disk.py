"""Files that are whole or not there: in which order the disk is told, and after a power cut."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import longtake
from longtake import disk

posix = pytest.mark.skipif(os.name != "posix", reason="Windows syncs no folders")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the system is told, in order: ("fsync", name), ("replace", name), ("mkdir", name)."""
    told: list[tuple[str, str]] = []
    names: dict[int, str] = {}

    def recorded(name: str, key: Any) -> None:
        function = getattr(os, name)

        def call(*words: Any, **options: Any) -> Any:
            result = function(*words, **options)
            told.append((name, key(*words)))
            return result

        monkeypatch.setattr(os, name, call)

    def named(descriptor: int) -> str:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        return names.setdefault(os.fstat(descriptor).st_ino, name)

    recorded("fsync", named)
    recorded("replace", lambda source, target: Path(target).name)
    recorded("mkdir", lambda path, *_: Path(path).name)
    return told


linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files are Linux's")


@linux
def test_a_file_is_synced_before_it_takes_its_name_and_its_folder_after(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    disk.write(tmp_path / "a", b"whole")
    (_, part), *rest = calls
    assert calls[0][0] == "fsync" and part.startswith(".a.") and part.endswith(".part")
    assert rest == [("replace", "a"), ("fsync", tmp_path.name)]
    calls.clear()
    with disk.making(tmp_path / "b") as made:
        made.write_bytes(b"by somebody else")
    assert calls == [("fsync", made.name), ("replace", "b"), ("fsync", tmp_path.name)]


@linux
def test_every_new_folder_is_synced_in_its_parent(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    made = disk.make_folder(tmp_path / "a" / "b" / "c")
    assert made.is_dir()
    assert calls == [
        ("mkdir", "a"), ("fsync", tmp_path.name), ("mkdir", "b"), ("fsync", "a"), ("mkdir", "c"), ("fsync", "b"),
    ]  # fmt: skip
    assert disk.make_folder(made) == made
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        disk.make_folder(tmp_path / "file" / "below")


@pytest.mark.parametrize("at", ["open", "write", "fsync", "replace"])
def test_what_fails_leaves_the_old_file_and_nothing_else(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    disk.write(file, b"old")

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    def pieces() -> Any:
        yield b"ne"
        if at == "write":
            fail()
        yield b"w"

    if at == "open":
        monkeypatch.setattr(Path, "open", fail)
    elif at != "write":
        monkeypatch.setattr(os, at, fail)
    with pytest.raises(OSError, match="No space left"):
        disk.write(file, pieces())
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"] and file.read_bytes() == b"old"
    disk.write(file, pieces() if at != "write" else b"new")
    assert file.read_bytes() == b"new"


def test_text_and_names_of_any_length(tmp_path: Path) -> None:
    file = tmp_path / ("ü" * 120 + ".json")
    with disk.replacing(file, "w") as out:
        out.write("ü")
    assert file.read_text("utf-8") == "ü"


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), disk.replacing(tmp_path / "a") as out:
        out.write(b"half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


# Names and locks ------------------------------------------------------------------------------------------------------


def take(folder: Path) -> str:
    return disk.claim(folder / f"{number}.mp4" for number in range(100)).name


def test_two_processes_never_claim_the_same_name(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        taken = pool.map(take, [tmp_path] * 40, chunksize=1)
    assert sorted(taken) == sorted(f"{number}.mp4" for number in range(40))
    assert all(file.stat().st_size == 0 for file in tmp_path.iterdir())


def test_a_claim_is_given_back_unless_something_was_written(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    assert disk.claim([first, second]) == first and disk.claim([first, second]) == second
    with pytest.raises(FileExistsError):
        disk.claim([first, second])
    disk.write(first, b"something")
    for file in (first, second):
        disk.unclaim(file)
    assert first.exists() and not second.exists()
    with pytest.raises(FileNotFoundError):
        disk.claim([tmp_path / "none" / "a"])


def test_a_lock_is_held_once_and_freed_by_the_end_of_its_process(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    assert not disk.is_locked(file) and not file.exists()
    held = disk.lock(file)
    assert disk.is_locked(file)
    with pytest.raises(BlockingIOError):
        disk.lock(file)
    held.release()
    assert not disk.is_locked(file)
    script = f"from longtake import disk; held = disk.lock({str(file)!r}); print('held', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    assert disk.is_locked(file)
    with pytest.raises(BlockingIOError):
        disk.lock(file)
    other.kill()
    other.communicate()
    disk.lock(file).release()


# A power cut ----------------------------------------------------------------------------------------------------------

# The image of the disk is copied while it is in use: it has what reached the device, and nothing that waits in memory
# (commit=300: the journal does not write by itself meanwhile). Mounting the copy is the start after the cut.
CUT = """
set -e
mount --make-rprivate /
truncate -s 24M disk.img
mkfs.ext4 -q -F -m 0 disk.img
mkdir before after
mount -o loop,commit=300 disk.img before
"$@"
cp --sparse=always disk.img after.img
umount before
mount -o loop after.img after
cd after
find . -mindepth 1 -path ./lost+found -prune -o -printf '%P %s %y\n'
"""

WRITES = """
import os, stat, sys
from longtake import disk

eaten, fsync = sys.argv[1], os.fsync

def sync(descriptor):
    kind = "folders" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "files"
    if eaten not in (kind, "all"):
        fsync(descriptor)

os.fsync = sync
folder = disk.make_folder("before/some/new/folder")
for name in "abc":
    disk.write(folder / name, [name.encode() * 3000, name.encode() * 3000])
disk.make_folder("before/last/of/all")
"""


def after_the_cut(folder: Path, eaten: str) -> dict[str, int]:
    """Files by name and size, and folders (-1), after a power cut; syncs of that kind never reach the disk."""
    environment = {**os.environ, "PYTHONPATH": str(Path(longtake.__file__).parents[1])}
    words = ["unshare", "-m", "sh", "-c", CUT, "sh", sys.executable, "-c", WRITES, eaten]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = (line.rsplit(" ", 2) for line in done.stdout.splitlines())
    return {name: -1 if kind == "d" else int(size) for name, size, kind in lines}


@pytest.fixture
def mounts(tmp_path: Path) -> None:
    """Leave the test out where no disk can be mounted, unless LONGTAKE_TEST_POWER_CUT asks for it."""
    missing = [name for name in ("unshare", "mount", "mkfs.ext4") if shutil.which(name) is None]
    refused = bool(missing)
    if not missing:
        (tmp_path / "trial").mkdir()
        script = "truncate -s 8M d && mkfs.ext4 -q -F d && mkdir m && mount -o loop d m"
        words = ["unshare", "-m", "sh", "-c", script]
        refused = subprocess.run(words, cwd=tmp_path / "trial", capture_output=True).returncode != 0
    if refused and not os.environ.get("LONGTAKE_TEST_POWER_CUT"):
        pytest.skip(f"no disk can be mounted here (missing: {', '.join(missing) or 'the permission'})")


WHOLE = {f"some/new/folder/{name}": 6000 for name in "abc"}


@pytest.mark.usefixtures("mounts")
def test_what_was_written_survives_a_power_cut(tmp_path: Path) -> None:
    found = after_the_cut(tmp_path, "none")
    assert {name: size for name, size in found.items() if size >= 0} == WHOLE
    assert found["last/of/all"] == -1


@pytest.mark.usefixtures("mounts")
@pytest.mark.parametrize("eaten", ["all", "files", "folders"])
def test_the_power_cut_is_noticed_without_any_of_the_syncs(eaten: str, tmp_path: Path) -> None:
    """The test above would fail if one kind of sync were left out; so it does test that."""
    found = after_the_cut(tmp_path, eaten)
    if eaten == "all":
        assert not found
    elif eaten == "files":  # the names are there, and nothing in them
        assert {name: found[name] for name in WHOLE} == dict.fromkeys(WHOLE, 0)
    else:  # the last name is lost, and the hidden one left; so is the last folder
        assert "some/new/folder/c" not in found and "last" not in found
        assert any(name.endswith(".part") for name in found)
