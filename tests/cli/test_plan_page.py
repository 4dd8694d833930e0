"""docs/plans.md and docs/timeline.md: their tables are what `longtake plan` prints."""

import re
import shlex
from pathlib import Path

import pytest

from longtake.cli import main
from longtake.job import Job
from longtake.plan import spoken
from longtake.plan.plans import PLANS, plan_of

PAGE, TIMELINE = (
    (Path(__file__).parents[2] / "docs" / name).read_text(encoding="utf-8")
    for name in ("plans.md", "timeline.md")
)
SHOWN = re.findall(r"^\$ longtake (plan [^\n]*)\n(.*?)^```", PAGE + TIMELINE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("words", "printed"), SHOWN)
def test_an_excerpt_is_what_is_printed(words, printed, capsys):
    assert main(shlex.split(words)) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == printed.splitlines()


def test_there_are_excerpts():
    assert len(SHOWN) >= 4


@pytest.mark.parametrize(
    "typed", re.findall(r"^\| `(.*?)` \| (?:FramePack|Wan|musubi|Deforum)", TIMELINE, re.MULTILINE)
)
def test_every_form_on_the_page_is_read(typed):
    values = spoken.read(typed, spoken.Length(325, 30, 9))
    assert values["prompts"] and all(span["text"] for span in values["prompts"])


def test_the_file_on_the_page_directs_a_job():
    (text,) = re.findall(r"^```json\n(.*?)^```", TIMELINE, re.MULTILINE | re.DOTALL)
    job = spoken.directed(Job(""), text)
    assert [anchor.at for anchor in job.anchors] == [3, "end"] and job.blend == 2 and job.prompts[1].seed == 7


@pytest.mark.parametrize("name", PLANS)
def test_every_name_is_told_with_what_is_true_of_it(name):
    row = next(
        line for line in PAGE.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1]
    )
    structure, first, extended, end = (cell.strip() for cell in row.split("|")[2:6])
    kind, plan = PLANS[name], plan_of(Job("", sampling=name, frames=8 * 36 + 1))
    assert structure == f"`{kind.structure}`" or (kind.every is not None and structure.startswith("the same"))
    count = plan.made_at(0) + 1
    assert first == ("all sections" if count == len(plan) else f"{count} section{'s' * (count > 1)}")
    assert (extended != "no") == kind.extendable == plan.extendable and (end == "yes") == kind.sees_end
