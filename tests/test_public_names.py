"""What `import longtake` offers, and that it costs nothing before it is used."""

import ast
import importlib
from pathlib import Path

import pytest

import longtake

PROMISED = {
    "AutoencoderKLHunyuanVideo",
    "CLIPTextModel",
    "FlowMatchEulerDiscreteScheduler",
    "HunyuanVideoFramepackPipeline",
    "HunyuanVideoFramepackTransformer3DModel",
    "Job",
    "LlamaModel",
    "SiglipImageProcessor",
    "SiglipVisionModel",
    "UniPCMultistepScheduler",
    "errors",
    "export_to_video",
    "generate",
    "load_image",
}


def test_all_promised_names_are_offered():
    assert set(longtake.__all__) >= PROMISED
    assert set(longtake.__all__) <= set(dir(longtake))
    assert sorted(longtake.__all__) == longtake.__all__


@pytest.mark.parametrize("name", longtake.__all__)
def test_every_name_can_be_imported_and_is_the_thing_itself(name):
    value = getattr(longtake, name)
    if name == "errors":
        assert value is importlib.import_module("longtake.errors")
    else:
        assert value.__name__ == name
        assert callable(value)
        assert value is getattr(importlib.import_module(value.__module__), name)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no 'nonsense'"):
        _ = longtake.nonsense


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(longtake.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: f"{node.module}"
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen.pop("errors") == "longtake"
    assert seen == longtake._HOMES
    assert set(longtake.__all__) == {*seen, "errors"}


def test_errors_are_one_tree_whose_second_bases_are_the_fields():
    import longtake as lt

    assert issubclass(lt.PictureError, lt.JobError) and issubclass(lt.JobTypeError, lt.JobError)
    assert issubclass(lt.MemoryRunError, lt.RunError)
    field = {
        lt.JobError: ValueError,
        lt.JobTypeError: TypeError,
        lt.PictureError: OSError,
        lt.RunError: RuntimeError,
        lt.MemoryRunError: MemoryError,
        lt.ModelError: OSError,
        lt.BackendError: RuntimeError,
    }
    for kind, other in field.items():
        assert issubclass(kind, lt.LongtakeError) and issubclass(kind, other)
        assert str(kind("One sentence.")) == "One sentence."
    # A request that is refused is no run that failed.
    assert not issubclass(lt.RunError, lt.JobError) and not issubclass(lt.JobError, lt.RunError)
    assert (lt.RunError("x", section=3, step=1).section, lt.RunError("x").step) == (3, None)
