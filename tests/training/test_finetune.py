"""Fine-tuning a model in miniature: it learns, writes what loads, and goes on exactly where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtake.errors import JobError
from longtake.models import adapters
from longtake.pipeline.encode import encode_text
from longtake.training.course import Finished, Learnt
from longtake.training.examples import Example
from longtake.training.finetune import finetune
from longtake.training.learning import told_of
from longtake.training.settings import Settings
from longtake.weights.arrays import read_arrays

WINDOW = 2
TINY = Settings(
    rank=4, window=WINDOW, steps=4, lr=1e-2, log_every=2, save_every=100, sampling="inverted,vanilla"
)


class Clips(list):  # type: ignore[type-arg]
    """Examples in memory."""

    def shape(self, number: int) -> tuple[int, int, int]:
        return self[number].latents.shape[1:]


@pytest.fixture(scope="module")
def clips(networks: Any) -> Clips:
    """Two clips of three sections, one of which changes its prompt, as the model's own encoders tell them."""
    told = [told_of(text, encode_text(networks, [text])) for text in ("a penguin", "a red ball")]
    rng = np.random.default_rng(0)
    states = rng.standard_normal((4, 16)).astype(np.float32)
    return Clips(
        Example(f"clip {n}", rng.standard_normal((4, 7, 4, 6)).astype(np.float32), told[n], states)
        for n in range(2)
    )


def ran(events: Iterator[Any]) -> list[Any]:
    found = list(events)
    assert isinstance(found[-1], Finished)
    return found


def losses(events: list[Any]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Learnt)]


def test_the_error_falls_on_one_clip(networks: Any, clips: Clips, tmp_path: Path) -> None:
    # A still: what is to be learnt is where it is, and to predict nothing at all leaves an error of 2.25.
    still = (
        np.ones((4, 7, 4, 6), np.float32) * np.array([1, -1, 2, -2], np.float32)[:, None, None, None] / 2**0.5
    )
    one = Clips([replace(clips[0], latents=still)])
    settings = replace(TINY, steps=60, rank=16, batch=4, lr=3e-2, targets=".*", schedule="cosine")
    found = losses(ran(finetune(networks, one, tmp_path, settings)))
    assert np.mean(found[:2]) > 2 and np.mean(found[-10:]) < 1.5
    assert not adapters.names(networks.transformer)


def state(folder: Path) -> dict[str, np.ndarray]:
    return read_arrays(folder / "state" / "checkpoint.safetensors")[0]


def logged(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "minutes"} for line in lines]


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
    assert one.keys() == two.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name], name)


@pytest.mark.parametrize("stopped", [1, 3])
def test_a_run_that_is_stopped_goes_on_as_if_it_never_was(
    networks: Any,
    clips: Clips,
    tmp_path: Path,
    stopped: int,
) -> None:
    settings = replace(TINY, dropout=0.2, average=0.9, self_made=0.5, self_made_steps=1, batch=2)
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    ran(finetune(networks, clips, whole, settings))
    events = finetune(networks, clips, halved, settings)
    for event in events:
        if isinstance(event, Learnt) and event.step == stopped:
            events.close()
    assert int(state(halved)["steps"]) == stopped
    ran(finetune(networks, clips, halved, settings))
    same(state(whole), state(halved))
    assert logged(whole) == logged(halved)
    file = "pytorch_lora_weights.safetensors"
    assert (whole / file).read_bytes() == (halved / file).read_bytes()


def test_accumulation_equals_a_larger_batch(networks: Any, clips: Clips, tmp_path: Path) -> None:
    ran(finetune(networks, clips, tmp_path / "one", replace(TINY, batch=4)))
    ran(finetune(networks, clips, tmp_path / "two", replace(TINY, batch=2, accumulate=2)))
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    for name in one:
        # AdamW divides small gradients by their own size: the parameters are what agrees.
        if name.startswith("parameter/"):
            np.testing.assert_allclose(one[name], two[name], atol=1e-5)


def test_a_folder_with_another_run_is_refused(networks: Any, clips: Clips, tmp_path: Path) -> None:
    ran(finetune(networks, clips, tmp_path / "run", replace(TINY, steps=1)))
    with pytest.raises(JobError, match="holds another run: --rank was 4 and is 2"):
        finetune(networks, clips, tmp_path / "run", replace(TINY, rank=2))
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    with pytest.raises(JobError, match="files that are no fine-tuning's"):
        finetune(networks, clips, tmp_path / "letters", TINY)
