"""The other processes of one run (`torchrun … -m longtake generate …`): they do their part, say and write nothing."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from longtake.errors import LongtakeError, LongtakeWarning, LostRunError
from longtake.job import Job
from longtake.machine import Machine

ENCODING = (
    "text_encoder", "text_encoder_2", "image_encoder", "tokenizer", "tokenizer_2", "feature_extractor",
)  # fmt: skip
"""Parts that process 0 alone has, since it tells the others what they make."""
GRACE = 1.0
"""Seconds in which process 0 may say first what went wrong, if it went wrong everywhere."""
DONE, FAILED, INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class Load:
    """Process 0's word to load the networks of this job."""

    job: Job
    machine: Machine


@dataclass(frozen=True)
class Make:
    """Process 0's word to make the video of this job."""

    job: Job
    pictures: Mapping[Any, Any]
    preview: str | None
    keeps: bool
    """True if process 0 has a store of finished sections."""
    clip: Any = None
    """The frames that are seen of the job's clip."""


def follow(words: Sequence[str], rank: int, size: int) -> int:
    """Do what process 0 says, until it says no more; returns the exit code."""
    if words and words[0] == "finetune" and not {"-h", "--help"} & set(words):
        return _guarded(rank, lambda told: _learn(words, told))
    if not words or words[0] not in ("generate", "resume", "extend", "redo") or {"-h", "--help"} & set(words):
        return DONE  # process 0 does it alone

    def work(told: Callable[[Any], None]) -> None:
        from longtake.pipeline import together

        ranks = together.join(rank, size)
        told(ranks)
        networks = None
        while (word := ranks.share(None)) is not None:
            networks = load(word, ranks) if isinstance(word, Load) else make(word, networks)
        ranks.close()

    return _guarded(rank, work)


def _guarded(rank: int, work: Callable[[Callable[[Any], None]], None]) -> int:
    """Do this process's work, and say what it alone knows of its end; `work` tells of the others when it met them."""
    quiet()
    met: list[Any] = []
    try:
        work(met.append)
    except LostRunError:
        return FAILED  # process 0, or who else has ended, has said why
    except (LongtakeError, MemoryError) as error:
        time.sleep(GRACE)
        if met and met[0].may_speak():
            reason = str(error).rstrip(".") or "there is not enough memory"
            print(f"longtake: process {rank}: {reason}.", file=sys.stderr, flush=True)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def _learn(words: Sequence[str], told: Callable[[Any], None]) -> None:
    """This process's part of a fine-tuning; what its words are wrong in, process 0 says."""
    from longtake.cli import parser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LongtakeWarning)
        try:
            with contextlib.redirect_stderr(None):
                args = parser().parse_args(list(words))
        except SystemExit:
            return
        args.run(args, told)


def quiet() -> None:
    """Keep PyTorch's own lines about connections that end to itself; before it is imported."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def load(word: Load, ranks: Any) -> Any:
    """The networks of the job that do not encode, with this process's part of the work."""
    from longtake.pipeline import together
    from longtake.pipeline.loading import load_networks

    job, given = word.job, dict.fromkeys(ENCODING)
    machine = replace(word.machine, device=ranks.device)
    networks = load_networks(
        job.model, job.dtype, given=given, parts=job.parts, machine=machine, quantize=job.quantize
    )
    return together.shared(networks, ranks)


def make(word: Make, networks: Any) -> Any:
    """This process's part of the video; its frames are process 0's to write."""
    from longtake.pipeline.loop import generate
    from longtake.pipeline.prepare import Inputs
    from longtake.pipeline.together import TheirStore

    store = TheirStore(None, networks.ranks) if word.keeps else None
    inputs = Inputs(pictures=word.pictures, clip=word.clip)
    events = generate(word.job, networks, inputs, store=store, preview=word.preview, convert=_unseen)
    for _ in events:
        pass
    return networks


def _unseen(frames: Any) -> Any:
    return frames
