"""The command line: `longtake generate`, `resume`, `plan` and so on; one file for each verb.

A verb's file has `add_parser`, which must stay free of imports that cost time, and `run`, which does the work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from longtake import __version__
from longtake.cli import extend, generate, info, plan, redo, resume, scene, train
from longtake.errors import JobError, LongtakeError, LongtakeWarning

VERBS = (generate, resume, extend, redo, plan, scene, train, info)
REFUSED, INTERRUPTED = 2, 130

VERBS = {
    "generate": generate, "resume": resume, "extend": extend, "redo": redo,
    "plan": plan, "scene": scene, "train": train, "info": info,
}  # fmt: skip
FAILED, REFUSED, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 done, 2 a request that cannot be met, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            with contextlib.suppress(SystemExit):  # that is how --help and --version end
                args = build_parser().parse_args(words)
                args.run(args)
            sys.stdout.flush()
        return 0
    except LongtakeError as error:
        sentence = f"{str(error).rstrip('.')}."
        if "--json" in words:
            print(json.dumps({"event": "error", "message": sentence}, ensure_ascii=False), flush=True)
        print(f"longtake: {sentence}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("\nlongtake: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has left; nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    if issubclass(category, LongtakeWarning):
        print(f"note: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=sys.stderr)
