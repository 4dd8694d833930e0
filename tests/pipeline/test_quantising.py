"""A whole model in 8 bits: asked for by a job, by a pipeline, or written into a folder; on either framework."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtake.backend import ops, runtime
from longtake.cli import main
from longtake.compat.framepack import HunyuanVideoFramepackPipeline
from longtake.errors import JobError, ModelError
from longtake.events import FramesReady
from longtake.job import Job
from longtake.models import quantised
from longtake.models.quantised import EightBitConfig
from longtake.pipeline.budget import Layout
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import load_networks, save_networks
from longtake.pipeline.place import place
from longtake.pipeline.prepare import Inputs, settled
from longtake.pipeline.quantising import quantise
from longtake.weights import files
from longtake.weights.folder import describe


@pytest.fixture(scope="module")
def folder(networks: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model") / "plain"
    save_networks(networks, place, "HunyuanVideoFramepackPipeline")
    return place


@pytest.fixture(scope="module")
def small(folder: Path) -> Path:
    return quantise(str(folder), folder.parent / "int8", EightBitConfig("int8", keep_first=1))


def weights_of(network: Any) -> dict[str, np.ndarray]:
    return {name: ops.to_numpy(weight) for name, weight in quantised.full_weights(network).items()}


def frames(networks: Any, picture: Any, **fields: Any) -> np.ndarray:
    job = Job(prompt="a small blue bird", frames=5, window=2, steps=2, width=48, height=32, **fields)
    made = [each for each in generate(job, networks, Inputs(picture)) if isinstance(each, FramesReady)]
    return np.concatenate([each.frames for each in made], 1)


def test_a_job_names_the_form_and_its_networks_have_it(folder: Path, picture: Any) -> None:
    plain, eight = load_networks(folder), load_networks(folder, quantize="int8")
    assert (plain.form, plain.quantized) == ("float32", "none")
    assert (
        eight.quantized == "int8" and "transformer=float32/int8" in eight.form and "vae=float32" in eight.form
    )
    found, exact = frames(eight, picture, quantize="int8"), frames(plain, picture)
    assert found.shape == exact.shape and np.abs(found.astype(int) - exact).mean() < 4
    assert not np.array_equal(found, exact)
    assert np.array_equal(frames(eight, picture), found)  # "none" leaves it to the networks …
    assert settled(Job(prompt="x"), eight, None).quantize == "int8"  # … and says what they are
    with pytest.raises(JobError, match="asks for quantize fp8 and the transformer's blocks are int8"):
        frames(eight, picture, quantize="fp8")
    with pytest.raises(JobError, match="asks for quantize int8 and the transformer's blocks are none"):
        frames(plain, picture, quantize="int8")


def test_a_folder_in_8_bits_gives_the_frames_that_reading_into_8_bits_gives(
    folder: Path, small: Path, picture: Any
) -> None:
    config = {"transformer": EightBitConfig("int8", keep_first=1)}
    made, stored = load_networks(folder, quantize=config), load_networks(small)
    assert made.form == stored.form and "int8(1,0)" in stored.form
    before, after = weights_of(made.transformer), weights_of(stored.transformer)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert np.array_equal(frames(made, picture), frames(stored, picture))
    assert load_networks(small, quantize="int8").quantized == "int8"
    with pytest.raises(ModelError, match="in int8 already, and fp8 is asked for"):
        load_networks(small, quantize="fp8")


def test_what_is_not_quantised_lies_there_as_it_was(folder: Path, small: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in small.iterdir()) == names
    for name in ("vae", "text_encoder", "image_encoder"):
        for file in (folder / name).iterdir():
            assert (small / name / file.name).read_bytes() == file.read_bytes()
    kinds = {w.dtype for w in files.read_weights(small / "transformer", "diffusion_pytorch_model").values()}
    assert kinds == {"float32", "int8"}
    facts = describe(small)["parts"]["transformer"]
    assert facts["quantization"] == {
        "form": "int8",
        "keep_first": 1,
        "keep_last": 0,
        "quant_method": "longtake",
    }
    assert facts["dtypes"]["int8"] > 1000


def test_both_parts_and_one_network_alone(folder: Path, tmp_path: Path) -> None:
    both = quantise(str(folder), tmp_path / "both", EightBitConfig("fp8"), ("transformer", "text_encoder"))
    networks = load_networks(both)
    assert quantised.forms(networks.transformer) == quantised.forms(networks.text_encoder) == ["fp8"]
    assert "text_encoder=float32/fp8" in networks.form
    alone = quantise(str(folder / "transformer"), tmp_path / "alone", EightBitConfig("fp8"))
    found = type(networks.transformer).from_pretrained(alone)
    before, after = weights_of(networks.transformer), weights_of(found)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    file = next((folder / "text_encoder").glob("*.safetensors"))
    with pytest.raises(ModelError, match="is a text_encoder, and transformer was asked for"):
        quantise(str(file), tmp_path / "wrong", EightBitConfig())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{folder}", "-o", "{folder}"], "is there already"),
        (
            ["{folder}", "-o", "new", "--networks", "vae"],
            "'vae' was asked for; the parts that can be quantised",
        ),
        (["nowhere/at-all", "-o", "new"], "nowhere/at-all"),
        (["{folder}/vae", "-o", "new"], "is a vae, and transformer was asked for"),
        (["{folder}", "-o", "new", "--keep-first", "2"], "none of them would be quantised"),
        (["{folder}", "-o", "new", "--keep-last", "-1"], "keep_last is a number of blocks"),
        (["{folder}", "-o", "new", "--max-shard-size", "much"], "no size of a file"),
        (["{folder}", "-o", "new", "--form", "int4"], "int4"),
    ],
)
def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    words: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["quantize", *(word.format(folder=folder) for word in words)]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_verb_says_what_it_wrote(folder: Path, tmp_path: Path, capsys: Any) -> None:
    place = tmp_path / "new"
    assert main(["quantize", str(folder), "-o", str(place), "--keep-last", "1"]) == 0
    assert "transformer in int8(0,1)" in capsys.readouterr().out
    assert main(["info", str(place)]) == 0
    assert "int8" in capsys.readouterr().out
    assert (
        json.loads((place / "transformer" / "config.json").read_text())["quantization_config"]["keep_last"]
        == 1
    )


def test_a_pipeline_takes_the_fields_keyword(folder: Path, tmp_path: Path, picture: Any) -> None:
    config = {
        "transformer": {"quant_method": "longtake", "form": "int8"},
        "text_encoder": EightBitConfig("fp8"),
    }
    pipe = HunyuanVideoFramepackPipeline.from_pretrained(folder, quantization_config=config)
    assert quantised.forms(pipe.transformer) == ["int8"] and quantised.forms(pipe.text_encoder) == ["fp8"]
    pipe.save_pretrained(tmp_path / "saved")
    again = HunyuanVideoFramepackPipeline.from_pretrained(tmp_path / "saved")
    assert again.networks.form == pipe.networks.form
    pipe.to(dtype=runtime.dtype("float16"))
    assert quantised.forms(pipe.transformer) == ["int8"] and "float16/int8" in pipe.networks.form
    with pytest.raises(ModelError, match="The part 'vae' has no quantised form here"):
        HunyuanVideoFramepackPipeline.from_pretrained(
            folder, quantization_config=type("C", (), {"components_to_quantize": ["vae"], "quant_mapping": None,
            "quant_backend": "bitsandbytes_8bit", "quant_kwargs": {"load_in_8bit": True}})(),
        )  # fmt: skip
    with pytest.raises(ModelError, match="The transformer is given as it is"):
        HunyuanVideoFramepackPipeline.from_pretrained(
            folder, transformer=pipe.transformer, quantization_config=EightBitConfig()
        )


def test_diffusers_own_config_is_taken(folder: Path, torch_only: Any) -> None:
    diffusers = pytest.importorskip("diffusers")
    quantization = pytest.importorskip("torchao.quantization")
    config = diffusers.TorchAoConfig(quantization.Int8WeightOnlyConfig(version=2))
    whole = diffusers.PipelineQuantizationConfig(quant_mapping={"transformer": config})
    pipe = HunyuanVideoFramepackPipeline.from_pretrained(folder, quantization_config=whole)
    assert len(pipe.transformer.replaced) == 17 and "torchao" in pipe.networks.form
    assert pipe.networks.quantized == "none"


@pytest.mark.parametrize("form", ["int8", "fp8", "int8-dynamic"])
def test_blocks_in_8_bits_that_are_streamed_give_what_resident_ones_give(
    folder: Path, picture: Any, torch_only: Any, form: str
) -> None:
    from fake_device import accelerator

    def streamed(layout: Layout) -> Layout:
        lies = replace(layout.parts["transformer"], how="streamed", resident=0, modulations=False)
        return replace(layout, parts={**layout.parts, "transformer": lies}, together=False)

    with accelerator():
        resident = load_networks(folder, "float32", "npu", quantize=form, placed=False)
        whole = frames(resident, picture)
    with accelerator():
        read = load_networks(folder, "float32", "cpu", quantize=form, placed=False)
        networks = place(read, device="npu", form=streamed)
        assert quantised.forms(networks.transformer) == [form]
        found = frames(networks, picture)
    assert np.array_equal(found, whole)
    on_cpu = frames(load_networks(folder, quantize=form), picture)
    assert np.abs(found.astype(int) - on_cpu).max() <= 1


def test_a_part_in_one_file_gets_the_form_too(folder: Path, tmp_path: Path) -> None:
    import checkpoints

    wide = checkpoints.transformer()
    file = checkpoints.write(tmp_path / "one.safetensors", checkpoints.original(checkpoints.values_of(wide)))
    networks = load_networks(folder, parts={"transformer": str(file)}, quantize="int8")
    assert networks.quantized == "int8" and "transformer=float32/int8" in networks.form
    # Parts of a fused projection are quantised one by one, as they are when they lie apart.
    wide.save_pretrained(tmp_path / "apart")
    other = type(wide).from_pretrained(tmp_path / "apart", quantization_config=EightBitConfig())
    before, after = weights_of(networks.transformer), weights_of(other)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    made = quantise(str(file), tmp_path / "made", EightBitConfig())
    assert quantised.forms(type(wide).from_pretrained(made)) == ["int8"]
