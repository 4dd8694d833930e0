"""The arithmetic of a job against a counter that watches the networks run, and the times that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from checkpoints import transformer
from longtake import backend
from longtake.backend import ops, runtime
from longtake.config import PUBLISHED
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.pipeline.budget import GB, lay_out
from longtake.pipeline.flops import Operations, decode_operations, step_operations, tile_operations
from longtake.pipeline.forecast import forecast
from longtake.pipeline.sizes import Sizes, sizes_of
from longtake.pipeline.working import Work

torch_only = pytest.mark.skipif(backend.name != "torch", reason="PyTorch has the counter")
SQUARE = Work(608, 640)


def counted(run: Callable[[], Any]) -> dict[str, int]:
    """Operations by the framework's function, counted while something runs."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # The counter does not know the kernels that are for CPUs alone.
    with runtime.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        run()
    return {
        str(name).removeprefix("aten."): count for name, count in counter.get_flop_counts()["Global"].items()
    }


@torch_only
@pytest.mark.parametrize(("rows", "double", "single"), [(1, 2, 2), (2, 1, 3)])
def test_a_step_counts_what_the_transformer_computes(
    filled: Callable[[Any], Any], rows: int, double: int, single: int
) -> None:
    network = filled(transformer(num_layers=double, num_single_layers=single, out_channels=3))
    work = Work(64, 48, window=3, rows=rows)
    rng = np.random.default_rng(0)

    def some(*shape: int) -> Any:
        return ops.from_numpy(rng.standard_normal(shape).astype(np.float32))

    def latents(frames: int) -> Any:
        return some(rows, 4, frames, 6, 8)

    with runtime.no_grad():
        prompted = network.prompted(some(rows, 256, 16), None, some(rows, 8), some(rows, 729, 16))
        moment = network.moment(prompted, some(1), some(1), keep=True)
        clean = {scale: (latents(count), np.arange(count)[None]) for scale, count in work.clean.items()}
        context = network.context((rows, 4, 3, 6, 8), None, clean)
        sight = network.sight(context, prompted)

    def step() -> None:
        tokens = network.tokens(latents(3), moment, context, sight)
        network.head(network.run_blocks(tokens), tokens)

    with runtime.no_grad():
        step()  # the modulations are kept from now on, as in a job
    found, ours = counted(step), step_operations(network.config, work)
    assert found.pop("bmm") == ours.attention
    assert sum(found.values()) == ours.linear > 0
    assert step_operations(network.config, work, picture=16).linear < ours.linear


