"""Both frameworks by one set of tests: LONGTAKE_BACKEND chooses, and what only one of them has is left out.

Tests about our code make arrays with numpy, go over with `ops.from_numpy` and come back with `ops.to_numpy`. The
fixtures here are what they share: the golden files and weights that follow from their names.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

# A busy machine is no failure.
hypothesis.settings.register_profile("longtake", deadline=None)
hypothesis.settings.load_profile("longtake")
HERE = Path(__file__).parent
MINDSPORE = os.environ.get("LONGTAKE_BACKEND") == "mindspore"
# Made by hand, by a command of its own; not a test.
collect_ignore = ["golden"]
# Made-up names of models shall not be looked for; the hub's own tests switch this back.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if MINDSPORE:
    import mindspore

    # Before the first operator of the process: eager mode is asynchronous, and an error would come late, elsewhere.
    mindspore.runtime.launch_blocking()
    # Comparisons with libraries on torch, and training, which is torch's alone.
    collect_ignore += ["integrations", "oracle", "training", "toy"]
if any(importlib.util.find_spec(name) for name in ("torch", "mindspore")):
    # What needs no framework is tested without one, too.
    from miniature import last_picture, networks, picture, pipe  # noqa: F401


def pytest_report_header() -> list[str]:
    """Which framework the run is about."""
    left_out = f"; left out: {', '.join(collect_ignore[1:])}" if MINDSPORE else ""
    return [f"longtake on {'mindspore' if MINDSPORE else 'torch'}{left_out}"]


def _recipe() -> Any:
    name = "longtake_golden_recipe"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / "golden" / "recipe.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def recipe() -> Any:
    """tests/golden/recipe.py: reading golden files, drawing numbers by name."""
    return _recipe()


@pytest.fixture(scope="session")
def filled() -> Callable[[Any], Any]:
    """Give a network the weights that follow from their names, on either framework; returns it."""
    from longtake.backend import ops, runtime

    def fill(network: Any) -> Any:
        shapes = {name: tuple(value.shape) for name, value in runtime.named_weights(network).items()}
        weights = {name: ops.from_numpy(value) for name, value in _recipe().weights(shapes).items()}
        runtime.assign_weights(network, weights)
        network.eval()
        return network

    return fill


@pytest.fixture(scope="session")
def relative() -> Callable[[Any, np.ndarray], float]:
    """The largest deviation of a tensor from an array, as a share of the array's largest value."""
    from longtake.backend import ops

    def deviation(tensor: Any, expected: np.ndarray) -> float:
        array = tensor if isinstance(tensor, np.ndarray) else ops.to_numpy(tensor)
        assert array.shape == expected.shape
        found = float(np.abs(array - expected).max() / np.abs(expected).max())
        print(f"deviation {found:.1e}")  # shown by pytest -rP
        return found

    return deviation


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """MindSpore without compilation, which takes seconds for every network and shape of these small tests."""
    if MINDSPORE:
        from longtake.backend import runtime

        monkeypatch.setattr(runtime, "graph", False)


@pytest.fixture(params=["eager", "graph"] if MINDSPORE else ["eager"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """For the tests that hold both ways of running a network: "eager", and on MindSpore "graph" too."""
    if request.param == "graph":
        from longtake.backend import runtime

        monkeypatch.setattr(runtime, "graph", True)
    return str(request.param)


@pytest.fixture
def torch_only() -> Any:
    """PyTorch, for the few tests that are about it; elsewhere they are skipped."""
    from longtake import backend

    if backend.name != "torch":
        pytest.skip("about PyTorch alone")
    return pytest.importorskip("torch")
