"""Two processes learn what one learns with twice the batch; one of them writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from longtake.errors import JobError
from longtake.training.company import Company, check, check_precision
from longtake.training.learning import Learning
from longtake.training.settings import Settings
from longtake.weights.arrays import read_arrays
from two_learn import BOTH, clips, main

DRIVER = Path(__file__).parent.parent / "two_learn.py"
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"}


def both(way: str, folder: Path) -> None:
    """Two processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(2):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", str(DRIVER), way, str(folder)], env={**QUIET, **own},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
    try:
        said = [process.communicate(timeout=100)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    main("alone", folder)
    return folder


@pytest.mark.slow  # four processes that load PyTorch
@pytest.mark.parametrize("way", ["plain", "shared"])
def test_two_processes_learn_what_one_learns_with_twice_the_batch(
    way: str, alone: Path, tmp_path: Path
) -> None:
    """A LoRA and the whole network, with accumulation and averages, each process with all weights or its part of them;
    both were stopped once and went on from the checkpoint."""
    pytest.importorskip("accelerate")
    both(way, tmp_path)
    for what in ("lora", "whole"):
        (expected, log), (found, told) = read(alone / what), read(tmp_path / what)
        assert len(log) == 4 and found.keys() == expected.keys()
        for name, values in expected.items():
            # Without a norm behind it, the bias of keys changes nothing: AdamW makes steps of its gradient's rounding.
            if name.startswith(("parameter/", "average/")) and "refiner_blocks.0.attn.to_k.bias" not in name:
                # Gradients are added in another order; AdamW divides small ones by their own size.
                np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=f"{what} {name}")
        assert [line["step"] for line in told] == [line["step"] for line in log]
        np.testing.assert_allclose([line["loss"] for line in told], [line["loss"] for line in log], rtol=1e-3)
        assert any(
            not np.array_equal(values, expected[name.replace("parameter/", "average/")])
            for name, values in expected.items()
            if name.startswith("parameter/")
        )


def read(folder: Path) -> tuple[dict[str, np.ndarray], list[dict[str, float]]]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return read_arrays(folder / "state" / "checkpoint.safetensors")[0], [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed is not served; take FSDP"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, "mixed precision in fp16, which is not served; take bf16"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "it is asked for by --accumulate here"),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "it is asked for by --compile here"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "FSDP 1, which is not served"),
    ],
)
def test_what_a_launcher_asks_for_and_is_not_done_is_refused(settings: dict[str, str], told: str) -> None:
    with pytest.raises(JobError, match=told):
        check(settings)


def test_a_launcher_that_asks_for_another_precision_is_refused() -> None:
    asked = {"ACCELERATE_MIXED_PRECISION": "bf16"}
    check_precision("bfloat16", asked)
    check_precision("float32", {"ACCELERATE_MIXED_PRECISION": "no"})
    with pytest.raises(JobError, match=r"mixed precision in bf16, and this training computes in float32"):
        check_precision("float32", asked)


def test_the_rows_of_a_step_are_shared_out() -> None:
    """The rows of two processes are, together, those of one alone with twice the batch."""
    network = SimpleNamespace(device="cpu", dtype="float32")

    def learnt(settings: Settings, company: Any) -> list[tuple[str, float, float]]:
        learning = Learning(network, clips(), settings, ["inverted"], 3.0, company=company)
        batches = [learning.batches(step) for step in range(3)]
        assert all(len(batch) == settings.batch for step in batches for batch in step)
        return [
            (one.example.name, one.level, float(one.noise.sum()))
            for step in batches
            for each in step
            for one in each
        ]

    def process(rank: int) -> Any:
        return SimpleNamespace(
            rank=rank, size=2, device="cpu", part=partial(Company.part, SimpleNamespace(rank=rank, size=2))
        )

    each = [learnt(BOTH, process(rank)) for rank in range(2)]
    alone = learnt(replace(BOTH, batch=2 * BOTH.batch), None)
    rows = len(each[0]) // 3
    assert alone == [row for step in range(3) for own in each for row in own[step * rows : (step + 1) * rows]]
