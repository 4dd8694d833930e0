"""Sinks, and history that is forgotten at a change of prompt: what the sections of every plan see then."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from longtake.errors import JobError
from longtake.job import Job, PromptSpan, SectionChange
from longtake.jobs.recipe import Recipes
from longtake.plan import sights
from longtake.plan.history import History
from longtake.plan.layout import slot_tokens
from longtake.plan.plans import PLANS, Plan, inverted, plan_of, vanilla

SAMPLINGS = ["vanilla", "inverted"]


def seen(plan: Plan, made: int) -> list[int]:
    return [f for slot in plan[made].slots.values() for f in slot.frames if f is not None]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("count", [4, 8, 16])
def test_a_sink_is_the_frames_made_first_and_stays(sampling: str, count: int) -> None:
    plain = PLANS[sampling].lay_out(12, 9, False)
    plan = plan_of(Job("", sampling=sampling, frames=plain.frames, history=f"sink:{count}"))
    first = plain[0].frames
    sink = (
        set(range(first[0], first[0] + count))
        if sampling == "vanilla"
        else set(range(first[-1] - count + 1, first[-1] + 1))
    )
    for made in range(len(plan)):
        before, after = plain[made], plan[made]
        # The same frames at the same times as ever, the farthest by k2; and no frame twice but the picture.
        times = [sorted(t for slot in s.slots.values() for t in slot.times) for s in (before, after)]
        assert times[0] == times[1]
        found = [frame for frame in seen(plan, made) if frame]
        assert len(found) == len(set(found))
        if made > 4:
            assert sink <= set(found)
        assert set(found) <= set(seen(plain, made)) | sink
    # An eighth of a full frame for each in place of a sixty-fourth.
    cost = [sum(slot_tokens(slot, 640, 608) for slot in s.slots.values()) for s in (plain[9], plan[9])]
    assert cost[1] - cost[0] == count * 1520 // 8 - count // 4 * 100


@pytest.mark.parametrize("sampling", [*SAMPLINGS, "unanchored", "endpoint", "planned"])
def test_a_sink_is_there_whenever_it_is_read(sampling: str) -> None:
    plan = plan_of(Job("", sampling=sampling, frames=600, history="sink:8"))
    history = History(plan)
    history.write(0, np.zeros((1, 1, 1, 1, 1), np.float32))
    for section in plan:
        for slot in section.slots.values():
            history.read(slot)
        history.write(section.frames, np.zeros((1, 1, len(section.frames), 1, 1), np.float32))


def test_a_sink_that_has_no_room_is_refused() -> None:
    for count, words in ((3, "multiple of 4, up to 16"), (20, "multiple of 4, up to 16")):
        with pytest.raises(JobError, match=words):
            Job("", history=f"sink:{count}").check()
    plan = vanilla(3)
    alone = dataclasses.replace(
        plan,
        section=lambda made: dataclasses.replace(plan.section(made), slots={1: plan.section(made).slots[1]}),
    )
    with pytest.raises(JobError, match="this plan has none"):
        sights.sink_frames(alone, 4)


SPANS = (PromptSpan("it jumps", 4.0, 8.0),)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_far_history_of_another_prompt_is_not_seen(sampling: str) -> None:
    job = Job("a penguin", sampling=sampling, frames=433, prompts=SPANS, history="forget")
    plan, plain = plan_of(job), plan_of(dataclasses.replace(job, history=""))
    changes = 0
    for made in range(len(plan)):
        number = plan[made].number
        says = [3 <= n < 6 for n in range(12)]  # sections of 10 latent frames up to 8 s, then of 9
        for scale, slot in plan[made].slots.items():
            for frame, before in zip(slot.frames, plain[made].slots[scale].frames, strict=True):
                owner = plan.maker(before) if before is not None else None
                same = owner is None or says[owner] == says[number]
                assert frame == (before if same or scale == 1 else None)
                changes += frame != before
        assert plan[made].slots[1] == plain[made].slots[1]
    assert changes > 30


def test_a_prompt_that_comes_back_does_not_bring_back_what_was_forgotten() -> None:
    # One section of another prompt between: its neighbours see each other by their own prompt, but not across it.
    spans = (PromptSpan("it jumps", 2.45, 3.6),)
    plan = plan_of(Job("a penguin", sampling="vanilla", frames=200, prompts=spans, history="forget"))
    assert plan[3].slots[4].frames == (None,) * 16 and plan[3].slots[1].frames == (0, 27)
    assert [f for f in plan[4].slots[4].frames if f is not None] == [*range(28, 34)]


def test_a_sink_outlives_a_change_of_prompt() -> None:
    job = Job("a penguin", sampling="vanilla", frames=433, prompts=SPANS, history="sink:4+forget")
    assert plan_of(job)[6].slots[2].frames == (1, 2, 3, 4, None, None)


def test_without_a_change_of_prompt_nothing_is_forgotten() -> None:
    plans = [plan_of(Job("", frames=300, history=text)) for text in ("", "forget")]
    assert [*plans[0]] == [*plans[1]] and all(a.slots == b.slots for a, b in zip(*plans, strict=True))


def recipes(job: Job) -> list[str]:
    found = Recipes(job, plan_of(job), {"model": "m"})
    return [found[number] for number in range(found.plan.count)]


def test_a_history_is_part_of_each_recipe() -> None:
    job = Job("a penguin", sampling="vanilla", frames=200)
    texts = ("", "noise:0.1", "noise:0.2", "sink:4", "forget", "adaptive", "correct:1")
    found = [recipes(dataclasses.replace(job, history=text)) for text in texts]
    assert all(len(set(each)) == len(texts) for each in zip(*found, strict=True))


def test_an_adaptive_history_depends_on_sections_that_are_not_seen() -> None:
    def far(text: str) -> bool:
        """Tell if section 0's seed decides the last section of a plan in which nobody sees it."""
        job = Job("a penguin", sampling="vanilla", frames=200, history=text)
        plan = plan_of(job)
        blind = dataclasses.replace(
            plan,
            section=lambda made: dataclasses.replace(
                plan.section(made),
                slots={
                    scale: dataclasses.replace(slot, frames=tuple(f if f == 0 else None for f in slot.frames))
                    for scale, slot in plan.section(made).slots.items()
                },
            ),
        )
        changed = dataclasses.replace(job, changes=(SectionChange(0, seed=5),))
        one, other = (Recipes(each, blind, {}) for each in (job, changed))
        own = [r._base for r in (one, other)]
        other._base = own[0]  # what is compared is the way from section to section
        return one[5] != other[5]

    assert far("adaptive") and not far("noise")


def test_inverted_sinks_lie_at_the_end() -> None:
    plan = sights.sunk(inverted(9), sights.sink_frames(inverted(9), 4))
    assert plan[8].slots[2].frames == (11, 12, 78, 79, 80, 81) and len(plan[8].slots[4].frames) == 12
