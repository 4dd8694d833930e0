"""Benchmarks, examples and the scripts beside pages and golden files: what they import from longtake is there."""

import ast
import importlib
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
