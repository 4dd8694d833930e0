"""Settings of a fine-tuning: what learns, from which sections, by which steps; data, with its limits and help."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from longtake.errors import JobError
from longtake.option import NAME, TEXT, option
from longtake.plan.layout import check_scales
from longtake.plan.plans import PLANS, check_window, kind_named
from longtake.sampling import ways

LEVELS = ("shift", "logit-normal", "uniform")
"""The distributions that noise levels are drawn from."""
OPTIMISERS = ("adamw", "muon")
SCHEDULES = ("constant", "cosine")
FORMATS = ("peft", "kohya")
PRECISIONS = ("auto", "float32", "bfloat16")
STORED = ("float32", "bfloat16", "float16")
ANY_TIME = frozenset(
    {
        "gradient_checkpointing",
        "save_every",
        "keep_every",
        "sample_every",
        "log_every",
        "format",
        "save_dtype",
        "cache",
    }
)
"""The settings that may change when a run goes on: none of them decides a step."""
MANY = 10**9


@dataclass(frozen=True)
class Settings:
    """A fine-tuning that is asked for: everything that decides it but the model and the data.

    Times are steps of the optimiser, chances are of one example; `alpha` None is the rank, `sampling` None what the
    model was trained for, `shift` None what `training.levels` says of it.
    """

    rank: int = option(32, "the rank of the LoRA", group="learns", least=1, most=4096)
    alpha: float | None = option(
        None, "its alpha; alpha / rank is its strength (default: the rank)", kind=float, group="learns",
        least=1e-6, most=1e6,
    )  # fmt: skip
    targets: str = option(
        "", "the layers that get it: names with commas between them (to_q,to_k), or one regular expression for the "
        "whole name (default: attention and feed-forward of the blocks, as musubi-tuner)",
        metavar="NAMES|REGEX", group="learns", most=NAME,
    )  # fmt: skip
    dropout: float = option(
        0.0, "the chance that an input of the LoRA is left out", group="learns", least=0, most=0.99
    )
    whole: bool = option(False, "the whole transformer learns, and no LoRA", group="learns")
    sampling: str | None = option(
        None, f"the plans whose sections are learnt, with commas between them: {', '.join(PLANS)}, or structure names "
        "(default: what the model was trained for, else inverted)",
        kind=str, metavar="NAMES", group="sections", least=1, most=NAME,
    )  # fmt: skip
    window: int = option(9, "latent frames of a section, 4 frames each", group="sections", least=1, most=1000)
    timestep_sampling: str = option(
        "shift", "how noise levels are drawn: shift (a logit-normal level, moved towards noise), logit-normal or "
        "uniform", choices=LEVELS, group="sections",
    )  # fmt: skip
    shift: float | None = option(
        None, "how far shift moves them (default: 3 for a published FramePack, as musubi-tuner; else the model's own)",
        kind=float, group="sections", least=0.01, most=100,
    )  # fmt: skip
    guidance: float = option(
        10.0, "the distilled guidance that the model is told", group="sections", least=0, most=1000
    )
    drop_picture: float = option(
        0.0, "the chance that the first picture is not shown (text to video)", metavar="P", group="sections",
        least=0, most=1,
    )  # fmt: skip
    drop_prompt: float = option(
        0.0,
        "the chance that the prompt is empty, for --cfg",
        metavar="P",
        group="sections",
        least=0,
        most=1,
    )
    key_frames: float = option(
        0.0, "the chance that a later frame is shown as the picture at the end, where the plan can see one",
        metavar="P", group="sections", least=0, most=1,
    )  # fmt: skip
    self_made: float = option(
        0.0, "the chance that the history is the model's own", metavar="P", group="sections", least=0, most=1
    )
    self_made_sections: int = option(
        1, "so many sections before the one that is learnt are made by the model", group="sections",
        least=1, most=1000,
    )  # fmt: skip
    self_made_steps: int = option(
        4, "steps in which the model makes them", group="sections", least=1, most=1000
    )
    bagger: float = option(
        0.0, "the chance that a section is learnt backwards in time, from a history of the model's own (BAgger)",
        metavar="P", group="sections", least=0, most=1,
    )  # fmt: skip
    history: str = option(
        "", "what is done to the history that a section sees, such as noise:0.1, discrete:256 or corrupt (default: "
        "nothing; docs/history.md)", metavar="NAME[:VALUES]", group="sections", most=TEXT,
    )  # fmt: skip
    history_share: float = option(
        1.0, "the share of sections to which it is done", metavar="P", group="sections", least=0, most=1
    )
    fps: float = option(30.0, "frames a second that videos are read at", group="data", least=0.1, most=1000)
    every_frame: bool = option(False, "read every frame of a video, whatever its rate", group="data")
    max_frames: int | None = option(
        None, "no more frames of a video than that (default: all)", kind=int, group="data", least=1, most=MANY
    )  # fmt: skip
    width: int | None = option(None, "width in pixels", kind=int, group=None, least=16, most=8192)
    height: int | None = option(None, "height in pixels", kind=int, group=None, least=16, most=8192)
    caption: str | None = option(
        None, "said of what has no text of its own", kind=str, metavar="TEXT", group="data", most=TEXT
    )  # fmt: skip
    cache: str | None = option(
        None, "the folder of what is encoded (default: beside the data)", kind=str, metavar="DIR", group="data",
        least=1, most=NAME,
    )  # fmt: skip
    steps: int | None = option(
        None, "steps of the optimiser (default: --epochs)", kind=int, group="steps", least=1, most=MANY
    )
    epochs: int | None = option(
        None, "times that every section is learnt from (default: 16 if there are no --steps)", kind=int,
        group="steps", least=1, most=MANY,
    )  # fmt: skip
    batch: int = option(1, "sections at a time", group="steps", least=1, most=100_000)
    accumulate: int = option(1, "batches to a step", group="steps", least=1, most=100_000)
    optimiser: str = option("adamw", "what makes the steps", choices=OPTIMISERS, group="steps")
    lr: float = option(1e-4, "the learning rate", group="steps", least=1e-12, most=10)
    warmup: int = option(0, "steps until the rate is reached", group="steps", least=0, most=MANY)
    schedule: str = option("constant", "the rate after that", choices=SCHEDULES, group="steps")
    weight_decay: float = option(0.01, "per step, times the rate", group="steps", least=0, most=10)
    clip: float = option(1.0, "the largest norm of the gradient", group="steps", least=1e-6, most=1e6)
    average: float = option(
        0.0, "the decay of a moving average of what learns, such as 0.999; it is what is written then (default: off)",
        metavar="DECAY", group="steps", least=0, most=0.999999,
    )  # fmt: skip
    precision: str = option(
        "auto", "of the arithmetic; what learns is float32 in any case (auto: bfloat16 on an accelerator, float32 on "
        "a CPU)", choices=PRECISIONS, group="steps",
    )  # fmt: skip
    gradient_checkpointing: bool = option(
        False, "run each block a second time for its gradient, instead of keeping all that it computed: much less "
        "memory, a third more time, the same result", group="steps",
    )  # fmt: skip
    seed: int = option(0, "another seed, another run", group="steps", least=0, most=2**63 - 1)
    save_every: int = option(
        250, "steps between checkpoints, from which a stopped run goes on", group="files", least=1, most=MANY
    )
    keep_every: int | None = option(
        None, "steps between copies of the result that stay (default: none)", kind=int, group="files", least=1,
        most=MANY,
    )  # fmt: skip
    sample_every: int | None = option(
        None, "steps between sample sheets (default: at each checkpoint)", kind=int, group="files", least=1,
        most=MANY,
    )  # fmt: skip
    log_every: int = option(
        10, "steps to a line of means in log.jsonl", group="files", least=1, most=1_000_000
    )
    format: str = option("peft", "the keys of the LoRA's file", choices=FORMATS, group="files")
    save_dtype: str = option("float32", "of the weights in what is written", choices=STORED, group="files")

    def check(self) -> None:
        """Raise JobError for the first thing that cannot be done, in one sentence."""
        for each in dataclasses.fields(self):
            flag = f"--{each.name.replace('_', '-')}"
            each.metadata["option"].check(flag, getattr(self, each.name))
        if self.steps is not None and self.epochs is not None:
            raise JobError("A run is so many --steps or so many --epochs long; give one of them.")
        self._check_targets()
        if (self.width is None) != (self.height is None):
            raise JobError("A size is a width and a height; one of them is missing.")
        for name in self.samplings or ():
            self._check_sampling(name)
        ways.check_training(self.history)
        chances = self.self_made + self.bagger
        if chances > 1:
            raise JobError(
                f"A history is self-made in one way at a time; --self-made and --bagger add up to {chances:g}, and may "
                "add up to 1."
            )

    def _check_sampling(self, name: str) -> None:
        kind = kind_named(name)
        check_window(name, self.window)
        check_scales(kind.scales)
        if self.history and kind.keeps_tail:
            raise JobError(
                f"Nothing can be done to the history that {name} keeps beyond its packed frames; leave --history out, "
                "or take the same sampling with td."
            )

    def _check_targets(self) -> None:
        own = {each.name: each.default for each in dataclasses.fields(self)}
        asked = [n for n in ("rank", "alpha", "targets", "dropout") if getattr(self, n) != own[n]]
        if self.whole and asked:
            raise JobError(f"--whole trains no LoRA, which --{asked[0]} is about; leave one of them out.")
        if self.whole and self.format != "peft":
            raise JobError("--whole writes a model's folder, and --format is a LoRA's; leave it out.")

    @property
    def samplings(self) -> tuple[str, ...] | None:
        """The names of the plans that were asked for.

        >>> Settings(sampling="vanilla, inverted").samplings, Settings().samplings
        (('vanilla', 'inverted'), None)
        """
        return None if self.sampling is None else tuple(name.strip() for name in self.sampling.split(","))

    @property
    def strength(self) -> float:
        """The alpha of the LoRA."""
        return float(self.rank if self.alpha is None else self.alpha)

    @property
    def rows(self) -> int:
        """Sections of one step."""
        return self.batch * self.accumulate

    def values(self) -> dict[str, Any]:
        """All settings as JSON holds them."""
        return dataclasses.asdict(self)

    def difference(self, before: dict[str, Any]) -> str | None:
        """The differences to a run that began `before`, in words; None if the run can go on so.

        The length may change if the rate does not follow it.
        """
        free = {*ANY_TIME, *(("steps", "epochs") if self.schedule == "constant" else ())}
        for name, value in json.loads(json.dumps(self.values())).items():
            if name not in free and before.get(name) != value:
                return f"--{name.replace('_', '-')} was {before.get(name)} and is {value}"
        return None
