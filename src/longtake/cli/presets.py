"""Presets: files of settings, in JSON or TOML, by the names that a job's JSON has; and those of them in a command."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longtake import disk, strictjson, toml
from longtake.cli.options import MACHINE, OPTIONS, size
from longtake.errors import JobError
from longtake.job import KEYS, Anchor, Job, fields_of
from longtake.option import check_number, shown

FIELDS = {KEYS.get(name, name): name for name in OPTIONS if name not in ("width", "height")}
"""The fields of a job by their names in JSON; a preset says both sides of a size at once."""

BESIDE = ("size", "seconds", "zoom", "crf")
"""Other keys of a preset; the options have these names, too."""

KNOWN = (*FIELDS, *BESIDE)


def read_preset(file: Path) -> dict[str, Any]:
    """The settings in a file by the names that options have; JobError for a key that none has."""
    values = _parsed(file)
    for key in values:
        _check_key(file, key)
    if {"frames", "seconds"} <= values.keys():
        raise JobError(f"The preset {file} has frames and seconds; a length is one of them.")
    beside = {key: _beside(file, key, values.pop(key)) for key in tuple(values) if key in BESIDE}
    try:
        return {**fields_of(values), **beside}
    except JobError as error:
        raise JobError(f"{file}: {error}") from None


def write_preset(file: Path, args: argparse.Namespace) -> None:
    """Write what a command gives, and no default, so that a later preset switches nothing on by itself."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    fields = {name: given[name] for name in OPTIONS if name in given}
    if isinstance(fields.get("parts"), list):
        fields["parts"] = dict(fields["parts"])
    if given.get("picture"):
        fields["anchors"] = [Anchor(0, given["picture"]), *fields.get("anchors", ())]
    told = Job(**{"prompt": "", **fields}).values()
    values = {key: told[key] for key, name in FIELDS.items() if name in fields}
    beside = {key: given[key] for key in BESIDE if key in given}
    if "size" in beside:
        beside["size"] = "{}x{}".format(*beside["size"])
    text = json.dumps({**values, **beside}, indent=2, ensure_ascii=False)
    try:
        disk.write(file, f"{text}\n".encode())
    except OSError as error:
        raise JobError(f"{file} cannot be written: {error.strerror or error}.") from None


def check_preset(name: str) -> Path:
    """The file of a preset to write; JobError if its name is not JSON's, or its folder is missing."""
    file = Path(name)
    if file.suffix.lower() != ".json":
        raise JobError(f"A preset is written as JSON, in a file that ends in .json; {name} was given.")
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise JobError(f"{file} cannot be written: it is a folder, or lies in none.")
    return file


def _parsed(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(
            f"The preset {file} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from None
    if file.suffix.lower() == ".toml":
        return toml.parse(text, str(file))
    values = strictjson.parse(text, f"a preset ({file})")
    if not isinstance(values, Mapping):
        raise JobError(
            f"This is not a preset ({file}): it should be an object of JSON; {shown(values)} was given."
        )
    return dict(values)


def _check_key(file: Path, key: str) -> None:
    if key in MACHINE:
        raise JobError(
            f"The preset {file} has the key {shown(key)}: what belongs to this machine is given in the command, and a "
            "preset tells a video."
        )
    if key not in KNOWN:
        near = difflib.get_close_matches(key, KNOWN, 1)
        instead = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(KNOWN)}."
        raise JobError(f"The preset {file} has the key {shown(key)}, which is no setting{instead}")


def _beside(file: Path, key: str, value: Any) -> Any:
    """A setting that is no field of a job."""
    try:
        if key == "size":
            return size(str(value))
        check_number(key, value, int if key == "zoom" else float)
        return value
    except (JobError, argparse.ArgumentTypeError) as error:
        raise JobError(f"The preset {file}: {error}") from None
