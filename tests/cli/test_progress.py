"""How events are told."""

import contextlib
import re
import warnings
from functools import partial

import numpy as np
import pytest

from grey import events_of
from longtake.cli import _show_warning
from longtake.cli.pace import Pace
from longtake.cli.progress import Progress
from longtake.errors import LongtakeWarning, RunError
from longtake.events import FramesReady, Planned, SectionDone, Stepped
from longtake.job import Job
from longtake.weights.transfer import Downloading


def screen(text):
    """The lines of a terminal after a text, and all that any line ever showed: what tqdm uses of a terminal, done."""
    lines, row, column, shown = [""], 0, 0, []
    for piece in re.split(r"(\r|\n|\x1b\[A|\x1b\[K)", text):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\x1b[A":
            row -= 1
        elif piece == "\x1b[K":
            lines[row] = lines[row][:column]
        elif piece:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + piece + line[column + len(piece) :]
            column += len(piece)
            shown.append(lines[row].rstrip())
    return [line.rstrip() for line in lines], shown


def test_a_terminal_shows_a_bar_for_the_video_and_one_for_the_section(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    now = [0.0]
    progress, rows = Progress("terminal", clock=lambda: now[0]), []
    for event in events_of(Job("x", frames=4, width=16, height=16)):
        now[0] += 10
        progress.tell(event)
        if isinstance(event, Stepped):
            rows = screen(capsys.readouterr().err)[1]
        if isinstance(event, Stepped) and (event.section, event.step) == (1, 0):
            whole, section = rows[-2:]
            assert whole.startswith("video   |") and whole.endswith("|  67%  section 2/2  0:30 left")
            assert section.startswith("section |") and section.endswith("|  33%  step 1/3")
    assert any(line.endswith("| 100%  frame 4/4 decoded") for line in screen(capsys.readouterr().err)[1])


def test_what_stays_is_above_what_moves_and_nothing_moving_is_left(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    progress = Progress("terminal")
    progress.tell(Planned(2, 73, 3, "a notice."))
    progress.tell(Stepped(0, 0, 3, 1.0, None, None))
    progress.say("memory: it moved to {the} disk.")
    with warnings.catch_warnings():
        warnings.showwarning = partial(_show_warning, set())
        warnings.simplefilter("always")
        warnings.warn("a note.", LongtakeWarning, stacklevel=1)
    progress.tell(Stepped(0, 1, 3, 1.0, None, None))
    progress.show("one {row}\nalone")
    progress.clear()
    said = capsys.readouterr()
    lines, shown = screen(said.err)
    assert said.out == "" and "one {row} alone" in shown
    assert [line for line in lines if line] == [
        "73 frames in 2 sections of 3 steps",
        "note: a notice.",
        "memory: it moved to {the} disk.",
        "note: a note.",
    ]


def test_time_left():
    now = [0.0]
    progress = Progress("log", clock=lambda: now[0])
    assert progress.seconds_left is None
    progress.tell(Planned(sections=4, frames=145, steps=25))
    assert progress.seconds_left is None
    now[0] = 10.0
    progress.tell(Stepped(0, 0, 25, 1.0, None, None))
    assert progress.seconds_left == 990.0
    # Another video of the same command, as `longtake calibrate` makes, begins its own count.
    progress.tell(Planned(sections=2, frames=73, steps=25))
    assert progress.seconds_left is None
    now[0] = 12.0
    progress.tell(Stepped(0, 0, 25, 1.0, None, None))
    assert progress.seconds_left == 98.0


def test_time_is_counted_by_what_it_was_spent_on():
    now = [0.0]

    def events():
        for seconds, event in (
            (1, Planned(1, 2, 1)),
            (2, Stepped(0, 0, 1, 1.0, None, None)),
            (3, SectionDone(0, 0, None)),
            (4, FramesReady(0, np.zeros((1, 2, 4, 4, 3), np.uint8))),
        ):
            now[0] += seconds
            yield event

    progress = Progress("log", clock=lambda: now[0])
    with progress.loading("embedded"):
        now[0] += 10
    for event in progress.follow(events()):
        now[0] += 0.5 if isinstance(event, FramesReady) else 0.0
    assert progress.seconds == {"load": 10, "sampling": 6, "decoding": 4, "writing": 0.5}


def test_nothing_that_moves_is_left_if_something_fails(capsys):
    progress = Progress("terminal")
    with pytest.raises(RunError), progress.loading("embedded"):
        raise RunError("There is no memory.")
    assert screen(capsys.readouterr().err)[0] == [""]
    told = progress.follow(iter([Planned(1, 2, 1), Stepped(0, 0, 1, 1.0, None, None)]))
    with pytest.raises(RunError), contextlib.closing(told):
        for event in told:
            if isinstance(event, Stepped):
                raise RunError("The numbers went wrong.")
    assert [line for line in screen(capsys.readouterr().err)[0] if line] == [
        "2 frames in 1 section of 1 step"
    ]


def test_a_download_is_told_on_a_terminal_and_in_a_log(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    steps = [
        Downloading("a/b", 3, done * 10**9, 20 * 10**9, 10**9, (done - 1) * 4.0) for done in range(1, 21)
    ]
    for style in ("terminal", "log"):
        progress = Progress(style)
        for at in steps:
            progress.downloading(at)
        progress.clear()
        said = capsys.readouterr().err
        assert said.count("downloaded a/b: 20.0 GB in 3 files, 1.0 GB of them earlier") == 1
        if style == "terminal":
            shown = screen(said)[1]
            assert any(
                line.endswith("|   5%  downloading a/b: 1.0 GB of 20.0 GB  …  time left unknown")
                for line in shown
            )
            assert any(
                line.endswith("|  55%  downloading a/b: 11.0 GB of 20.0 GB  250.0 MB/s  0:36 left")
                for line in shown
            )
        else:
            assert said.count("\n") == 10 and "\x1b" not in said  # each tenth, and the end
    progress = Progress("log")
    progress.downloading(Downloading("a/b", 1, 3000, 3000, 0, 0.1))  # configs are not worth a word
    assert capsys.readouterr().err == ""


def test_a_pace_does_not_count_what_was_there_before():
    now = [0.0]
    pace = Pace(100, clock=lambda: now[0])
    now[0] = 50.0  # to read what was kept
    pace.skip(40)
    assert pace.left is None
    now[0] += 10.0
    pace.at(pace.done + 10)
    assert pace.left == 50.0
    pace.skip(25)  # kept, and found on the way: no time was spent on it
    assert pace.left == 25.0
    assert Pace(10, before=10).left is None
