"""What `longtake info MODEL --vram …` says: the layout of a job and its times, before anything is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from checkpoints import transformer, values_of, write
from longtake.cli import main
from longtake.errors import BackendError, JobError, ModelError
from longtake.job import Job
from longtake.machine import Machine
from longtake.pipeline import outlook as rooms
from longtake.pipeline.outlook import outlook
from longtake.pipeline.sizes import read_sizes, sizes_of
from longtake.weights.folder import embedded_model

RATES = SimpleNamespace(matrix=1e12, attention=1e12, convolution=1e12, upload=None, disk=None, seconds=0.5)


def test_the_model_s_own_size_and_the_device_s_dtype() -> None:
    here = outlook(Job("", model="embedded"), Machine(), probe=False)
    assert (here.job.width, here.job.height, here.job.dtype) == (64, 64, "float32")
    assert here.layout.vram is None and here.times is None and here.device.name == "cpu"
    there = outlook(Job("", model="embedded"), Machine(vram=2.0, memory=8.0), probe=False)
    assert (
        there.job.dtype == "bfloat16" and there.layout.vram == 2 * 10**9 and there.layout.memory == 8 * 10**9
    )
    assert there.layout.fits and there.sentences[-1] == "it fits"
    assert "nothing was measured" in " ".join(there.sentences)
    larger = outlook(Job("", model="embedded", width=640, height=480), Machine(vram=2.0), probe=False)
    assert larger.layout.device_peak > there.layout.device_peak


def test_what_does_not_fit_says_what_would() -> None:
    small = outlook(
        Job("", model="embedded", width=832, height=480), Machine(vram=0.55, memory=8.0), probe=False
    )
    assert not small.layout.fits and "it does not fit: " in small.sentences[-1]
    assert small.values()["fits"] is False and small.values()["lacking"]


def test_with_rates_there_are_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_rates", lambda *words: RATES)
    found = outlook(Job("", model="embedded", steps=10), Machine(device="cpu"))
    assert found.times is not None and found.times.bound == "arithmetic"
    twice = outlook(Job("", model="embedded", steps=10, cfg_scale=2.0), Machine(device="cpu"))
    assert twice.times is not None and twice.times.step == pytest.approx(2 * found.times.step)
    more = outlook(Job("", model="embedded", steps=20), Machine(device="cpu"))
    assert more.times is not None and more.times.section > found.times.section
    said = " ".join(found.sentences)
    assert "1 TFLOP/s in products of matrices" in said and "a section of 10 steps and 36 frames" in said


def test_an_accelerator_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from longtake.backend import runtime, transfer

    seen: list[Any] = []
    monkeypatch.setattr(runtime, "check_device", lambda device: "npu" if device == "auto" else device)
    monkeypatch.setattr(transfer, "device_memory", lambda device: (5 * 10**9, 6 * 10**9))
    monkeypatch.setattr(rooms, "_rates", lambda device, *words: seen.append(device) or RATES)
    found = outlook(Job("", model="embedded"), Machine())
    assert (found.layout.vram, found.layout.device, found.job.dtype) == (5 * 10**9, "npu", "bfloat16")
    assert found.times is not None and [device.name for device in seen] == ["npu"]
    assert outlook(Job("", model="embedded"), Machine(vram=3.0)).layout.vram == 3 * 10**9
    monkeypatch.setattr(transfer, "device_memory", lambda device: None)
    with pytest.raises(BackendError, match="npu does not tell its free memory; give it by --vram"):
        outlook(Job("", model="embedded"), Machine())


def test_no_accelerator_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from longtake.backend import runtime

    monkeypatch.setattr(runtime, "check_device", lambda device: "cpu")
    found = outlook(Job("", model="embedded"), Machine(vram=6.0))
    assert found.rates is None and "there is no accelerator here to measure" in " ".join(found.sentences)


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["info", "embedded", "--vram", "3", "--memory", "8", "--size", "64x48", "--no-probe", "--json"])
        == 0
    )
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["width"], plan["height"], plan["vram"], plan["fits"]) == (64, 48, 3 * 10**9, True)
    assert set(plan["parts"]) == {"transformer", "vae", "text_encoder", "text_encoder_2", "image_encoder"}
    assert plan["times"] is plan["rates"] is None and plan["host_peak"] > 0
    assert main(["info", "embedded", "--steps", "3", "--no-probe"]) == 0
    told = capsys.readouterr().out
    assert "- 64 x 64 pixels, 3 steps, float32, on cpu" in told and told.endswith("- it fits\n")
    assert main(["info", "embedded"]) == 0
    assert "it fits" not in capsys.readouterr().out
    assert main(["info", "embedded", "--size", "63x64", "--no-probe"]) == 2
    assert "multiple of 16" in capsys.readouterr().err


def test_it_is_asked_of_models_alone(tmp_path: Path) -> None:
    from longtake.cli import parser

    (tmp_path / "job.json").write_text("{}")
    args = parser().parse_args(["info", str(tmp_path), "--vram", "3"])
    with pytest.raises(JobError):
        args.run(args)
    with pytest.raises(ModelError, match="has no transformer, so that it makes no videos"):
        outlook(Job("", model=str(embedded_model() / "vae")), Machine(), probe=False)


def test_nothing_is_loaded_without_probing() -> None:
    code = (
        "import sys; from longtake.cli import main; main(['info', 'embedded', '--vram', '3', '--no-probe']);"
        "assert not {'torch', 'mindspore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_part_in_a_file_has_its_own_sizes(tmp_path: Path) -> None:
    weights = values_of(transformer())
    file = write(tmp_path / "packed.safetensors", weights)
    sizes = read_sizes("embedded", {"transformer": str(file)}, "float32")["transformer"]
    assert sizes.whole == sum(array.nbytes for array in weights.values()) == sizes.stored
    assert len(sizes.blocks) == 2 and sizes.config.num_attention_heads == 1 and not sizes.converted


def test_gguf_s_blocks_take_what_they_are_read_as() -> None:
    def weight(dtype: str, size: int) -> Any:
        return SimpleNamespace(dtype=dtype, shape=(256, 256), bytes=size)

    name = "transformer_blocks.0.attn.to_q.weight"
    found = sizes_of("transformer", {name: weight("Q8_0", 69632)}, "bfloat16")
    assert found.blocks == (256 * 256 * 2,) and found.stored == 69632 and found.converted
    assert np.isclose(
        sizes_of("transformer", {name: weight("Q8_0", 69632)}, "bfloat16", "int8").blocks[0], 65536, 0.1
    )