@torch_only
def test_decoding_counts_what_the_autoencoder_computes(
    filled: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch.nn.functional as functions

    vae = filled(
        AutoencoderKLHunyuanVideo(latent_channels=4, block_out_channels=(32, 32, 64, 64), layers_per_block=1)
    )
    found: list[float] = []

    def counting(own: Any) -> Any:
        def convolve(x: Any, weight: Any, *others: Any) -> Any:
            made = own(x, weight, *others)
            found.append(2.0 * float(np.prod(weight.shape) * np.prod(made.shape[2:])))
            return made

        return convolve

    # Large frames are convolved one by one, as pictures.
    for name in ("conv2d", "conv3d"):
        monkeypatch.setattr(functions, name, counting(getattr(functions, name)))
    monkeypatch.setattr(ops, "MKLDNN", False)  # a kernel for CPUs alone
    with runtime.no_grad():
        vae.decode(ops.from_numpy(np.zeros((1, 4, 5, 12, 16), np.float32)))
    # Five latent frames are a tile, and another one of the two where the next would begin. Enlargements work at the
    # edges, too.
    ours = sum(tile_operations(vae.config, 128, 96, latents).convolution for latents in (5, 2))
    assert sum(found) == pytest.approx(ours, rel=0.1)


def test_the_published_numbers() -> None:
    """facts of others: 495 TFLOP a step at 640 x 608, half of it attention; 287 at 512, 61 at 256."""
    each = [step_operations(PUBLISHED["framepack"], work).total / 1e12 for work in (
        SQUARE, Work(512, 512), Work(256, 256))]  # fmt: skip
    assert each == pytest.approx([495, 287, 61], rel=0.06)
    square = step_operations(PUBLISHED["framepack"], SQUARE)
    assert square.linear == pytest.approx(square.attention, rel=0.05)
    assert decode_operations(PUBLISHED["hunyuan_vae"], 608, 640, 72).total == pytest.approx(
        2 * decode_operations(PUBLISHED["hunyuan_vae"], 608, 640, 36).total
    )


# ------------------------------------------------------------------------------------------------- times


H100 = SimpleNamespace(
    matrix=650e12, attention=632e12, convolution=400e12, upload=25e9, disk=3e9, seconds=1.0
)


@pytest.fixture(scope="module")
def published() -> dict[str, Sizes]:
    """The published transformer and autoencoder, by their shapes alone."""
    from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel

    found = {}
    kinds = {"transformer": (HunyuanVideoFramepackTransformer3DModel, "framepack"),
             "vae": (AutoencoderKLHunyuanVideo, "hunyuan_vae")}  # fmt: skip
    for part, (kind, name) in kinds.items():
        with runtime.empty_weights():
            network = kind(PUBLISHED[name])
        weights = {
            each: SimpleNamespace(
                dtype="bfloat16", shape=tuple(value.shape), bytes=2 * int(np.prod(value.shape))
            )
            for each, value in runtime.named_weights(network).items()
        }
        found[part] = sizes_of(part, weights, "bfloat16", "none", PUBLISHED[name])
    return found


def test_on_a_large_device_arithmetic_decides(published: dict[str, Sizes]) -> None:
    times = forecast(lay_out(published, SQUARE, vram=80, memory=64), published, SQUARE, H100)
    assert times is not None and times.bound == "arithmetic" and times.moving == 0
    assert times.step == pytest.approx(0.78, rel=0.05)  # 0.76 by the published rates
    assert times.section == pytest.approx(25 * times.step + times.decoding)
    assert times.frame == times.section / 36 and times.operations > 490e12
    assert "about 0.78 s" in times.sentences[0] and "arithmetic decides" in times.sentences[0]


def test_on_a_small_device_the_way_there_may_decide(published: dict[str, Sizes]) -> None:
    small, work = replace(SQUARE, width=256, height=256), replace(SQUARE, width=256, height=256)
    layout = lay_out(published, small, vram=6, memory=64)
    times = forecast(layout, published, work, H100)
    assert times is not None and times.bound == "the way to the device" and times.step == times.moving
    streamed = layout.parts["transformer"].streamed / layout.parts["transformer"].blocks
    assert times.moving == pytest.approx(streamed * sum(published["transformer"].blocks) / 50e9)  # pinned
    assert any("more memory or 8 bits" in sentence for sentence in times.sentences)
    large = forecast(lay_out(published, SQUARE, vram=6, memory=64), published, SQUARE, H100)
    assert large is not None and large.bound == "arithmetic"  # streaming is free there
    twice = forecast(layout, published, replace(work, branches=2), H100)
    assert twice is not None and twice.step == 2 * times.step


def test_a_file_that_memory_cannot_hold_is_read_at_each_step(published: dict[str, Sizes]) -> None:
    def step(memory: float) -> Any:
        return forecast(lay_out(published, SQUARE, memory=memory, device="cpu"), published, SQUARE, H100)

    ample, tight = step(64), step(16)
    stored = published["transformer"].stored
    assert ample.moving == 0 and tight.moving == pytest.approx(stored / 3e9)
    assert tight.step == pytest.approx(ample.step + tight.moving) and tight.bound == "the disk"
    unknown = SimpleNamespace(**{**vars(H100), "disk": None})
    layout = lay_out(published, SQUARE, memory=16, device="cpu")
    assert forecast(layout, published, SQUARE, unknown).moving == 0  # type: ignore[union-attr]
    assert stored > 25 * GB


def test_no_times_without_a_transformer() -> None:
    assert forecast(lay_out({}, SQUARE), {}, SQUARE, H100) is None
    assert Operations(1, 2, 3).total == 6


def test_this_machine_is_measured() -> None:
    from longtake.pipeline.probe import measure

    rates = measure("cpu", runtime.dtype("float32"))
    assert all(1e8 < rate < 1e15 for rate in (rates.matrix, rates.attention, rates.convolution))
    assert rates.upload is None and rates.disk is None and 0 < rates.seconds < 30


def test_runs_grow_no_larger_than_a_device_can_hold_and_repeat_then(monkeypatch: pytest.MonkeyPatch) -> None:
    from longtake.pipeline import probe

    now = [0.0]
    monkeypatch.setattr(probe.time, "perf_counter", lambda: now[0])
    sizes, tensor = [], ops.from_numpy(np.zeros(1, np.float32))

    def trial(size: int) -> Any:
        def run() -> Any:
            now[0] += size * 1e-6  # a million operations a second for each
            return tensor

        sizes.append(size)
        return run, float(size)

    assert probe._grown(trial, 256, 1024) == pytest.approx(1e6)
    assert sizes[:3] == [256, 512, 1024] and max(sizes) == 1024 and len(sizes) > 4
    assert now[0] < 1.0


def test_the_disk_of_a_file_is_measured(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from longtake.pipeline import probe

    monkeypatch.setattr(probe, "PIECE", 2**12)
    file = tmp_path / "file"
    file.write_bytes(b"1" * 2**20)
    rate = probe._disk([tmp_path / "gone", file])
    assert rate is None or rate > 0
    file.write_bytes(b"1")
    assert probe._disk([file]) is None and probe._disk([]) is None
