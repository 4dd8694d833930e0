"""Networks within an allowance of memory: the same numbers as in one piece, in memory that is bounded."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake import backend
from longtake.backend import ops, transfer
from longtake.errors import BackendError, JobError, MemoryRunError
from longtake.events import Encoded, FramesReady, Moved, SectionDone
from longtake.job import Job
from longtake.models import adapters
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.pipeline.budget import Layout, Lies
from longtake.pipeline.carried import Carried, is_apart
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import NETWORKS, Networks, load_networks
from longtake.pipeline.place import place, unplace
from longtake.pipeline.placed import Placed
from longtake.pipeline.predict import Predictor
from longtake.pipeline.prepare import Inputs
from longtake.sampling.driven import schedule_of
from longtake.weights.lora import LowRank

JOB = Job("a small blue bird takes off", frames=17, window=2, steps=2, sampling="vanilla")
on_torch = pytest.mark.skipif(backend.name != "torch", reason="the device that is not there is PyTorch's")


@pytest.fixture(scope="session")
def wide(networks: Networks, filled: Any) -> Networks:
    """The same model with a transformer of several blocks."""
    return replace(networks, transformer=filled(deep(2, 2)), scheduler=schedule_of(networks.scheduler))


def deep(double: int, single: int) -> HunyuanVideoFramepackTransformer3DModel:
    return HunyuanVideoFramepackTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=double,
        num_single_layers=single, num_refiner_layers=1, patch_size=2, text_embed_dim=16, pooled_projection_dim=8,
        rope_axes_dim=(4, 6, 6), image_proj_dim=16,
    )  # fmt: skip


@pytest.fixture(scope="session")
def whole(wide: Networks) -> list[np.ndarray]:
    """The latents of the job with every network on the device for good."""
    if backend.name != "torch":
        return []
    from fake_device import accelerator

    with accelerator():
        return latents_of(there(wide), PICTURE)


PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8))


def there(networks: Networks) -> Networks:
    """A copy on the device."""
    made = copied(networks)
    for name in NETWORKS:
        getattr(made, name).to("npu")
    return made


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) > 0 and all((a == b).all() for a, b in zip(one, other, strict=True))


def copied(networks: Networks) -> Networks:
    return replace(networks, **{name: copy.deepcopy(getattr(networks, name)) for name in NETWORKS})


def frames_of(networks: Networks, picture: Image.Image, job: Job = JOB, **options: Any) -> np.ndarray:
    events = generate(job, networks, Inputs(picture), **options)
    return np.concatenate([each.frames for each in events if isinstance(each, FramesReady)], 1)


def latents_of(networks: Networks, picture: Image.Image, job: Job = JOB) -> list[np.ndarray]:
    events = generate(job, networks, Inputs(picture), convert=None)
    return [each.latents for each in events if isinstance(each, SectionDone)]


def streamed(resident: int = 0, ring: int = 2) -> Any:
    """A form in which the transformer's and Llama's blocks come one by one."""

    def form(layout: Layout) -> Layout:
        parts = {
            name: replace(lies, how="streamed", resident=min(resident, lies.blocks), modulations=False)
            if name in ("transformer", "text_encoder")
            else lies
            for name, lies in layout.parts.items()
        }
        return replace(layout, parts=parts, together=False)

    return form


def held_of(networks: Networks) -> dict[str, list[Any]]:
    return {name: [each[3] for each in transfer.held(getattr(networks, name))] for name in NETWORKS}


@on_torch
@pytest.mark.parametrize("resident", [0, 1, 4])
def test_streamed_blocks_give_the_same_latents_bit_for_bit(
    resident: int, wide: Networks, whole: list[np.ndarray]
) -> None:
    from fake_device import accelerator

    with accelerator():
        networks = place(copied(wide), device="npu", form=streamed(resident))
        held = held_of(networks)
        assert str(networks.transformer.device).startswith("npu")
        found = latents_of(networks, PICTURE)
        again = held_of(networks)
    assert same(whole, found)
    # The very same tensors are in their places again.
    assert all(one is other for name in NETWORKS for one, other in zip(held[name], again[name], strict=True))


@on_torch
def test_what_stays_comes_in_loads_and_is_the_same(
    wide: Networks, whole: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a device with streams: several loads, weights that are too large for one, buffers that are used again."""
    from fake_device import accelerator
    from longtake.pipeline import carried

    made: list[int] = []
    with accelerator():
        networks = place(copied(wide), device="npu", form=streamed(3))
        lane = transfer.Lane
        with monkeypatch.context() as patch:
            patch.setattr(carried, "LOAD", 12_000)
            patch.setattr(carried, "MANY", 100_000)
            patch.setattr(transfer, "Lane", lambda *given: made.append(given[2]) or lane(*given))
            patch.setattr(transfer, "has_streams", lambda device: True)
            patch.setattr(lane, "__init__", without_streams(lane.__init__))
            found = latents_of(networks, PICTURE)
    assert 12_000 in made and same(whole, found)


