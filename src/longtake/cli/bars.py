"""All that moves at the end of a terminal: lines and bars, drawn by tqdm."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import Any

WIDTH = 30
"""Characters of a bar."""


@dataclass(frozen=True)
class Row:
    """A line that moves: a text, and with a `total` a bar before it, behind its `name`."""

    text: str
    done: float = 0
    total: float | None = None
    name: str = ""


class Bars:
    """The rows at the end of standard error, one below the other; gone when they are cleared."""

    def __init__(self) -> None:
        self._bars: list[Any] = []

    def show(self, *rows: Row) -> None:
        """Draw these rows in the place of those before."""
        while len(self._bars) > len(rows):
            self._bars.pop().close()
        # Python's own, since a terminal that tells no size is 0 columns wide for tqdm.
        columns, lines = shutil.get_terminal_size()
        for place, row in enumerate(rows):
            if place == len(self._bars):
                self._bars.append(_new(place, columns - 1, lines))
            bar, text = self._bars[place], _plain(row.text)
            bar.ncols, bar.nrows = columns - 1, lines
            bar.total, bar.n = row.total, min(row.done, row.total or 0)
            bar.bar_format = (
                text if not row.total else f"{row.name:8}|{{bar:{WIDTH}}}|{{percentage:4.0f}}%  {text}"
            )
            bar.refresh()

    def clear(self) -> None:
        """Take them away."""
        self.show()


def say(text: str) -> None:
    """A line that stays, on standard error, above all that moves there."""
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:  # nothing moves
        print(text, file=sys.stderr, flush=True)
    else:
        tqdm.tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


def _new(place: int, columns: int, lines: int) -> Any:
    from tqdm import tqdm

    # No thread of its own: it is drawn when there is news.
    bar = type("Bar", (tqdm,), {"monitor_interval": 0})
    return bar(position=place, leave=False, file=sys.stderr, ncols=columns, nrows=lines, bar_format=" ")


def _plain(text: str) -> str:
    """A text that tqdm does not take for its own words, on one line."""
    return text.replace("{", "{{").replace("}", "}}").replace("\n", " ")
