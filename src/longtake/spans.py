"""Parts of a job that stand at a time of its video, or hold for a while: pictures, prompts, LoRAs, changes, a clip.

They are plain data, in seconds and file names, and check themselves; which sections they reach is the plan's to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from longtake.errors import JobError, JobTypeError
from longtake.option import ITEMS, NAME, TEXT, check_number, check_text, shown

FRAMES = 10_000_000
"""Most frames of a video: four days at 30 a second. The plan would take more, the numbers of files would not."""

SECONDS = FRAMES
"""Latest second of a video, at one frame a second."""

SEEDS = 2**64 - 1
"""Largest seed, as in PyTorch."""

STRENGTH = 2
"""Largest strength of a picture: beyond it a mixture of two velocities leaves what either of them knows."""

CLIP_LATENTS = 1000
"""Most latent frames of a clip that a video goes on from: as many as a section can see."""


@dataclass(frozen=True)
class Anchor:
    """A picture at a time of the video: a file or an http(s) address, at some second (0: the first) or at "end".

    `strength` is the weight of what the model makes with it: 1 is all, 0 is without it, 2 is as far again beyond.
    """

    at: float | Literal["end"]
    image: str
    strength: float = 1.0

    def check(self) -> None:
        """Raise JobError for a picture without a name, or at a time or of a strength where none can be."""
        if self.at != "end":
            check_number('The time of a picture that is not at "end"', self.at, least=0, most=SECONDS)
        check_text(f"The picture at {shown(self.at)}", self.image, 1, NAME)
        check_number(
            f"The strength of the picture at {shown(self.at)}", self.strength, least=0, most=STRENGTH
        )


def in_order(anchors: Iterable[Anchor]) -> tuple[Anchor, ...]:
    """Pictures in the order of their times, that at the end last."""
    return tuple(sorted(anchors, key=lambda anchor: math.inf if anchor.at == "end" else anchor.at))


@dataclass(frozen=True)
class PromptSpan:
    """A prompt that is said from the second `start` to the second `end` (None: the video's end).

    `seed` is that of the sections that say it (None: the job's).
    """

    text: str
    start: float = 0.0
    end: float | None = None
    seed: int | None = None

    def check(self) -> None:
        """Raise JobError for what is no text, no stretch of time, or no seed."""
        check_text("The text of a prompt in time", self.text, 0, TEXT)
        check_span("A prompt", "is said", self.start, self.end)
        if self.seed is not None:
            check_number(f"The seed of the prompt from {self.start} s on", self.seed, int, 0, SEEDS)


@dataclass(frozen=True)
class WeightSpan:
    """The weight of a LoRA from the second `start` to the second `end` (None: the video's end)."""

    weight: float
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Lora:
    """A LoRA to use: a safetensors file, a folder with one or a name on the hub; and how much of it (1 is all).

    One weight holds for the whole video; several are one for each section in the order of the video's time, and the
    last one repeats. Weights in time (`WeightSpan`) hold in their seconds, and it is not used in others.
    """

    path: str
    weights: tuple[float | WeightSpan, ...] = (1.0,)

    def __post_init__(self) -> None:
        freeze(self, "weights")

    @property
    def spans(self) -> tuple[WeightSpan, ...]:
        """The weights in time; none if there is one weight, or one for each section."""
        return tuple(weight for weight in self.weights if isinstance(weight, WeightSpan))

    def check(self) -> None:
        """Raise JobError if there is no path, or if a weight is no finite number."""
        check_text("The path of a LoRA", self.path, 1, NAME)
        name = f"The weight of the LoRA {shown(self.path)}"
        if not isinstance(self.weights, tuple):
            raise JobTypeError(f"{name} must be a list of numbers; {shown(self.weights)} was given.")
        if not 1 <= len(self.weights) <= ITEMS:
            raise JobError(
                f"The LoRA {shown(self.path)} has {len(self.weights)} weights; give one number, or one for each "
                f"section, up to {ITEMS}."
            )
        if 0 < len(self.spans) < len(self.weights):
            raise JobError(
                f"The LoRA {shown(self.path)} has weights for sections and weights in seconds; give one or the other."
            )
        for weight in self.weights:
            if isinstance(weight, WeightSpan):
                check_span(name, "holds", weight.start, weight.end)
            check_number(name, getattr(weight, "weight", weight), least=-1000, most=1000)
        check_order(self.spans, f"One weight of the LoRA {shown(self.path)} can hold")


@dataclass(frozen=True)
class SectionChange:
    """One section that is made otherwise than the rest: with a seed or a prompt of its own (None: the job's).

    `section` is its place in the video, 0 first.
    """

    section: int
    seed: int | None = None
    prompt: str | None = None

    def check(self) -> None:
        """Raise JobError for a section or a seed that is no number from 0 on, or a prompt that is no text."""
        check_number("The number of a changed section", self.section, int, 0, FRAMES)
        if self.seed is not None:
            check_number(f"The seed of section {self.section}", self.seed, int, 0, SEEDS)
        if self.prompt is not None:
            check_text(f"The prompt of section {self.section}", self.prompt, 0, TEXT)


@dataclass(frozen=True)
class Clip:
    """A video file that the job's video goes on from or leads to, and how many latent frames of it sections see.

    `latents` None means as many as a section of the job's sampling sees.
    """

    video: str
    latents: int | None = None

    def check(self) -> None:
        """Raise JobError for a clip without a name, or of which nothing would be seen."""
        check_text("The clip", self.video, 1, NAME)
        if self.latents is not None:
            check_number("The latent frames of the clip", self.latents, int, 1, CLIP_LATENTS)


def check_span(name: str, does: str, start: Any, end: Any) -> None:
    """Raise JobError for what is no stretch of time, such as of "A prompt" that "is said"."""
    check_number(f"The second from which {_small(name)} {does}", start, least=0, most=SECONDS)
    if end is not None:
        check_number(f"The second to which {_small(name)} {does}", end, most=SECONDS)
        if end <= start:
            raise JobError(f"{name} must end after it begins; it {does} from {start} to {end} s.")


def check_order(spans: Any, rule: str) -> None:
    """Raise JobError if one span is not over when the next begins; `rule` is such as "One prompt can be said"."""
    ordered = sorted(spans, key=lambda span: span.start)
    for span, following in pairwise(ordered):
        if span.end is None or span.end > following.start:
            raise JobError(
                f"{rule} at a time; the one from {span.start} s is not over when the one from {following.start} s "
                "begins."
            )


def freeze(data: Any, *names: str) -> None:
    """Turn the lists among these fields into tuples, so that the dataclass can be hashed."""
    for name in names:
        if isinstance(getattr(data, name), list):
            object.__setattr__(data, name, tuple(getattr(data, name)))


def _small(name: str) -> str:
    return name[:1].lower() + name[1:]
