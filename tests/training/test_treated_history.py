"""The treatment of the history in training: as in sampling, for whole rows, and never of what is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtake.backend import ops
from longtake.errors import JobError, LongtakeError, ModelError
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.pipeline.encode import encode_text
from longtake.plan.plans import inverted, vanilla
from longtake.sampling.codebooks import Codebook, quantised
from longtake.sampling.treatments import added, discrete, sometimes
from longtake.training import objective
from longtake.training.examples import Example
from longtake.training.finetune import finetune
from longtake.training.learning import told_of
from longtake.training.settings import Settings

RNG = np.random.default_rng(0)
CODES = RNG.standard_normal((6, 4)).astype(np.float32)
VIDEO = RNG.standard_normal((4, 28, 4, 6)).astype(np.float32)


def read(frames: Any) -> np.ndarray:
    return np.stack([0 * VIDEO[:, 0] if frame is None else VIDEO[:, frame] for frame in frames], 1)


def rows(treatment: Any, sections: list[Any], **given: Any) -> objective.Rows:
    """The inputs of a network when the loss asks it."""
    seen: list[objective.Rows] = []

    def velocity(noisy: np.ndarray, level: np.ndarray, shown: objective.Rows) -> Any:
        seen.append(shown)
        return ops.from_numpy(noisy)

    noise, level = np.zeros((len(sections), 4, 9, 4, 6), np.float32), np.full(len(sections), 0.5, np.float32)
    rng = np.random.default_rng(1)
    found = objective.loss(velocity, sections, [read] * len(sections), noise, level, treatment, rng, **given)
    assert found.shape == (len(sections),)
    return seen[0]


@pytest.mark.parametrize("section", [vanilla(3)[2], inverted(3)[1]], ids=["vanilla", "inverted"])
def test_made_frames_are_treated_and_given_and_blank_ones_are_not(section: Any) -> None:
    shown = rows(discrete(CODES), [section])
    for scale, slot in section.slots.items():
        true = read(slot.frames)[None]
        for place, frame in enumerate(slot.frames):
            expected = true if frame in (0, None) else quantised(true, CODES)
            np.testing.assert_array_equal(shown.clean[scale][0][:, :, place], expected[:, :, place])
    # What is to be made is the truth.
    np.testing.assert_array_equal(shown.window[0], read(section.frames))


def test_a_key_frame_that_is_given_is_no_history() -> None:
    section = vanilla(3)[2]
    shown = rows(discrete(CODES), [section], anchors=[frozenset({0, 18})])
    np.testing.assert_array_equal(shown.clean[1][0][0], read((0, 18)))


def test_a_share_of_the_rows_is_treated_at_all_scales() -> None:
    sections = [vanilla(3)[2]] * 200
    shown = rows(sometimes(added(1.0), 0.4), sections)
    changed = [
        (shown.clean[scale][0] != read(slot.frames)[None]).any((1, 2, 3, 4))
        for scale, slot in sections[0].slots.items()
    ]
    assert all((each == changed[0]).all() for each in changed)
    assert changed[0].mean() == pytest.approx(0.4, abs=0.18)  # 5 standard deviations


def test_without_random_numbers_nothing_is_treated() -> None:
    with pytest.raises(LongtakeError, match="needs random numbers"):
        objective.treated(objective.gather([read], [vanilla(3)[1]]), [vanilla(3)[1]], added(1.0))


class Clips(list):  # type: ignore[type-arg]
    """Examples in memory."""

    def shape(self, number: int) -> tuple[int, int, int]:
        return self[number].latents.shape[1:]


TINY = Settings(rank=2, window=2, steps=2, log_every=1, sampling="vanilla", batch=4, history="discrete:6")


def test_fine_tuning_shows_the_codes_of_the_model(
    networks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = Clips(
        [
            Example(
                "a clip",
                VIDEO[:, :13],
                told_of("a ball", encode_text(networks, ["a ball"])),
                RNG.standard_normal((4, 16)).astype(np.float32),
            )
        ]
    )
    seen, context = [], Transformer.context

    def noting(self: Any, shape: Any, times: Any, clean: Any, *beyond: Any) -> Any:
        seen.append(ops.to_numpy(clean[2][0]))
        return context(self, shape, times, clean, *beyond)

    monkeypatch.setattr(Transformer, "context", noting)
    with pytest.raises(ModelError, match="no codebook, which a discrete history needs"):
        finetune(networks, clips, tmp_path / "run", TINY)
    model = replace(networks, codebook=Codebook({6: CODES}))
    list(finetune(model, clips, tmp_path / "run", TINY))
    pixels = np.concatenate([np.moveaxis(each, 1, -1).reshape(-1, 4) for each in seen])
    known = {
        row.tobytes()
        for row in (*CODES, np.zeros(4, np.float32), *np.moveaxis(VIDEO[:, 0], 0, -1).reshape(-1, 4))
    }
    assert len(seen) >= 2 and {row.tobytes() for row in pixels.astype(np.float32)} <= known
    assert any(row.tobytes() in {code.tobytes() for code in CODES} for row in pixels)
    other = replace(networks, codebook=Codebook({6: CODES + 1}))
    with pytest.raises(JobError, match="holds another run: its codes was"):
        list(finetune(other, clips, tmp_path / "run", TINY))
    with pytest.raises(JobError, match="'forget' is for sampling alone"):
        replace(TINY, history="forget").check()
