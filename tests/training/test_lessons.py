"""The inputs and targets of the network by each option: they are caught, and nothing is learnt."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learners import SETTINGS, WINDOW, Clips, clips
from longtake.backend import ops
from longtake.plan.plans import PLANS
from longtake.sampling.treatments import treatment_of
from longtake.training import levels
from longtake.training.examples import Example, Span, Told
from longtake.training.learning import Learning
from longtake.training.order import Order
from longtake.training.selfmade import turned, turned_pairs
from longtake.training.settings import Settings

MADE = 5.0
"""The answer of the network here to everything."""


class Caught:
    """A network that says of any noise at any level that it is MADE, and keeps what it was given."""

    device, dtype = "cpu", "float32"

    def __init__(self) -> None:
        self.calls: list[dict[str, np.ndarray]] = []

    def __call__(self, hidden_states: Any, timestep: Any, return_dict: bool, **given: Any) -> Any:
        tensors = {"hidden_states": hidden_states, "timestep": timestep, **given}
        self.calls.append(
            {
                name: np.asarray(ops.to_numpy(each) if hasattr(each, "detach") else each)
                for name, each in tensors.items()
            }
        )
        level = (timestep / 1000)[:, None, None, None, None]
        return ((hidden_states - MADE) / level.clamp(min=1e-6),)


def numbered(sections: int = 4, count: int = 1) -> Clips:
    """Clips whose latent frame n is n + 10 everywhere."""
    frames = np.broadcast_to(
        np.arange(10, 11 + WINDOW * sections, dtype=np.float32)[None, :, None, None],
        (4, 1 + WINDOW * sections, 4, 6),
    )
    return Clips(replace(one, latents=frames.copy()) for one in clips(count, 1))


def shown(
    settings: Settings, examples: Clips | None = None, steps: int = 1, **more: Any
) -> list[dict[str, np.ndarray]]:
    """The inputs of the network in so many steps."""
    network = Caught()
    names = settings.samplings or ("vanilla",)
    learning = Learning(network, examples or numbered(), settings, names, 3.0, **more)
    for step in range(steps):
        for lessons in learning.batches(step):
            learning.errors(lessons)
    return network.calls


PLAIN = replace(SETTINGS, sampling="vanilla", batch=4)
SLOTS = ("latents_clean", "latents_history_2x", "latents_history_4x")


def frames_of(call: dict[str, np.ndarray], slot: str) -> np.ndarray:
    """The values (B, T) of the frames of a slot."""
    return call[slot][:, 0, :, 0, 0]


def test_an_epoch_takes_every_section_once_and_shows_true_frames() -> None:
    order = Order(numbered(count=3), WINDOW, 4, 0)
    assert order.lap == 3
    for lap in range(2):
        seen = Counter((row.example, row.place) for step in range(3) for row in order.at(3 * lap + step))
        assert seen == Counter((example, place) for example in range(3) for place in range(4))
    (call,) = shown(PLAIN)
    for row in range(4):
        times, seen = call["indices_latents_clean"][row], frames_of(call, "latents_clean")[row]
        assert seen[0] == 10 and list(times[:1]) == [0]
        # The newest of the history is the frame before the window; zeros stand where no frame is.
        older = np.concatenate([frames_of(call, slot)[row] for slot in reversed(SLOTS)])
        older = np.concatenate([older[:-2], older[-1:]])
        assert list(older[older > 0]) == list(np.arange(10, seen[1] + 1)[-19:])


def test_rows_are_the_same_in_a_batch_of_any_size() -> None:
    whole = shown(replace(PLAIN, batch=4))[0]
    parts = shown(replace(PLAIN, batch=1, accumulate=4))
    for number, part in enumerate(parts):
        for name in ("hidden_states", "timestep", *SLOTS):
            np.testing.assert_array_equal(part[name][0], whole[name][number])


def test_examples_of_other_sizes_are_in_other_batches() -> None:
    examples = clips(4)
    examples[1:3] = [replace(one, latents=one.latents[..., :4]) for one in examples[1:3]]
    widths = [call["hidden_states"].shape[-1] for call in shown(PLAIN, examples, steps=4)]
    assert set(widths) == {4, 6}


def test_every_plan_can_be_learnt() -> None:
    for name in PLANS:
        for call in shown(replace(PLAIN, sampling=name), steps=3):
            assert call["hidden_states"].shape[2] == WINDOW and (call["latents_clean"] > 0).any()


@pytest.mark.parametrize(("kind", "middle"), [("uniform", 0.5), ("logit-normal", 0.5), ("shift", 0.72)])
def test_levels_are_drawn_as_asked(kind: str, middle: float) -> None:
    rng = np.random.default_rng(0)
    found = np.array([levels.drawn(kind, 3.0, rng) for _ in range(2000)])
    assert found.mean() == pytest.approx(middle, abs=0.02)
    assert (found.std() > 0.25) == (kind == "uniform")


def test_a_dropped_picture_is_nowhere() -> None:
    for call in shown(replace(PLAIN, drop_picture=1.0), steps=2):
        assert not call["image_embeds"].any()
        assert all((call[slot] != 10).all() for slot in SLOTS)
        assert (frames_of(call, "latents_clean")[:, 0] == 0).all()
    for call in shown(PLAIN):
        assert call["image_embeds"].any()


def test_a_dropped_prompt_is_the_empty_one() -> None:
    empty = Told("", np.full((3, 16), 7, np.float32), np.ones(3, np.int64), np.full(8, 7, np.float32))
    calls = shown(replace(PLAIN, drop_prompt=0.5), steps=3, empty=empty)
    rows = [row for call in calls for row in call["pooled_projections"][:, 0] == 7]
    assert 0 < sum(rows) < len(rows)


def test_key_frames_are_shown_behind_the_end() -> None:
    for call in shown(replace(PLAIN, sampling="inverted", key_frames=1.0), steps=2):
        window = call["hidden_states"].shape[2]
        for row in range(4):
            # The neighbour behind the window; an anchor that the example does not have is its last frame.
            assert frames_of(call, "latents_clean")[row, 1] in {
                min(10 + 1 + window * n, 18) for n in range(1, 6)
            }
    behind = [
        frames_of(call, "latents_clean")[:, 1] for call in shown(replace(PLAIN, sampling="inverted"), steps=2)
    ]
    assert (np.concatenate(behind) == 0).any()  # the section at the end sees nothing behind it


def test_the_history_is_treated_and_the_picture_is_not() -> None:
    settings = replace(PLAIN, history="noise:0.5")
    treatment = treatment_of(settings.history, lambda count: np.zeros((count, 4), np.float32))
    for plain, call in zip(shown(PLAIN), shown(settings, treatment=treatment), strict=True):
        np.testing.assert_array_equal(call["latents_clean"][:, :, 0], plain["latents_clean"][:, :, 0])
        far = call["latents_history_2x"] != plain["latents_history_2x"]
        np.testing.assert_array_equal(far.any((1, 3, 4)), frames_of(plain, "latents_history_2x") > 10)


def test_a_self_made_history_is_what_the_network_made() -> None:
    settings = replace(PLAIN, batch=1, self_made=1.0, self_made_steps=2)
    calls = shown(settings, steps=4)
    learnt = [call for call in calls if (call["hidden_states"].shape[2] == WINDOW)]
    made = [call for call in learnt if (np.abs(frames_of(call, "latents_clean")[:, 1] - MADE) < 1e-3).any()]
    # Three of the four sections have one before them, made in two steps; the first has none.
    assert len(made) == 3 and len(calls) == 4 + 3 * 2


def test_backwards_a_true_section_follows_one_that_was_made() -> None:
    network = Caught()
    settings = replace(PLAIN, batch=1, bagger=1.0, self_made_steps=1)
    learning = Learning(network, numbered(), settings, ("vanilla",), 3.0)
    for step in range(4):
        (lessons,) = learning.batches(step)
        one = learning.varied(lessons[0])
        window, seen = (
            one.read(one.section.frames)[0, :, 0, 0],
            one.read(one.section.slots[1].frames)[0, :, 0, 0],
        )
        # What is learnt are true frames, one after the other backwards, behind a frame that the network made.
        assert (np.diff(window) == -1).all() and abs(seen[1] - MADE) < 1e-3
        assert seen[0] == 18


def test_a_video_is_turned_round() -> None:
    plan = PLANS["vanilla"].lay_out(3, WINDOW, False)
    read = turned(numbered(3)[0].read, plan)
    assert list(read(range(7))[0, :, 0, 0]) == [16, 16, 15, 14, 13, 12, 11]
    assert turned_pairs(plan) == [(1, 2), (2, 1)]


def test_prompts_change_within_a_video() -> None:
    later = Told("later", np.full((4, 16), 9, np.float32), np.ones(4, np.int64), np.full(8, 9, np.float32))
    examples = Clips([replace(numbered()[0], spans=(Span(4.5, None, later),))])
    (call,) = shown(PLAIN, examples)
    last = frames_of(call, "latents_clean")[:, 1]
    # Sections begin at frames 1, 3, 5 and 7; the middles of the last two lie behind 4.5.
    np.testing.assert_array_equal(call["pooled_projections"][:, 0] == 9, last >= 14)


def test_a_picture_alone_is_made_from_its_text() -> None:
    still: Example = replace(numbered()[0], latents=numbered()[0].latents[:, :1])
    (call,) = shown(replace(PLAIN, batch=1), Clips([still]))
    assert call["hidden_states"].shape[2] == 1 and not any(call[slot].any() for slot in SLOTS)
