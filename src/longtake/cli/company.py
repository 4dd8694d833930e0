"""Process 0 of several that make one video: it meets the others, tells them what to do, and says how it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from longtake.cli.follow import Load, quiet
from longtake.cli.info import describe_model
from longtake.errors import LostRunError
from longtake.job import Job
from longtake.launched import launched
from longtake.machine import Machine

if TYPE_CHECKING:
    from longtake.pipeline.networks import Networks


def met(job: Job, machine: Machine) -> Any:
    """The processes that share the job, told to load it; None if this one is alone.

    Raises JobError, ModelError or BackendError, before the others are met, for what cannot be shared.
    """
    rank, size = launched()
    if size == 1:
        return None
    quiet()
    from longtake.pipeline import together

    together.check_job(job)
    config = describe_model(job.model, job.parts)["parts"].get("transformer", {}).get("config", {})
    together.check_heads(int(config.get("num_attention_heads", size)), size)
    ranks = together.join(rank, size, machine.device)
    ranks.share(Load(job, machine))
    return ranks


@contextlib.contextmanager
def speaking(ranks: Any) -> Iterator[None]:
    """Inside, what ends this process is told by it alone; a loss that another process has told is not told again."""
    try:
        yield
    except BaseException as error:
        if ranks is not None and not ranks.may_speak() and isinstance(error, LostRunError):
            error.told = True
        raise


@contextlib.contextmanager
def company(networks: Networks) -> Iterator[None]:
    """Inside, the other processes follow; afterwards they end, too."""
    ranks = getattr(networks, "ranks", None)
    with speaking(ranks):
        yield
    if ranks is not None:
        ranks.share(None)
        ranks.close()
