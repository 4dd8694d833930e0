"""Job: what is asked, as JSON-able data, in seconds and file names. It needs no framework and no numpy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from longtake import strictjson
from longtake.errors import JobError, JobTypeError
from longtake.named import NAMED, named, trained_for
from longtake.option import ITEMS, NAME, TEXT, Option, check_text, option, shown
from longtake.plan import asked, cuts
from longtake.plan.plans import PLANS, check_window, kind_named, plan_of
from longtake.sampling import ways
from longtake.sampling.caching import METHODS, parse
from longtake.sampling.solvers import SOLVERS
from longtake.spans import FRAMES as FRAMES
from longtake.spans import SEEDS, check_order, freeze
from longtake.spans import Anchor as Anchor
from longtake.spans import Clip as Clip
from longtake.spans import Lora as Lora
from longtake.spans import PromptSpan as PromptSpan
from longtake.spans import SectionChange as SectionChange
from longtake.spans import WeightSpan as WeightSpan

DECODINGS = ("exact", "causal")
DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZED = ("none", "int8", "fp8", "int8-dynamic", "fp8-dynamic")
UNFORESEEN = ("refuse", "restart")
PARTS = (
    "text_encoder", "text_encoder_2", "image_encoder", "transformer", "vae",
    "tokenizer", "tokenizer_2", "feature_extractor", "scheduler", "codebook",
)  # fmt: skip
"""Components of a model by their published names."""

REFERENCE_FRAMES = 10_000
"""Most frames of the reference's way, which holds the whole video in memory: 47 GB at 640 x 608."""

OTHERWISE = {"sampling": "inverted", "steps": 25, "guidance": 10.0}
"""The defaults of a job whose model has no own."""

