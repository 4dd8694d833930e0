"""A job's log: what happened, one JSON object a line."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


class Log:
    """The log in a job's folder, to append to."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / LOG
        self._torn = _is_torn(self._file)

    def append(self, event: str, **fields: Any) -> None:
        """Write one line; a log that cannot be written is no reason to stop."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **fields}, ensure_ascii=False)
        # An error's words may hold half of a surrogate pair, from a name of a file.
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        # A line that was cut off is ended first, so that it takes no other with it.
        data = b"\n" + data if self._torn else data
        try:
            with self._file.open("ab", buffering=0) as out:
                self._torn = out.write(data) != len(data)
        except OSError:
            self._torn = _is_torn(self._file)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a job's log; what was cut off by the end of a process is left out."""
    file = path / LOG
    if not file.exists():
        return []
    lines = []
    for line in file.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict)]


def _is_torn(log: Path) -> bool:
    """Whether the log's last line was cut off."""
    try:
        with log.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - 1))
            return opened.read(1) not in (b"", b"\n")
    except OSError:
        return False
