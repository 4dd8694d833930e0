"""LoRA through the pipeline's methods, a job and the loop; on either framework."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake.backend import ops, runtime
from longtake.errors import JobError, LongtakeWarning, ModelError
from longtake.events import SectionDone, Stepped
from longtake.job import Job, Lora
from longtake.models import adapters
from longtake.pipeline.loop import generate
from longtake.pipeline.loras import OF_A_JOB
from longtake.pipeline.networks import Networks
from longtake.pipeline.prepare import Inputs
from longtake.weights import saving
from longtake.weights.arrays import read_arrays

JOB = Job("a small blue bird takes off", frames=9, window=2, steps=1, seed=3)
RANK = 2


def keys_of(transformer: Any, seed: int, only: tuple[str, ...] = ("",)) -> dict[str, np.ndarray]:
    source = np.random.default_rng(seed)
    keys = {}
    for name, shape in adapters.shapes(transformer).items():
        if name.startswith(only):
            down = source.standard_normal((RANK, int(np.prod(shape[1:]))))
            keys[f"transformer.{name}.lora_A.weight"] = (down / np.sqrt(down.shape[1])).astype(np.float32)
            up = source.standard_normal((shape[0], RANK))
            keys[f"transformer.{name}.lora_B.weight"] = (0.5 * up).astype(np.float32)
    return keys


def write(file: Path, keys: dict[str, np.ndarray]) -> Path:
    saving.write_file(file, {name: ops.from_numpy(value) for name, value in keys.items()})
    return file


@pytest.fixture
def walk(networks: Networks, tmp_path: Path) -> Path:
    """A LoRA's file."""
    return write(tmp_path / "walk.v2.safetensors", keys_of(networks.transformer, 0))


@pytest.fixture(autouse=True)
def as_before(networks: Networks) -> Iterator[None]:
    """Nothing is left of a test."""
    before = {
        name: np.array(ops.to_numpy(each))
        for name, each in runtime.named_weights(networks.transformer).items()
    }
    yield
    adapters.unmerge(networks.transformer)
    adapters.detach(networks.transformer)
    after = runtime.named_weights(networks.transformer)
    assert list(after) == list(before)
    assert all(np.array_equal(ops.to_numpy(after[name]), before[name]) for name in before)


def latents_of(job: Job, networks: Networks, picture: Image.Image) -> list[np.ndarray]:
    """The latents of each section, in the order of the video's time."""
    done = [
        event for event in generate(job, networks, Inputs(picture=picture)) if isinstance(event, SectionDone)
    ]
    return [event.latents for event in sorted(done, key=lambda event: event.number)]


def called(pipe: Any, picture: Image.Image, steps: int = 1, **options: Any) -> np.ndarray:
    latents = pipe(
        image=picture,
        prompt="a bird",
        num_frames=9,
        latent_window_size=2,
        num_inference_steps=steps,
        generator=0,
        output_type="latent",
        **options,
    ).frames[-1]
    return np.asarray(ops.to_numpy(latents))


# The field's methods ------------------------------------------------------------------------------------------------


def test_load_use_and_unload(pipe: Any, walk: Path, picture: Image.Image) -> None:
    nothing = called(pipe, picture)
    pipe.load_lora_weights(walk)
    assert pipe.get_list_adapters() == {"transformer": ["walk_v2"]}
    assert pipe.get_active_adapters() == ["walk_v2"]
    with_lora = called(pipe, picture)
    assert np.abs(with_lora - nothing).max() > 0.01
    pipe.disable_lora()
    assert np.array_equal(called(pipe, picture), nothing)
    pipe.enable_lora()
    assert np.array_equal(called(pipe, picture), with_lora)
    pipe.unload_lora_weights()
    assert pipe.get_list_adapters() == {}
    assert np.array_equal(called(pipe, picture), nothing)


def test_weights_and_scale_multiply(pipe: Any, walk: Path, picture: Image.Image) -> None:
    pipe.load_lora_weights(walk, adapter_name="a")
    pipe.set_adapters("a", 0.25)
    quarter = called(pipe, picture)
    pipe.set_adapters(["a"], [0.5])
    assert np.array_equal(called(pipe, picture, attention_kwargs={"scale": 0.5}), quarter)
    assert not np.array_equal(called(pipe, picture), quarter)


