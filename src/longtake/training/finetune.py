"""Fine-tuning: a model and videos -> a LoRA, or the whole model anew."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from longtake.backend import runtime, training
from longtake.errors import JobError, LongtakeWarning, ModelError
from longtake.machine import Machine
from longtake.models import adapters, forms
from longtake.models.pretrained import walking
from longtake.models.quantised import EightBitConfig
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.named import mismatch, places, trained_for
from longtake.pipeline.encode import encode_text
from longtake.pipeline.loading import load_networks, model_settings
from longtake.pipeline.networks import COMPONENTS, QUANTISABLE, Networks, save_networks
from longtake.sampling.treatments import Treatment, sometimes, treatment_of
from longtake.sampling.ways import discrete_of
from longtake.training import data as data_room
from longtake.training import logs as logging
from longtake.training import lora, room
from longtake.training.company import check_precision
from longtake.training.course import Course, Encoding, Event, Loading, Reckoned, Surveyed
from longtake.training.examples import Examples, Told
from longtake.training.learning import Learning, check, precision_of, told_of
from longtake.training.levels import shift_of
from longtake.training.output import CHECKPOINT, LOG, MODEL, Output
from longtake.training.recomputing import recomputing
from longtake.training.records import Records
from longtake.training.samples import Sample, read_samples, sheets
from longtake.training.settings import Settings
from longtake.weights import single
from longtake.weights.codebook import codebook_at, codes_digest
from longtake.weights.codebook import opened as opened_codebook
from longtake.weights.fingerprint import part_fingerprints
from longtake.weights.folder import model_source
from longtake.weights.hub import Part

EPOCHS = 16
"""Of a run of which nobody said how long it is; musubi-tuner's example."""
OTHERWISE = "inverted"
"""The sampling of a model that does not say what it was trained for, as in a job."""


def finetune(
    model: str | Networks,
    data: Any,
    output: str | Path,
    settings: Settings | None = None,
    *,
    parts: Mapping[str, str] | None = None,
    quantize: Any = "none",
    machine: Machine | None = None,
    samples: str | Path | None = None,
    logs: Sequence[str] = (),
    company: Any = None,
) -> Generator[Event, None, None]:
    """Train a model's transformer on `data`, and write what it becomes into the folder `output`; gives events.

    `model` is what `load_networks` takes, or networks, which then learn where they are; `data` is the place of videos
    (docs/data.md), or examples that are encoded already. A run that was stopped goes on where it was; to stop is to
    close the iterator. `samples` is a file of prompts of which sheets are made on the way, `logs` are kinds of logs
    beside log.jsonl. Whatever can be refused is refused at the call, with JobError or ModelError, before anything is
    encoded and before the model loads.
    """
    asked = Asked(model, data, settings or Settings(), parts or {}, quantize, machine or Machine(), company)
    asked.settings.check()
    logging.check(logs)
    folder = Output(Path(output), asked.settings)
    samplings = asked.samplings
    check(asked.settings, samplings)
    prompts = [] if samples is None else read_samples(Path(samples), samplings[0], asked.settings.window)
    config, learns = asked.check(folder)
    place = surveyed(asked)
    return _events(asked, folder, prompts, logs, place, reckoned(asked, config, learns, place))