SECTION_PIXELS = 2**30
"""Most pixels of a section, counted by latent frames: 16 of 8192 x 8192. Its noise alone takes 2 GB."""

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A video that is asked for: everything that decides it but the pictures' pixels and the model's weights.

    Sizes are pixels, `frames` counts video frames, `guidance` is the distilled (embedded) one, `cfg_scale` the
    real classifier-free one (1 = off). `sampling`, `steps` and `guidance` are by default what the `model` was trained
    for if it has a short name (`longtake.named`), else inverted, 25 and 10. `shift` None takes the shift that the
    model's scheduler asks for. `decoding` "causal" is faster than "exact" and near to it. `prompt` is said in the whole
    video, `prompts` are added to it in their seconds. `parts` are places of parts that are not `model`'s own.
    """

    prompt: str = field(
        metadata={"option": Option("what happens, in one sentence", str, metavar="PROMPT", most=TEXT)}
    )
    negative_prompt: str = option(
        "",
        "what should not happen (needs --cfg)",
        flag="--negative",
        metavar="PROMPT",
        group="video",
        most=TEXT,
    )
    prompts: tuple[PromptSpan, ...] = option(
        (), "prompts that are said from second to second", kind=PromptSpan, group=None, most=ITEMS
    )
    anchors: tuple[Anchor, ...] = option(
        (), "a picture to end with (inverted sampling)",
        flag="--last-image", metavar="PICTURE", kind=Anchor, group="video", most=ITEMS,
    )  # fmt: skip
    model: str = option(
        "embedded", f"{', '.join(NAMED)} (the published models), a folder, or owner/name on the Hugging Face hub "
        "(default: the embedded one)",
        metavar="FOLDER_OR_NAME", least=1, most=NAME,
    )  # fmt: skip
    parts: Mapping[str, str] = option(
        {}, "a part of the model from elsewhere, such as image_encoder=owner/name: a folder, a repository, a "
        "safetensors or GGUF file, here or as owner/name/file; may be given several times",
        flag="--part", metavar="PART=PLACE", kind=dict,
    )  # fmt: skip
    frames: int = option(145, "length in frames", group="length", least=1, most=FRAMES)
    fps: int = option(
        30,
        "frames a second at which it is played; no frame is another for it",
        group="length",
        least=1,
        most=1000,
    )
    width: int | None = option(None, "width in pixels", kind=int, group=None, most=8192)
    height: int | None = option(None, "height in pixels", kind=int, group=None, most=8192)
    sampling: str = option(
        None, "; ".join(f"{name}: {kind.help}" for name, kind in PLANS.items())
        + "; or a structure name such as td_f16k4f4k2f1k1_g9 (default: what the model was trained for, else inverted)",
        kind=str, metavar="NAME", group="plan", least=1, most=NAME,
    )  # fmt: skip
    window: int = option(9, "latent frames of a section, 4 frames each", group="plan", least=1, most=1000)
    steps: int = option(
        None, "steps for each section (default: the model's, else 25)", kind=int, least=1, most=1000
    )
    solver: str | None = option(None, "default: what the model asks for", kind=str, choices=tuple(SOLVERS))
    guidance: float = option(
        None, "distilled guidance (default: the model's, else 10)", kind=float, least=0, most=1000
    )
    cfg_scale: float = option(1.0, "classifier-free guidance, 1 is off", flag="--cfg", least=0, most=1000)
    cfg_rescale: float = option(0.0, "its rescale", least=0, most=1)
    # Beyond these, neighbouring sigmas fall on one number.
    shift: float | None = option(
        None, "flow shift (default: what the model asks for)", kind=float, least=0.01, most=100
    )
    seed: int = option(0, "another seed, another video", group="video", least=0, most=SEEDS)
    dtype: str = option("auto", "auto: bfloat16 on an accelerator, float32 on a CPU", choices=DTYPES)
    quantize: str = option(
        "none",
        "the form of the transformer's blocks: 8 bits a weight; dynamic: activations too",
        choices=QUANTIZED,
    )
    cache: str = option(
        "", "reuse what changes little between steps, such as easy:0.05 (default: off; methods: "
        f"{', '.join(METHODS)})", metavar="NAME[:VALUES]", most=TEXT,
    )  # fmt: skip
    history: str = option(
        "", "what is done to the history that a section sees, such as noise:0.1 or discrete:256+forget (default: "
        "nothing; there are: " + ", ".join(name for name, way in ways.WAYS.items() if way.sampling) + ")",
        metavar="NAME[:VALUES]", most=TEXT,
    )  # fmt: skip
    reference: bool = option(
        False, "do as diffusers does, number for number, also where it errs", group="plan"
    )
    decoding: str = option(
        "exact", "exact: the reference's frames; causal: faster, and near to them", choices=DECODINGS
    )
    loras: tuple[Lora, ...] = option(
        (), "a LoRA, and how much of it (default: 1; 1,0.5,0: one for each section in the video's time); "
        "may be given several times", flag="--lora", metavar="FILE[:WEIGHT]", kind=Lora, most=100,
    )  # fmt: skip
    changes: tuple[SectionChange, ...] = option(
        (), "sections with a seed or a prompt of their own", kind=SectionChange, group=None, most=ITEMS
    )
    blend: int = option(
        0,
        "sections over which one prompt in time turns into the next (default: 0, at once)",
        group="video",
        least=0,
        most=ITEMS,
    )
    loop: bool = option(
        False, "a video that can be played round and round: its end meets its beginning", group="video"
    )
    unforeseen: str = option(
        "refuse", "what to do with a --keyframe that the sampling does not look ahead to: refuse it, or let the "
        "video begin anew there (a cut)", choices=UNFORESEEN, group="video",
    )  # fmt: skip
    clip: Clip | None = option(None, "a video to go on from", kind=Clip, group=None)  # noqa: RUF009
    from_text: bool = option(False, "the model makes the first frame, too, from the prompt alone", group=None)

    origin: int = option(
        0, "sections that were put before those that the job began with", group=None, least=0, most=FRAMES
    )

    def __post_init__(self) -> None:
        freeze(self, "prompts", "anchors", "loras", "changes")
        if isinstance(self.parts, Mapping):
            object.__setattr__(self, "parts", dict(self.parts))
        for name, value in _own(self.model, self.parts).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @property
    def picture(self) -> str | None:
        """The picture that the video begins with."""
        return next((anchor.image for anchor in self.anchors if anchor.at == 0), None)

    @property
    def last_picture(self) -> str | None:
        """The picture that the video ends with."""
        return next((anchor.image for anchor in self.anchors if anchor.at == "end"), None)

    def drawn(self, number: int) -> int:
        """The number by which the noise of the section at this place in the video is drawn, 0 or more.

        Sections keep theirs when others are put before them.

        >>> [Job("", origin=1).drawn(number) for number in range(3)]
        [4294967295, 0, 1]
        """
        return (number - self.origin) % 2**32

    def check(self) -> None:
        """Raise JobError for the first thing that cannot be done, in one sentence; JobTypeError for a wrong type."""
        for each in dataclasses.fields(self):
            each.metadata["option"].check(each.name, getattr(self, each.name))
        clip = () if self.clip is None else (self.clip,)
        parts: tuple[Any, ...] = (*self.prompts, *self.anchors, *self.loras, *self.changes, *clip)
        for part in parts:
            part.check()
        _check_parts(self.parts)
        _check_size(self)
        _check_sampling(self)
        _check_guidance(self)
        check_order(self.prompts, "One prompt can be said")
        parse(self.cache)
        _check_history(self)
        if len({change.section for change in self.changes}) < len(self.changes):
            raise JobError("Each section can be changed once; the job's changes name one of them twice.")
        _check_reference(self)

    def change_of(self, section: int) -> SectionChange:
        """The change of the section at this place in the video; one that changes nothing if none is asked."""
        found = (change for change in self.changes if change.section == section)
        return next(found, SectionChange(section))

    def values(self) -> dict[str, Any]:
        """The job as what JSON knows: objects, lists, texts and numbers."""
        values = dataclasses.asdict(self)
        values["prompts"] = [_in_time(span, "text", "seed") for span in values["prompts"]]
        values = {KEYS.get(name, name): value for name, value in values.items()}
        for lora in values["loras"]:
            lora["weights"] = [
                _in_time(weight, "weight") if isinstance(weight, dict) else weight
                for weight in lora["weights"]
            ]
        return values

    @classmethod
    def of(cls, values: Any) -> Job:
        """The job of such values as this longtake or 0.1.0 wrote them, checked; JobError for anything else."""
        job = _read(cls, fields_of(values) if isinstance(values, dict) else values, "it")
        job.check()
        return job

    def to_json(self) -> str:
        """The job as one line of JSON."""
        return json.dumps(self.values(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job of JSON from anywhere, checked; JobError, in one sentence, if it is none."""
        return cls.of(strictjson.parse(text, "a job"))


