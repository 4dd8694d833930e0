"""Fine-tuning in miniature: it learns, writes what loads, and goes on exactly where it was stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import learners
from learners import SETTINGS, WINDOW, Clips, clips, learner
from longtake.backend import runtime
from longtake.errors import JobError, LongtakeWarning, ModelError
from longtake.models import adapters
from longtake.pipeline.networks import Networks
from longtake.training.course import Finished, Learnt
from longtake.training.finetune import finetune
from longtake.weights.arrays import read_arrays
from longtake.weights.lora import read_lora


def ran(events: Iterator[Any]) -> list[Any]:
    found = list(events)
    assert isinstance(found[-1], Finished)
    return found


def losses(events: list[Any]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Learnt)]


def state(folder: Path) -> dict[str, np.ndarray]:
    return read_arrays(folder / "state" / "checkpoint.safetensors")[0]


def logged(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "minutes"} for line in lines]


def equal(one: Path, two: Path) -> None:
    """Two runs have the same checkpoint, log and result, bit for bit."""
    first, second = state(one), state(two)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], name)
    assert logged(one) == logged(two)
    file = "pytorch_lora_weights.safetensors"
    assert (one / file).read_bytes() == (two / file).read_bytes()


def test_the_error_falls_on_one_clip(tmp_path: Path) -> None:
    # A still: what is to be learnt is where it is, and to predict nothing at all leaves an error of 2.25.
    still = (
        np.ones((4, 7, 4, 6), np.float32) * np.array([1, -1, 2, -2], np.float32)[:, None, None, None] / 2**0.5
    )
    one = Clips([replace(clips(1)[0], latents=still)])
    settings = replace(SETTINGS, steps=60, rank=16, batch=4, lr=3e-2, targets=".*", schedule="cosine")
    networks = learner()
    found = losses(ran(finetune(networks, one, tmp_path, settings)))
    assert np.mean(found[:2]) > 2 and np.mean(found[-10:]) < 1.5
    assert not adapters.names(networks.transformer)


@pytest.mark.parametrize("stopped", [1, 3])
def test_a_run_that_is_stopped_goes_on_as_if_it_never_was(tmp_path: Path, stopped: int) -> None:
    settings = replace(SETTINGS, dropout=0.2, average=0.9, self_made=0.5, self_made_steps=1, batch=2)
    whole, halved, networks = tmp_path / "whole", tmp_path / "halved", learner()
    ran(finetune(networks, clips(), whole, settings))
    events = finetune(networks, clips(), halved, settings)
    for event in events:
        if isinstance(event, Learnt) and event.step == stopped:
            events.close()
    assert int(state(halved)["steps"]) == stopped
    ran(finetune(networks, clips(), halved, settings))
    equal(whole, halved)


def test_a_whole_model_goes_on_exactly_too(tmp_path: Path) -> None:
    settings = replace(SETTINGS, rank=32, whole=True, steps=2, lr=1e-3, average=0.9)
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    ran(finetune(learner(), clips(), whole, settings))
    events = finetune(learner(), clips(), halved, settings)
    for event in events:
        if isinstance(event, Learnt):
            events.close()
    ran(finetune(learner(), clips(), halved, settings))
    first, second = state(whole), state(halved)
    assert int(second["steps"]) == 2 and all((first[name] == second[name]).all() for name in first)
    weights = [
        folder / "model" / "transformer" / "diffusion_pytorch_model.safetensors" for folder in (whole, halved)
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_process_that_is_killed_between_checkpoints_goes_on_exactly(tmp_path: Path) -> None:
    settings = replace(SETTINGS, save_every=2, average=0.9, dropout=0.2)
    ran(finetune(learner(), clips(), tmp_path / "whole", settings))
    killed = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, learners.__file__, str(killed)], env=environment, timeout=120, capture_output=True
    )
    assert done.returncode == -9 and int(state(killed)["steps"]) == 2, done.stderr
    ran(finetune(learner(), clips(), killed, settings))
    equal(tmp_path / "whole", killed)


def test_accumulation_equals_a_larger_batch(tmp_path: Path) -> None:
    networks = learner()
    ran(finetune(networks, clips(), tmp_path / "one", replace(SETTINGS, batch=4)))
    ran(finetune(networks, clips(), tmp_path / "two", replace(SETTINGS, batch=2, accumulate=2)))
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    for name in one:
        if name.startswith("parameter/"):
            np.testing.assert_allclose(one[name], two[name], atol=1e-5)
    # AdamW would not see gradients of another size; the log says it.
    for line, other in zip(logged(tmp_path / "one"), logged(tmp_path / "two"), strict=True):
        assert line == pytest.approx(other, rel=1e-3)


def test_what_is_written_is_the_average(tmp_path: Path) -> None:
    ran(finetune(learner(), clips(), tmp_path, replace(SETTINGS, average=0.9, keep_every=2)))
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["000002", "000004"]
    last = state(tmp_path)
    name = "transformer_blocks.0.attn.to_q"
    written = read_arrays(tmp_path / "pytorch_lora_weights.safetensors")[0]
    found = written[f"transformer.{name}.lora_B.weight"]
    np.testing.assert_array_equal(found, last[f"average/{name}.up"])
    kept = read_arrays(tmp_path / "kept" / "000002" / "pytorch_lora_weights.safetensors")[0]
    assert (kept[f"transformer.{name}.lora_B.weight"] != found).any()
    assert np.abs(found - last[f"parameter/{name}.up"]).max() > 1e-4


def test_muon_and_the_end_of_a_constant_run_can_move(tmp_path: Path) -> None:
    settings = replace(SETTINGS, optimiser="muon", steps=2)
    networks = learner()
    ran(finetune(networks, clips(), tmp_path, settings))
    again = losses(ran(finetune(networks, clips(), tmp_path, replace(settings, steps=3))))
    assert len(again) == 1 and any(name.startswith("momentum/") for name in state(tmp_path))


def test_kohya_s_keys_say_the_same_as_peft_s(tmp_path: Path) -> None:
    networks = learner()
    settings = replace(SETTINGS, steps=1, alpha=2.0)
    ran(finetune(networks, clips(), tmp_path / "peft", settings))
    ran(finetune(networks, clips(), tmp_path / "kohya", replace(settings, format="kohya")))
    shapes = adapters.shapes(networks.transformer)
    one, two = (read_lora(tmp_path / name, shapes) for name in ("peft", "kohya"))
    assert one.keys() == two.keys() and {change.alpha for change in two.values()} == {2.0}
    for name, change in one.items():
        np.testing.assert_array_equal(change.delta, two[name].delta)
    tensors, metadata = read_arrays(tmp_path / "kohya" / "lora.safetensors")
    assert "lora_unet_transformer_blocks_0_attn_to_q.lora_down.weight" in tensors
    assert metadata["ss_network_dim"] == "4" and metadata["ss_steps"] == "1"


def test_a_base_in_8_bits_learns_beside_and_stays(tmp_path: Path) -> None:
    from longtake.models import quantised

    networks = learner()
    networks.transformer.save_pretrained(tmp_path / "full")
    kind = type(networks.transformer)
    base = kind.from_pretrained(
        tmp_path / "full", quantization_config=quantised.EightBitConfig("int8"), dtype="float32"
    )
    before = {name: weight.clone() for name, weight in runtime.named_weights(base).items()}
    ran(finetune(Networks(transformer=base), clips(), tmp_path / "out", replace(SETTINGS, steps=2)))
    for name, weight in runtime.named_weights(base).items():
        assert (weight == before[name]).all(), name
    ups = [value for name, value in state(tmp_path / "out").items() if name.endswith(".up")]
    assert any(np.abs(value).max() > 0 for value in ups)


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    networks, settings = learner(), replace(SETTINGS, steps=1)
    ran(finetune(networks, clips(), tmp_path / "run", settings))
    with pytest.raises(JobError, match="holds another run: --rank was 4 and is 2"):
        finetune(networks, clips(), tmp_path / "run", replace(settings, rank=2))
    with pytest.raises(JobError, match="holds another run: its data was"):
        ran(finetune(networks, clips(1), tmp_path / "run", settings))
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    with pytest.raises(JobError, match="files that are no fine-tuning's"):
        finetune(networks, clips(), tmp_path / "letters", settings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 0}, "--rank must be at least 1"),
        ({"targets": "to_qqq"}, "'to_qqq' names no linear layer"),
        ({"targets": "to_(q"}, "is no regular expression"),
        ({"sampling": "sideways"}, "No sampling 'sideways'"),
        ({"sampling": "vanilla", "key_frames": 0.5}, "vanilla never sees"),
        ({"sampling": "f1k1_x_g2", "bagger": 0.5}, "in f1k1_x_g2 no section sees another"),
        ({"whole": True, "rank": 8}, "--whole trains no LoRA, which --rank is about"),
        ({"epochs": 2}, "so many --steps or so many --epochs"),
        ({"self_made": 0.6, "bagger": 0.6}, "add up to 1.2"),
    ],
)
def test_what_cannot_be_done_is_refused_at_the_call(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    networks = learner()
    with pytest.raises(JobError, match=words):
        finetune(networks, clips(), tmp_path, replace(SETTINGS, **changes))
    assert not adapters.names(networks.transformer) and not any(tmp_path.iterdir())


def test_a_disk_without_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda place: type("Free", (), {"free": 10})())
    with pytest.raises(JobError, match=r"needs 0\.00 GB for checkpoints .* and 0\.00 GB are free"):
        finetune(learner(), clips(), tmp_path, SETTINGS)


def test_a_model_without_clean_frames_is_refused(tmp_path: Path) -> None:
    from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel

    plain = HunyuanVideoFramepackTransformer3DModel(**learners.TINY, has_clean_x_embedder=False)
    with pytest.raises(ModelError, match="sees no clean frames"):
        finetune(Networks(transformer=plain), clips(), tmp_path, SETTINGS)


def test_another_sampling_than_the_model_s_is_told(tmp_path: Path) -> None:
    networks = replace(learner(), settings={"sampling": "vanilla"})
    with pytest.warns(LongtakeWarning, match="trained for vanilla sampling, and inverted"):
        finetune(networks, clips(), tmp_path, replace(SETTINGS, sampling="inverted"))


def test_a_missing_log_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for kind in ("tensorboard", "trackio"):
        with pytest.raises(JobError, match=f"--log {kind} needs the package {kind}"):
            finetune(learner(), clips(), tmp_path, SETTINGS, logs=[kind])
    with pytest.raises(JobError, match="no log 'wandb'"):
        finetune(learner(), clips(), tmp_path, SETTINGS, logs=["wandb"])


def test_a_window_that_no_example_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="7 latent frames, which hold no section of 9"):
        ran(finetune(learner(), clips(), tmp_path, replace(SETTINGS, window=WINDOW + 7)))


def test_what_learns_stays_float32_on_a_base_of_16_bits(tmp_path: Path) -> None:
    networks = learner()
    networks.transformer.to(runtime.dtype("bfloat16"))
    events = ran(finetune(networks, clips(), tmp_path, replace(SETTINGS, precision="bfloat16")))
    assert all(np.isfinite(losses(events)))
    assert {
        values.dtype for name, values in state(tmp_path).items() if "/" in name and "step/" not in name
    } == {np.dtype(np.float32)}
    assert networks.dtype_name == "bfloat16"
