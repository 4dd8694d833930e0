"""docs/differences.md names every public method and keyword of the field's classes, and says who has it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from longtake.compat.framepack import HunyuanVideoFramepackPipeline  # noqa: E402
from longtake.compat.keywords import DECLINED  # noqa: E402
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel  # noqa: E402
from longtake.models.vae import AutoencoderKLHunyuanVideo  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
CLASSES = {
    ours.__name__: (ours, getattr(diffusers, ours.__name__))
    for ours in (
        HunyuanVideoFramepackPipeline,
        HunyuanVideoFramepackTransformer3DModel,
        AutoencoderKLHunyuanVideo,
    )
}
ALL = "all"
NONE = "–"  # noqa: RUF001


def names(kind: Any) -> dict[str, frozenset[str]]:
    """The public names of diffusers' class, each with its keywords; those of torch's modules are torch's."""
    found = {}
    for name in dir(kind):
        owner = next(each for each in kind.__mro__ if name in vars(each))
        public = not name.startswith("_") or name in ("__call__", "__init__")
        if public and owner.__module__.startswith("diffusers"):
            found[name] = keywords(kind, name)
    return found


def keywords(kind: Any, name: str) -> frozenset[str]:
    """What a method takes by name; where it takes `**kwargs`, what it looks for in them."""
    method = inspect.unwrap(
        getattr(inspect.getattr_static(kind, name), "__func__", getattr(kind, name, None))
    )
    if not inspect.isroutine(method):
        return frozenset()
    parameters = inspect.signature(method).parameters.values()
    found = {each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        source = inspect.getsource(method)
        found |= set(re.findall(r"kwargs\.(?:pop|get)\(\s*\"(\w+)\"", source))
    if name == "__init__" and hasattr(kind, "config_class"):
        found |= {field.name for field in dataclasses.fields(kind.config_class)}
    return frozenset(found - {"self", "cls", "kwargs"})


def table(kind: str) -> dict[str, tuple[str, str]]:
    """The rows under a class's heading: (what ours takes, who has the rest and why), by name."""
    text = PAGE.read_text().partition(f"### {kind}\n")[2].partition("\n#")[0]
    rows: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            first, ours, rest = (cell.strip() for cell in line.strip("|").split(" | "))
            for name in re.findall(r"`(\w+)`", first):
                assert name not in rows, f"{kind}.{name} stands twice"
                rows[name] = (ours, rest)
    return rows


@pytest.mark.parametrize("kind", CLASSES)
def test_every_name_of_the_field_is_there_and_no_other(kind: str) -> None:
    live, written = set(names(CLASSES[kind][1])), set(table(kind))
    assert not live - written, f"unknown to the table: {sorted(live - written)}"
    assert not written - live, f"gone from the field: {sorted(written - live)}"


@pytest.mark.parametrize("kind", CLASSES)
def test_it_says_what_ours_takes(kind: str) -> None:
    ours, theirs = CLASSES[kind]
    wrong = []
    rows = table(kind)
    for name, wanted in names(theirs).items():
        if name in rows and rows[name][0] != said(ours, name, wanted):
            wrong.append(f"{name}: {said(ours, name, wanted)}")
    assert not wrong, "the second column should be\n" + "\n".join(wrong)


def said(ours: Any, name: str, wanted: frozenset[str]) -> str:
    """The second column of a row: which of the wanted keywords ours takes."""
    if name == "config" and hasattr(ours, "config_class"):
        return ALL  # an attribute of instances
    if not hasattr(ours, name) or name in DECLINED:
        return NONE
    taken = wanted & keywords(ours, name)
    if taken == wanted:
        return ALL
    return ", ".join(f"`{each}`" for each in sorted(taken)) or NONE


@pytest.mark.parametrize("kind", CLASSES)
def test_what_ours_does_not_take_has_a_place_and_a_reason(kind: str) -> None:
    for name, (ours, rest) in table(kind).items():
        if ours != ALL:
            assert re.match(r"(integration|declined): \S{2,}", rest), f"{name}: {rest!r} gives no reason"


def test_the_integration_has_all_that_the_table_sends_there() -> None:
    from longtake.integrations.diffusers import HunyuanVideoFramepackPipeline as Integrated

    theirs = CLASSES["HunyuanVideoFramepackPipeline"][1]
    for name, (_, rest) in table("HunyuanVideoFramepackPipeline").items():
        if rest.startswith("integration"):
            assert hasattr(Integrated, name), name
            # Where it is a method of its own, that hands on what it does not know.
            own = getattr(Integrated, name) is not getattr(theirs, name) and name == "from_pretrained"
            assert own or keywords(Integrated, name) >= keywords(theirs, name), name


def test_what_is_declined_because_stock_raises_does_raise() -> None:
    transformer = diffusers.HunyuanVideoFramepackTransformer3DModel
    vae = diffusers.AutoencoderKLHunyuanVideo(block_out_channels=(8, 8, 8, 8), norm_num_groups=4)
    with pytest.raises(ValueError, match="_repeated_blocks"):
        vae.compile_repeated_blocks()
    assert not transformer._repeated_blocks
