"""docs/plans.md: its tables are what `longtake plan` prints."""

import re
from pathlib import Path

import pytest

from longtake.cli import main
from longtake.job import Job
from longtake.plan.plans import PLANS, plan_of

PAGE = (Path(__file__).parents[2] / "docs/plans.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^\$ longtake (plan [^\n]*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("words", "printed"), SHOWN)
def test_an_excerpt_is_what_is_printed(words, printed, capsys):
    assert main(words.split()) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == printed.splitlines()


def test_there_are_excerpts():
    assert len(SHOWN) >= 3


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
