"""Fine-tuning: a model and videos -> a LoRA, or the whole model anew."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from longtake.backend import training
from longtake.machine import Machine
from longtake.models import adapters
from longtake.models.pretrained import walking
from longtake.pipeline.encode import encode_text
from longtake.pipeline.loading import load_networks
from longtake.pipeline.networks import COMPONENTS, Networks
from longtake.sampling.ways import discrete_of
from longtake.training import data as data_room
from longtake.training import logs as logging
from longtake.training import lora
from longtake.training.asked import Asked, Place, reckoned, surveyed
from longtake.training.course import Course, Encoding, Event, Loading, Reckoned, Surveyed
from longtake.training.examples import Examples, Told
from longtake.training.learning import Learning, check, told_of
from longtake.training.levels import shift_of
from longtake.training.output import CHECKPOINT, LOG, Output
from longtake.training.recomputing import recomputing
from longtake.training.records import Records
from longtake.training.result import written
from longtake.training.samples import Sample, read_samples, sheets
from longtake.training.settings import Settings
from longtake.weights.codebook import codes_digest

EPOCHS = 16
"""Of a run of which nobody said how long it is; musubi-tuner's example."""


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
    if prompts and company is not None:
        company.check_samples()
    config, learns = asked.check(folder)
    place = surveyed(asked)
    return _events(asked, folder, prompts, logs, place, reckoned(asked, config, learns, place))


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
            ("x_embedder",) if settings.whole else (),
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
    shares = asked.company is not None and asked.company.shares
    # Where no device has room for all of it.
    machine = dataclasses.replace(asked.machine, device="cpu") if shares else asked.machine
    return load_networks(
        model, dtype, given={name: None for name in COMPONENTS if name not in needed}, parts=asked.parts,
        machine=machine, quantize=asked.quantize, placed=False,
    )  # fmt: skip


def learnt(transformer: Any, settings: Settings) -> dict[str, Any]:
    """The parameters of a transformer that learn, by name."""
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


def _sheets(networks: Networks, prompts: list[Sample], folder: Output, step: int) -> Iterator[Path]:
    """The sample sheets of a step that are not there yet."""
    numbered = [(prompt, folder.sheet(step, number)) for number, prompt in enumerate(prompts)]
    missing = [(prompt, file) for prompt, file in numbered if not file.exists()]
    return sheets(networks, [prompt for prompt, _ in missing], [file for _, file in missing])


def _mark(examples: Examples) -> str:
    """The mark that tells these examples from others, without reading them."""
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