@pytest.mark.parametrize(
    "only", ["context_embedder", "image_projection", "clean_x_embedder", "norm_out", "single"]
)
def test_a_callback_may_weigh_adapters_between_steps(pipe: Any, picture: Image.Image, only: str) -> None:
    pipe.load_lora_weights(keys_of(pipe.transformer, 0, (only,)), adapter_name="a")

    def silence(pipe: Any, step: int, *_: Any) -> None:
        pipe.set_adapters("a", 0.0)

    first, last = called(pipe, picture, steps=2), called(pipe, picture, steps=2, callback_on_step_end=silence)
    pipe.set_adapters("a", 0.0)
    never = called(pipe, picture, steps=2)
    assert np.abs(last - first).max() > 1e-4
    assert np.abs(last - never).max() > 1e-4


def test_fuse_and_unfuse(pipe: Any, walk: Path, picture: Image.Image) -> None:
    pipe.load_lora_weights(walk)
    attached = called(pipe, picture)
    pipe.fuse_lora()
    assert (pipe.num_fused_loras, pipe.fused_loras) == (1, {"walk_v2"})
    # The latents after a whole section: sums in another order.
    assert np.abs(called(pipe, picture) - attached).max() < 1e-5 * np.abs(attached).max()
    for refused in (
        pipe.disable_lora,
        lambda: pipe.delete_adapters("walk_v2"),
        lambda: pipe.set_adapters("walk_v2"),
    ):
        with pytest.raises(JobError, match=r"'walk_v2' is fused .* unfuse_lora first"):
            refused()
    with pytest.raises(JobError, match="nothing to fuse"):
        pipe.fuse_lora()
    pipe.unfuse_lora()
    assert np.array_equal(called(pipe, picture), attached)
    with pytest.warns(LongtakeWarning, match="nothing to unfuse"):
        pipe.unfuse_lora()


def test_the_fields_keywords_are_taken_or_refused(pipe: Any, walk: Path, picture: Image.Image) -> None:
    pipe.load_lora_weights(
        walk, "a", prefix="transformer", use_safetensors=True, low_cpu_mem_usage=True, hotswap=False
    )
    pipe.set_adapters("a", 0.5)
    half = called(pipe, picture)
    for weights in ({"transformer": 0.5}, [{"transformer": 0.5}]):
        pipe.set_adapters("a", 1.0)
        pipe.set_adapters("a", weights)
        assert np.array_equal(called(pipe, picture), half)
    pipe.set_adapters(["a"], [None])
    whole = called(pipe, picture)
    pipe.fuse_lora(["transformer"], 1.0, True, adapter_names=["a"])
    assert pipe.fused_loras == {"a"}
    pipe.unfuse_lora(components="transformer")
    assert np.array_equal(called(pipe, picture), whole)
    for request, words in [
        (lambda: pipe.load_lora_weights(walk, "b", prefix="unet"), "'transformer' and not 'unet'"),
        (lambda: pipe.load_lora_weights(walk, "b", hotswap=True), "not replaced in place"),
        (lambda: pipe.fuse_lora(["text_encoder"]), r"not \['text_encoder'\]"),
        (lambda: pipe.fuse_lora(0.5), "not 0.5"),
        (lambda: pipe.set_adapters("a", {"transformer": {"single": 0.5}}), "says more than that"),
        (lambda: pipe.set_adapters("a", {"text_encoder": 0.5}), "says more than that"),
        (lambda: pipe.set_adapters("a", True), "is a number, not True"),
    ]:
        with pytest.raises(JobError, match=words):
            request()
    with pytest.raises(ModelError, match="safetensors alone"):
        pipe.load_lora_weights(walk, "b", use_safetensors=False)


def test_several_adapters(pipe: Any, walk: Path, picture: Image.Image, tmp_path: Path) -> None:
    other = write(tmp_path / "other.safetensors", keys_of(pipe.transformer, 1))
    pipe.load_lora_weights(walk, "a")
    first = called(pipe, picture)
    pipe.load_lora_weights(other, "b")
    assert pipe.get_active_adapters() == ["a", "b"]
    both = called(pipe, picture)
    assert not np.array_equal(both, first)
    pipe.set_adapters("a")
    assert pipe.get_active_adapters() == ["a"]
    assert np.array_equal(called(pipe, picture), first)
    pipe.set_adapters(["b", "a"], 1.0)
    assert np.array_equal(called(pipe, picture), both)
    pipe.delete_adapters("b")
    assert np.array_equal(called(pipe, picture), first)


