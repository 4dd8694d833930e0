"""Write cli.md from the help of the verbs: `python docs/cli.py`, after any change of an option."""

from pathlib import Path

from longtake.cli import parser
from longtake.cli.parser import help_of_verbs

PAGE = Path(__file__).with_suffix(".md")
COLUMNS = 100

HEAD = """\
# The command line

This page is what `longtake VERB --help` says; `python docs/cli.py` writes it.

A verb ends with the exit code 0 if it is done, 2 if the request was refused (one sentence says why, and nothing was
made), 1 if a run failed on its way, and 130 if it was interrupted. With `--json`, standard output has one object for
each event, and the last one is `done` or `error`; an error says in which `section` and at which `step` it came up, if
that is known.
"""


def page() -> str:
    """The whole page."""
    helps = help_of_verbs(parser(), COLUMNS)
    return HEAD + "".join(f"\n## longtake {verb}\n\n```text\n{text}```\n" for verb, text in helps.items())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
