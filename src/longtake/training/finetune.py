"""Fine-tuning: a model and videos -> a LoRA, or the whole model anew."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from longtake.backend import runtime, training
from longtake.errors import JobError, LongtakeWarning, ModelError
from longtake.machine import Machine
from longtake.models import adapters
from longtake.models.pretrained import PretrainedModel
from longtake.named import mismatch, named, trained_for
from longtake.pipeline.encode import encode_text
from longtake.pipeline.loading import load_networks
from longtake.pipeline.networks import Networks, save_networks
from longtake.training import logs as logging
from longtake.training import lora
from longtake.training.course import Course, Event
from longtake.training.examples import Examples, Told
from longtake.training.learning import Learning, check, told_of
from longtake.training.levels import shift_of
from longtake.training.output import CHECKPOINT, LOG, MODEL, Output
from longtake.training.records import Records
from longtake.training.samples import Sample, read_samples, sheets
from longtake.training.settings import Settings
from longtake.weights.fingerprint import fingerprint

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
    quantize: str = "none",
    machine: Machine | None = None,
    samples: str | Path | None = None,
    logs: Sequence[str] = (),
    company: Any = None,
) -> Generator[Event, None, None]:
    """Train a model's transformer on `data`, and write what it becomes into the folder `output`; gives events.

    `model` is what `load_networks` takes, or networks, which then learn where they are; `data` is the place of videos
    (docs/data.md), or examples that are encoded already. A run that was stopped goes on where it was; to stop is to
    close the iterator. `samples` is a file of prompts of which sheets are made on the way, `logs` are kinds of logs
    beside log.jsonl. Everything that can be refused is refused at the call, with JobError or ModelError, before the
    model loads where that is possible.
    """
    settings = settings or Settings()
    settings.check()
    logging.check(logs)
    folder = Output(Path(output), settings)
    own = model.settings.get("sampling") if isinstance(model, Networks) else trained_for(model, parts)
    asked = settings.samplings or ((own,) if own else None)
    if asked:
        check(settings, asked)
    # Read twice: what cannot be made is refused before gigabytes come, and the model may say its sampling.
    prompts = _samples(samples, asked or (OTHERWISE,), settings)
    if settings.whole and quantize != "none":
        raise JobError("--whole trains every weight, and --quantize freezes them; leave one of them out.")
    mark = "" if isinstance(model, Networks) else fingerprint(model, parts)
    networks = opened(model, settings, parts, quantize, machine)
    samplings = asked or (networks.settings.get("sampling", OTHERWISE),)
    check(settings, samplings)
    prompts = _samples(samples, samplings, settings)
    _check_model(networks, samplings)
    numbers = lora.numbers(networks.transformer, settings)
    # Parameters, two moments and the average, in float32.
    folder.check_room(4 * numbers * (3 + bool(settings.average)), 4 * numbers)
    examples = _examples(data, networks, settings, folder)
    shift = settings.shift or shift_of(networks.scheduler, named(model) is not None or own is not None)
    empty = _empty(networks) if settings.drop_prompt else None
    learning = Learning(networks.transformer, examples, settings, samplings, shift, empty)
    facts = {"model": mark, "sampling": list(samplings), "data": _mark(examples), "quantize": quantize}
    return _events(learning, networks, folder, facts, prompts, logs, company)


def _events(
    learning: Learning,
    networks: Networks,
    folder: Output,
    facts: dict[str, Any],
    prompts: list[Sample],
    logs: Sequence[str],
    company: Any,
) -> Generator[Event, None, None]:
    settings, transformer = learning.settings, networks.transformer
    with ExitStack() as stack:
        stack.enter_context(folder.locked())
        folder.begin(facts)
        parameters = stack.enter_context(begun(transformer, settings))
        optimiser = training.Optimiser(
            parameters,
            settings.weight_decay,
            settings.average,
            (),
            settings.optimiser == "muon",
            (0.9, 0.999),
        )
        lap = learning.order.lap
        steps = settings.steps or (settings.epochs or EPOCHS) * lap
        records = Records(folder.state, CHECKPOINT, folder.folder / LOG)
        course = Course(
            learning, optimiser, folder, records, steps, partial(written, networks, learning, optimiser),
            partial(_sheets, networks, prompts, folder),
            partial(logging.writers, logs, folder.folder, settings.values()),
            partial(training.dropping, lora.parts(transformer), settings.dropout), company,
        )  # fmt: skip
        yield from course.run()


def opened(
    model: str | Networks,
    settings: Settings,
    parts: Mapping[str, str] | None,
    quantize: str,
    machine: Machine | None,
) -> Networks:
    """The networks, with the transformer where it learns: in float32 if all of it does, else as it would run."""
    if isinstance(model, Networks):
        return model
    dtype = {"transformer": "float32", "default": "auto"} if settings.whole else "auto"
    return load_networks(model, dtype, parts=parts, machine=machine, quantize=quantize, placed=False)


@contextmanager
def begun(transformer: Any, settings: Settings) -> Iterator[dict[str, Any]]:
    """Inside, what learns of the transformer is there, and nothing else can; gives it by name.

    Afterwards a LoRA is gone again, for it is in its file.
    """
    if settings.whole:
        training.own(transformer)
        parameters = dict(transformer.named_parameters())
    else:
        parameters = lora.begin(transformer, settings)
    training.learning(transformer, parameters.values())
    try:
        yield parameters
    finally:
        training.learning(transformer, ())
        if not settings.whole:
            adapters.detach(transformer, [lora.NAME])


def written(networks: Networks, learning: Learning, optimiser: Any, folder: Path) -> Path:
    """Write the result as it is now into a folder; gives its file, or the folder of a whole model."""
    settings = learning.settings
    if settings.whole:
        place = folder / MODEL
        # The copy is let go before the next step.
        stored = copy.deepcopy(networks.transformer).to(runtime.dtype(settings.save_dtype))
        save_networks(
            dataclasses.replace(networks, transformer=stored), place, "HunyuanVideoFramepackPipeline"
        )
        return place
    steps, lap = optimiser.steps, learning.order.lap
    about = lora.about(
        settings, steps, steps // lap, ",".join(learning.samplings), learning.shift, len(learning.examples)
    )
    file = folder / lora.file_name(settings)
    lora.write(networks.transformer, settings, file, about)
    return file


def _sheets(networks: Networks, prompts: list[Sample], folder: Output, step: int) -> Iterator[Path]:
    """The sample sheets of a step that are not there yet."""
    numbered = [(prompt, folder.sheet(step, number)) for number, prompt in enumerate(prompts)]
    missing = [(prompt, file) for prompt, file in numbered if not file.exists()]
    return sheets(networks, [prompt for prompt, _ in missing], [file for _, file in missing])


def _samples(file: str | Path | None, samplings: Sequence[str], settings: Settings) -> list[Sample]:
    return [] if file is None else read_samples(Path(file), samplings[0], settings.window)


def _check_model(networks: Networks, samplings: Sequence[str]) -> None:
    """Raise ModelError for a model that cannot learn, and warn of a sampling that it was not trained for."""
    transformer = networks.part("transformer")
    if not isinstance(transformer, PretrainedModel):
        raise ModelError(
            f"What learns is longtake's own transformer; {type(transformer).__name__} was given: load it by longtake."
        )
    if not transformer.config.has_clean_x_embedder:
        raise ModelError(
            "This transformer sees no clean frames (has_clean_x_embedder is false), which every sampling shows it; "
            "begin with a FramePack transformer."
        )
    for name in samplings:
        note = mismatch(name, networks.settings.get("sampling"))
        if note is not None:
            warnings.warn(note, LongtakeWarning, stacklevel=3)


def _examples(data: Any, networks: Networks, settings: Settings, folder: Output) -> Examples:
    """The examples: those that were given, or what lies at a place, encoded."""
    if not isinstance(data, str | Path):
        return data
    from longtake.training.data import open_data

    return open_data(data, networks, window=settings.window)


def _mark(examples: Examples) -> str:
    """What tells these examples from others, without reading them."""
    own = getattr(examples, "fingerprint", None)
    shapes = [tuple(examples.shape(number)) for number in range(len(examples))]
    return own if isinstance(own, str) else hashlib.sha256(str(shapes).encode()).hexdigest()


def _empty(networks: Networks) -> Told:
    """The empty prompt as the encoders read it."""
    for name in ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"):
        networks.part(name)
    return told_of("", encode_text(networks, [""]))