def without_streams(begin: Any) -> Any:
    """The device that is not there has none, whatever is said of it."""

    def init(self: Any, *given: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transfer, "has_streams", lambda device: False)
            begin(self, *given)

    return init


@on_torch
def test_memory_on_the_device_is_bounded_and_constant(wide: Networks, filled: Any) -> None:
    from fake_device import accelerator

    model = filled(deep(2, 10))
    taken: list[int] = []
    with accelerator() as traffic:
        most = peak_of_sections(there(replace(wide, transformer=model)), traffic)
    with accelerator() as traffic:
        networks = place(copied(replace(wide, transformer=model)), device="npu", form=streamed(0))
        placed: Any = networks.placement
        peak = peak_of_sections(networks, traffic, lambda: taken.append(placed._carried["transformer"].taken))
        sizes = placed.sizes["transformer"]
        ring = 2 * max(*sizes.blocks, *sizes.modulations)
        # A ring of two, and what lies outside the blocks.
        assert len(taken) == 2 and taken[0] == taken[1]
        assert taken[0] <= sizes.rest + ring + 300 * 256  # each weight begins at a multiple of 256
        # What was counted there agrees: the blocks and their modulations are missed, but for the ring.
        saved = sum(sizes.blocks) + sum(sizes.modulations) - ring
        assert most - peak > 0.9 * saved - 300 * 256
        held = traffic.bytes
        placed.release()
        assert placed.peak() == 0 and traffic.bytes < held - 0.9 * taken[0]


def peak_of_sections(networks: Networks, traffic: Any, each: Any = lambda: None) -> int:
    """The most that lay on the device after the encoders had run."""
    for event in generate(replace(JOB, steps=1), networks, Inputs(PICTURE), convert=None):
        if isinstance(event, Encoded):
            traffic.peak = 0
        if isinstance(event, SectionDone):
            each()
    return int(traffic.peak)


@on_torch
def test_the_modulations_are_made_once_a_job_and_their_weights_never_stay(
    wide: Networks, whole: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fake_device import accelerator

    asked: list[tuple[str, int]] = []
    sources = Carried._sources

    def counted(self: Carried, items: list[Any]) -> Any:
        if isinstance(self.network, HunyuanVideoFramepackTransformer3DModel):
            asked.append(("modulations" if items[0].modulation else "rest", items[0].block))
            assert len({item.modulation for item in items}) == 1
        return sources(self, items)

    monkeypatch.setattr(Carried, "_sources", counted)
    with accelerator():
        found = latents_of(place(copied(wide), device="npu", form=streamed(0)), PICTURE)
    # Two steps in each of two sections, one pass over the modulations.
    assert sorted(block for what, block in asked if what == "modulations") == [0, 1, 2, 3]
    assert 4 * 4 <= sum(what == "rest" for what, _ in asked) <= 4 * 4 + 2
    assert same(whole, found)


@on_torch
def test_a_scheduler_that_is_asked_for_each_step_gives_the_same(networks: Networks, wide: Networks) -> None:
    from fake_device import accelerator

    driven = replace(wide, scheduler=networks.scheduler)
    with accelerator():
        placed = place(copied(driven), device="npu", form=streamed(2))
        made, modulate = [], type(placed.transformer).modulate
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                type(placed.transformer),
                "modulate",
                lambda self, m: (made.append(len(m)), modulate(self, m))[1],
            )
            found = latents_of(placed, PICTURE, replace(JOB, frames=9))
        assert same(latents_of(there(driven), PICTURE, replace(JOB, frames=9)), found)
    # Its timesteps are known before, so all modulations are made at once.
    assert made == [2]