@dataclass(frozen=True)
class Asked:
    """A fine-tuning that is asked for."""

    model: str | Networks
    data: Any
    settings: Settings
    parts: Mapping[str, str]
    quantize: Any
    machine: Machine
    company: Any = None

    @property
    def own(self) -> str | None:
        """The sampling that the model was trained for, as far as it says."""
        if isinstance(self.model, Networks):
            return self.model.settings.get("sampling")
        return trained_for(self.model, self.parts) or model_settings(self.model).get("sampling")

    @property
    def samplings(self) -> tuple[str, ...]:
        """The plans whose sections are learnt."""
        return self.settings.samplings or (self.own or OTHERWISE,)

    @property
    def mark(self) -> str:
        """What tells the model's transformer from others."""
        if isinstance(self.model, Networks):
            return ""
        return part_fingerprints(self.model, ["transformer"], self.parts)["transformer"]

    @property
    def codes(self) -> np.ndarray:
        """The codes of a discrete history, before anything else is read. Raises ModelError if there are none."""
        discrete = discrete_of(self.settings.history)
        assert discrete is not None
        model = self.model
        codebook = model.codebook if isinstance(model, Networks) else codebook_at(model, self.parts)
        return opened_codebook(codebook).of(*discrete)

    @property
    def treatment(self) -> Treatment | None:
        """What is done to the history of a section."""
        found = treatment_of(self.settings.history, lambda count, groups: self.codes)
        share = self.settings.history_share
        return found if found is None or share == 1 else sometimes(found, share)

    @property
    def form(self) -> Any:
        """The form of the transformer that is asked for."""
        return form_of(self.quantize)

    @property
    def device(self) -> Any:
        """Where the transformer learns."""
        if isinstance(self.model, Networks):
            return self.model.transformer.device
        asked = self.machine.device
        return runtime.best_device() if asked == "auto" else asked

    @property
    def dtype(self) -> str:
        """The dtype of the transformer's weights: float32 if all learn, else that of the arithmetic."""
        if isinstance(self.model, Networks):
            return runtime.dtype_name(self.model.transformer.dtype)
        return "float32" if self.settings.whole else precision_of(self.settings.precision, self.device)

    def check(self, folder: Output) -> tuple[Any, int]:
        """The transformer's config and how many numbers will learn; warns of a sampling that is not its own.

        Raises JobError or ModelError for what the model cannot learn.
        """
        settings, company = self.settings, self.company
        if settings.whole and self.quantize != "none":
            raise JobError("--whole trains every weight, and --quantize freezes them; leave one of them out.")
        check_precision(precision_of(settings.precision, self.device))
        if company is not None:
            company.check(settings, self.quantize)
        if isinstance(self.model, Networks):
            transformer = self.model.part("transformer")
            if not isinstance(transformer, HunyuanVideoFramepackTransformer3DModel):
                raise ModelError(
                    f"What learns is longtake's own transformer; {type(transformer).__name__} was given: load it by "
                    "longtake."
                )
        else:
            with runtime.empty_weights():
                transformer = HunyuanVideoFramepackTransformer3DModel(config_of(self.model, self.parts))
        if not transformer.config.has_clean_x_embedder:
            raise ModelError(
                "This transformer sees no clean frames (has_clean_x_embedder is false), which every sampling shows it; "
                "begin with a FramePack transformer, or with HunyuanVideo unpacked (docs/training-big.md)."
            )
        for name in self.samplings:
            note = mismatch(name, self.own)
            if note is not None:
                warnings.warn(note, LongtakeWarning, stacklevel=4)
        if discrete_of(self.settings.history) is not None:
            _ = self.codes
        form = getattr(transformer, "quantization", None)
        forms.check_learning(form if form is not None else self.form, self.device)
        numbers = lora.numbers(transformer, self.settings)
        # Parameters, two moments and the average, in float32.
        folder.check_room(4 * numbers * (3 + bool(self.settings.average)), 4 * numbers)
        return transformer.config, numbers


def form_of(quantize: Any) -> Any:
    """The form of the transformer that is asked for, in one of our words or by a config of the field's."""
    if quantize == "none":
        return None
    if isinstance(quantize, str):
        return EightBitConfig(quantize)
    return forms.asked(forms.by_part(quantize, QUANTISABLE).get("transformer"))


def reckoned(asked: Asked, config: Any, learns: int, place: Place | None) -> tuple[str, ...]:
    """The memory that is needed, in words; JobError if it is not there."""
    if place is None:
        size = room.largest(asked.data.shape(number) for number in range(len(asked.data)))
    else:
        size = max(((each.width, each.height) for each in place.plan.survey.items), key=math.prod)
    company = asked.company
    run = room.run_of(
        asked.settings, asked.samplings, size, learns, asked.dtype, "none" if asked.form is None else "int8",
        asked.device, company.size if company is not None and company.shares else 1,
    )  # fmt: skip
    # Networks that were given are there already.
    there = None if isinstance(asked.model, Networks) else room.allowed(asked.machine, asked.device)
    return room.reckoned(config, run, there)


