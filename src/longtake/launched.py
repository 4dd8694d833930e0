"""The place of this process among several that make one video together, as torchrun or msrun start them."""

from __future__ import annotations

import os
from collections.abc import Mapping

KINDS = (("RANK", "WORLD_SIZE", "MASTER_PORT"), ("RANK_ID", "RANK_SIZE", "MS_SCHED_PORT"))
"""The variables of a launcher: this process's number, how many there are, and where they meet."""


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) if it is alone.

    >>> launched({"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "29500"}), launched({})
    ((1, 2), (0, 1))
    """
    for number, count, meeting in KINDS:
        if meeting in environment and environment.get(count, "1") != "1" and number in environment:
            return int(environment[number]), int(environment[count])
    return 0, 1
