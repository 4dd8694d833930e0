"""Benchmarks, examples and the scripts beside pages and golden files: what they import from longtake is there."""

import ast
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path
    for place in ("benchmarks", "docs/pictures", "examples", "tests/golden")
    for path in (ROOT / place).glob("*.py")
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_name_that_a_script_imports_exists(script):
    tree = ast.parse(script.read_text(encoding="utf-8"))
    taken = [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "longtake"
        for alias in node.names
    ]
    for module, name in taken:
        if not hasattr(importlib.import_module(module), name):
            importlib.import_module(f"{module}.{name}")


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="it measures stock diffusers, too")
def test_the_accelerators_benchmark_runs_small_on_a_cpu():
    """There is rarely an accelerator to try it on; all that it measures there is measured here, on a tiny shape."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/accelerator.py", "--small", "--device", "cpu"],
        env={**os.environ, "LONGTAKE_BACKEND": "torch", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert {row["name"]: row["reason"] for row in rows if "reason" in row} == {}
    names = {row["name"] for row in rows if row.get("step_s", 0) > 0}
    assert names >= {"stock diffusers", "attention native", "attention math", "compiled (front)", "section"}
    assert all(row["frame_s"] > 0 for row in rows if "step_s" in row)
