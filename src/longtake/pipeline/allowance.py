"""The main memory that this process may take: what is free, within the limits of its container. Pure.

Of Linux's control groups the limits of all groups above ours hold too. Elsewhere nothing is known, and None is told.
"""

from __future__ import annotations

import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be taken without swapping, the pages of files that can be dropped among them; None: not known."""
    found = [value for value in (_available(root), *_left_in_groups(root)) if value is not None]
    if found:
        return min(found)
    try:
        return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None


def anonymous_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process holds and the kernel cannot drop; None: not known."""
    try:
        lines = (root / "proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    sizes = {
        words[0]: int(words[1]) for words in map(str.split, lines) if len(words) > 2 and words[2] == "kB"
    }
    return sizes.get("Anonymous:", 0) * 1024


def _available(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    line = next((line for line in lines if line.startswith("MemAvailable:")), None)
    return None if line is None else int(line.split()[1]) * 1024


def _left_in_groups(root: Path) -> list[int | None]:
    """The bytes that each control group of this process still allows, the second version's and the first's."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left: list[int | None] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, most, now = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, most, now = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        place = base / path.lstrip("/")
        # In a container its own group may be shown at the root.
        for folder in (place, *place.parents):
            left.append(_left(folder, most, now))
            if folder == base:
                break
    return left


def _left(folder: Path, most: str, now: str) -> int | None:
    limit, used = _number(folder / most), _number(folder / now)
    if limit is None or used is None:
        return None
    return max(0, limit - used + _droppable(folder / "memory.stat"))


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < 2**60 else None  # "max", or as good as that


def _droppable(file: Path) -> int:
    """The pages of files that count as used and can be dropped."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return 0
    return sum(int(words[1]) for words in lines if words[0] in ("active_file", "inactive_file"))