LISTS: dict[str, type] = {
    "prompts": PromptSpan, "keyframes": Anchor, "anchors": Anchor, "loras": Lora, "changes": SectionChange
}  # fmt: skip
KEYS = {"anchors": "keyframes"}
"""Fields of a job that have another name in JSON; jobs that were written before have their own there."""

JSON_NAMES = {"start": "from", "end": "to"}
"""Fields of what stands in time that have another name in JSON; `from` is a word of Python."""

IN_TIME = (PromptSpan, WeightSpan)


def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them, by the names of a job's fields; what stands in time is read, and nothing is checked."""
    values = dict(values)
    if not {"anchors", "keyframes"} & values.keys():
        # 0.1.0 had two names for the only two anchors.
        old = [(0, values.pop("picture", None)), ("end", values.pop("last_picture", None))]
        if any(image is not None for _, image in old):
            values["keyframes"] = [{"at": at, "image": image} for at, image in old if image is not None]
    for name, kind in LISTS.items():
        if name in values:
            entries = _entries(values[name], name)
            values[name] = tuple(_read(kind, entry, f"an entry of {name}") for entry in entries)
    if values.get("clip") is not None:
        values["clip"] = _read(Clip, values["clip"], "clip")
    if "keyframes" in values and "anchors" not in values:
        values["anchors"] = values.pop("keyframes")
    return values


