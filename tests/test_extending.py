"""docs/extending.md: each of its diffs applies to the source as it is, and what it adds works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
CHAPTERS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
JOB = "from longtake.job import Anchor, Job\njob = Job('', anchors=(Anchor(0, 'penguin.png'),), {})\njob.check()\n"
HELP = """
import contextlib, io
from longtake.cli import main
out = io.StringIO()
with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
    main(["generate", "--help"])
assert {!r} in out.getvalue(), out.getvalue()
"""
CHECKS = {
    "A solver": JOB.format("solver='adams'")
    + HELP.format("adams")
    + """
import math
from longtake.sampling.solvers import SOLVERS
# dx/ds = x has the answer e^-1, for x = 1 at s = 1.
sigmas = [1, 0.9, 0.7, 0.55, 0.4, 0.3, 0.1, 0.0]
def error(name):
    *_, last = SOLVERS[name](lambda x, sigma: x, 1.0, sigmas)
    return abs(last.latents - math.exp(-1))
assert error("adams") < error("euler") / 3, (error("adams"), error("euler"))
""",
    "A plan": JOB.format("sampling='recent', frames=200")
    + HELP.format("recent")
    + """
from longtake.plan.history import History
from longtake.plan.plans import plan_of
plan = plan_of(job)
assert plan.frames == 200 and plan.forward
assert [frame for section in plan for frame in section.frames] == list(range(1, 1 + 9 * plan.count))
assert all({*section.slots} == {1, 2} for section in plan)
""",
    "A key family of LoRA": """
import numpy as np
from longtake.weights.lora import read_lora
module = "transformer_blocks.0.attn.to_q"
key = "lycoris_" + module.replace(".", "_")
file = {f"{key}.lora_down.weight": np.ones((2, 8), np.float32), f"{key}.lora_up.weight": np.ones((4, 2), np.float32)}
assert list(read_lora(file, {module: (4, 8)})) == [module]
""",
    "An attention kernel": """
import torch
from longtake.backend.torch import ops
torch.manual_seed(0)
ops.QUERIES = 5
query, key, value = torch.randn(3, 1, 2, 12, 4)
stretches = ops.attention_by_stretches(query, key, value, None)
# The same sums of float32 in another order.
torch.testing.assert_close(stretches, ops.attention(query, key, value), rtol=1e-5, atol=1e-6)
""",
    "A step cache": JOB.format("cache='every:1,2'")
    + HELP.format("every,")
    + """
from longtake.sampling.caching import Decisions, parse
made = Decisions(parse("every:1,2"), 9)
assert [made.computes(lambda: 9.0) for _ in range(9)] == [True, False, False] * 2 + [True, False, True]
""",
    "An option": JOB.format("temperature=0.9")
    + HELP.format("--temperature")
    + """
from longtake.errors import JobError
try:
    Job("", temperature=9.0).check()
except JobError as error:
    assert "temperature" in str(error)
else:
    raise AssertionError("a temperature of 9 was let through")
assert Job.from_json(job.to_json()) == job
""",
}


def hunks(chapter):
    """(file, old text, new text) of each place that the chapter's diffs change."""
    for diff in re.findall(r"^```diff\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL):
        for name, body in re.findall(
            r"^--- a/[^\n]+\n\+\+\+ b/([^\n]+)\n(.*?)(?=^--- |\Z)", diff, re.MULTILINE | re.DOTALL
        ):
            for hunk in body.split("@@\n")[1:]:
                lines = hunk.splitlines(keepends=True)
                yield (
                    name,
                    "".join(line[1:] for line in lines if line[0] in " -"),
                    "".join(line[1:] for line in lines if line[0] in " +"),
                )


@pytest.fixture
def tree(tmp_path):
    """A copy of the source, whose model is the real one's."""
    source, copy = ROOT / "src/longtake", tmp_path / "src/longtake"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("embedded", "__pycache__"))
    (copy / "embedded").symlink_to(source / "embedded")
    return tmp_path


def test_every_chapter_is_checked():
    assert CHAPTERS.keys() == CHECKS.keys()


@pytest.mark.parametrize("title", CHECKS)
def test_a_chapter_applies_and_works(title, tree):
    changed = list(hunks(CHAPTERS[title]))
    assert 1 <= len({name for name, _, _ in changed}) <= 2, "one or two files"
    for name, old, new in changed:
        text = (tree / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} has this {text.count(old)} times:\n{old}"
        (tree / name).write_text(text.replace(old, new), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", CHECKS[title]],
        env={**os.environ, "PYTHONPATH": str(tree / "src"), "LONGTAKE_BACKEND": "torch"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_chapter_is_needed(tree):
    """The checks fail on the source as it is: none passes without its diff."""
    for title, check in CHECKS.items():
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, timeout=120)
        assert done.returncode != 0, title
