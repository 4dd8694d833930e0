"""The short names of published models: what they mean, in every door, and what becomes of them in a job on disk."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from longtake.cli import parser
from longtake.cli.options import job_of
from longtake.errors import JobError, LongtakeWarning, ModelError
from longtake.job import Job
from longtake.named import NAMED, mismatch, named, places, trained_for
from longtake.plan.plans import PLANS
from longtake.weights.hub import is_repository

F1 = "lllyasviel/FramePack_F1_I2V_HY_20250503"


@pytest.mark.parametrize("name", NAMED)
def test_a_name_stands_for_three_repositories(name: str) -> None:
    base, parts = places(name)
    assert len({base, *parts.values()}) == 3 and all(map(is_repository, (base, *parts.values())))
    assert set(parts) == {"transformer", "image_encoder", "feature_extractor"}
    assert NAMED[name].sampling in PLANS and trained_for(name) == NAMED[name].sampling
    # The places alone tell it too, which is what a job on disk has.
    assert trained_for(base, parts) == NAMED[name].sampling
    assert places(name, {"transformer": "mine"})[1] == {**parts, "transformer": "mine"}


def test_what_a_job_does_not_say_it_takes_from_its_model() -> None:
    plain, one, other = (Job("", model=model) for model in ("embedded", "framepack", "framepack-f1"))
    assert [job.sampling for job in (plain, one, other)] == ["inverted", "inverted", "vanilla"]
    assert {(job.steps, job.guidance) for job in (plain, one, other)} == {(25, 10.0)}
    said = Job("", model="framepack-f1", sampling="inverted", steps=7, guidance=3.0)
    assert (said.sampling, said.steps, said.guidance) == ("inverted", 7, 3.0)
    assert replace(other, model="embedded").sampling == "vanilla"  # what it took it keeps
    assert Job.from_json(other.to_json()) == other and json.loads(other.to_json())["sampling"] == "vanilla"
    file = "Kijai/HunyuanVideo_comfy/FramePack_F1_I2V_HY_20250503_fp8_e4m3fn.safetensors"
    assert Job("", model="framepack", parts={"transformer": file}).sampling == "vanilla"


def test_on_the_command_line() -> None:
    def job(*words: str) -> Job:
        return job_of(parser().parse_args(["generate", "a.png", "It moves.", *words]))

    assert job("--model", "framepack-f1").sampling == "vanilla"
    assert job("--model", "framepack-f1", "--sampling", "inverted").sampling == "inverted"
    assert job("--model", "framepack").sampling == job().sampling == "inverted"
    with pytest.raises(JobError, match="vanilla"):
        job("--model", "framepack-f1", "--last-image", "b.png")


@pytest.mark.parametrize(
    ("model", "parts", "trained"),
    [
        ("framepack", {}, "inverted"),
        ("framepack", {"transformer": F1}, "vanilla"),
        ("framepack", {"transformer": "models/mine"}, None),
        ("embedded", {}, None),
        ("x/y", {"transformer": "/disk/FramePackI2V_HY_bf16.safetensors"}, "inverted"),
        ("x/y", {"transformer": "/disk/FramePack_F1_I2V_HY_20250503/transformer"}, "vanilla"),
        ("x/y", {"transformer": r"C:\disk\FramePack_F1_I2V_HY.gguf"}, "vanilla"),
        ("FramePackI2V_HY/below/other/place", {}, None),
    ],
)
def test_a_place_tells_what_a_transformer_was_trained_for(
    model: str, parts: dict[str, str], trained: str | None
) -> None:
    assert trained_for(model, parts) == trained


def test_a_sampling_that_the_model_was_not_trained_for_is_a_sentence() -> None:
    assert mismatch("vanilla", "vanilla") is mismatch("vanilla", None) is None
    said = mismatch("vanilla", "inverted")
    assert said is not None and "trained for inverted sampling, and vanilla was asked" in said


def test_a_run_warns_of_it(networks: object, picture: Image.Image) -> None:
    from longtake.pipeline.prepare import Inputs, ask

    told = replace(networks, settings={**networks.settings, "sampling": "inverted"})  # type: ignore
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask(Job("", frames=5, window=2, steps=1), told, Inputs(picture))
    with pytest.warns(LongtakeWarning, match="was trained for inverted sampling, and vanilla was asked for"):
        ask(Job("", frames=5, window=2, steps=1, sampling="vanilla"), told, Inputs(picture))


def test_a_job_on_disk_has_the_places_and_not_the_name(tmp_path: Path) -> None:
    from longtake.jobs.folder import JobFolder
    from longtake.jobs.stored import read_job

    picture = Image.new("RGB", (64, 48))
    job = Job("", model="framepack-f1", width=64, height=48, frames=5)
    with JobFolder.create(tmp_path / "job", job, picture):
        pass
    read, _ = read_job(tmp_path / "job")
    assert (read.model, read.parts) == places("framepack-f1")
    assert (read.sampling, read.steps, read.guidance) == ("vanilla", 25, 10.0)
    mine = replace(job, parts={"vae": str(tmp_path)})
    with JobFolder.create(tmp_path / "other", mine, picture):
        pass
    assert read_job(tmp_path / "other")[0].parts == {**places("framepack-f1")[1], "vae": str(tmp_path)}


def test_where_one_repository_is_asked_for_a_short_name_is_a_sentence() -> None:
    from longtake.weights.folder import model_source

    with pytest.raises(
        ModelError, match=r"'framepack' is the short name of several repositories \(hunyuanvideo"
    ):
        model_source("framepack")
    assert named("framepack2") is None
    with pytest.raises(ModelError, match=r"nor 'framepack' or 'framepack-f1'"):
        model_source("framepack2")
