"""Job: what is asked, as JSON-able data."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from longtake.errors import JobError
from longtake.sampling.solvers import SOLVERS

SAMPLINGS = ("inverted", "vanilla")
DECODINGS = ("exact", "causal")


@dataclass(frozen=True)
class Lora:
    """A LoRA to use: a safetensors file, a folder with one or a name on the hub; and how much of it (1 is all).

    One weight holds for the whole video; several are one for each section in the order of the video's time, and the
    last one repeats.
    """

    path: str
    weights: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, values: Any) -> Lora:
        """The LoRA of what JSON says: a path, or an object with path and weights."""
        if isinstance(values, str):
            return cls(values)
        lora = cls(**values)
        return cls(lora.path, tuple(lora.weights))

    def check(self) -> None:
        """Raise JobError where there is no path, or a weight that is no finite number."""
        if not isinstance(self.path, str) or not self.path:
            raise JobError(f"A LoRA needs the path of its file; {self.path!r} was given.")
        if not self.weights:
            raise JobError(f"The LoRA {self.path} has no weight; give one number, or one for each section.")
        for weight in self.weights:
            if not isinstance(weight, (int, float)) or not math.isfinite(weight):
                raise JobError(
                    f"The weight of the LoRA {self.path} must be a finite number; {weight!r} was given."
                )


@dataclass(frozen=True)
class SectionChange:
    """One section that is made otherwise than the rest: with a seed or a prompt of its own (None: the job's).

    `section` is its place in the video, 0 first.
    """

    section: int
    seed: int | None = None
    prompt: str | None = None

    @classmethod
    def of(cls, values: Any) -> SectionChange:
        """The change of what JSON says: an object with section, and seed or prompt."""
        return cls(**values)

    def check(self) -> None:
        """Raise JobError for a section or a seed that is no number from 0 on, or a prompt that is no text."""
        if not _is_count(self.section):
            raise JobError(f"Sections are numbered from 0; the job changes section {self.section!r}.")
        if self.seed is not None and not _is_count(self.seed):
            raise JobError(
                f"The seed must not be negative; {self.seed!r} was asked for in section {self.section}."
            )
        if self.prompt is not None and not isinstance(self.prompt, str):
            raise JobError(f"The prompt of section {self.section} must be a text; {self.prompt!r} was given.")


@dataclass(frozen=True)
class Job:
    """What is asked: everything that decides the video but the pictures' pixels and the model.

    Sizes are pixels, `frames` counts video frames, `guidance` is the distilled (embedded) one, `cfg_scale` the
    real classifier-free one (1 = off). `shift` None takes the shift that the model's scheduler asks for. `decoding`
    "causal" is faster than "exact" and near to it.
    """

    prompt: str
    negative_prompt: str = ""
    picture: str | None = None
    last_picture: str | None = None
    model: str = "embedded"
    frames: int = 145
    fps: int = 30
    width: int | None = None
    height: int | None = None
    sampling: str = "inverted"
    window: int = 9
    steps: int = 25
    solver: str | None = None
    guidance: float = 10.0
    cfg_scale: float = 1.0
    cfg_rescale: float = 0.0
    shift: float | None = None
    seed: int = 0
    dtype: str = "float32"
    reference: bool = False
    decoding: str = "exact"
    loras: tuple[Lora, ...] = ()
    changes: tuple[SectionChange, ...] = ()

    def check(self) -> None:
        """Raise JobError for the first thing that cannot be done, in one sentence."""
        for name in ("width", "height"):
            size = getattr(self, name)
            if size is not None and (size < 16 or size % 16):
                raise JobError(f"The {name} must be a positive multiple of 16; {size} was asked for.")
        for name in ("frames", "fps", "steps", "window"):
            if getattr(self, name) < 1:
                raise JobError(f"{name} must be at least 1; {getattr(self, name)} was asked for.")
        if self.decoding not in DECODINGS:
            raise JobError(f"No decoding {self.decoding!r}; there are: {', '.join(DECODINGS)}.")
        if self.sampling not in SAMPLINGS:
            raise JobError(f"No sampling {self.sampling!r}; there are: {', '.join(SAMPLINGS)}.")
        if self.solver is not None and self.solver not in SOLVERS:
            raise JobError(f"No solver {self.solver!r}; there are: {', '.join(SOLVERS)}.")
        if self.last_picture is not None and self.sampling != "inverted":
            raise JobError("A last picture needs inverted sampling: vanilla never looks ahead.")
        if self.seed < 0:
            raise JobError(f"The seed must not be negative; {self.seed} was asked for.")
        for lora in self.loras:
            lora.check()
        for change in self.changes:
            change.check()
        if len({change.section for change in self.changes}) < len(self.changes):
            raise JobError("Each section can be changed once; the job's changes name one of them twice.")
        if self.changes and self.reference:
            raise JobError(
                "The reference's noise is one stream; no section of it can have its own seed or prompt."
            )

    def change_of(self, section: int) -> SectionChange:
        """What is different in the section at this place in the video."""
        found = (change for change in self.changes if change.section == section)
        return next(found, SectionChange(section))

    def to_json(self) -> str:
        """The job as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that `to_json` wrote; JobError for anything else."""
        try:
            values = json.loads(text)
            loras = values.pop("loras", [])
            if not isinstance(loras, list):
                raise TypeError("loras is a list")
            loras = tuple(Lora.of(lora) for lora in loras)
            changes = tuple(SectionChange.of(change) for change in values.pop("changes", ()))
            return cls(**values, loras=loras, changes=changes)
        except (AttributeError, TypeError, ValueError) as error:
            raise JobError(f"This is not a job: {error}.") from None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
