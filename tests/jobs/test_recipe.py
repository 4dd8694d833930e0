"""Recipes of sections under every kind of plan: what decides a section stands in its recipe, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from longtake.job import Job, PromptSpan, SectionChange
from longtake.jobs.recipe import Recipes
from longtake.plan.plans import PLANS, kind_named, plan_of

NAMES = [*PLANS, "tc_f2k2f1k1_g9", "ta_f1k1_g9", "f1k1_x_g9_f1k1_tc"]
JOB = Job("a bird", frames=12 * 36 + 1)


def recipes(job: Job) -> Recipes:
    return Recipes(job, plan_of(job), {})


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_section_changes_what_sees_it_directly_or_not(name: str) -> None:
    job = replace(JOB, sampling=name)
    before, after = recipes(job), recipes(replace(job, changes=(SectionChange(5, seed=9),)))
    changed = {number for number in range(12) if before[number] != after[number]}
    seen = {5}
    for section in plan_of(job):
        if seen & set(plan_of(job).sources(section)):
            seen.add(section.number)
    assert changed == seen


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_video_keeps_the_recipes_of_what_can_be_extended(name: str) -> None:
    job = replace(JOB, sampling=name)
    longer = replace(job, frames=16 * 36 + 1)
    kept = [recipes(job)[number] == recipes(longer)[number] for number in range(12)]
    assert all(kept) == kind_named(name).extendable == plan_of(job).extendable


def test_an_end_is_told_what_is_said_at_its_time() -> None:
    job = replace(JOB, sampling="planned", fps=36, prompts=(PromptSpan("it jumps", 7.0, 8.0),))
    plain = recipes(replace(job, prompts=()))
    differs = [number for number in range(12) if recipes(job)[number] != plain[number]]
    # The end of the second stretch, what goes to it, and all that comes from it.
    assert differs == [4, 5, 6, 7, 8, 9, 10, 11]


def test_two_names_of_one_plan_have_one_recipe() -> None:
    one, other = (recipes(replace(JOB, sampling=name)) for name in ("vanilla", "anchored"))
    assert [one[number] for number in range(12)] == [other[number] for number in range(12)]
