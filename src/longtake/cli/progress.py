"""The telling of events: bars on a terminal, a line for each section in a log, JSON for machines.

It sees every event, so it also measures: what loading, sampling, decoding and writing took.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.cli.bars import Bars, Row, say
from longtake.cli.options import mute_hub
from longtake.cli.pace import Pace, time_left
from longtake.events import Encoded, Event, FramesReady, Moved, Planned, Preview, SectionDone, Stepped
from longtake.weights.transfer import gigabytes

if TYPE_CHECKING:
    from longtake.job import Job
    from longtake.weights.transfer import Downloading


SAID = 10**7
"""Bytes of a download that is worth a line of its own when it is over."""


class Progress:
    """Follows the events and tells them through `show` (what moves), `say` (what stays) and `emit` (JSON).

    A bar is for all steps of the video, with the time left until the last one, and one for the section; decoding shows
    its own share. `seconds` says what the time was spent on.
    """

    def __init__(self, style: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.style = style
        self.seconds = dict.fromkeys(("load", "sampling", "decoding", "writing"), 0.0)
        self._clock = clock
        self._section_begun = clock()
        self._planned: Planned | None = None
        self._pace = Pace(0, clock=clock)
        self._fps: float | None = None
        # Velocities: with two branches of guidance two for each step. Those that a step cache gave are not computed.
        self.asked = self.computed = 0
        self._stepped = False
        self._bars = Bars()
        self._tenths: dict[str, int] = {}

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step, or None before the first."""
        return self._pace.left

    @property
    def has_begun(self) -> bool:
        """Tell if the pipeline has planned the video, so that nothing is refused any more."""
        return self._planned is not None

    @contextlib.contextmanager
    def loading(self, model: str) -> Iterator[None]:
        """Tell that a model is being loaded, and measure it."""
        begun = self._clock()
        self.emit("loading", model=model)
        self.show(f"loading {model}")
        try:
            yield
        finally:
            self.clear()
        self.seconds["load"] += self._clock() - begun

    def downloading(self, at: Downloading) -> None:
        """Tell how far the download of a model is."""
        left = at.seconds_left
        self.emit(
            "downloading",
            model=at.name,
            files=at.files,
            bytes=at.done,
            total=at.total,
            rate=None if at.rate is None else round(at.rate),
            seconds_left=None if left is None else round(left, 1),
        )
        rate = f"{gigabytes(at.rate)}/s" if at.rate else "…"
        told = (
            f"downloading {at.name}: {gigabytes(at.done)} of {gigabytes(at.total)}  {rate}  {time_left(left)}"
        )
        self.show(Row(told, at.done, at.total))
        if at.done >= at.total:
            self._tell_fetched(at)
        elif self.style == "log" and (said := int(10 * at.done / at.total)) > self._tenths.get(at.name, 0):
            self._tenths[at.name] = said
            self.say(told)

    def _tell_fetched(self, at: Downloading) -> None:
        self._tenths.pop(at.name, None)
        if at.total >= SAID:
            before = f", {gigabytes(at.begun)} of them earlier" if at.begun else ""
            self.say(f"downloaded {at.name}: {gigabytes(at.total)} in {count(at.files, 'file')}{before}")

    def loaded(self, job: Job) -> None:
        """Tell the job as it will be made, with its size and dtype."""
        self._fps = job.fps
        self.emit("loaded", seconds=round(self.seconds["load"], 2), job=json.loads(job.to_json()))

    def runs_on(self, device: str, kernel: str) -> None:
        """Tell where the transformer runs, and on which kernel its attention does."""
        self.emit("running", device=device, attention=kernel)
        self.say(f"attention on {device}: {kernel}")

    def shares(self, processes: int) -> None:
        """Tell how many processes make the video."""
        self.emit("shared", processes=processes)
        self.say(f"{processes} processes share every step")

    def follow(self, events: Iterable[Event]) -> Generator[Event, None, None]:
        """The events, each told as it comes; what is done with them in between counts as writing."""
        begun = self._clock()
        try:
            for event in events:
                come = self._clock()
                self.seconds["decoding" if isinstance(event, FramesReady) else "sampling"] += come - begun
                self.tell(event)
                yield event
                begun = self._clock()
                self.seconds["writing"] += begun - come
        finally:
            self.clear()

    def tell(self, event: Event) -> None:
        """Tell one event of the pipeline."""
        if isinstance(event, Planned):
            self._tell_planned(event)
        elif isinstance(event, Moved):
            self.emit("moved", notice=event.notice)
            self.say(f"memory: {event.notice}")
        elif isinstance(event, Encoded):
            self.emit("encoded")
        elif isinstance(event, Stepped):
            self._tell_stepped(event)
        elif isinstance(event, SectionDone):
            self._tell_section(event)
        elif isinstance(event, Preview):
            self.emit("preview", number=event.number, count=event.frames.shape[1])
        elif isinstance(event, FramesReady):
            self._tell_frames(event)

    def _tell_planned(self, event: Planned) -> None:
        self._planned = event
        self._section_begun = self._clock()
        self._pace = Pace(event.sections * event.steps, clock=self._clock)
        self.emit(
            "planned", sections=event.sections, frames=event.frames, steps=event.steps, notice=event.notice
        )
        length = (
            "" if self._fps is None else f" ({round(event.frames / self._fps, 2):g} s at {self._fps:g} fps)"
        )
        self.say(
            f"{event.frames} frames{length} in {count(event.sections, 'section')} of {count(event.steps, 'step')}"
        )
        if event.notice:
            self.say(f"note: {event.notice}")

    def _tell_stepped(self, event: Stepped) -> None:
        self._pace.at(self._pace.done + 1)
        self.asked += event.velocities
        self.computed += event.computed
        self._stepped = True
        left = self.seconds_left
        self.emit(
            "stepped",
            section=event.section,
            step=event.step,
            steps=event.steps,
            sigma=round(float(event.sigma), 6),
            seconds_left=None if left is None else round(left, 1),
        )
        self.show(
            self._whole(event.section, time_left(left)),
            Row(f"step {event.step + 1}/{event.steps}", event.step + 1, event.steps, "section"),
        )

    def _tell_section(self, event: SectionDone) -> None:
        took, self._section_begun = self._clock() - self._section_begun, self._clock()
        # A section without steps was kept by a job that goes on.
        kept, self._stepped = not self._stepped, False
        if kept and self._planned:
            self._pace.skip(self._planned.steps)
        left = self.seconds_left
        self.emit(
            "section_done",
            section=event.section,
            number=event.number,
            kept=kept,
            seconds=round(took, 2),
            seconds_left=None if left is None else round(left, 1),
        )
        sections = self._planned.sections if self._planned else "?"
        if kept:
            self.show(self._whole(event.section, "kept"))
        if self.style == "log":
            how = "kept" if kept else f"done in {took:.1f} s, {time_left(left)}"
            self.say(f"section {event.section + 1}/{sections} {how}")

    def _whole(self, section: int, told: str) -> Row:
        """The row of the whole video, at a section by its place in the order of generation."""
        sections = self._planned.sections if self._planned else "?"
        return Row(f"section {section + 1}/{sections}  {told}", self._pace.done, self._pace.total, "video")

    def _tell_frames(self, event: FramesReady) -> None:
        count = event.frames.shape[1]
        self.emit("frames_ready", start=event.start, count=count)
        done, total = event.start + count, self._planned.frames if self._planned else 0
        self.show(Row(f"frame {done}/{total or '?'} decoded", done, total, "frames"))

    def changed(self, dropped: list[int], kept: int) -> None:
        """Tell which sections a change of the job makes anew, and how many stay."""
        self.emit("changed", dropped=dropped, kept=kept)
        if dropped:
            self.say(f"sections to make again: {', '.join(map(str, dropped))}; kept: {kept}")

    def stopped(self, folder: Path) -> None:
        """Tell that a job stopped on its way, and how it goes on."""
        self.emit("stopped", folder=str(folder))
        self.say(f"what is finished is kept; go on by: longtake resume {shlex.quote(str(folder))}")

    def show(self, *rows: Row | str) -> None:
        """Rows that the next ones replace; on a terminal alone."""
        if self.style == "terminal":
            self._bars.show(*(Row(row) if isinstance(row, str) else row for row in rows))

    def say(self, text: str) -> None:
        """A line that stays, for people."""
        if self.style != "json":
            say(text)

    def emit(self, event: str, **fields: Any) -> None:
        """A line of JSON on standard output, for machines."""
        if self.style == "json":
            print(json.dumps({"event": event, **fields}, ensure_ascii=False), flush=True)

    def clear(self) -> None:
        """Take away what moves."""
        self._bars.clear()


def progress_for(as_json: bool) -> Progress:
    """Events told as JSON if that was asked for, else for a terminal or a log, by where standard error goes."""
    mute_hub(as_json)
    return Progress("json" if as_json else "terminal" if sys.stderr.isatty() else "log")


def count(number: int, noun: str) -> str:
    """So many of what a noun names: `1 step`, `2 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
