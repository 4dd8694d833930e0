"""The rates of this machine, measured in a moment: products of matrices, attention, convolutions, copies, the disk.

What is measured is what the networks do, in their dtype and on their device, in sizes that a moment allows; so the
rates are those of a machine that does nothing else and is not hot yet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longtake.backend import ops, runtime

MOMENT = 0.12
"""Seconds that runs must take to tell something; until then the next ones are larger, and then more."""
LIMIT = 0.6
"""Seconds for all runs of one kind."""
HEAD = 128
"""Features of a head, as in the published network."""
PIECE, PIECES = 16 * 2**20, 8
"""Bytes of a piece of a file, and how many are read."""


@dataclass(frozen=True)
class Rates:
    """Operations a second by what computes them, bytes a second by their way; None is not known here."""

    matrix: float
    attention: float
    convolution: float
    upload: float | None = None
    """From plain main memory to the device."""
    disk: float | None = None
    """From the disk of the transformer's file, what the system remembers of it left out."""
    seconds: float = 0.0
    """The seconds that measuring took."""


def measure(device: Any, dtype: Any, files: Iterable[Path] = ()) -> Rates:
    """The rates of a device in a dtype, and of the disk that the largest of `files` lies on; takes up to 3 seconds."""
    begun = time.perf_counter()
    on_cpu = str(device).lower().split(":")[0] == "cpu"

    def some(*shape: int) -> Any:
        values = np.resize(np.random.default_rng(0).standard_normal(2**16, dtype=np.float32), shape)
        return runtime.place(ops.from_numpy(values), None if on_cpu else device, dtype)

    with runtime.no_grad():
        matrix = _grown(lambda rows: _matrix(some, rows), 256, 8192)
        attention = _grown(lambda tokens: _attention(some, tokens), 512, 16384)
        convolution = _grown(lambda side: _convolution(some, side), 32, 256)
        upload = None if on_cpu else _upload(device)
    return Rates(matrix, attention, convolution, upload, _disk(files), time.perf_counter() - begun)


Trial = tuple[Callable[[], Any], float]
"""Something to run, and how many operations that is."""


def _matrix(some: Callable[..., Any], rows: int) -> Trial:
    width = 1024 if rows < 4096 else 3072
    x, weight = some(rows, width), some(4 * width, width)
    return lambda: ops.linear(x, weight), 2.0 * rows * width * 4 * width


def _attention(some: Callable[..., Any], tokens: int) -> Trial:
    heads = 4 if tokens < 8192 else 24
    query, key, value = (some(1, heads, tokens, HEAD) for _ in range(3))
    return lambda: ops.attention(query, key, value), 4.0 * heads * tokens**2 * HEAD


def _convolution(some: Callable[..., Any], side: int) -> Trial:
    channels, frames = 128, 5
    x, weight = some(1, channels, frames + 2, side + 2, side + 2), some(channels, channels, 3, 3, 3)
    count = 2.0 * 27 * channels**2 * frames * side**2
    return lambda: ops.conv3d(x, weight, None, (1, 1, 1)), count


def _grown(trial: Callable[[int], Trial], size: int, largest: int) -> float:
    """The best rate of runs that grow, and then repeat, until they take a moment; the first of each size warms up."""
    begun, best, repeats = time.perf_counter(), 0.0, 1
    while True:
        run, operations = trial(size)
        _finished(run())
        took = min(_timed(run, repeats) for _ in range(2))
        best = max(best, repeats * operations / took)
        if took >= MOMENT or time.perf_counter() - begun + 10 * took > LIMIT:
            return best
        size, repeats = (2 * size, repeats) if size < largest else (size, 4 * repeats)


def _timed(run: Callable[[], Any], repeats: int = 1) -> float:
    begun = time.perf_counter()
    for _ in range(repeats - 1):
        run()
    _finished(run())
    return max(time.perf_counter() - begun, 1e-9)


def _finished(tensor: Any) -> None:
    """Wait for a tensor: one value of it comes to the CPU."""
    ops.to_numpy(tensor.reshape(-1)[:1])


def _upload(device: Any) -> float:
    size = 64 * 2**20
    tensor = runtime.place(ops.from_numpy(np.zeros(size // 4, np.float32)), None, "float32")
    _finished(runtime.place(tensor, device))
    return size / min(_timed(lambda: runtime.place(tensor, device)) for _ in range(3))


def _disk(files: Iterable[Path]) -> float | None:
    """Bytes a second from the disk: pieces all over the largest file, forgotten by the system before they are read."""
    there = [file for file in files if file.is_file()]
    if not there or not hasattr(os, "posix_fadvise"):
        return None
    file = max(there, key=lambda each: each.stat().st_size)
    size = file.stat().st_size
    if size < 4 * PIECE * PIECES:
        return None  # too small to tell, and to matter
    places = [number * (size - PIECE) // (PIECES - 1) // 4096 * 4096 for number in range(PIECES)]
    begun, read = time.perf_counter(), 0
    try:
        with file.open("rb", buffering=0) as opened:
            for place in places:
                os.posix_fadvise(opened.fileno(), place, PIECE, os.POSIX_FADV_DONTNEED)
            for place in places:
                opened.seek(place)
                read += len(opened.read(PIECE))
                if time.perf_counter() - begun > LIMIT:
                    break
    except OSError:
        return None
    return read / max(time.perf_counter() - begun, 1e-9)