def test_names_are_made_unique(pipe: Any, walk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dance"
    write(folder / "pytorch_lora_weights.safetensors", keys_of(pipe.transformer, 1))
    pipe.load_lora_weights(walk)
    pipe.load_lora_weights(walk)
    pipe.load_lora_weights(folder)
    pipe.load_lora_weights(tmp_path, subfolder="dance", weight_name="pytorch_lora_weights.safetensors")
    pipe.load_lora_weights(keys_of(pipe.transformer, 2))
    assert adapters.names(pipe.transformer) == ["walk_v2", "walk_v2_2", "dance", "dance_2", "lora"]


def test_requests_that_cannot_be_met(pipe: Any, walk: Path) -> None:
    pipe.load_lora_weights(walk, "a")
    for request, words in [
        (lambda: pipe.load_lora_weights(walk, "a"), "'a' already"),
        (lambda: pipe.set_adapters("b"), "no adapter 'b'; loaded are: a"),
        (lambda: pipe.set_adapters("a", [1, 2]), "2 weights for 1 adapters"),
        (lambda: pipe.set_adapters("a", ["much"]), "is a number, not 'much'"),
        (lambda: pipe.delete_adapters(["a", "b"]), "no adapter 'b'"),
        (lambda: pipe.fuse_lora(adapter_names="b"), "no adapter 'b'"),
        (lambda: pipe.save_lora_weights("none", "b"), "no adapter 'b'"),
    ]:
        with pytest.raises(JobError, match=words):
            request()
    with pytest.raises(ModelError, match=r"no LoRA './none'"):
        pipe.load_lora_weights("./none")
    assert pipe.get_active_adapters() == ["a"]


def test_what_is_saved_loads_as_the_same(pipe: Any, picture: Image.Image, tmp_path: Path) -> None:
    keys = keys_of(pipe.transformer, 0)
    alphas = {
        name.replace("lora_A.weight", "alpha"): np.float32(5)
        for name in keys
        if name.endswith("proj_out.lora_A.weight")
    }
    # A name that begins other names in the file: nothing of it may reach the keys.
    pipe.load_lora_weights(keys | alphas, adapter_name="transformer.t")
    expected = called(pipe, picture)
    pipe.set_adapters("transformer.t", 0.1)
    pipe.save_lora_weights(tmp_path)
    saved, metadata = read_arrays(tmp_path / "pytorch_lora_weights.safetensors")
    assert saved.keys() == keys.keys()
    assert all(np.array_equal(saved[name].reshape(keys[name].shape), keys[name]) for name in keys)
    settings = json.loads(metadata["lora_adapter_metadata"])
    assert (settings["transformer.r"], settings["transformer.lora_alpha"]) == (RANK, RANK)
    assert set(settings["transformer.alpha_pattern"].values()) == {5.0}
    pipe.unload_lora_weights()
    pipe.load_lora_weights(tmp_path)
    assert np.array_equal(called(pipe, picture), expected)


# The job ------------------------------------------------------------------------------------------------------------


def test_a_job_uses_its_loras_and_leaves_nothing(
    networks: Networks, walk: Path, picture: Image.Image
) -> None:
    nothing = latents_of(JOB, networks, picture)
    job = replace(JOB, loras=(Lora(str(walk), (0.5,)),))
    found = latents_of(job, networks, picture)
    assert all(np.abs(a - b).max() > 0.01 for a, b in zip(found, nothing, strict=True))
    assert adapters.names(networks.transformer) == []
    adapters.attach(networks.transformer, "by hand", _changes(networks, walk), 0.5)
    assert all(np.array_equal(a, b) for a, b in zip(latents_of(JOB, networks, picture), found, strict=True))


def _changes(networks: Networks, file: Path) -> Any:
    from longtake.weights.lora import read_lora

    return read_lora(file, adapters.shapes(networks.transformer))


def test_several_loras_of_a_job_add_up(networks: Networks, walk: Path, picture: Image.Image) -> None:
    once = latents_of(replace(JOB, loras=(Lora(str(walk), (1.0,)),)), networks, picture)
    twice = (Lora(str(walk), (0.25,)), Lora(str(walk), (0.75,)))
    found = latents_of(replace(JOB, loras=twice), networks, picture)
    # Sums in another order.
    assert all(np.abs(a - b).max() < 1e-5 * np.abs(b).max() for a, b in zip(found, once, strict=True))


@pytest.mark.parametrize("sampling", ["vanilla", "inverted"])
def test_weights_go_by_sections_of_the_videos_time(
    networks: Networks, walk: Path, picture: Image.Image, sampling: str, monkeypatch: Any
) -> None:
    job = replace(JOB, frames=25, sampling=sampling, loras=(Lora(str(walk), (1.0, 0.0)),))
    seen: dict[int, set[float]] = {}
    structure = []
    events = generate(job, networks, Inputs(picture=picture))
    next(events), next(events)  # planned; attached and encoded
    monkeypatch.setattr(runtime, "structure_changed", structure.append)
    number = {}
    for event in events:
        layers = adapters.adapted(networks.transformer).values()
        strengths = {part.strength for layer in layers for part in layer.adapters}
        if isinstance(event, Stepped):
            seen[event.section] = strengths
        elif isinstance(event, SectionDone):
            number[event.section] = event.number
            if event.section == 2:
                break
    monkeypatch.undo()
    events.close()
    assert {number[section]: each for section, each in seen.items()} == {0: {1.0}, 1: {0.0}, 2: {0.0}}
    # Nothing is compiled anew between sections.
    assert not structure
    assert adapters.names(networks.transformer) == []


@pytest.mark.parametrize(
    "only", ["image_projection", "context_embedder", "clean_x_embedder", "transformer_blocks"]
)
def test_a_section_without_a_lora_is_as_without_it(
    networks: Networks, picture: Image.Image, only: str, tmp_path: Path
) -> None:
    # Vanilla: the first section is made first, so that nothing of the later ones can be in it.
    job = replace(JOB, frames=17, sampling="vanilla")
    file = write(tmp_path / "x.safetensors", keys_of(networks.transformer, 0, (only,)))
    nothing = latents_of(job, networks, picture)
    late = latents_of(replace(job, loras=(Lora(str(file), (0.0, 1.0)),)), networks, picture)
    always = latents_of(replace(job, loras=(Lora(str(file)),)), networks, picture)
    assert np.array_equal(late[0], nothing[0])
    assert not np.array_equal(late[1], nothing[1])
    assert not np.array_equal(always[0], nothing[0])


@pytest.mark.parametrize("taken", [2, 4])
def test_a_job_that_is_given_up_leaves_nothing(
    networks: Networks, walk: Path, picture: Image.Image, taken: int
) -> None:
    events = generate(replace(JOB, loras=(Lora(str(walk)),)), networks, Inputs(picture=picture))
    for _ in range(taken):
        next(events)
    assert adapters.names(networks.transformer) == [f"{OF_A_JOB}walk_v2"]
    events.close()
    assert adapters.names(networks.transformer) == []


def test_a_lora_that_does_not_fit_stops_the_job_before_anything_is_attached(
    networks: Networks, walk: Path, picture: Image.Image, tmp_path: Path
) -> None:
    foreign = write(
        tmp_path / "foreign.safetensors", {"blocks.0.q.lora_A.weight": np.ones((2, 2), np.float32)}
    )
    loras = (Lora(str(walk)), Lora(str(foreign)))
    with pytest.raises(ModelError, match=r"None of the 1 keys of .*foreign.safetensors"):
        list(generate(replace(JOB, loras=loras), networks, Inputs(picture=picture)))
    assert adapters.names(networks.transformer) == []


def test_a_job_beside_adapters_that_are_there(networks: Networks, walk: Path, picture: Image.Image) -> None:
    adapters.attach(networks.transformer, "walk_v2", _changes(networks, walk))
    job = replace(JOB, loras=(Lora(str(walk)),))
    events = generate(job, networks, Inputs(picture=picture))
    next(events), next(events)
    assert adapters.names(networks.transformer) == ["walk_v2", f"{OF_A_JOB}walk_v2"]
    events.close()
    assert adapters.names(networks.transformer) == ["walk_v2"]
    adapters.enable(networks.transformer, False)
    with pytest.raises(JobError, match="disabled"):
        list(generate(job, networks, Inputs(picture=picture)))
