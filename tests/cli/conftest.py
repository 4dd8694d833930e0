"""A folder with pictures, and what was asked of the pipeline there."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from grey import events_of, job_events


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with pictures, where a model that is touched fails the test."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "red").save("a.png")
    Path("text.png").write_text("no picture")
    Path("empty.png").touch()
    Path("folder.mp4").mkdir()
    Path("model").mkdir()

    def load_networks(*words, **options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(importlib.import_module("longtake.pipeline.loading"), "load_networks", load_networks)
    return tmp_path


@pytest.fixture
def pipeline(place, monkeypatch):
    """A pipeline that makes grey frames; `calls` tells what it was given, `events` can be replaced."""
    calls = SimpleNamespace(
        events=events_of, job=None, model=None, dtype=None, device=None, parts=None, inputs=None, folder=None,
        numbers=None, preview=None, job_events=job_events, settings={"width": 64, "height": 48},
    )  # fmt: skip

    def load_networks(model, dtype, *, parts, machine, quantize, told):
        calls.model, calls.dtype, calls.device, calls.parts = model, dtype, machine.device, dict(parts)
        name = "float32" if dtype == "auto" else dtype
        return SimpleNamespace(
            settings=calls.settings, default_size=(64, 48), dtype_name=name, form=name,
            quantized=quantize,
            vae=None,
            transformer=SimpleNamespace(chosen_kernel="native", device="cpu"),
        )  # fmt: skip

    def generate(job, networks, inputs, *, store=None, preview=None, wanted=None):
        calls.job, calls.inputs, calls.folder, calls.preview = job, inputs, store, preview
        if store is None:
            yield from calls.events(job)
        else:
            store.begin(job, networks.form)
            yield from calls.job_events(store, calls.numbers)

    modules = {name: importlib.import_module(f"longtake.pipeline.{name}") for name in ("loading", "loop")}
    monkeypatch.setattr(modules["loading"], "load_networks", load_networks)
    monkeypatch.setattr(modules["loop"], "generate", generate)
    monkeypatch.setattr("longtake.weights.folder.describe", lambda name, without: {"parts": {}})
    return calls