def _in_time(span: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A span of seconds, as JSON says it; a seed that is the job's is not said."""
    own = {name: span[name] for name in names if span[name] is not None}
    return {"from": span["start"], "to": span["end"], **own}


def _own(model: Any, parts: Any) -> dict[str, Any]:
    """The defaults of a job of this model."""
    found = named(model)
    if found is None:
        return OTHERWISE
    trained = trained_for(model, parts if isinstance(parts, Mapping) else None)
    return {"sampling": trained or found.sampling, "steps": found.steps, "guidance": found.guidance}


def _check_parts(parts: Any) -> None:
    if not isinstance(parts, Mapping):
        raise JobTypeError(f"parts must be folders or names by part; {shown(parts)} was given.")
    for part, place in parts.items():
        if part not in PARTS:
            raise JobError(f"A model has no part {shown(part)}; there are: {', '.join(PARTS)}.")
        check_text(f"The place of the {part}", place, 1, NAME)


def _check_size(job: Job) -> None:
    for name in ("width", "height"):
        size = getattr(job, name)
        if size is not None and (size < 16 or size % 16):
            raise JobError(f"The {name} must be a positive multiple of 16; {shown(size)} was asked for.")
    if job.width and job.height and job.window * job.width * job.height > SECTION_PIXELS:
        most = SECTION_PIXELS // (job.width * job.height)
        raise JobError(
            f"A section of {job.width} x {job.height} pixels can have at most {most} latent frames; a window of "
            f"{job.window} was asked for."
        )
    if job.reference and job.frames > REFERENCE_FRAMES:
        raise JobError(
            f"The reference holds the whole video in memory and makes at most {REFERENCE_FRAMES} frames here; "
            f"{job.frames} were asked for, which longtake makes without reference."
        )


def _check_sampling(job: Job) -> None:
    kind = kind_named(job.sampling)
    check_window(job.sampling, job.window)
    ways.check_discrete(job.sampling, kind.structure.endswith("+D"), job.history)
    asked.check(job, kind, ", ".join(name for name, kind in PLANS.items() if kind.sees_end))
    if cuts.key_frames(job) or job.loop or job.clip:
        plan_of(job)  # raises for pictures that are too near to one another


def _check_reference(job: Job) -> None:
    """Raise JobError for what the reference does not do."""
    if not job.reference:
        return
    if not kind_named(job.sampling).published:
        published = ", ".join(name for name, kind in PLANS.items() if kind.published)
        raise JobError(
            f"The reference knows the samplings {published}; {job.sampling} was asked for: take one of these, or make "
            "the video without reference."
        )
    if parse(job.cache):
        raise JobError(
            "The reference computes every step; leave cache out, or make the video without reference."
        )
    if job.history:
        raise JobError(
            "The reference sees its history as it is; leave history out, or make the video without reference."
        )
    if job.changes or job.prompts or job.origin:
        raise JobError(
            "The reference's noise is one stream and its prompt one text; no section of it can have its own "
            "seed or prompt."
        )
    strong = any(anchor.strength != 1 for anchor in job.anchors)
    weighed = any(lora.spans for lora in job.loras)
    if cuts.key_frames(job) or strong or weighed or job.loop or job.clip or job.from_text:
        raise JobError(
            "The reference knows a first and a last picture alone, as they are; make a video with pictures or weights "
            "in time, a loop, a clip or from text without reference."
        )


def _check_guidance(job: Job) -> None:
    if job.negative_prompt and job.cfg_scale <= 1:
        raise JobError(
            f"A negative prompt needs classifier-free guidance: cfg_scale (--cfg) is {job.cfg_scale} and must be above "
            "1; raise it, or leave the negative prompt out."
        )


def _check_history(job: Job) -> None:
    ways.check_sampling(job.history)
    if not job.history:
        return
    plan = plan_of(job)  # raises for a sink that the plan has no room for
    if ways.wanted_of(job.history, "correct") is None:
        return
    if job.steps < 2:
        raise JobError(
            f"The history's 'correct' comes between two steps; a section has {job.steps} step: take more steps, or "
            "leave it out."
        )
    if 0 not in plan.lasting:
        raise JobError(
            f"The history's 'correct' goes by the picture alone, which the sampling {job.sampling} does not keep in "
            "sight; take one that does, such as vanilla or inverted."
        )


def _read(kind: type[T], values: Any, name: str) -> T:
    """A dataclass from an object of JSON; a LoRA may be its path alone."""
    if kind is Lora:
        values = {"path": values} if isinstance(values, str) else _with_weights(values)
    if not isinstance(values, dict):
        raise JobTypeError(
            f"This is not a job: {name} should be an object of JSON; {shown(values)} was given."
        )
    names = JSON_NAMES if kind in IN_TIME else {}
    fields = {names.get(each.name, each.name): each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise JobError(
                f"This is not a job: {name} has the key {shown(key)}, which this longtake does not know; take it out, "
                f"or use the longtake that wrote it."
            )
    for key, each in fields.items():
        if key not in values and each.default is each.default_factory is dataclasses.MISSING:
            raise JobError(f"This is not a job: {name} lacks the key {key!r}.")
    return kind(**{fields[key].name: value for key, value in values.items()})


def _with_weights(lora: Any) -> Any:
    """The object of a LoRA, whose weights in time are read."""
    weights = lora.get("weights") if isinstance(lora, dict) else None
    if not isinstance(weights, list | tuple):
        return lora
    found = [
        _read(WeightSpan, each, "an entry of weights") if isinstance(each, dict) else each for each in weights
    ]
    return {**lora, "weights": tuple(found)}


def _entries(values: Any, name: str) -> Sequence[Any]:
    if not isinstance(values, list | tuple):
        raise JobTypeError(f"This is not a job: {name} should be a list; {shown(values)} was given.")
    return values
