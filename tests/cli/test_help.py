"""The help: what it costs, what it says, and that docs/cli.md says the same."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from longtake.cli import VERBS, main, parser
from longtake.cli.generate import named
from longtake.cli.options import job_of
from longtake.cli.parser import EXAMPLES

DOCS = Path(__file__).parents[2] / "docs"
LOADED = 'print([name for name in ("torch", "mindspore", "numpy", "PIL", "av", "tokenizers") if name in sys.modules])'


def python(*words, **options):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, **options)


# ------------------------------------------------------------------------------------------ what it costs


def best_of_three(*words):
    """Seconds of processor time, the interpreter's own start included: what a busy machine does not stretch."""
    seconds = []
    for _ in range(3):
        before = os.times()
        assert python(*words).returncode == 0
        after = os.times()
        seconds.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    return min(seconds)


def test_import_is_quick():
    # The limits are what the project promises; measured 0.05 s and 0.13 s.
    assert best_of_three("-c", "import longtake") < 0.3


def test_help_is_quick():
    assert best_of_three("-m", "longtake", "--help") < 0.6


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["--version"], ["generate", "--help"], ["redo", "--help"], ["train", "--help"]]
)
def test_help_loads_no_framework(words):
    call = f"from longtake.cli import main; main({words!r})" if words else "import longtake"
    done = python("-c", f"import sys; {call}; {LOADED}")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stdout


def test_every_verb_has_help(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in VERBS:
        assert re.search(rf"\n    {verb}\s", text)
        assert main([verb, "--help"]) == 0
        assert f"usage: longtake {verb} " in capsys.readouterr().out


def examples():
    """Every command that a help shows, as words; a backslash joins lines."""
    lines = (
        "\n".join([EXAMPLES, *(verb.EXAMPLES for verb in VERBS.values())]).replace("\\\n", " ").splitlines()
    )
    return [shlex.split(line) for line in lines if line.strip()]


@pytest.mark.parametrize("words", examples(), ids=" ".join)
def test_examples_of_the_help_can_be_parsed(words):
    args = parser().parse_args(words[1:])
    assert words[0] == "longtake" and args.run is VERBS[words[1]].run
    if words[1] == "generate":
        args.picture, args.prompt = named(args.words)
    if words[1] in ("generate", "plan"):
        job_of(args)  # and asks for what can be done


def test_every_verb_has_an_example():
    assert {words[1] for words in examples()} == set(VERBS)


def test_the_page_says_what_the_help_says():
    spec = importlib.util.spec_from_file_location("page_of_the_command_line", DOCS / "cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == module.page(), "run: python docs/cli.py"


def test_a_reader_that_leaves_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "longtake", "--help"], stdout=writing, stderr=subprocess.PIPE, timeout=120
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
