"""The parser of all verbs, made of what each verb's file says of itself.

A verb's file has a docstring (one sentence, the description), `USAGE`, `EXAMPLES`, `add_arguments`, and `run`. All but
`run` stay free of imports that cost time.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any, NoReturn

from longtake import __version__
from longtake.errors import JobError

EXAMPLES = """\
longtake scene "a penguin in the snow" -o penguin.png
longtake generate penguin.png "A penguin dances in the snow." -o penguin.mp4
longtake generate penguin.png "A penguin dances in the snow." --sampling vanilla --job penguin
longtake resume penguin
longtake extend penguin --seconds 10
longtake plan --seconds 5 --sampling inverted
"""


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose complaints are errors of ours: one sentence instead of the usage."""

    intermixed = False
    """True for a verb whose words may stand between its options although it can do without some of them."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """argparse's own, which gives what it cannot take to the next chunk of words only where that is asked for."""
        if not self.intermixed:
            return super().parse_known_args(args, namespace)
        self.intermixed = False  # it calls this again
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixed = True

    def error(self, message: str) -> NoReturn:
        raise JobError(f"{message[0].upper()}{message[1:]}; see: {self.prog} --help.")


class Form(argparse.RawDescriptionHelpFormatter):
    """argparse's form of the help, the same for every Python: `-o, --output FILE`, as 3.13 writes it.

    docs/cli.md is made from it, and a test compares the two.
    """

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


def build_parser(verbs: Mapping[str, ModuleType]) -> Parser:
    """The parser of these verbs by their names; loads nothing but argparse."""
    parser = Parser(
        prog="longtake",
        usage="%(prog)s VERB ...",
        description="A picture and a sentence become a video of any length (FramePack).",
        epilog=_examples(EXAMPLES),
        formatter_class=Form,
    )
    parser.add_argument("--version", action="version", version=f"longtake {__version__}")
    choices = parser.add_subparsers(
        title="verbs", metavar="VERB", required=True, prog="longtake", parser_class=Parser
    )
    for name, verb in verbs.items():
        add_verb(choices, name, verb)
    return parser


def help_of_verbs(parser: Parser, columns: int) -> dict[str, str]:
    """The help of each verb, so many columns wide."""
    choices = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    texts = {}
    for name, verb in choices.choices.items():
        verb.formatter_class = partial(Form, width=columns)
        texts[name] = verb.format_help()
    return texts


def add_verb(choices: Any, name: str, verb: ModuleType) -> None:
    """Add one verb to the choices of a parser."""
    summary = (verb.__doc__ or "").split(":", 1)[1].strip()
    parser = choices.add_parser(
        name,
        usage=f"longtake {name} {verb.USAGE}",
        help=summary.splitlines()[0].rstrip("."),
        description=f"{summary[0].upper()}{summary[1:]}",
        epilog=_examples(verb.EXAMPLES),
        formatter_class=Form,
        allow_abbrev=False,
    )
    parser.set_defaults(run=verb.run)
    parser.intermixed = getattr(verb, "INTERMIXED", False)
    verb.add_arguments(parser)


def _examples(lines: str) -> str:
    return "examples:\n" + "".join(f"  {line}\n" for line in lines.strip().splitlines())
