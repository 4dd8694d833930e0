"""Gradient checkpointing: a walk around a network's blocks that keeps what enters each block, and nothing inside it.

    with walking(transformer, recomputing):
        loss.backward()

A block of the published transformer keeps about twenty times as many bytes for its gradient as enter it
(`training/memory.py` counts them); made again, they cost a third more arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from longtake.backend import runtime, training


def recomputing(blocks: Iterable[Any]) -> Iterator[Any]:
    """The blocks, each of which is run a second time when its gradient comes."""
    for block in blocks:
        yield partial(training.recomputed, runtime.compiled(block))