def _events(
    asked: Asked,
    folder: Output,
    prompts: list[Sample],
    logs: Sequence[str],
    place: Place | None,
    memory: tuple[str, ...],
) -> Generator[Event, None, None]:
    settings, samplings = asked.settings, asked.samplings
    with ExitStack() as stack:
        company = asked.company
        if company is not None:
            stack.enter_context(company.kept())
        if company is None or company.first:
            stack.enter_context(folder.locked())
        examples = yield from encoded(asked, place, memory)
        if not isinstance(asked.model, Networks):
            yield Loading(asked.model)
        networks = opened(asked, bool(prompts))
        facts = {
            "model": asked.mark,
            "sampling": list(samplings), "data": _mark(examples), "quantize": asked.form.word if asked.form else "none",
        }  # fmt: skip
        if discrete_of(settings.history) is not None:
            facts["codes"] = codes_digest(asked.codes)
        if company is None or company.first:
            folder.begin(facts)
        published = asked.own is not None
        shift = settings.shift or shift_of(networks.scheduler, published)
        empty = _empty(networks, examples) if settings.drop_prompt else None
        transformer = networks.transformer
        parameters = stack.enter_context(begun(transformer, settings))
        if settings.gradient_checkpointing:
            stack.enter_context(walking(transformer, recomputing))
        learning = Learning(
            transformer, examples, settings, samplings, shift, empty, asked.treatment, company
        )
        if company is not None:
            learning.transformer = company.take(transformer, set(map(id, parameters.values())))
            parameters = learnt(transformer, settings)
        optimiser = training.Optimiser(
            parameters,
            settings.weight_decay,
            settings.average,
            (),
            settings.optimiser == "muon",
            (0.9, 0.999),
        )
        steps = settings.steps or (settings.epochs or EPOCHS) * learning.order.lap
        course = Course(
            learning, optimiser, folder, Records(folder.state, CHECKPOINT, folder.folder / LOG), steps,
            partial(written, networks, learning, optimiser), partial(_sheets, networks, prompts, folder),
            partial(logging.writers, logs, folder.folder, settings.values()),
            partial(training.dropping, lora.parts(transformer), settings.dropout), asked.company,
        )  # fmt: skip
        yield from course.run()


@dataclass(frozen=True)
class Place:
    """Data that lie in files: the encoders, how they are read, and the plan of what is to be encoded."""

    encoders: data_room.Encoders
    how: data_room.Settings
    plan: data_room.Plan


def surveyed(asked: Asked) -> Place | None:
    """What the data hold; None if examples were given. Raises JobError if there is nothing to learn from."""
    if not isinstance(asked.data, str | Path):
        return None
    model, how = asked.model, reading(asked.settings)
    encoders = (
        data_room.encoders_of(model)
        if isinstance(model, Networks)
        else data_room.encoders(model, asked.parts, machine=asked.machine)
    )
    planned = data_room.plan(asked.data, encoders, how)
    if planned.survey.batch not in (None, asked.settings.batch):
        raise JobError(
            f"{asked.data} asks for a batch_size of {planned.survey.batch}, and this run has {asked.settings.batch}; "
            f"give it by --batch {planned.survey.batch}, or change it there."
        )
    return Place(encoders, how, planned)


def reading(settings: Settings) -> data_room.Settings:
    """How a place of data is read."""
    size = None if settings.width is None or settings.height is None else (settings.width, settings.height)
    return data_room.Settings(
        settings.window, None if settings.every_frame else settings.fps, settings.max_frames, size,
        settings.caption, None if settings.cache is None else Path(settings.cache),
    )  # fmt: skip


def encoded(asked: Asked, place: Place | None, memory: tuple[str, ...]) -> Generator[Event, None, Examples]:
    """The examples: those that were given, or those of a place, of which is encoded what is not yet.

    Before anything is, the data are told of, and the `memory` that is needed.
    """
    if place is None:
        yield Reckoned(memory)
        return asked.data
    yield Surveyed(tuple(place.plan.lines()))
    yield Reckoned(memory)
    if asked.company is None or asked.company.first:
        for done in data_room.encode(place.plan, place.encoders):
            yield Encoding(done.kind, done.done, done.total, done.note)
    if asked.company is not None:
        asked.company.wait()
    return data_room.examples_of(place.plan, place.encoders)


def opened(asked: Asked, sampling: bool) -> Networks:
    """The networks, with the transformer where it learns: in float32 if all of it does, else as it would run.

    The others are read if they are needed: to make samples, or to write a whole model.
    """
    model, settings = asked.model, asked.settings
    if isinstance(model, Networks):
        return model
    needed = COMPONENTS if sampling or settings.whole else ("transformer", "scheduler")
    if not hasattr(asked.data, "blank") and not isinstance(asked.data, str | Path) and settings.drop_prompt:
        needed = COMPONENTS
    dtype = {"transformer": asked.dtype, "default": "auto"}
    return load_networks(
        model, dtype, given={name: None for name in COMPONENTS if name not in needed}, parts=asked.parts,
        machine=asked.machine, quantize=asked.quantize, placed=False,
    )  # fmt: skip


