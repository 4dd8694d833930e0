import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from longtake.errors import ModelError
from longtake.weights import fingerprint as room
from longtake.weights.fingerprint import file_fingerprint, fingerprint
from longtake.weights.folder import embedded_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "copy"
    shutil.copytree(embedded_model(), folder)
    return folder


def test_it_does_not_depend_on_the_folder_nor_on_files_that_are_not_read(model):
    before = fingerprint("embedded")
    assert fingerprint(model) == before
    (model / "README.md").write_text("Other words.")
    (model / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"")
    assert fingerprint(model) == before
    (model / "vae" / "diffusion_pytorch_model.fp16.safetensors").unlink()


@pytest.mark.parametrize(
    "name",
    ["model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json", "vae/config.json"],
)
def test_it_changes_with_any_config(model, name):
    before, text = fingerprint(model), (model / name).read_text()
    (model / name).write_text(json.dumps({**json.loads(text), "added": 1}))
    assert fingerprint(model) != before
    (model / name).write_text(text)
    assert fingerprint(model) == before


def test_it_changes_with_one_weight(model):
    file = model / "image_encoder" / "model.safetensors"
    before, data = fingerprint(model), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert fingerprint(model) != before


def test_parts_may_come_from_elsewhere(model, tmp_path):
    whole = fingerprint("embedded")
    # Beside others in a folder of its name, and alone.
    shutil.copytree(embedded_model() / "vae", tmp_path / "other" / "vae")
    shutil.copytree(embedded_model() / "transformer", tmp_path / "alone")
    parts = {"vae": str(tmp_path / "other"), "transformer": str(tmp_path / "alone")}
    assert fingerprint("embedded", parts) == whole
    # What the model has in their place is not even looked for.
    shutil.copytree(embedded_model(), tmp_path / "rest")
    for name in parts:
        shutil.rmtree(tmp_path / "rest" / name)
    assert fingerprint(tmp_path / "rest", parts) == whole
    config = tmp_path / "alone" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "added": 1}))
    assert fingerprint("embedded", parts) != whole
    with pytest.raises(ModelError):
        fingerprint("embedded", {"vae": str(tmp_path)})


@pytest.mark.parametrize("place", [12, -1, 5000])
def test_of_a_large_file_header_ends_and_size_count(tmp_path, monkeypatch, place):
    monkeypatch.setattr(room, "WHOLE", 1000)
    monkeypatch.setattr(room, "SAMPLE", 100)
    monkeypatch.setattr(room, "SAMPLES", 3)
    file = tmp_path / "a.safetensors"
    save_file({"a": np.zeros(2500, np.float32)}, file)
    size = file.stat().st_size
    before = file_fingerprint(file)
    data = bytearray(file.read_bytes())
    middle = (size - 100) // 2
    data[middle + 50 if place == 5000 else place] ^= 1
    file.write_bytes(data)
    assert file_fingerprint(file) != before
    data[3000] ^= 1  # between the samples
    between = file_fingerprint(file)
    file.write_bytes(data)
    assert file_fingerprint(file) == between
    os.truncate(file, size - 1)
    assert file_fingerprint(file) != between


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="model_index"):
        fingerprint(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        file_fingerprint(tmp_path / "none")
