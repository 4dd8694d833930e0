"""The command line: `longtake generate`, `resume`, `plan` and so on; one file for each verb."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

from longtake.cli import (
    calibrate,
    codebook,
    encode,
    evaluate,
    extend,
    finetune,
    generate,
    info,
    plan,
    quantize,
    redo,
    resume,
    scene,
    show,
    takes,
    train,
    undo,
)
from longtake.cli.bars import say
from longtake.cli.follow import follow
from longtake.cli.parser import Parser, build_parser
from longtake.errors import LongtakeError, LongtakeWarning, LostRunError, RunError
from longtake.launched import launched
from longtake.option import check_text

VERBS = {
    "generate": generate, "resume": resume, "extend": extend, "redo": redo,
    "takes": takes, "undo": undo,
    "plan": plan, "show": show, "scene": scene, "train": train, "encode": encode, "info": info,
    "quantize": quantize, "calibrate": calibrate, "finetune": finetune,
    "codebook": codebook, "evaluate": evaluate,
}  # fmt: skip
DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def parser() -> Parser:
    """The parser of the whole command line."""
    return build_parser(VERBS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 done, 1 failed on its way, 2 refused, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    rank, size = launched()
    if rank:
        return follow(words, rank, size)
    try:
        with warnings.catch_warnings():
            # Ours are notes to the user, whatever Python is told to do with warnings.
            warnings.simplefilter("always", LongtakeWarning)
            warnings.showwarning = partial(_show_warning, set())
            with contextlib.suppress(SystemExit):  # that is how --help and --version end
                _check_words(words)
                args = parser().parse_args(words)
                args.run(args)
            sys.stdout.flush()
        return DONE
    except LostRunError as error:
        if not error.told:
            _tell_end(f"{str(error).rstrip('.')}.", "--json" in words, error)
        return FAILED
    except LongtakeError as error:
        _tell_end(f"{str(error).rstrip('.')}.", "--json" in words, error)
        return FAILED if isinstance(error, RunError) else REFUSED
    except MemoryError as error:
        _tell_end(
            "There is not enough memory for this; a smaller size or dtype needs less.",
            "--json" in words,
            error,
        )
        return FAILED
    except KeyboardInterrupt as error:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # behind the ^C that it shows
        _tell_end("interrupted", "--json" in words, error)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has left; nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _check_words(words: Sequence[str]) -> None:
    for place, word in enumerate(words, 1):
        check_text(f"Word {place} of the command line", word)


def _tell_end(sentence: str, as_json: bool, error: BaseException) -> None:
    """Say how a run ended that was not done; to machines also in which section and at which step, if that is known."""
    if as_json:
        places = {name: getattr(error, name, None) for name in ("section", "step")}
        known = {name: value for name, value in places.items() if value is not None}
        print(json.dumps({"event": "error", "message": sentence, **known}, ensure_ascii=False), flush=True)
    print(f"longtake: {sentence}", file=sys.stderr)


def _show_warning(
    said: set[str],
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    if issubclass(category, LongtakeWarning):
        if str(message) not in said:  # what is checked at once and again where it is used is told once
            say(f"note: {message}")
        said.add(str(message))
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=sys.stderr)