@on_torch
def test_levels_that_are_not_known_before_are_modulated_one_by_one(
    wide: Networks, whole: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a solver that looks between two steps."""
    from fake_device import accelerator

    monkeypatch.setattr(
        Predictor, "levels", property(lambda self: (), lambda self, value: None), raising=False
    )
    with accelerator():
        assert same(whole, latents_of(place(copied(wide), device="npu", form=streamed(2)), PICTURE))


@on_torch
def test_adapters_and_hooks_inside_of_streamed_blocks_take_effect(
    wide: Networks, whole: list[np.ndarray]
) -> None:
    from fake_device import accelerator

    names = [
        "transformer_blocks.1.attn.to_q", "transformer_blocks.0.norm1.linear", "x_embedder.proj",
        "single_transformer_blocks.1.proj_mlp", "single_transformer_blocks.0.norm.linear",
    ]  # fmt: skip
    changes = {name: low_rank(wide, name) for name in names}
    with accelerator():
        one, other = there(wide), place(copied(wide), device="npu", form=streamed(1))
        latents_of(other, PICTURE, replace(JOB, frames=9))
        seen: list[str] = []
        for each in (one, other):
            adapters.attach(each.transformer, "a", changes, 0.5)
        found = latents_of(other, PICTURE)
        assert same(latents_of(one, PICTURE), found) and not same(whole, found)
        # A strength that is set between two jobs, and a hook, which makes the network one that is called whole.
        for each in (one, other):
            adapters.set_strengths(each.transformer, {"a": -0.25})
            block = each.transformer.transformer_blocks[1]
            block.register_forward_hook(lambda module, given, out: seen.append(str(out[0].device)))
        assert same(latents_of(one, PICTURE), latents_of(other, PICTURE))
        assert seen and all(device.startswith("npu") for device in seen)
        # Gone again, and as it was.
        other.transformer.transformer_blocks[1]._forward_hooks.clear()
        adapters.detach(other.transformer)
        assert same(whole, latents_of(other, PICTURE))


def low_rank(networks: Networks, name: str) -> LowRank:
    rng = np.random.default_rng(len(name))
    out, *inside = adapters.shapes(networks.transformer)[name]
    sides = (2, int(np.prod(inside))), (out, 2)
    down, up = (rng.standard_normal(side).astype(np.float32) / 8 for side in sides)
    return LowRank(down, up, 2.0)


@on_torch
def test_a_merge_between_two_jobs_is_not_lost(wide: Networks, whole: list[np.ndarray]) -> None:
    from fake_device import accelerator

    names = ("transformer_blocks.1.attn.to_q", "single_transformer_blocks.1.attn.to_k")
    with accelerator():
        one, other = there(wide), place(copied(wide), device="npu", form=streamed(2))
        latents_of(other, PICTURE, replace(JOB, frames=9))
        for each in (one, other):
            adapters.attach(each.transformer, "a", {name: low_rank(wide, name) for name in names})
            adapters.merge(each.transformer)
        found = latents_of(other, PICTURE)
        assert same(latents_of(one, PICTURE), found) and not same(whole, found)


@on_torch
def test_an_error_that_somebody_keeps_leaves_nothing_behind(wide: Networks, whole: list[np.ndarray]) -> None:
    """As a notebook keeps the last one, and with it every frame that was on its way."""
    from fake_device import accelerator

    with accelerator():
        networks = place(copied(wide), device="npu", form=streamed(1))
        held = held_of(networks)
        block = networks.transformer.transformer_blocks[1]
        told = block.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError) as kept:
            latents_of(networks, PICTURE)
        again = held_of(networks)
        assert all(one is other for one, other in zip(held["transformer"], again["transformer"], strict=True))
        told.remove()
        assert same(whole, latents_of(networks, PICTURE))
    assert kept.value.__traceback__ is not None


@on_torch
def test_the_embedded_model_within_an_allowance(wide: Networks) -> None:
    """A whole video of it, block by block: the frames that it makes whole on the device, and less there."""
    from fake_device import accelerator

    job = Job("A penguin walks.", frames=5, steps=1, window=1, sampling="vanilla", width=32, height=32)
    frames, peaks = [], []
    for placed in (False, True):
        with accelerator() as traffic:
            networks = load_networks(dtype="float32", device="npu", placed=False)
            if placed:
                networks = place(networks, device="npu", form=streamed(0))
                traffic.peak = 0
            frames.append(frames_of(networks, PICTURE, job))
            peaks.append(traffic.peak)
    assert (frames[0] == frames[1]).all() and frames[0].shape[1] == 5
    assert peaks[1] < 0.8 * peaks[0]


@on_torch
def test_two_jobs_at_once_do_not_take_each_other_s_weights(wide: Networks, whole: list[np.ndarray]) -> None:
    from fake_device import accelerator

    found: list[list[np.ndarray]] = [[], []]
    with accelerator():
        networks = place(copied(wide), device="npu", form=streamed(1))
        both = [generate(JOB, networks, Inputs(PICTURE), convert=None) for _ in range(2)]
        waiting: dict[int, Iterator[Any]] = dict(enumerate(both))
        while waiting:
            for number, events in list(waiting.items()):
                event = next(events, None)
                if event is None:
                    del waiting[number]
                elif isinstance(event, SectionDone):
                    found[number].append(event.latents)
    assert same(whole, found[0]) and same(whole, found[1])


@on_torch
def test_what_was_placed_can_be_moved_and_saved_again(wide: Networks, tmp_path: Any) -> None:
    from fake_device import accelerator

    job = replace(JOB, frames=9)
    before = latents_of(wide, PICTURE, job)
    with accelerator():
        networks = place(copied(wide), device="npu", form=streamed(1))
        latents_of(networks, PICTURE, job)
        networks = unplace(networks)
    assert str(networks.transformer.device) == "cpu" and not networks.transformer.walks
    assert same(before, latents_of(networks, PICTURE, job))
    networks.transformer.save_pretrained(tmp_path)
    assert isinstance(
        HunyuanVideoFramepackTransformer3DModel.from_pretrained(tmp_path), type(wide.transformer)
    )


@on_torch
def test_memory_that_ends_loses_no_section(
    wide: Networks, whole: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the second section, once: the same noise again with less on the device, and the same video."""
    import torch

    from fake_device import accelerator

    calls, walk = [0], Carried._walk
    with accelerator():
        # Nothing is kept back: all of this model is less than that.
        monkeypatch.setattr("longtake.pipeline.budget.RESERVE", 0)
        networks = place(copied(wide), device="npu")

        def failing(self: Carried, blocks: list[Any]) -> Iterator[Any]:
            if self.network is networks.transformer and self.network.needed != "modulations":
                calls[0] += 1
                if calls[0] == 4:  # two steps, then the second of the second section
                    raise torch.OutOfMemoryError("npu out of memory")
            return walk(self, blocks)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Carried, "_walk", failing)
            events = list(generate(JOB, networks, Inputs(PICTURE), convert=None))
    moved = [event for event in events if isinstance(event, Moved)]
    assert calls[0] == 6 and len(moved) == 1 and "memory ended on npu" in moved[0].notice
    assert same(whole, [event.latents for event in events if isinstance(event, SectionDone)])


