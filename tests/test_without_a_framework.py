"""Help, plans, job checks and headers work where no framework is installed (`make pythons`: on every Python)."""

import os
import subprocess
import sys

import pytest

ABSENT = """
import sys
from importlib.machinery import PathFinder

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        hidden = name.split(".")[0] in ("torch", "mindspore")
        return None if hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
from longtake.cli import main
"""


def longtake(*words):
    """What the command line answers in a process of its own that can import no framework."""
    call = ABSENT + f"sys.exit(main({list(words)!r}))"
    asked = {name: value for name, value in os.environ.items() if name != "LONGTAKE_BACKEND"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", call], capture_output=True, text=True, timeout=120, env=asked
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["generate", "--help"],
        ["train", "--help"],
        ["plan", "--seconds", "5"],
        ["plan", "--frames", "145", "--sampling", "vanilla"],
        ["info", "embedded"],
    ],
)
def test_what_needs_no_framework_asks_for_none(words):
    done = longtake(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout and not done.stderr


def test_a_picture_is_drawn(tmp_path):
    done = longtake("scene", "a penguin in the snow", "-o", str(tmp_path / "penguin.png"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "penguin.png").stat().st_size > 0


def test_a_job_that_cannot_be_is_refused_first(tmp_path):
    longtake("scene", "a penguin in the snow", "-o", str(tmp_path / "penguin.png"))
    done = longtake("generate", str(tmp_path / "penguin.png"), "A penguin dances.", "--frames", "0")
    assert done.returncode == 2
    assert "0" in done.stderr and "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_the_missing_framework_is_named_when_it_is_needed(tmp_path):
    longtake("scene", "a penguin in the snow", "-o", str(tmp_path / "penguin.png"))
    done = longtake(
        "generate", str(tmp_path / "penguin.png"), "A penguin dances.", "-o", str(tmp_path / "out.mp4")
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and 'pip install "longtake[torch]"' in done.stderr
