"""A fine-tuning that is asked for, checked against model, data and memory before anything is loaded."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longtake.backend import runtime
from longtake.errors import JobError, LongtakeWarning, ModelError
from longtake.machine import Machine
from longtake.models import forms
from longtake.models.quantised import EightBitConfig
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.named import mismatch, places, trained_for
from longtake.pipeline.loading import model_settings
from longtake.pipeline.networks import QUANTISABLE, Networks
from longtake.sampling.treatments import Treatment, sometimes, treatment_of
from longtake.sampling.ways import discrete_of
from longtake.training import data as data_room
from longtake.training import lora, room
from longtake.training.company import check_precision
from longtake.training.learning import precision_of
from longtake.training.output import Output
from longtake.training.settings import Settings
from longtake.weights import single
from longtake.weights.codebook import codebook_at
from longtake.weights.codebook import opened as opened_codebook
from longtake.weights.fingerprint import part_fingerprints
from longtake.weights.folder import model_source
from longtake.weights.hub import Part

OTHERWISE = "inverted"
"""The sampling of a model that does not say what it was trained for, as in a job."""


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
        """The fingerprint that tells the model's transformer from others."""
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
        """The treatment of a section's history."""
        found = treatment_of(self.settings.history, lambda count, groups: self.codes)
        share = self.settings.history_share
        return found if found is None or share == 1 else sometimes(found, share)

    @property
    def form(self) -> Any:
        """The form of the transformer that is asked for."""
        return form_of(self.quantize)

    @property
    def device(self) -> Any:
        """The device on which the transformer learns."""
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


@dataclass(frozen=True)
class Place:
    """Data that lie in files: the encoders, how they are read, and the plan of what is to be encoded."""

    encoders: data_room.Encoders
    how: data_room.Settings
    plan: data_room.Plan


def surveyed(asked: Asked) -> Place | None:
    """The survey of the data; None if examples were given. Raises JobError if there is nothing to learn from."""
    if not isinstance(asked.data, str | Path):
        return None
    model, how = asked.model, data_room.reading(asked.settings)
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
