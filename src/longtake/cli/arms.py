"""The arms of an evaluation: made by models, of video files, of earlier results, as the command line names them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.cli.options import OPTIONS, job_of, machine_of
from longtake.errors import JobError
from longtake.job import Job
from longtake.plan.plans import PLANS

if TYPE_CHECKING:
    from longtake.evaluation.clips import ClipArm
    from longtake.evaluation.making import Arm
    from longtake.evaluation.results import Results
    from longtake.machine import Machine

FLOORS = ("truth", "autoencoder")
RESULTS = "results.json"


class Asked:
    """The things that the words name: arms to make, arms of files, and earlier results by their files."""

    def __init__(self) -> None:
        self.jobs: list[Arm] = []
        self.clips: list[ClipArm] = []
        self.earlier: list[tuple[str, Results]] = []

    def total(self, args: argparse.Namespace) -> int:
        """The videos that take time."""
        return len(self.jobs) * args.scenes * args.seeds + sum(len(arm.files) for arm in self.clips)

    def check(self, against: str | None) -> None:
        """Raise JobError for a name twice, or a comparison with none of them."""
        made = [arm.name for arm in self.jobs] + [arm.name for arm in self.clips]
        for name in made:
            if made.count(name) > 1:
                raise JobError(f"Two arms have the name {name!r}; rename a file, or name arms in --arms.")
        known = [*made, *(name for _, results in self.earlier for name in results), *FLOORS]
        if against is not None and against not in known:
            raise JobError(f"There is no arm {against!r} to compare with; there are: {', '.join(known)}.")


def asked_of(args: argparse.Namespace) -> Asked:
    """The things that the command line names; JobError for what cannot be evaluated, before a model loads."""
    from longtake.evaluation.clips import clip_arm
    from longtake.evaluation.results import read_results
    from longtake.video import SUFFIXES

    asked, models = Asked(), list[str]()
    for word in args.what:
        path = Path(word)
        if path.is_dir() and (path / RESULTS).is_file():
            path = path / RESULTS
        if path.suffix == ".json":
            asked.earlier.append((word, read_results(path)))
        elif path.suffix.lower() in SUFFIXES or (path.is_dir() and not (path / "model_index.json").exists()):
            asked.clips.append(clip_arm(path))
        else:
            models.append(word)
    if args.standard is not None and not asked.clips:
        raise JobError("--reference is for video files; none was named.")
    if (args.samplings or args.arms) and not models:
        raise JobError("--sampling and --arms are for models; none was named.")
    for model in models:
        asked.jobs += arms_of(args, model, f"{Path(model).name} " if len(models) > 1 else "")
    asked.check(args.against)
    machine = machine_of(args)
    asked.jobs = [_checked(arm, machine) for arm in asked.jobs]
    return asked


def arms_of(args: argparse.Namespace, model: str, prefix: str = "") -> list[Arm]:
    """The arms of one model: one for each sampling, of each entry of the file of arms."""
    from longtake.evaluation.making import Arm

    args = argparse.Namespace(**{**vars(args), "model": model})
    plain = job_of(args)
    samplings = _samplings(args.samplings)
    arms = []
    for name, values in _entries(args.arms).items():
        own = Job.of({**plain.values(), **values}) if values else plain
        own_samplings = [own.sampling] if "sampling" in values or not samplings else samplings
        for sampling in own_samplings:
            job = replace(own, sampling=sampling)
            job.check()
            told = (name, *([sampling] if len(own_samplings) > 1 or not name else []))
            arms.append(Arm(prefix + " ".join(filter(None, told)), job))
    return arms


def _entries(path: Path | None) -> dict[str, dict[str, Any]]:
    """The arms of a file, by name; one without a name if there is no file."""
    from longtake import strictjson

    if path is None:
        return {"": {}}
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path} cannot be read: {error}.") from None
    values = strictjson.parse(text, f"a file of arms ({path})")
    if not (isinstance(values, dict) and values and all(isinstance(each, dict) for each in values.values())):
        raise JobError(f"{path} holds no arms: an object with one object of a job's fields for each name.")
    for name, fields in values.items():
        taken = fields.keys() & {"prompt", "anchors", "model"}
        if taken:
            raise JobError(
                f"The arm {name!r} in {path} names {min(taken)}, which the scenes and WHAT decide."
            )
    return values


def _samplings(text: str | None) -> list[str]:
    if text is None:
        return []
    names = list(PLANS) if text == "all" else text.split(",")
    for name in names:
        OPTIONS["sampling"].check("--sampling", name)
    return list(dict.fromkeys(names))


def _checked(arm: Arm, machine: Machine) -> Arm:
    """The arm with the fingerprints of its weights; ModelError or JobError for what could not be made."""
    from longtake.cli.allowance import check_allowance
    from longtake.sampling.caching import parse
    from longtake.sampling.ratios import with_file
    from longtake.weights.fingerprint import file_fingerprint, fingerprint
    from longtake.weights.lora import find_file

    cache = parse(arm.job.cache)
    if cache is not None:
        with_file(cache)
    marks = [fingerprint(arm.job.model, arm.job.parts)]
    marks += [file_fingerprint(find_file(lora.path)) for lora in arm.job.loras]
    check_allowance(arm.job, machine)
    return replace(arm, model=" ".join(marks))
