"""How events are told."""

import contextlib

import numpy as np
import pytest

from grey import events_of
from longtake.cli.progress import Progress
from longtake.errors import RunError
from longtake.events import FramesReady, Planned, SectionDone, Stepped
from longtake.job import Job
from longtake.weights.transfer import Downloading


def test_progress_on_a_terminal_is_one_line_that_moves(capsys):
    now = iter(range(0, 1000, 10))
    progress = Progress("terminal", clock=lambda: float(next(now)))
    for event in events_of(Job("x", frames=4, width=16, height=16)):
        progress.tell(event)
    progress.clear()
    said = capsys.readouterr()
    assert said.out == ""
    assert "\r\x1b[Ksection 1/2  step 1/3  " in said.err and "section 2/2  step 3/3  0:00 left" in said.err
    assert "frame 4/4 decoded" in said.err and said.err.endswith("\r\x1b[K")
    assert said.err.count("\n") == 2  # what is planned, and the notice


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
    assert capsys.readouterr().err.endswith("\r\x1b[K")
    told = progress.follow(iter([Planned(1, 2, 1), Stepped(0, 0, 1, 1.0, None, None)]))
    with pytest.raises(RunError), contextlib.closing(told):
        for event in told:
            if isinstance(event, Stepped):
                raise RunError("The numbers went wrong.")
    assert capsys.readouterr().err.endswith("\r\x1b[K")


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
            assert "\r\x1b[Kdownloading a/b: 1.0 GB of 20.0 GB  5%  …  time left unknown" in said
            assert "downloading a/b: 11.0 GB of 20.0 GB  55%  250.0 MB/s  0:36 left" in said
        else:
            assert said.count("\n") == 10 and "\x1b" not in said  # each tenth, and the end
    progress = Progress("log")
    progress.downloading(Downloading("a/b", 1, 3000, 3000, 0, 0.1))  # configs are not worth a word
    assert capsys.readouterr().err == ""