def config_of(model: str, parts: Mapping[str, str]) -> Any:
    """The config of a model's transformer, before its weights are read."""
    kind = HunyuanVideoFramepackTransformer3DModel
    base, elsewhere = places(model, parts)
    place = elsewhere.get("transformer", base)
    file = single.find(place)
    if file is not None:
        return single.read_checkpoint(file, kind.config_class).config
    source = model_source(place)
    folder = "transformer" if source.has_folder("transformer") else ""
    return kind.read_config(source.fetch([Part(folder, ("config.json",))]) / folder / "config.json")


def learnt(transformer: Any, settings: Settings) -> dict[str, Any]:
    """What learns of a transformer, by name."""
    return (
        dict(transformer.named_parameters())
        if settings.whole
        else adapters.weights_of(transformer, lora.NAME)
    )


@contextmanager
def begun(transformer: Any, settings: Settings) -> Iterator[dict[str, Any]]:
    """Inside, what learns of the transformer is there, and nothing else can; gives it by name.

    Afterwards a LoRA is gone again, for it is in its file.
    """
    if settings.whole:
        training.own(transformer)
    else:
        lora.begin(transformer, settings)
    parameters = learnt(transformer, settings)
    training.learning(transformer, parameters.values())
    try:
        yield parameters
    finally:
        training.learning(transformer, ())
        if not settings.whole:
            adapters.detach(transformer, [lora.NAME])


def copied(transformer: Any, dtype: str, keep: bool = True) -> Any:
    """A transformer of the same weights in another dtype, with nothing of a training about it."""
    with runtime.empty_weights():
        made = HunyuanVideoFramepackTransformer3DModel(transformer.config)
    for name, weight in adapters.published_weights(transformer).items():
        found = training.whole(weight, keep)
        if keep:
            runtime.assign_weights(made, {name: runtime.place(found.detach(), dtype=dtype)})
    made.eval()
    return made


def written(networks: Networks, learning: Learning, optimiser: Any, folder: Path) -> Path:
    """Write the result as it is now into a folder; gives its file, or the folder of a whole model.

    Of several processes the first one writes, and all come here.
    """
    settings, writes = learning.settings, learning.company is None or learning.company.first
    if settings.whole:
        place = folder / MODEL
        # The copy is let go before the next step.
        stored = copied(networks.transformer, settings.save_dtype, writes)
        if writes:
            parts = dataclasses.replace(networks, transformer=stored)
            save_networks(parts, place, "HunyuanVideoFramepackPipeline")
        return place
    steps, lap = optimiser.steps, learning.order.lap
    about = lora.about(
        settings, steps, steps // lap, ",".join(learning.samplings), learning.shift, len(learning.examples)
    )
    file = folder / lora.file_name(settings)
    with training.gathered(lora.parts(networks.transformer)):
        if writes:
            lora.write(networks.transformer, settings, file, about)
    return file


def _sheets(networks: Networks, prompts: list[Sample], folder: Output, step: int) -> Iterator[Path]:
    """The sample sheets of a step that are not there yet."""
    numbered = [(prompt, folder.sheet(step, number)) for number, prompt in enumerate(prompts)]
    missing = [(prompt, file) for prompt, file in numbered if not file.exists()]
    return sheets(networks, [prompt for prompt, _ in missing], [file for _, file in missing])


def _mark(examples: Examples) -> str:
    """What tells these examples from others, without reading them."""
    own = getattr(examples, "fingerprint", None)
    shapes = [tuple(examples.shape(number)) for number in range(len(examples))]
    return own if isinstance(own, str) else hashlib.sha256(str(shapes).encode()).hexdigest()


def _empty(networks: Networks, examples: Examples) -> Told:
    """The empty prompt as the encoders read it; a cache has it."""
    known = getattr(examples, "blank", None)
    if isinstance(known, Told):
        return known
    for name in ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"):
        networks.part(name)
    return told_of("", encode_text(networks, [""]))