@on_torch
def test_memory_that_ends_while_decoding_gives_all_frames(wide: Networks) -> None:
    import torch

    from fake_device import accelerator

    job = replace(JOB, frames=9, steps=1)
    with accelerator():
        networks = place(copied(wide), device="npu")
        plain = frames_of(networks, PICTURE, job)
        decode, calls = networks.vae.decode_tile, [0]

        def failing(z: Any) -> Any:
            calls[0] += 1
            if calls[0] == 1:
                raise torch.OutOfMemoryError("npu out of memory")
            return decode(z)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(networks.vae), "decode_tile", lambda self, z: failing(z))
            patch.setattr(Placed, "smaller", lambda self: "less")
            found = frames_of(networks, PICTURE, job)
    assert calls[0] > 1 and (plain == found).all()


@on_torch
def test_an_allowance_that_was_asked_for_is_not_exceeded_but_an_error(wide: Networks) -> None:
    import torch

    from fake_device import accelerator

    job = replace(JOB, frames=9)
    with accelerator():
        networks = place(copied(wide), vram_gb=1.0, device="npu")

        def full(self: Carried, blocks: list[Any]) -> Iterator[Any]:
            raise torch.OutOfMemoryError("npu out of memory")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Carried, "_walk", full)
            with pytest.raises(MemoryRunError, match=r"It was tried with 1\.0 GB of npu"):
                latents_of(networks, PICTURE, job)
        # Afterwards everything is in its place, and it runs.
        assert len(latents_of(networks, PICTURE, job)) == 1
        with pytest.raises(JobError, match="are allowed"):
            latents_of(place(copied(wide), vram_gb=0.501, device="npu"), PICTURE, job)


