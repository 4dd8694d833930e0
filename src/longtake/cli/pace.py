"""The time that is left, told in one way by every verb: by the mean rate of what was done so far."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Counts what is done of a `total`; what was there `before` took no time, and says nothing of the rate."""

    def __init__(
        self, total: float, before: float = 0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.total, self.done = total, before
        self._before, self._clock, self._begun = before, clock, clock()

    def at(self, done: float) -> None:
        """So much is done, in all."""
        self.done = done

    def skip(self, count: float) -> None:
        """So much more was there before."""
        if self.done == self._before:  # nothing was done until now
            self._begun = self._clock()
        self.done += count
        self._before += count

    @property
    def left(self) -> float | None:
        """Seconds until all is done; None before the first is."""
        new = self.done - self._before
        return None if new <= 0 else (self._clock() - self._begun) / new * (self.total - self.done)


def time_left(seconds: float | None) -> str:
    """Words for the seconds that are left.

    >>> time_left(None), time_left(75.2), time_left(4000)
    ('time left unknown', '1:15 left', '1:06:40 left')
    """
    if seconds is None:
        return "time left unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left"
