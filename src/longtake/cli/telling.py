"""The telling of a fine-tuning: a bar that moves, lines that stay, JSON for machines; and what Ctrl-C does to it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.cli.bars import Row
from longtake.cli.pace import Pace, time_left
from longtake.cli.progress import Progress, count

if TYPE_CHECKING:
    from longtake.training.course import Event


def follow(events: Generator[Event, None, None], progress: Progress, again: str) -> None:
    """Tell the events. A first Ctrl-C ends the step at hand, saves, and says how to go on; a second ends at once."""
    telling = Telling(progress)
    with contextlib.closing(events), stopping(telling.stops) as stopped:
        for event in events:
            telling.tell(event)
            if stopped() and not telling.done:
                events.close()
                progress.clear()
                progress.emit("stopped", step=telling.step)
                kept = f"saved after step {telling.step}" if telling.steps else "what is encoded is kept"
                progress.say(f"{kept}; go on by the same command: {again}")
                raise KeyboardInterrupt


@contextlib.contextmanager
def stopping(say: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C is only noted, and said; gives what tells of it."""
    noted = threading.Event()

    def note(number: int, frame: Any) -> None:
        noted.set()
        say()
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield noted.is_set
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted.is_set
    finally:
        signal.signal(signal.SIGINT, before)


class Telling:
    """Tells the events of a fine-tuning through a `Progress`; knows the step at which it is."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.step = self.steps = 0
        self.done = False
        self._encoded: dict[str, Pace] = {}

    def tell(self, event: Event) -> None:
        """Tell one event, by its own method."""
        kind = type(event).__name__.lower()
        self.progress.emit(kind, **{name: _plain(value) for name, value in vars(event).items()})
        getattr(self, f"_{kind}")(event)

    def stops(self) -> None:
        """Tell that a Ctrl-C was heard."""
        self.progress.say("stopping after this step; another Ctrl-C ends at once")

    def _surveyed(self, event: Any) -> None:
        for line in event.lines:
            self.progress.say(line)

    def _reckoned(self, event: Any) -> None:
        self.progress.say(f"memory: {'; '.join(event.lines)}")

    def _encoding(self, event: Any) -> None:
        pace = self._encoded.setdefault(event.kind, Pace(event.total, event.done))
        pace.at(event.done)
        told = f"encoding {event.kind} {event.done}/{event.total}  {time_left(pace.left)}"
        self.progress.show(Row(told, event.done, event.total))
        if event.note:
            self.progress.say(event.note)

    def _loading(self, event: Any) -> None:
        self.progress.show(f"loading {event.model}")

    def _began(self, event: Any) -> None:
        self.step, self.steps = event.done, event.steps
        on = f", going on after step {event.done}" if event.done else ""
        self.progress.say(
            f"{event.learning:,} numbers learn from {count(event.examples, 'example')} in {count(event.steps, 'step')} "
            f"({event.lap} to an epoch){on}"
        )

    def _learnt(self, event: Any) -> None:
        self.step = event.step
        text = f"step {event.step}/{self.steps}  loss {event.loss:.4f}  {time_left(event.seconds_left)}"
        self.progress.show(Row(text, event.step, self.steps))
        if self.progress.style == "log" and event.step % max(1, self.steps // 20) == 0:
            self.progress.say(text)

    def _saved(self, event: Any) -> None:
        self.progress.say(f"step {event.step}: saved {event.file}")

    def _sampled(self, event: Any) -> None:
        self.progress.say(f"step {event.step}: sheet {event.file}")

    def _finished(self, event: Any) -> None:
        self.done = True
        self.progress.clear()
        if self.progress.style != "json":
            figures = ", ".join(f"{name} {value:g}" for name, value in event.figures.items())
            print(f"{event.file}: {count(event.step, 'step')}{f'; {figures}' if figures else ''}")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