@on_torch
def test_less_on_the_device_is_less_there(wide: Networks) -> None:
    """A whole video in a device's memory that holds no more than it must."""
    from fake_device import accelerator

    job = replace(JOB, frames=9, steps=1)
    with accelerator() as traffic:
        frames_of(there(wide), PICTURE, job)
        all_of_it, traffic.peak = traffic.peak, 0
    with accelerator() as traffic:
        networks = place(copied(wide), device="npu", form=streamed(0))
        frames = frames_of(networks, PICTURE, job)
        assert traffic.peak < all_of_it and frames.shape[1] == 9


def test_an_accelerator_s_memory_cannot_be_limited_on_a_cpu(wide: Networks) -> None:
    with pytest.raises(BackendError, match="accelerator's memory"):
        place(wide, vram_gb=6, device="cpu")
    with pytest.raises(JobError, match="vram must be at least"):
        place(wide, vram_gb=-1)


def test_on_a_cpu_everything_stays_where_it_is(wide: Networks) -> None:
    networks = place(copied(wide), device="cpu")
    assert all(not getattr(networks, name).walks for name in NETWORKS)
    events = list(generate(JOB, networks, Inputs(PICTURE), convert=None))
    assert not any(isinstance(event, Moved) for event in events)


def test_blocks_in_another_dtype_are_converted_one_by_one(wide: Networks, tmp_path: Any) -> None:
    """As a CPU runs what is stored in 16 bits: the same numbers as after converting all of it."""
    made = copied(wide)
    whole = {}
    for name in ("transformer", "text_encoder"):
        half = copy.deepcopy(getattr(made, name)).to(dtype="float16" if backend.name != "torch" else _half())
        half.save_pretrained(tmp_path / name)
        kind = NETWORKS[name]
        whole[name] = kind.from_pretrained(tmp_path / name, dtype="float32")
        left = kind.from_pretrained(tmp_path / name, dtype="float32", mapped=partial(blocks_of, name))
        assert left.apart and all(
            "16" in str(dict(_weights(left))[key].dtype).lower() for key in list(left.apart)[:5]
        )
        made = replace(made, **{name: left})
    placed: Any = Placed({name: getattr(made, name) for name in NETWORKS}, "cpu")
    assert set(placed._carried) == {"transformer", "text_encoder"}
    for carried in placed._carried.values():
        carried.relay(Lies(carried.lies.part, "streamed", carried.lies.blocks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Placed, "_computed", lambda self, work: self.layout)
        placed.layout = replace(placed.layout, parts={n: c.lies for n, c in placed._carried.items()})
        found = latents_of(replace(made, placement=placed), PICTURE)
    wanted = latents_of(replace(copied(wide), **whole), PICTURE)
    assert same(wanted, found)
    # The network called by itself does the same.
    ids = ops.from_numpy(np.arange(5, dtype=np.int64)[None])
    one, two = (each(ids).last_hidden_state for each in (whole["text_encoder"], made.text_encoder))
    assert (ops.to_numpy(one) == ops.to_numpy(two)).all()
    placed.release()
    assert not made.transformer.apart and all(
        "float32" in str(tensor.dtype).lower() for _, tensor in _weights(made.transformer)
    )


def blocks_of(part: str, weights: Any) -> set[str]:
    return {name for name in weights if is_apart(part, name)}


def _weights(network: Any) -> list[tuple[str, Any]]:
    return [(name, tensor) for name, _, _, tensor in transfer.held(network)]


def _half() -> Any:
    import torch

    return torch.float16
