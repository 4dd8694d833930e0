"""Reading a model whose parts lie in several places, as the published FramePack's do in three repositories."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from longtake.errors import BackendError, ModelError
from longtake.job import PARTS
from longtake.pipeline.loading import load_networks
from longtake.pipeline.networks import COMPONENTS, Networks, save_networks
from longtake.weights.codebook import CODEBOOK


@pytest.fixture(scope="module")
def places(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The transformer alone, SigLIP with its processor, and all the rest: published like FramePack."""
    root = tmp_path_factory.mktemp("three")
    rest = root / "rest"
    save_networks(networks, rest, "HunyuanVideoPipeline")
    shutil.copytree(rest / "transformer", root / "alone")
    redux = root / "redux"
    redux.mkdir()
    for name in ("image_encoder", "feature_extractor"):
        shutil.move(rest / name, redux / name)
    index = json.loads((rest / "model_index.json").read_text())
    for name in ("image_encoder", "feature_extractor"):
        del index[name]
    (rest / "model_index.json").write_text(json.dumps(index))
    # The rest has a transformer of its own, as HunyuanVideo does, and it is not FramePack's.
    (rest / "transformer" / "config.json").write_text(
        json.dumps({"_class_name": "HunyuanVideoTransformer3DModel"})
    )
    return {"rest": rest, "alone": root / "alone", "redux": redux}


def test_each_part_may_lie_in_a_place_of_its_own(networks: Networks, places: dict[str, Path]) -> None:
    parts = {
        "transformer": places["alone"],
        "image_encoder": places["redux"],
        "feature_extractor": places["redux"],
    }
    loaded = load_networks(places["rest"], parts={name: str(place) for name, place in parts.items()})
    assert loaded.transformer.config == networks.transformer.config
    assert loaded.image_encoder.config == networks.image_encoder.config
    assert loaded.default_size == networks.default_size
    assert loaded.form == "float32"


def test_a_part_that_is_named_nowhere_is_one_sentence(places: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="names no 'image_encoder'; load it from its own folder and pass it"):
        load_networks(places["rest"], parts={"transformer": str(places["alone"])})


def test_nothing_is_read_of_a_part_that_is_given_or_left_out(places: dict[str, Path]) -> None:
    given: dict[str, Any] = {"transformer": None, "image_encoder": None, "feature_extractor": None}
    loaded = load_networks(places["rest"], given=given)
    assert loaded.transformer is None
    with pytest.raises(ModelError, match="no transformer, which the job needs"):
        loaded.part("transformer")


def test_names_of_parts_are_those_of_the_job(places: dict[str, Path]) -> None:
    assert set(PARTS) == {*COMPONENTS, CODEBOOK}
    with pytest.raises(ModelError, match="no part 'unet'"):
        load_networks(places["rest"], parts={"unet": "x"})


def test_a_device_that_is_not_here_is_refused_before_anything_is_read(places: dict[str, Path]) -> None:
    with pytest.raises(BackendError, match="device"):
        load_networks(places["rest"], device="cuda:77")
