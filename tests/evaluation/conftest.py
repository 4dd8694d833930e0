"""Small things of many shapes are made here: MindSpore would compile a graph for each, which takes minutes."""

import pytest

from longtake import backend


@pytest.fixture(autouse=True, scope="package")
def eagerly():
    """No graphs, as LONGTAKE_GRAPH=0 asks."""
    with pytest.MonkeyPatch.context() as patch:
        if backend.name == "mindspore":
            patch.setattr(backend.runtime, "graph", False)
        yield
