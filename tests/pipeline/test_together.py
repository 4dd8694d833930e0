"""Several processes make one video: equal to one alone, one writes, and all end with one sentence."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from longtake import backend
from longtake.errors import BackendError, JobError, ModelError
from longtake.job import Job
from longtake.launched import launched
from longtake.pipeline import together

HERE = Path(__file__).parent
# Loopback alone, and not as many threads as there are cores in each of two processes.
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"}
torch_alone = pytest.mark.skipif(
    backend.name != "torch", reason="on MindSpore a video is made by one process"
)


def both(words: list[str], own: Any, folder: Path) -> list[subprocess.Popen]:
    """Two processes of these words; `own` gives each its arguments and its environment by number."""
    started = []
    for rank in (1, 0):
        more, environment = own(rank)
        started.append(
            subprocess.Popen(
                [sys.executable, *words, *more], env={**QUIET, **environment}, cwd=folder,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    return started[::-1]


def ended(processes: list[subprocess.Popen]) -> list[SimpleNamespace]:
    """How they ended; both are gone afterwards, whatever happens."""
    try:
        said = [process.communicate(timeout=100) for process in processes]
        return [
            SimpleNamespace(code=process.returncode, out=out, err=err)
            for process, (out, err) in zip(processes, said, strict=True)
        ]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a picture."""
    rows = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(rows).save(tmp_path / "a.png")
    return tmp_path


def on_command(folder: Path, *words: str) -> list[subprocess.Popen]:
    """`longtake` in two processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def own(rank: int) -> Any:
        names = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": 2,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        return [], {name: str(value) for name, value in names.items()}

    return both(["-m", "longtake", *words], own, folder)


@torch_alone
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    found = ended(
        both([str(HERE / "two_processes.py")], lambda rank: ([str(rank), str(tmp_path)], {}), tmp_path)
    )
    for process in found:
        assert process.code == 0, process.err
        said = json.loads(process.out.splitlines()[-1])
        # Sums of float32 in another order, in values of about 1.
        assert max(said["apart"].values()) < 1e-5, said
        assert len(said["apart"]) == 6
    # In turns: an odd number of tiles is one more for the first.
    assert [json.loads(process.out.splitlines()[-1])["tiles"] for process in found] == [6, 4]


@torch_alone
def test_a_video_of_two_processes_is_that_of_one(folder: Path) -> None:
    words = [
        "generate",
        "a.png",
        "A penguin dances.",
        "--frames",
        "73",
        "--steps",
        "2",
        "--sampling",
        "vanilla",
    ]
    first, second = ended(on_command(folder, *words, "--job", "two", "--json"))
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert second.out == second.err == ""
    events = [json.loads(line) for line in first.out.splitlines()]
    assert {"event": "shared", "processes": 2} in events and events[-1]["frames"] == 73
    alone = [sys.executable, "-m", "longtake", *words, "--job", "one"]
    subprocess.run(alone, check=True, cwd=folder, env=QUIET, capture_output=True)
    for number in range(2):
        one, two = (
            load_file(folder / job / "sections" / f"{number:05}.safetensors") for job in ("one", "two")
        )
        np.testing.assert_allclose(two["latents"], one["latents"], rtol=0, atol=1e-5)
    left = {file.name for file in folder.iterdir()}
    assert left == {"a.png", "one", "two"}


def _stepped(process: subprocess.Popen) -> None:
    """Wait until the first step is made."""
    for line in process.stdout:  # type: ignore[union-attr]
        if json.loads(line)["event"] == "stepped":
            return
    raise AssertionError(process.stderr.read())  # type: ignore[union-attr]


@torch_alone
@pytest.mark.parametrize(
    "end",
    [
        "killed",
        pytest.param("interrupted", marks=pytest.mark.slow),
        pytest.param("first", marks=pytest.mark.slow),
    ],
)
def test_all_end_with_one_sentence(folder: Path, end: str) -> None:
    words = [
        "generate",
        "a.png",
        "A penguin.",
        "--frames",
        "2000",
        "--steps",
        "50",
        "--job",
        "kept",
        "--json",
    ]
    first, second = processes = on_command(folder, *words)
    try:
        _stepped(first)
        if end == "killed":
            second.kill()
        elif end == "first":
            first.kill()
        else:  # as the terminal does
            for process in processes:
                process.send_signal(signal.SIGINT)
    except BaseException:
        for process in processes:
            process.kill()
        raise
    begun = time.monotonic()
    one, two = ended(processes)
    assert time.monotonic() - begun < 30
    said = [line for line in (one.err + two.err).splitlines() if line.startswith("longtake:")]
    assert "Traceback" not in one.err + two.err
    if end == "killed":
        assert one.code == 1 and two.out == ""
        assert len(said) == 1 and "Another process of this run has ended" in said[0]
        assert json.loads(one.out.splitlines()[-1])["event"] == "error"
    elif end == "interrupted":
        assert (one.code, two.code) == (130, 130) and said == ["longtake: interrupted"]
    else:
        assert two.code == 1 and said == []


@torch_alone
def test_a_refusal_is_one_sentence_of_process_0(folder: Path) -> None:
    words = ["generate", "a.png", "A penguin.", "--frames", "37", "--steps", "1", "--attention", "cudnn"]
    first, second = ended(on_command(folder, *words))
    assert (first.code, second.code, second.err) == (2, 1, "")
    assert (
        first.err.startswith("longtake: The attention kernel 'cudnn' is not there for cpu")
        and first.err.count("\n") == 1
    )
    assert {file.name for file in folder.iterdir()} == {"a.png"}


def test_heads_must_divide() -> None:
    together.check_heads(24, 8)
    with pytest.raises(
        ModelError, match="5 processes cannot share 24 heads of attention; start 2, 3, 4, 6, 8, 12, 24"
    ):
        together.check_heads(24, 5)


def test_a_cache_inside_the_blocks_is_refused() -> None:
    together.check_job(Job("", cache="easy:0.05"))
    with pytest.raises(JobError, match="looks between the blocks"):
        together.check_job(Job("", cache="first:0.1"))


def test_a_launcher_is_known_by_what_it_says() -> None:
    assert launched({"RANK": "1", "WORLD_SIZE": "4"}) == (0, 1)
    assert launched({"RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "1"}) == (0, 1)
    assert launched({"RANK_ID": "3", "RANK_SIZE": "4", "MS_SCHED_PORT": "1"}) == (3, 4)


@pytest.mark.skipif(backend.name != "mindspore", reason="about MindSpore")
def test_mindspore_makes_a_video_by_one_process() -> None:
    with pytest.raises(
        BackendError, match="2 processes were started, and on MindSpore a video is made by one"
    ):
        together.join(0, 2)


@torch_alone
def test_each_process_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from longtake.backend.torch import parallel

    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    chosen: list[int] = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert parallel._device("cuda", 3, 4) == "cuda:1" and chosen == [1]
    with pytest.raises(
        BackendError, match="4 processes were started, and each has a device of its own; 'cuda:0'"
    ):
        parallel._device("cuda:0", 0, 4)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(BackendError, match="4 processes were started, and there are 2 devices"):
        parallel._device("cuda", 2, 4)
    assert parallel._device("cpu", 2, 4) == "cpu"
