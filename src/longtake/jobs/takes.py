"""Takes: finished sections that the job does not use now. They are kept, so that going back makes nothing again.

A take is the file of a section in `takes/`, named by its place in the video and its recipe. Since the recipe is a hash
of all that decides the latents, a take fits wherever its recipe is asked for, whatever has happened to the job since.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from longtake import disk, strictjson
from longtake.errors import JobError, LongtakeError
from longtake.job import Job, SectionChange
from longtake.jobs import section as sections
from longtake.jobs.recipe import Recipes
from longtake.jobs.section import section_file, section_files
from longtake.plan.timeline import direct

TAKES = "takes"
KEPT = 4
"""Takes of each section that are kept beside the one in use, unless `--keep-takes` says otherwise."""

MOST_KEPT = 10_000

SAID = 20_000
"""Most characters of what a take tells of the changes that it was made with."""


@dataclass(frozen=True)
class Take:
    """One take of the section at place `number`: its recipe, its file, what it was told; `used` if it is in the video.

    `changes` are the changes of single sections that the job had, for this one and those that it sees; None if that is
    not known.
    """

    number: int
    recipe: str
    file: Path = field(repr=False)
    used: bool
    prompt: str | None = None
    seed: int | None = None
    changes: tuple[SectionChange, ...] | None = None

    def values(self) -> dict[str, Any]:
        """The take as JSON values."""
        return {
            "take": self.recipe[:8],
            "used": self.used,
            "seed": self.seed,
            "prompt": self.prompt,
            "file": str(self.file),
        }


def take_file(folder: Path, number: int, recipe: str) -> Path:
    """The place of a take in a job's folder."""
    return folder / TAKES / f"{number:05}-{recipe}.safetensors"


def stored(folder: Path) -> dict[str, Path]:
    """The takes in a job's folder by their recipe, as their names say."""
    found = {}
    for file in sorted((folder / TAKES).glob("*.safetensors")):
        number, _, recipe = file.stem.partition("-")
        if number.isdecimal() and len(number) < 19 and recipe:
            found[recipe] = file
    return found


def set_aside(folder: Path, found: Recipes) -> list[int]:
    """Let the sections that are not by today's recipes become takes; their numbers.

    A damaged one stays for who reads it next, if the video has a section of its number.
    """
    numbers = []
    for number, file in section_files(folder):
        recipe = sections.recipe_of(file)
        if number in found and recipe in (None, found[number]):
            continue
        aside(folder, number, file, recipe)
        numbers.append(number)
    return numbers


def aside(folder: Path, number: int, file: Path, recipe: str | None) -> None:
    """Make a take of a section's file; one whose recipe cannot be read, or that is no section, goes."""
    if recipe is None or number < 0 or not (recipe.isalnum() and len(recipe) <= 64):
        file.unlink()
        return
    disk.make_folder(folder / TAKES)
    disk.move(file, take_file(folder, number, recipe))


def bring_back(folder: Path, found: Recipes) -> list[int]:
    """Use the takes that are by today's recipes, where a section is missing; the numbers of these sections."""
    takes = stored(folder)
    numbers = []
    for number in range(found.plan.count) if takes else ():
        file = section_file(folder, number)
        take = takes.get(found[number])
        if take is not None and not file.exists() and sections.recipe_of(take) == found[number]:
            disk.move(take, file)
            numbers.append(number)
    return numbers


def prune(folder: Path, keep: int, before: Mapping[str, Path]) -> None:
    """Remove the takes that are too many for their section, the oldest first: of those `before`, then of the new."""
    by_number: dict[int, list[Path]] = defaultdict(list)
    for file in stored(folder).values():
        by_number[int(file.stem.partition("-")[0])].append(file)
    known = set(before.values())
    for files in by_number.values():
        files.sort(key=lambda file: (file not in known, _age(file)))
        for file in files[: max(0, len(files) - keep)]:
            file.unlink()


def takes_of(folder: Path, found: Recipes, number: int) -> list[Take]:
    """All takes of a section, the one in use among them, in the order in which they were made."""
    used = section_file(folder, number)
    files = [*(folder / TAKES).glob(f"{number:05}-*.safetensors"), *([used] if used.exists() else [])]
    takes = []
    for file in sorted(files, key=_age):
        texts = sections.texts_of(file)
        if recipe := texts.get("recipe"):
            takes.append(Take(number, recipe, file, recipe == found[number], **_told(texts)))
    return takes


def chosen(number: int, takes: list[Take], name: str) -> Take:
    """The take of a section that is meant: by its place among them, 1 first, or by how its recipe begins."""
    if name.isdecimal() and len(name) < 6 and 1 <= int(name) <= len(takes):
        return takes[int(name) - 1]
    named = [take for take in takes if len(name) >= 4 and take.recipe.startswith(name)]
    if len(named) == 1:
        return named[0]
    there = f"the takes 1 to {len(takes)}" if takes else "no takes yet"
    raise JobError(f"Section {number} has {there}; {name!r} was asked for (longtake takes DIR lists them).")


def using(job: Job, found: Recipes, take: Take) -> Job:
    """The job in which the take is in use: it and what it sees are told what they were told when it was made.

    Raises JobError for a take of a job that differs in more than what single sections are told.
    """
    mine = {take.number, *found.behind(take.number)}
    others = [change for change in job.changes if change.section not in mine]
    own = [change for change in take.changes or () if change.section in mine]
    changes = sorted([*others, *own], key=lambda change: change.section)
    new = replace(job, changes=tuple(changes))
    if found.of(new)[take.number] != take.recipe:
        raise JobError(
            f"Take {take.recipe[:8]} of section {take.number} was made by a job that differs in more than the seeds "
            "and prompts of single sections; longtake undo DIR goes back to earlier jobs."
        )
    return new


def told_texts(job: Job, found: Recipes, number: int) -> dict[str, str]:
    """All that a section is told, as texts that its file keeps for who lists it."""
    told = direct(job, found.plan, number)
    texts = {"told": json.dumps({"prompt": told.prompt, "seed": told.seed}, ensure_ascii=False)}
    if job.changes:
        mine = {number, *found.behind(number)}
        changes = [dataclasses.asdict(change) for change in job.changes if change.section in mine]
    else:
        changes = []
    said = json.dumps(changes, ensure_ascii=False)
    return {**texts, "changes": said} if len(said) <= SAID else texts


def _told(texts: Mapping[str, str]) -> dict[str, Any]:
    """All that a take was told, by its file; the folder may be a stranger's, so what makes no sense is left out."""
    said: dict[str, Any] = {}
    with contextlib.suppress(LongtakeError, TypeError, KeyError):
        values = strictjson.parse(texts["told"], "what a section was told")
        prompt, seed = values["prompt"], values["seed"]
        SectionChange(0, seed, prompt).check()
        said |= {"prompt": prompt, "seed": seed}
    with contextlib.suppress(LongtakeError, TypeError, KeyError):
        changes = tuple(
            SectionChange(**each) for each in strictjson.parse(texts["changes"], "a list of changes")
        )
        for change in changes:
            change.check()
        said["changes"] = changes
    return said


def _age(file: Path) -> tuple[float, str]:
    return file.stat().st_mtime, file.name
