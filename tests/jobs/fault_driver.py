"""A process that loads the model once and runs command lines in children, which it kills when it is told to.

Reads one JSON object a line: `argv`; `kill_after` seconds (null: never); `slow`, whether files are written piece by
piece with pauses, so that a kill falls into the middle of a write; `largest`, a limit on the size of any file, which is
what a full disk looks like. Answers with `code`, negative for a signal, and `seconds`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

PAUSE, PIECE = 0.002, 2048


def main() -> None:
    """Serve until there is no more input."""
    from longtake.cli import main as command_line

    module = importlib.import_module("longtake.pipeline.loading")
    networks = module.load_networks("embedded")
    module.load_networks = lambda *words, **options: networks
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        begun = time.monotonic()
        child = os.fork()
        if not child:
            os._exit(_run(command_line, asked))
        code = _wait(child, asked["kill_after"])
        print(json.dumps({"code": code, "seconds": time.monotonic() - begun}), flush=True)


def _run(command_line: Any, asked: dict[str, Any]) -> int:
    errors = os.open(asked["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    if asked["slow"]:
        _write_slowly()
    if asked["largest"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest"],) * 2)
    try:
        return int(command_line(asked["argv"]))
    except BaseException:
        import traceback

        traceback.print_exc()
        return 99


def _wait(child: int, seconds: float | None) -> int:
    deadline = None if seconds is None else time.monotonic() + seconds
    while deadline is None or time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG if deadline else 0)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _write_slowly() -> None:
    disk = importlib.import_module("longtake.disk")
    write, replace, sync = disk.write, os.replace, os.fsync

    def pieces(data: bytes | Iterable[bytes]) -> Iterator[bytes]:
        for each in (data,) if isinstance(data, bytes) else data:
            for start in range(0, len(each), PIECE):
                time.sleep(PAUSE)
                yield bytes(each[start : start + PIECE])

    def paused(function: Any) -> Any:
        def call(*words: Any) -> Any:
            time.sleep(10 * PAUSE)
            result = function(*words)
            time.sleep(10 * PAUSE)
            return result

        return call

    disk.write = lambda file, data: write(file, pieces(data))
    os.replace, os.fsync = paused(replace), paused(sync)


if __name__ == "__main__":
    main()
